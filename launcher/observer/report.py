"""
`/status`: everything that is known, as what JSON can hold.

Owns the names of its members, which are public like a flag's.  What the app or an error said, and the values of
settings, are for the private tier only.
"""

from __future__ import annotations

from launcher import __version__, memory
from launcher.observer import usage
from launcher.observer.withheld import who

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.observer.endpoints import Known
    from launcher.observer.state import AppCheck, Generation, Reload, Worker

    Members = dict[str, object]


def status(known: Known, *, is_private: bool) -> Members:
    """Return the whole of it."""
    state, about = known.state, known.about
    return {
        "name": about.name,
        "prod_run": __version__,
        "pid": about.supervisor,
        "started": round(known.time - known.monotonic + about.started, 3),
        "sentence": state.sentence,
        "ready": state.is_ready,
        "draining": state.is_draining,
        "silent_for": round(known.silent_for, 3),
        "generation": state.current or None,
        "generations": [_generation(each, known.monotonic, is_private=is_private) for each in state.generations],
        "memory": _memory(),
        "wanted": state.wanted,
        "workers": [_worker(each, known.monotonic, is_private=is_private) for each in state.workers],
        "slots": [
            {
                "slot": slot.number,
                "restarts": slot.restarts,
                "last_exit": slot.last_exit or None,
                "last_exit_at": slot.last_exit_at or None,
            }
            for slot in state.slots
        ],
        "listeners": [
            {"name": each.name, "address": each.address, "backlog": _known(each.backlog)} for each in state.listeners
        ],
        "checks": [_check(each, known.monotonic, is_private=is_private) for each in state.checks],
        "reloads": [_reload(each, is_private=is_private) for each in state.reloads],
        "reloads_by_result": dict(state.reloads_by_result),
        "deaths": [each._asdict() for each in state.deaths],
        "deaths_by_reason": dict(state.deaths_by_reason),
        "log_lines": state.lines._asdict(),
        "settings": [
            {"name": name, **({"value": value} if is_private else {}), "origin": origin}
            for name, value, origin in about.settings
        ],
    }


def _memory() -> Members | None:
    room = memory.room()
    return room._asdict() if room else None


def _generation(generation: Generation, now: float, *, is_private: bool) -> Members:
    stale = generation.stale_since
    members: Members = {
        "generation": generation.number,
        "phase": generation.phase,
        "origin": generation.origin if is_private else who(generation.origin),
        "age": round(now - generation.since, 3),
        "zygote": {"pid": generation.zygote, "state": generation.zygote_state} if generation.zygote else None,
        "stale_for": None if stale is None else round(now - stale, 3),
        "can_respawn": not generation.cannot_respawn,
    }
    if is_private:
        members["stale_because"] = generation.stale_because or None
        members["cannot_respawn"] = generation.cannot_respawn or None
    return members


def _worker(worker: Worker, now: float, *, is_private: bool) -> Members:
    used = usage.of(worker.pid) if worker.pid else None
    return {
        "slot": worker.slot,
        "generation": worker.generation,
        "pid": worker.pid or None,
        "state": worker.state,
        "age": round(now - worker.since, 3),
        "rss": used.rss if used else None,
        "cpu": used.cpu if used else None,
        **({"says": worker.says or None} if is_private else {}),
    }


def _check(check: AppCheck, now: float, *, is_private: bool) -> Members:
    is_known = check.is_good is not None
    return {
        "name": check.name,
        "required": check.is_required,
        "good": check.is_good,
        "reason": check.reason or None,
        **({"details": check.details or None} if is_private else {}),
        "age": round(now - check.at, 3) if is_known else None,
        "took": check.took if is_known else None,
        "slot": check.slot if is_known else None,
    }


def _reload(reload: Reload, *, is_private: bool) -> Members:
    return {
        "generation": reload.generation,
        "result": reload.result,
        "origin": reload.origin if is_private else who(reload.origin),
        "at": reload.at,
        "took": reload.took,
        **({"reason": reload.reason or None, "detail": reload.detail or None} if is_private else {}),
    }


def _known(number: int) -> int | None:
    return number if number >= 0 else None
