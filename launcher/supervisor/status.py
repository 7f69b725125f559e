"""
How prod-run is, in words.

Owns the sentences and the report that people see (the process title, SIGUSR1), and the snapshot that programs get.
Pure: reads the records, changes nothing.
"""

from __future__ import annotations

from launcher import protocol
from launcher.supervisor import actions as do
from launcher.supervisor import checking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.supervisor.generation import Generation
    from launcher.supervisor.history import History
    from launcher.supervisor.records import Records

LONGEST = 2000  # characters of one reason


def sentence(records: Records) -> str:
    """Say how prod-run is in one line: `generation 3 serving 4/4, generation 4 preparing`."""
    parts = []
    if records.stop:
        parts.append(records.stop.stage.value)
    if records.current:
        parts.append(f"generation {records.current.number} serving {records.current.up()}/{records.wanted}")
    if records.candidate:
        parts.append(f"generation {records.candidate.number} {records.candidate.phase.value}")
    leaving = sum(len(generation.workers) for generation in records.others)
    if leaving:
        parts.append(f"{leaving} draining")
    failing = checking.failing(records)
    if failing:
        parts.append(f"not ready: {', '.join(failing)}")
    return ", ".join(parts) or "starting"


def told(records: Records) -> str:
    """Say the same to the manager above (STATUS, sd_notify(3)), and why the last reload failed, until one does not."""
    return f"{sentence(records)}; {records.result}" if records.result else sentence(records)


def is_ready(records: Records) -> bool:
    """Say whether clients should come: a committed worker is up, nothing drains, and no required check fails."""
    current = records.current
    is_any_up = current is not None and any(w.is_up for w in current.workers.values())
    return records.stop is None and is_any_up and not checking.failing(records)


def report(records: Records, now: float) -> list[do.Log]:
    """Return the lines of a full report: one for prod-run, one for each generation and process."""
    lines = [do.Log("info", "status", (("is", sentence(records)), ("orphans", records.processes.orphans)))]
    for generation in records.generations():
        lines.append(_of_generation(generation, now))
        lines += [
            do.Log(
                "info",
                "status of worker",
                (
                    ("slot", worker.slot),
                    ("generation", generation.number),
                    ("pid", worker.pid),
                    ("state", worker.state.value),
                    ("age", f"{now - worker.started:.1f}s"),
                    *((("says", worker.status),) if worker.status else ()),
                ),
            )
            for worker in sorted(generation.workers.values(), key=lambda worker: worker.slot)
        ]
    return [*lines, *_of_checks(records, now)]


def _of_checks(records: Records, now: float) -> list[do.Log]:
    lines = []
    for name, check in sorted(records.current.checks.items()) if records.current else ():
        result = records.checking.results.get(name)
        facts: list[tuple[str, str | float]] = [("name", name), ("required", "yes" if check.is_required else "no")]
        facts.append(("is", "unknown" if result is None else "good" if result.is_good else "failed"))
        if result:
            facts += [("age", f"{now - result.at:.1f}s"), ("slot", result.slot)]
            facts += [(what, text) for what, text in (("reason", result.reason), ("details", result.details)) if text]
        lines.append(do.Log("info", "status of check", tuple(facts)))
    return lines


def _of_generation(generation: Generation, now: float) -> do.Log:
    zygote = generation.zygote
    facts: list[tuple[str, str | float]] = [
        ("generation", generation.number),
        ("phase", generation.phase.value),
        ("age", f"{now - generation.since:.1f}s"),
    ]
    if zygote:
        facts += [("zygote", zygote.pid), ("state", zygote.state.value)]
    if generation.stale_since is not None:
        facts.append(("stale_for", f"{now - generation.stale_since:.1f}s"))
        facts.append(("stale_because", generation.stale_because))
    if generation.unrespawnable:
        facts.append(("cannot_respawn", generation.unrespawnable))
    return do.Log("info", "status of generation", tuple(facts))


def snapshot(records: Records, history: History, skew: float) -> list[bytes]:
    """
    Return everything that can be known from outside, one message for each thing.

    Two are equal if nothing changed: there are no ages in it, but beginnings, in seconds of the monotonic clock,
    which is `skew` ahead of ours.
    """
    current = records.current
    whole = protocol.encode(
        "whole",
        sentence=sentence(records),
        is_ready=is_ready(records),
        is_committed=current is not None,
        is_draining=records.stop is not None,
        wanted=records.wanted,
        orphans=records.processes.orphans,
        current=current.number if current else 0,
    )
    rows = [whole]
    for generation in records.generations():
        rows.append(_row_of_generation(generation, skew))
        rows += [
            protocol.encode(
                "worker",
                slot=worker.slot,
                generation=generation.number,
                pid=worker.pid,
                state=worker.state.value,
                since=f"{worker.started + skew:.3f}",
                says=worker.status[:LONGEST],
            )
            for worker in sorted(generation.workers.values(), key=lambda worker: worker.slot)
        ]
    return [*rows, *_rows_of_checks(records, skew), *_rows_of_history(history)]


def _rows_of_checks(records: Records, skew: float) -> list[bytes]:
    rows = []
    for name, check in sorted(records.current.checks.items()) if records.current else ():
        facts: dict[str, protocol.Field] = {"name": name, "is_required": check.is_required}
        result = records.checking.results.get(name)
        if result:
            facts |= {"is_good": result.is_good, "reason": result.reason, "details": result.details}
            facts |= {"took": f"{result.took:.3f}", "at": f"{result.at + skew:.3f}", "slot": result.slot}
        rows.append(protocol.encode("check", **facts))
    return rows


def _row_of_generation(generation: Generation, skew: float) -> bytes:
    zygote = generation.zygote
    stale = {} if generation.stale_since is None else {"stale_since": f"{generation.stale_since + skew:.3f}"}
    return protocol.encode(
        "generation",
        number=generation.number,
        phase=generation.phase.value,
        origin=generation.origin[:LONGEST],
        since=f"{generation.since + skew:.3f}",
        zygote=zygote.pid if zygote else 0,
        zygote_state=zygote.state.value if zygote else "",
        stale_because=generation.stale_because[:LONGEST],
        cannot_respawn=generation.unrespawnable[:LONGEST],
        **stale,
    )


def _rows_of_history(history: History) -> list[bytes]:
    rows = [
        protocol.encode(
            "slot",
            number=number,
            restarts=slot.restarts,
            last_exit=slot.last_exit,
            last_exit_at=f"{slot.last_exit_at:.3f}",
            cpu=f"{slot.cpu:.2f}",
        )
        for number, slot in sorted(history.slots.items())
    ]
    rows += [
        protocol.encode(
            "reload",
            generation=reload.generation,
            result=reload.result,
            reason=reload.reason[:LONGEST],
            origin=reload.origin[:LONGEST],
            at=f"{reload.at:.3f}",
            took=f"{reload.took:.3f}",
            detail=reload.detail,
        )
        for reload in history.reloads
    ]
    rows += [
        protocol.encode("death", slot=death.slot, generation=death.generation, how=death.how, at=f"{death.at:.3f}")
        for death in history.last_deaths
    ]
    rows += [protocol.encode("listener", name=name, address=text) for name, text in history.listeners.items()]
    rows += [protocol.encode("results", result=result, count=count) for result, count in history.results.items()]
    rows += [protocol.encode("deaths", reason=reason, count=count) for reason, count in history.deaths.items()]
    return rows
