"""
The app's own health checks: which worker runs them, and what came of them.

Owns the choice (the lowest slot that serves; another one if that has fallen silent) and the last result of each check.
A check that the present generation does not have is forgotten with the former one.  What nobody could tell for long
is not known any more: an old result must not pass for the present.
Pure: decides and orders, never waits and never acts.
"""

from __future__ import annotations

from launcher.checks import MOST
from launcher.lean import NamedTuple
from launcher.supervisor import actions as do
from launcher.supervisor import events as on
from launcher.supervisor.generation import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.supervisor.generation import Generation, Process
    from launcher.supervisor.records import Records

PATIENCE = 35.0  # seconds beyond the longest limit of a check: three times the period of the workers, and some
LONGEST = 300  # characters of a reason


class Check(NamedTuple):
    """What a generation's workers can look at."""

    is_required: bool
    timeout: float  # seconds


class Result(NamedTuple):
    """How a check ended last."""

    is_good: bool
    reason: str  # in prod-run's words; empty: it is good
    details: str  # in the app's
    took: float  # seconds
    at: float
    slot: int


class Checking:
    """Who is on duty, and all results."""

    __slots__ = ("duty", "heard_at", "results", "silent")

    def __init__(self) -> None:
        self.duty = 0  # ticket of the worker that runs the checks; 0: nobody
        self.heard_at = 0.0  # the last result, or when the last one came on duty
        self.results: dict[str, Result] = {}
        self.silent: set[int] = set()  # tickets of workers that were on duty and told nothing


def note(records: Records, process: Process, event: on.CheckMade | on.Checked, now: float) -> None:
    """Write down that a worker has a check, or what came of it."""
    checks, checking = process.generation.checks, records.checking
    if isinstance(event, on.CheckMade):
        if event.name in checks or len(checks) < MOST:
            checks[event.name] = Check(event.is_required, event.timeout)
        return
    check = checks.get(event.name)
    if check is None or process.generation is not records.current:
        return  # nobody wants to know any more
    checking.silent.discard(process.ticket)
    if process.ticket == checking.duty or not checking.duty:
        checking.heard_at = now
    before = checking.results.get(event.name)
    reason = "" if event.is_good else (event.reason or "it raised")[:LONGEST]
    result = Result(event.is_good, reason, event.details[:LONGEST], event.took, now, process.slot)
    checking.results[event.name] = result
    if before is None or before.is_good is not result.is_good:
        _tell(records, event.name, check, result, is_first=before is None)


def tend(records: Records, now: float) -> None:
    """Have the right worker run the checks of the generation that serves."""
    checking, current = records.checking, records.current
    checks = current.checks if current else {}
    for gone in checking.results.keys() - checks.keys():
        del checking.results[gone]
    serving = _serving(current) if current and checks else []
    tickets = {worker.ticket for worker in serving}
    checking.silent &= tickets
    due = deadline(records)
    if due is not None and now >= due:
        checking.heard_at = now
        checking.silent |= tickets & {checking.duty}
        if checking.silent == tickets and checking.results:
            checking.results.clear()  # all were asked, and nobody could tell
            records._log("warning", "lost sight of the checks: no worker runs them")
    if checking.silent == tickets:
        # From the lowest one again, also if the others have left meanwhile; but who was just asked comes last.
        checking.silent = tickets & {checking.duty} if len(tickets) > 1 else set()
    chosen = next((worker for worker in serving if worker.ticket not in checking.silent), None)
    if (chosen.ticket if chosen else 0) != checking.duty:
        # Without anybody on duty the time runs on: what is known grows old all the same.
        checking.duty, checking.heard_at = (chosen.ticket, now) if chosen else (0, checking.heard_at)
        records._order(do.Entrust(chosen.pid if chosen else 0))


def deadline(records: Records) -> float | None:
    """Return until when something has to be told; None if there is nobody to tell it, and nothing known to grow old."""
    checking, current = records.checking, records.current
    is_awaited = checking.duty or (checking.results and records.stop is None)
    if not is_awaited or current is None or not current.checks:
        return None
    return checking.heard_at + PATIENCE + max(check.timeout for check in current.checks.values())


def failing(records: Records) -> list[str]:
    """Return the required checks whose last result is not good, or of which there is none."""
    checks, results = records.current.checks if records.current else {}, records.checking.results
    return [
        name for name, check in checks.items() if check.is_required and not (name in results and results[name].is_good)
    ]


def _serving(generation: Generation) -> list[Process]:
    workers = (w for w in generation.workers.values() if w.state is State.SERVING and w.pid and not w.mute)
    return sorted(workers, key=lambda worker: worker.slot)


def _tell(records: Records, name: str, check: Check, result: Result, *, is_first: bool) -> None:
    if result.is_good:
        if not is_first:
            records._log("info", "check is good again", name=name, slot=result.slot)
        return
    level = "error" if check.is_required else "warning"
    details = {"details": result.details} if result.details else {}
    records._log(level, "check failed", name=name, slot=result.slot, reason=result.reason, **details)
