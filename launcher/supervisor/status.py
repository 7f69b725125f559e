"""
How prod-run is, in words.

Owns the sentences and the report that people see: the process title, SIGUSR1.
Pure: reads the records, changes nothing.
"""

from __future__ import annotations

from launcher.supervisor import actions as do

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.supervisor.generation import Generation
    from launcher.supervisor.records import Records


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
    return ", ".join(parts) or "starting"


def is_ready(records: Records) -> bool:
    """Say whether a request would be answered: a generation is committed, a worker is up, nothing is draining."""
    current = records.current
    return records.stop is None and current is not None and any(w.is_up for w in current.workers.values())


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
