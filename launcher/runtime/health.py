"""
The app's health checks, in the worker that is entrusted with them.

Owns their schedule and their threads: one that looks at the clock, and one for each check while it runs.  It begins
with the first check, and so never before the fork.
Must never wait for a check in the app's own threads, and never run one a second time while it still runs.
"""

from __future__ import annotations

import asyncio
import os
import struct
import threading
import time
from typing import TYPE_CHECKING

from launcher.lean import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from mmap import mmap
    from typing import Any

    from launcher.checks import Wish
    from launcher.link import Link

PERIOD = 10.0  # seconds from one beginning to the next
SOONER = 2.0  # after a failure: it may be over
GLANCE = 1.0  # seconds between two looks whether it is our turn
LONGEST = 200  # characters of what an exception says
_GOOD = ("", "")
_ON_DUTY = struct.Struct("=q")


class Outcome(NamedTuple):
    """How one run ended: two texts that are empty if it was good."""

    reason: str  # in our words
    details: str  # in the app's, without its secrets
    took: float  # seconds


class Run(threading.Thread):
    """One run of one check; it may outlive its time limit, and then nobody waits for it any more."""

    def __init__(self, check: Check, done: Callable[[], None]) -> None:
        super().__init__(name=f"check {check.name}", daemon=True)
        self.began = time.monotonic()
        self.is_given_up = False
        self.outcome: Outcome | None = None
        self._check = check
        self._done = done

    def run(self) -> None:
        """Call the check; whatever it does, there is an outcome."""
        try:
            reason, details = self._call()
        except BaseException as error:  # noqa: BLE001  also SystemExit: it is a check's that fails, not the worker's
            reason, details = "it raised", f"{type(error).__name__}: {_said_by(error)}"
        self.outcome = Outcome(reason, details, time.monotonic() - self.began)
        self._done()

    def _call(self) -> tuple[str, str]:
        result = self._check.function()
        if hasattr(result, "__await__"):
            return self._wait_for(result)
        return ("it returned False", "") if result is False else _GOOD

    def _wait_for(self, awaitable: Any) -> tuple[str, str]:
        """Have the app's event loop do it: what it awaits belongs to that."""
        loop, limit = self._check.loop, self._check.timeout
        if loop is None or loop.is_closed():
            if hasattr(awaitable, "close"):
                awaitable.close()
            return "it is async: call worker.check() within the event loop", ""
        future = asyncio.run_coroutine_threadsafe(_awaited(awaitable), loop)
        try:
            result = future.result(limit)
        except TimeoutError:
            if not future.cancel():
                raise  # the check's own
            return _timed_out(limit), ""
        return ("it returned False", "") if result is False else _GOOD


class Check:
    """One check and where it stands."""

    def __init__(self, wish: Wish, loop: asyncio.AbstractEventLoop | None) -> None:
        self.name = wish.name
        self.function = wish.function
        self.timeout = wish.timeout
        self.loop = loop  # the app's
        self.due = 0.0
        self.present: Run | None = None  # under way, perhaps for longer than it may be

    def advance(self, now: float, done: Callable[[], None]) -> Outcome | None:
        """Begin it or end it; return what is to be told."""
        run = self.present
        if run is None:
            if now >= self.due:
                self.due = now + PERIOD
                return self._begin(done)
            return None
        if run.outcome:
            self.present = None
            if run.is_given_up:
                return None
            if run.outcome.reason:
                self.due = now + SOONER
            return run.outcome
        if now < run.began + self.timeout or (run.is_given_up and now < self.due):
            return None
        took = now - run.began
        more = f", and still runs after {took:.0f}s" if run.is_given_up else ""
        run.is_given_up = True
        self.due = now + (PERIOD if more else SOONER)
        return Outcome(_timed_out(self.timeout) + more, "", took)

    def rest(self, now: float) -> None:
        """Be ready to begin at once when it is our turn again; what is under way now is of no interest then."""
        self.due = now
        if self.present:
            self.present.is_given_up = True
            if self.present.outcome:
                self.present = None

    def wake_at(self) -> float:
        """Say when to look again, if nothing happens before."""
        run = self.present
        if run is None:
            return self.due
        limit = run.began + self.timeout
        return max(limit, self.due) if run.is_given_up else limit

    def _begin(self, done: Callable[[], None]) -> Outcome | None:
        self.present = run = Run(self, done)
        try:
            run.start()
        except RuntimeError as error:  # no more threads: it is tried again
            self.present, self.due = None, run.began + SOONER
            return Outcome("it cannot run", str(error), 0.0)
        return None


class Checks:
    """All checks of this worker."""

    def __init__(self, link: Link, is_on_duty: Callable[[], bool]) -> None:
        self._link = link
        self._is_on_duty = is_on_duty
        self._checks: dict[str, Check] = {}
        self._news = threading.Event()  # noqa: TID251  no signal handler touches it
        self._clock = threading.Thread(target=self._run, name="checks", daemon=True)

    def add(self, wish: Wish) -> None:
        """Take one more."""
        loop = asyncio._get_running_loop()
        # What is in the dictionary is replaced whole: the other thread may be looking at it.
        self._checks = {**self._checks, wish.name: Check(wish, loop)}
        self._link.say("check", name=wish.name, is_required=wish.is_required, timeout=wish.timeout)
        if self._clock.ident is None:
            self._clock.start()
        self._news.set()

    def _run(self) -> None:
        while self._link.is_ours():
            self._news.wait(self.turn(time.monotonic()))

    def turn(self, now: float) -> float:
        """Do what is due; return how many seconds there are until the next time."""
        self._news.clear()
        checks = self._checks.values()
        if not self._is_on_duty():
            for check in checks:
                check.rest(now)
            return GLANCE
        for check in checks:
            outcome = check.advance(now, self._news.set)
            if outcome:
                self._tell(check.name, outcome)
        return max(0.0, min([GLANCE, *(check.wake_at() - now for check in checks)]))

    def _tell(self, name: str, outcome: Outcome) -> None:
        # Masked as it is, before blanks go and it is cut: half a secret would not be found.
        details = " ".join(self._link.mask(outcome.details).split())
        self._link.mention(
            "checked",
            name=name,
            is_good=not outcome.reason,
            reason=outcome.reason,
            details=details[:LONGEST].encode("utf-8", "replace").decode(),
            took=round(outcome.took, 4),
        )


def duty(page: mmap | None) -> Callable[[], bool]:
    """Return what tells whether it is our turn: the PID at the end of the heartbeat page (`supervisor.births`)."""

    def is_ours() -> bool:
        return page is not None and _ON_DUTY.unpack_from(page, len(page) - _ON_DUTY.size)[0] == os.getpid()

    return is_ours


async def _awaited(awaitable: Any) -> object:
    return await awaitable


def _timed_out(limit: float) -> str:
    return f"timed out after {limit:g}s"


def _said_by(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  the app's exceptions may refuse to be looked at
        return "it cannot be shown"
