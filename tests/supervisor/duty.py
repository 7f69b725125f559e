"""
What the machine owes the app's health checks.

Owns the promises about who runs them, judged by what an onlooker sees: who serves, who told something, and when.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launcher.supervisor import events as on

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.supervisor.pretend_kernel import Proc
    from tests.supervisor.witness import Witness

PATIENCE = 37.0  # seconds without a word from who is on duty, with a limit of 2 s
EARLY = 1e-6


class Duty:
    """Who was on duty since when, and who fell silent there."""

    def __init__(self, witness: Witness, promise: Callable[..., None]) -> None:
        """Begin with nobody."""
        self.witness = witness
        self.promise = promise
        self.pid = 0
        self.heard_at = 0.0
        self.alone_at = 0.0
        self.silent: set[int] = set()  # tickets
        self.having: set[int] = set()  # generations that have checks
        self.is_known = False  # there is a result
        self.is_over = False  # it ends of itself
        self.told_at = 0.0
        self.served_at = 0.0  # when anybody served last

    def hear(self, event: on.Event, now: float) -> None:
        """Note what is told."""
        kernel = self.witness.kernel
        if isinstance(event, on.CheckMade) and self.witness.is_known(event.ticket):
            self.having.add(kernel.procs[event.ticket].generation)
            self.witness.looks = True  # it never rests from now on
        elif isinstance(event, on.Checked) and self.witness.is_known(event.ticket):
            proc = kernel.procs[event.ticket]
            if proc.generation == self.witness.current() or self.witness.is_good(proc.generation):
                self.silent.discard(event.ticket)
                self.is_known = True  # also late news of one that is not on duty any more
                if proc.pid == self.pid or not self.pid:
                    self.heard_at = self.told_at = now

    def hear_line(self, event: str) -> None:
        """Note that the results are given up, and the end that nobody asked for."""
        self.is_over = self.is_over or event.startswith("finished: all work is done")
        if event.startswith("lost sight of the checks"):
            self.promise(self.is_known, "what is not known is not given up")
            self.is_known = False

    def entrust(self, pid: int, now: float) -> None:
        """Judge a change."""
        self.promise(pid != self.pid, "who is on duty is not told so twice", pid)
        former = self.witness.by_pid(self.pid)
        if former and now >= self.heard_at + PATIENCE - EARLY:
            self.silent.add(former.ticket)
        self.pid, self.heard_at = pid, now
        proc = self.witness.by_pid(pid)
        lower = [p for p in self._serving() if proc and p.slot < proc.slot and p.ticket not in self.silent]
        self.promise(not lower, "checks are run in the lowest slot that serves, if it tells anything", proc, *lower)

    def look_back(self, now: float) -> None:
        """Judge a decision."""
        serving: list[Any] = self._serving()
        on_duty = [p for p in serving if p.pid == self.pid]
        self.promise(on_duty or not self.pid, "checks are run by who serves, or by nobody", self.pid, *serving)
        self.promise(on_duty or not serving, "if anybody serves, somebody runs the checks", *serving)
        lower = [p for p in serving if on_duty and p.slot < on_duty[0].slot and p.ticket not in self.silent]
        self.promise(not lower, "checks come back to the lowest slot that serves", *on_duty, *lower)
        if len(serving) <= 1:
            self.alone_at = now  # nobody could take over
        if serving:
            self.served_at = now
        if self._newest() not in self.having:
            self.is_known = False  # of a former generation
        grown = now - max(self.told_at, self.served_at)
        self.promise(not self._grows_old() or grown < PATIENCE, "what nobody can renew is given up", grown)
        waited = now - max(self.heard_at, self.alone_at)
        self.promise(not on_duty or waited < PATIENCE, "who tells nothing is relieved", *on_duty, waited)

    def look_ahead(self, deadline: float | None) -> None:
        """Judge what the machine waits for."""
        serving = self._serving()
        if not serving and self._grows_old():
            latest = max(self.told_at, self.served_at) + PATIENCE + EARLY
            self.promise(deadline is not None and deadline <= latest, "the end of a result is awaited", deadline)
        if len(serving) > 1 and any(p.pid == self.pid for p in serving):
            latest = max(self.heard_at, self.alone_at) + PATIENCE + EARLY
            self.promise(deadline is not None and deadline <= latest, "a result of the checks is awaited", deadline)

    def _grows_old(self) -> bool:
        return self.is_known and self.witness.stop_asked_at is None and not self.is_over

    def _newest(self) -> int:
        witness = self.witness
        # Also one of which nobody serves yet, since its first work was done at once (--restart never).
        return max((generation for generation in witness.began if witness.is_good(generation)), default=0)

    def _serving(self) -> list[Proc]:
        witness, newest = self.witness, self._newest()
        alive = [p for p in witness.served.values() if witness.exists(p) and not witness.is_leaving(p)]
        here = [p for p in alive if p.generation == newest and newest in self.having]
        return [p for p in here if not p.seen_closed]
