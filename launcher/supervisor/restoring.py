"""
The files of templates that a generation moved into their places and lost: who puts the former ones back.

Owns the duty.  The zygote that moved them is told at once, not when its last worker is gone: by then another generation
may have files there.  If it died before, the one that serves is told where the former ones are.  Until they are back
nobody is started and nothing is reloaded, for it would read the wrong ones.
Pure: decides and orders, never waits and never acts.
"""

from __future__ import annotations

from launcher.lean import NamedTuple
from launcher.supervisor import actions as do
from launcher.supervisor.generation import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.supervisor.generation import Files, Generation, Process
    from launcher.supervisor.records import Records

SAME = 1e-3  # seconds
LIMIT = 5.0  # seconds: a few renames, and the disk may be busy


class Errand(NamedTuple):
    """What a zygote does for one that died."""

    ticket: int
    generation: int
    files: Files
    until: float


def done(records: Records, zygote: Process, errand: float) -> None:
    """Write down that the former files are back; the answer to an errand that was given up says nothing of the next."""
    if errand:
        answered = [e for e in records.errands if e.ticket == zygote.ticket and abs(e.until - errand) < SAME]
        records.errands = [each for each in records.errands if each not in answered]
        return
    zygote.placed = ()
    if zygote.state is State.RESTORING:
        zygote.enter(State.WARM, zygote.deadline if zygote.mute else None)


def ended(zygote: Process, code: int) -> None:
    """Write down that a process ended; a zygote that could end by itself has put back what it moved."""
    if code:
        zygote.generation.abandoned += zygote.placed


def settle(generation: Generation) -> None:
    """Forget the way back: the generation is committed."""
    generation.abandoned = ()
    if generation.zygote:
        generation.zygote.placed = ()


def is_under_way(records: Records) -> bool:
    """Say whether files of a generation that was given up are, or may be, in their places."""
    zygotes = [g.zygote for g in records.others if g.zygote and g.zygote.placed]
    return bool(records.errands) or any(zygote.state is not State.STUCK for zygote in zygotes)


def tend(records: Records, now: float) -> None:
    """Have the former files put back for each generation that was given up."""
    for generation in records.others:
        zygote = generation.zygote
        if zygote and zygote.placed and zygote.state is State.WARM and not zygote.mute:
            zygote.enter(State.RESTORING, now + LIMIT)
            records.orders.append(do.Restore(zygote.ticket, (), now + LIMIT))
        elif zygote and zygote.placed and zygote.state is State.STUCK:
            _complain(records, generation.number, zygote.placed)
            zygote.placed = ()
        if generation.abandoned:
            _send(records, generation, now)
    failed = [e for e in records.errands if e.until <= now or not records.processes.knows(e.ticket)]
    for errand in failed:
        records.errands.remove(errand)
        _complain(records, errand.generation, errand.files)


def deadline(records: Records) -> float | None:
    """Return when an errand has taken too long."""
    return min((errand.until for errand in records.errands), default=None)


def _send(records: Records, generation: Generation, now: float) -> None:
    """Let the zygote of the generation that serves do what the dead one cannot any more."""
    files, generation.abandoned = generation.abandoned, ()
    zygote = records.current.zygote if records.current else None
    if zygote is None or zygote.state is not State.WARM or zygote.mute:
        _complain(records, generation.number, files)
        return
    records.errands.append(Errand(zygote.ticket, generation.number, files, now + LIMIT))
    records.orders.append(do.Restore(zygote.ticket, files, now + LIMIT))


def _complain(records: Records, generation: int, files: Files) -> None:
    for path, kept in files:
        remedy = f"its former content is in {kept}" if kept else "remove it: there was none before"
        fields = (("generation", generation), ("path", path), ("remedy", remedy))
        records.orders.append(do.Log("error", "not put back: file of a generation that was given up", fields))
