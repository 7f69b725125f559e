"""
Whose time is over.

Owns what follows from a deadline that has come: each state's one sentence, the stacks of who is to be killed, and the
end of those that never came to life.
Pure: it never waits, never acts, never asks the time.
"""

from __future__ import annotations

from launcher.lean_posix import signal
from launcher.supervisor import actions as do
from launcher.supervisor.generation import LEAVING, Process, State
from launcher.supervisor.processes import identity, in_short
from launcher.supervisor.records import DUMP, MISSES, Records
from launcher.supervisor.restoring import LIMIT


class Overdue(Records):
    """The part of the machine that minds the time."""

    __slots__ = ()

    def _expire(self, now: float) -> None:
        for process in self.processes.overdue(now):
            self._expire_one(process, now)
        for pgid in [pgid for pgid, deadline in self.processes.leftovers.items() if deadline <= now]:
            del self.processes.leftovers[pgid]
            self._order(do.SignalGroup(pgid, signal.SIGKILL))

    def _expire_one(self, process: Process, now: float) -> None:  # noqa: C901, PLR0912  a table
        limit = f"within --boot-timeout {self.policy.boot_timeout:g}s"
        match process.state:
            case State.ENTERED:
                self._became_ready(process, now)
            case State.SERVING if process.watch.misses < MISSES:
                self._order(do.AskBeat(process.ticket))
                process.enter(State.SERVING, now + self.policy.stall_timeout / 2)
            case State.SERVING:
                reason = f"{in_short(process)} gave no heartbeat within --stall-timeout {self.policy.stall_timeout:g}s"
                self._log("error", "stalled", **identity(process), reason=reason)
                self._failed(process, reason, now)
                self._dump(process, now)
            case State.PREPARING if not process.mute:
                self._give_up(process, f"the import did not end {limit}", now)
            case State.PREPARING | State.WARM | State.READY | State.PARKED:
                self._give_up(process, f"{in_short(process)} closed its channel", now)
            case State.RESTORING:
                self._give_up(process, f"the zygote put no files back within {LIMIT:g}s", now)
            case State.ORDERED:
                zygote = self.processes.by_ticket.get(process.zygote)
                if zygote and not process.pid:  # it owes an answer for all this time
                    self._give_up(zygote, f"the zygote forked nothing {limit}", now)
                self._give_up(process, f"{in_short(process)} did not start {limit}", now)
            case State.RUNNING:
                self._give_up(process, f"--before {self.policy.before}: it did not end {limit}", now)
            case State.BOOTING:
                what = "did not call ready()" if process.generation.takes_worker else "did not enter its target"
                self._give_up(process, f"{in_short(process)} {what} {limit}", now)
            case State.DRAINING:
                if process.is_worker and process.pid:
                    self._log("error", "killed straggler: drain limit", **identity(process))
                    (self._kill if self.policy.is_command else self._dump)(process, now)
                else:
                    self._kill(process, now)
            case State.DUMPING:
                self._take_stacks(process)
                self._kill(process, now)
            case State.KILLED:
                self._log("error", "unkillable: survived SIGKILL" if process.pid else "missing", **identity(process))
                process.enter(State.STUCK, None)

    def _give_up(self, process: Process, reason: str, now: float) -> None:
        """Kill a process that missed its limit, and draw the consequence."""
        if process.state in LEAVING:
            return
        self._log("error", "gave up", **identity(process), reason=reason)
        self._failed(process, reason, now)
        self._kill(process, now)

    def _dump(self, process: Process, now: float) -> None:
        """Have a process write its stacks before it is killed; its slot is free from now on."""
        process.enter(State.DUMPING, now + DUMP)
        process.watch.stacks_at = None  # what was asked for comes with these
        self._order(do.AskStacks(process.ticket, process.pid))

    def _take_stacks(self, process: Process) -> None:
        process.watch.stacks_at = None
        self._order(do.TakeStacks(process.ticket, process.pid, process.slot, process.generation.number))

    def _lose_the_silent(self, now: float) -> None:
        """Give up those that never had a PID, whose zygote is gone and whose channel nobody holds."""
        for process in [p for p in self.processes.by_ticket.values() if p.zygote and p.mute and not p.pid]:
            if not self.processes.knows(process.zygote):
                self._log("error", f"lost {process.role} with its zygote", **identity(process))
                self._over(process)
                self._failed(process, f"{in_short(process)} was lost with its zygote", now)
        self.processes.settle_orphans()
