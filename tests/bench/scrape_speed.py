"""
What a scrape of the app's metrics costs: `python -m tests.bench.scrape_speed [WORKERS SERIES]`.

CPU time of the collection and its text, beside prometheus_client's own for the same files; the best of several runs,
since the machine is shared.  Of the series 60 % are of histograms, 30 % counters, 10 % gauges.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from launcher.observer.aggregate import Aggregate

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = ((8, 100), (64, 100), (64, 1000))
RUNS = 7
BUCKETS = ("0.1", "0.5", "1.0", "+Inf")


def main() -> None:
    """Print a table: milliseconds of CPU for each way."""
    words = list(map(int, sys.argv[1:]))
    cases = (tuple(words),) if words else CASES
    sys.stdout.write(f"Python {sys.version.split()[0]}, ms of CPU, best of {RUNS}\n")
    sys.stdout.write("workers  series    first   later   longest turn   prometheus_client\n")
    for workers, series in cases:
        with tempfile.TemporaryDirectory() as name:
            fill(Path(name), workers, series)
            sys.stdout.write(row(name, workers, series))


def row(name: str, workers: int, series: int) -> str:
    """Measure one size."""
    firsts, laters, turns = [], [], []
    for _ in range(RUNS):
        aggregate = Aggregate(name)
        aggregate.living = frozenset(f"w{place}" for place in range(workers))
        firsts.append(spent(lambda one=aggregate: [*one.collect()]))  # type: ignore[misc]
        laters.append(spent(lambda one=aggregate: [*one.collect()]))  # type: ignore[misc]
        turns.append(longest(aggregate))
    theirs = min(spent(lambda: plain(name)) for _ in range(RUNS))
    return f"{workers:7} {series:7} {min(firsts):8.1f} {min(laters):7.1f} {min(turns):14.2f} {theirs:19.1f}\n"


def plain(name: str) -> bytes:
    """Do it as an app without prod-run does."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, name)
    return generate_latest(registry)


def spent(work: Callable[[], object]) -> float:
    """Return the milliseconds of CPU that something takes."""
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


def longest(aggregate: Aggregate) -> float:
    """Return the longest piece of a collection, in milliseconds of CPU: probes and lines wait for so long."""
    pieces = aggregate.collect()
    most, began = 0.0, time.process_time()
    for _ in pieces:
        now = time.process_time()
        most, began = max(most, now - began), now
    return most * 1000


def fill(directory: Path, workers: int, series: int) -> None:
    """Write what so many workers may have."""
    histograms = [
        mmap_key(
            "took", "took_bucket", ["path", "le"], [f"/{number // len(BUCKETS)}", BUCKETS[number % len(BUCKETS)]], "H."
        )
        for number in range(series * 6 // 10)
    ]
    counters = [mmap_key("paid", "paid_total", ["path"], [f"/{number}"], "H.") for number in range(series * 3 // 10)]
    gauges = [mmap_key("busy", "busy", ["path"], [f"/{number}"], "H.") for number in range(series // 10)]
    for place in range(workers):
        for kind, keys in (("histogram", histograms), ("counter", counters), ("gauge_livesum", gauges)):
            file = MmapedDict(str(directory / f"{kind}_w{place}.db"))
            for key in keys:
                file.write_value(key, 1.0, 0.0)
            file.close()


if __name__ == "__main__":
    main()
