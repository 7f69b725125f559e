"""
What an onlooker knows: who was told to do what, and what the supervisor has heard.

Owns the notes that promises are judged by.  Must never judge.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from launcher.signals import Ask
from launcher.supervisor import events as on
from launcher.supervisor.pacing import FORGET_AFTER
from tests.supervisor.pretend_kernel import SPARE, TASK, ZYGOTE

if TYPE_CHECKING:
    from launcher.supervisor.policy import Policy
    from tests.supervisor.pretend_kernel import PretendKernel, Proc


class Witness:
    """What the supervisor has been told, and what it has ordered so far."""

    def __init__(self, policy: Policy, kernel: PretendKernel) -> None:
        """Begin before the first event."""
        self.policy = policy
        self.kernel = kernel
        self.wanted = policy.workers
        self.wants_reload = True  # the start
        self.stop_asked_at: float | None = None
        self.hurried = False
        self.results: dict[int, str] = {}  # by generation
        self.gates: dict[int, int] = {}  # by generation: so many had to be ready
        self.began: set[int] = set()  # generations
        self.opened: dict[int, float] = {}  # generations of which anybody was let serve, since when
        self.announced: set[int] = set()  # generations
        self.rolling: set[int] = set()  # generations that were announced with their first workers
        self.hurt: list[Proc] = []  # told to go while it was open whether the new generation is good
        self.unrespawnable: set[int] = set()
        self.unwatched: set[int] = set()
        self.confirmed: set[int] = set()  # generations
        self.settled = 0  # the last generation that was confirmed with a file
        self.errands: dict[int, float] = {}  # tickets of zygotes that are to put files back
        self.unrestored: set[int] = set()  # generations whose files are reported to be in place still
        self.served: dict[int, Proc] = {}  # by ticket
        self.told: dict[int, tuple[float, str]] = {}  # by ticket: when, why
        self.killed: set[int] = set()  # tickets
        self.missed: set[int] = set()  # tickets of those reported to have missed a limit
        self.given_up: set[int] = set()  # tickets of those reported unkillable or missing
        self.codes: dict[int, int] = {}  # by ticket: exits of those that may not be announced yet
        self.warm: set[int] = set()  # tickets of zygotes that were prepared in time
        self.late: set[int] = set()  # tickets of those reported missing that came all the same
        self.groups: dict[int, tuple[float, int]] = {}  # leftovers: when TERM was sent, strongest signal
        self.failures: dict[tuple[int, int], tuple[int, float]] = {}  # (generation, slot): how many, the last
        self.done: dict[int, set[int]] = {}  # by generation: slots
        self.tasks: set[int] = set()  # generations whose init task was ordered
        self.begun: set[int] = set()  # tickets of init tasks
        self.prepared: set[int] = set()  # generations whose init task has ended well
        self.draining = False
        self.looks = bool(policy.stall_timeout or policy.max_rss or policy.max_age)  # so it never rests
        self.served_at: dict[int, float] = {}  # by ticket
        self.asked: dict[int, list[float]] = {}  # by ticket: looks at its heartbeat that are not answered
        self.asked_at: dict[int, float] = {}  # by ticket: the last look that was answered
        self.beats: dict[int, tuple[float, float, int]] = {}  # by ticket: value, since when, how often unchanged
        self.rss: dict[int, int] = {}  # by ticket
        self.stalled: set[int] = set()  # tickets of those reported
        self.recycled: set[int] = set()  # tickets of those that are to be replaced
        self.stacks: set[int] = set()  # tickets of those that were to write theirs, not taken yet

    # ── questions ───────────────────────────────────────────────────────────────────────────────

    def by_pid(self, pid: int) -> Proc | None:
        """Return who has this number, as far as the supervisor knows."""
        found = [p for p in self.kernel.procs.values() if p.pid == pid and p.seen_pid and not p.forgotten]
        return found[-1] if found else None

    def exists(self, proc: Proc) -> bool:
        """Say whether the supervisor must take a process for one that is there."""
        return not proc.forgotten and proc.ticket not in self.given_up

    def is_known(self, ticket: int) -> bool:
        """Say whether the supervisor still knows this ticket."""
        proc = self.kernel.procs.get(ticket)
        return proc is not None and not proc.forgotten

    def serving(self, generation: int | None = None) -> int:
        """Count the workers that were ready, were let serve and have not been told to go."""
        return sum(
            p.is_worker and self.exists(p) and not self.is_leaving(p)
            for p in self.kernel.procs.values()
            if p.ticket in self.served and generation in (None, p.generation)
        )

    def is_leaving(self, proc: Proc) -> bool:
        """Say whether it was told to go, or given up."""
        return proc.ticket in self.told or proc.ticket in self.killed or proc.ticket in self.missed

    def is_good(self, generation: int) -> bool:
        """Say whether anybody of a generation was let serve, or its work was done before; and it was kept."""
        if self.results.get(generation, "serving") != "serving":
            return False
        return generation in self.gates or self.done_in(generation) >= self.gate()

    def is_file_wrong(self) -> bool:
        """Say whether the file of a generation is in place that was given up, and the supervisor could know it."""
        given_up = self.results.get(self.kernel.file, "serving") != "serving"
        mine = [p for p in self.kernel.procs.values() if p.is_zygote and p.generation == self.kernel.file]
        known = any(p.seen_prepared for p in mine) and not any(p.ticket in self.given_up for p in mine)
        return given_up and known and self.kernel.file not in self.unrestored

    def done_in(self, generation: int) -> int:
        """Count the wanted slots whose work is done."""
        return sum(slot < self.wanted for slot in self.done.get(generation, ()))

    def current(self) -> int:
        """Return the generation that serves, 0 before the first."""
        return max((g for g, result in self.results.items() if result == "serving"), default=0)

    def undecided(self) -> list[int]:
        """Return the generation that is neither committed nor rejected, if there is one."""
        return [g for g in self.began if g not in self.results]

    def gate(self) -> int:
        """Return how many workers of a new generation must be ready before any is let serve."""
        rolling = bool(self.current()) and 0 < self.policy.max_surge < self.wanted
        return self.policy.max_surge if rolling else self.wanted

    # ── what is heard ───────────────────────────────────────────────────────────────────────────

    def hear(self, event: on.Event, now: float) -> None:  # noqa: C901, PLR0912  a table
        """Note what the supervisor is told, as far as promises hang on it."""
        match event:
            case on.Asked(Ask.RELOAD) if self.stop_asked_at is None:
                self.wants_reload = True
            case on.Asked(Ask.MORE | Ask.FEWER):
                self.wanted = max(1, self.wanted + (1 if event.ask is Ask.MORE else -1))
                self.gates = {g: min(gate, self.wanted) for g, gate in self.gates.items()}
            case on.ScaleAsked(workers):
                self.wanted = max(1, workers)
                self.gates = {g: min(gate, self.wanted) for g, gate in self.gates.items()}
            case on.Lived(ticket):
                self.beats[ticket] = (-1.0, now, 0)
            case on.Beat(ticket, value):
                self._hear_beat(ticket, value)
            case on.Measured(ticket, rss):
                self.rss[ticket] = rss
            case on.Asked(Ask.STOP) | on.Signalled(signal.SIGINT) if self.stop_asked_at is None:
                self.stop_asked_at = now
            case on.Asked(Ask.STOP) if self.stop_asked_at is not None and now - self.stop_asked_at > 1.0:
                self.hurried = True
            case on.Asked(Ask.STOP_NOW):
                self.stop_asked_at = now if self.stop_asked_at is None else self.stop_asked_at
                self.hurried = True
            case on.Prepared(ticket) if ticket not in self.missed:
                self.warm.add(ticket)
            case on.Restored(ticket) if not self.kernel.procs[ticket].errands:
                self.errands.pop(ticket, None)
            case on.Begun(ticket) if self.is_known(ticket):
                self.begun.add(ticket)
            case on.StartFailed(ticket) if self.is_known(ticket):
                proc = self.kernel.procs[ticket]
                self.failures.pop((proc.generation, proc.slot), None)  # it may have waited long
            case on.Refused(ticket):
                self.missed.add(ticket)  # it ends by itself
            case on.GroupGone(pgid):
                self.groups.pop(pgid, None)
            case on.Started(ticket, pid) | on.Hello(ticket, pid) if self.is_known(ticket):
                self.groups.pop(pid, None)  # a new leader
            case on.ProcessExited(pid, code):
                named = [p for p in self.kernel.procs.values() if p.pid == pid and not p.forgotten]
                if named:
                    self.groups.pop(pid, None)
                self.codes.update({p.ticket: code for p in named if p.seen_exit})
        for proc in [p for p in self.kernel.procs.values() if p.ticket in self.codes and p.seen_pid]:
            self._hear_of_end(proc, self.codes.pop(proc.ticket), now)

    def _hear_beat(self, ticket: int, value: float) -> None:
        at = self.asked[ticket].pop(0)  # answers may come late, but each is as old as its question
        former, since, misses = self.beats.get(ticket, (0.0, self.served_at[ticket], 0))
        self.asked_at[ticket] = at
        self.beats[ticket] = (former, since, misses + 1) if value == former else (value, at, 0)

    def _hear_of_end(self, proc: Proc, code: int, now: float) -> None:
        if proc.slot == TASK:
            if code == 0 and proc.ticket in self.begun and not self.is_leaving(proc):
                self.prepared.add(proc.generation)
            return
        done = self.policy.restart != "always" and code == 0
        # A reload is not to be had by workers that fail quickly; the first start with `never` is.
        done |= self.policy.restart == "never" and (proc.generation in self.results or not self.current())
        if proc.is_worker and done and not self.is_leaving(proc):
            self.done.setdefault(proc.generation, set()).add(proc.slot)
        elif not self.is_leaving(proc) and not proc.seen_ready and proc.ticket not in self.served:
            name = proc.generation, proc.slot
            count, _ = self.failures.get(name, (0, 0.0))
            if self.results.get(proc.generation) == "serving":
                self.failures[name] = (1 if now - proc.ordered_at >= FORGET_AFTER else count + 1, now)
        elif not self.is_leaving(proc) and now - proc.ordered_at >= FORGET_AFTER:
            self.failures.pop((proc.generation, proc.slot), None)  # it served for long, so that is history

    def named(self, generation: int, slot: int | None, pid: int) -> list[Proc]:
        """Return whom a log line means; without a PID several have the same name, zygotes and spares have no slot."""
        slots = (ZYGOTE, SPARE, TASK) if slot is None else (slot,)
        known = [p for p in self.kernel.procs.values() if not p.forgotten and p.generation == generation]
        return [p for p in known if p.slot in slots and pid == (p.pid if p.seen_pid else 0)]

    def mark(self, event: str, found: list[Proc]) -> None:
        """Note who was reported."""
        if event.startswith(("gave up", "lost")):
            for proc in found:
                self.failures.pop((proc.generation, proc.slot), None)  # it may have lived long, or waited
        if event.startswith("lost"):
            return
        if event.startswith("gave up"):
            self.missed.update(p.ticket for p in [p for p in found if not self.is_leaving(p)][:1])
        else:
            found.sort(key=lambda p: not self.is_leaving(p))
            self.given_up.update(p.ticket for p in [p for p in found if p.ticket not in self.given_up][:1])
