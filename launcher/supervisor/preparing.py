"""
What a zygote, or a preparer, found when it prepared a generation.

Owns what follows from it: the generation goes on, or why it does not; whether its workers can be forked, and whether
a zygote that replaces one that died has the same code.
Pure: writes down and orders, never waits and never acts.
"""

from __future__ import annotations

from launcher.supervisor import actions as do
from launcher.supervisor.generation import Failure, Phase, State
from launcher.supervisor.pacing import PASSING
from launcher.supervisor.processes import identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.supervisor import events as on
    from launcher.supervisor.generation import Generation, Process
    from launcher.supervisor.records import Records


def prepared(records: Records, zygote: Process, facts: on.Prepared, now: float) -> None:
    """Note that a generation can be filled, or that a dead zygote has been replaced."""
    generation = zygote.generation
    zygote.enter(State.WARM, None)
    zygote.placed = facts.placed
    if generation.phase is not Phase.PREPARING:  # it replaces a zygote that died
        if generation.imports_anew or facts.files == generation.files:
            records._log("info", "replaced zygote", generation=generation.number, pid=zygote.pid)
        elif not generation.unrespawnable:
            _cannot_respawn(records, generation, "code on disk differs")
        if generation.phase is Phase.COMMITTED and (generation.is_watched or not generation.unrespawnable):
            records._order(do.Confirm(zygote.ticket))
        return
    if facts.is_web:
        records.policy = records.policy._replace(restart=records.policy.restart_of_web, listens=True)
        if facts.workers and not (records.current or records.policy.is_workers_given):
            records.wanted = facts.workers
    generation.files = facts.files
    generation.takes_worker = facts.takes_worker
    generation.zygote_stays, generation.is_watched = facts.zygote_stays, records.policy.watch
    generation.phase = Phase.BEFORE if records.policy.before else Phase.FILLING
    records._log("info", "prepared", generation=generation.number, after=f"{now - generation.since:.2f}s")
    if records.policy.preload == "never" or (records.policy.preload == "auto" and facts.unforkable):
        generation.imports_anew = True
    if facts.unforkable and records.policy.preload != "never":
        then = "workers import for themselves" if generation.imports_anew else "forking all the same"
        records._log("warning", f"unsafe to fork: {then}", generation=generation.number, found=facts.unforkable)
    if facts.shared and not generation.imports_anew:
        records._log("info", "shared by all workers", generation=generation.number, found=facts.shared)


def refused(records: Records, zygote: Process, event: on.Refused, now: float) -> None:
    """Note why a generation cannot be had, or why nobody replaces a dead zygote."""
    generation = zygote.generation
    if generation is records.candidate:
        generation.failure = Failure(event.reason, event.detail, event.code)
    elif event.code in PASSING and generation.phase is not Phase.REJECTED:
        records._log("error", "cannot start", **identity(zygote), reason=event.reason)
        records._pace(zygote, now)
    elif generation.phase is not Phase.REJECTED:
        if not generation.imports_anew and not generation.unrespawnable:
            _cannot_respawn(records, generation, event.reason)
        if generation.is_watched:
            generation.is_watched, what = False, "--watch: nothing is watched until the next reload"
            records._log("error", what, generation=generation.number, reason=event.reason)


def _cannot_respawn(records: Records, generation: Generation, why: str) -> None:
    generation.unrespawnable = why
    records._log("error", "cannot respawn: reload when the code is right", generation=generation.number, reason=why)
