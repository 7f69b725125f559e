"""
From figures to text.

Owns the rows, their goals, and the two tables.  Must never measure, and never hide: minimum and maximum stand
beside each median, and a missed goal is called so.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

from tests.bench.contenders import OWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Results = dict[str, dict[str, list[float]]]  # row → contender → samples
DASH = "\u2013"  # also: it makes no sense for this contender


class Row(NamedTuple):
    """One line of the table."""

    name: str
    title: str
    unit: str
    goal: str = ""  # for people
    is_reached: Callable[[float, dict[str, float], dict[str, float]], bool] | None = None
    # … of our median, all medians of this row, and our medians of all rows
    best: Callable[..., float | None] = min


ROWS = (
    Row(
        "first answer",
        "1 worker, first answer",
        "ms",
        "≤ gunicorn",
        lambda own, medians, _: own <= medians.get("gunicorn", own),
    ),
    Row(
        "16 up",
        "16 workers up",
        "ms",
        "≤ 200, first",
        lambda own, medians, _: own <= 200 and own == min(medians.values()),
    ),
    Row("16 slow up", "16 workers up, slow app", "imports", "≤ 1.2", lambda own, *_: own <= 1.2),
    Row("killed", "worker killed → next one", "ms", "≤ 5.5", lambda own, *_: own <= 5.5),
    Row("reload failed", "reload: failed requests", "", "0", lambda own, *_: own == 0),
    Row("reload worst", "reload: worst latency", "ms", "< 25", lambda own, *_: own < 25),
    Row("calm worst", "  worst latency before", "ms"),
    Row("reload new", "reload: new code after import", "ms", "≤ 200", lambda own, *_: own <= 200),
    Row("tree PSS", "8 workers of 80 MB: PSS", "MB", "≤ 100", lambda own, *_: own <= 100),
    Row("own dirty", "supervisor: dirty over bare", "MB", "≤ 1.5", lambda own, *_: own <= 1.5),
    Row("own PSS", "supervisor: PSS", "MB"),
    Row("bare PSS", "  bare interpreter's PSS", "MB"),
    Row("idle own", "idle: calls of supervisors", "", "0", lambda own, *_: own == 0),
    Row("idle workers", "  calls of the workers", ""),
    Row("200 up", "200 workers up", "s", "≤ 1", lambda own, *_: own <= 1),
    Row("CPU at 50", "supervisor's CPU/worker of 50", "ms"),
    Row(
        "CPU at 200",
        "supervisor's CPU/worker of 200",
        "ms",
        "≤ 1.25 of that",
        lambda own, _, ours: own <= 1.25 * ours.get("CPU at 50", own),
    ),
    Row("check", "--check-config", "imports", "≤ 1.5", lambda own, *_: own <= 1.5),
    Row("checked", "  the same", "ms"),
    Row("imported", "  the imports alone", "ms"),
    Row(
        "logs raw",
        "logs: raw lines",
        "M/s",
        "≥ 1.5, ≥ supervisord",
        lambda own, medians, _: own >= max(1.5, medians.get("supervisord", 0.0)),
        max,
    ),
    Row("logs raw CPU", "  CPU of each", "µs"),
    Row("logs piped", "logs: to a pipe", "M/s", best=max),
    Row("logs piped CPU", "  CPU of each", "µs"),
    Row("logs mixed", "logs: 1 % of 20 kB", "M/s", best=max),
    Row("logs mixed CPU", "  CPU of each", "µs"),
    Row("logs printed", "logs: one by one", "M/s", best=max),
    Row("logs printed CPU", "  CPU of each", "µs"),
    Row("logs raw json", "logs: raw to JSON", "M/s", best=max),
    Row("logs raw json CPU", "  CPU of each", "µs"),
    Row("logs objects", "logs: the app's JSON", "M/s", "≥ 0.4", lambda own, *_: own >= 0.4, max),
    Row("logs objects CPU", "  CPU of each", "µs"),
    Row("logs records", "logs: Python's logging", "M/s", best=max),
    Row("logs records CPU", "  CPU of each", "µs"),
    Row("flawed", "logs: flawed lines", "", "0", lambda own, *_: own == 0),
)


def show(results: Results, contenders: Iterable[str]) -> str:
    """Return both tables: prod-run beside the best peer and the goal, then everybody."""
    rows = [row for row in ROWS if results.get(row.name)]
    return "\n\n".join(
        (_align(list(_summary(rows, results))), _align(list(_everybody(rows, results, list(contenders)))))
    )


def _summary(rows: list[Row], results: Results) -> Iterable[list[str]]:
    yield ["measure", "", OWN, f"min{DASH}max", "n", "best peer", "", "goal", "reached"]
    ours = {name: statistics.median(samples[OWN]) for name, samples in results.items() if samples.get(OWN)}
    for row in rows:
        medians = {name: statistics.median(samples) for name, samples in results[row.name].items() if samples}
        samples = results[row.name].get(OWN, [])
        peers = {median: name for name, median in reversed(medians.items()) if not name.startswith(OWN)}
        best = row.best(peers, default=None)
        reached = ""
        if samples and row.is_reached:
            reached = "yes" if row.is_reached(medians[OWN], medians, ours) else "NO"
        yield [
            row.title,
            row.unit,
            _number(medians.get(OWN)),
            _span(samples),
            str(len(samples) or DASH),
            _number(best),
            peers[best] if best is not None else DASH,
            row.goal,
            reached,
        ]


def _everybody(rows: list[Row], results: Results, contenders: list[str]) -> Iterable[list[str]]:
    yield ["measure", "", *contenders]
    for row in rows:
        samples = [results[row.name].get(name, []) for name in contenders]
        yield [row.title, row.unit, *(_number(statistics.median(found) if found else None) for found in samples)]
        yield ["", "", *(_span(found) for found in samples)]


def _number(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _span(samples: list[float]) -> str:
    return f"{_number(min(samples))}{DASH}{_number(max(samples))}" if samples else ""


def _align(lines: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    padded.insert(1, "─" * max(map(len, padded)))
    return "\n".join(padded)
