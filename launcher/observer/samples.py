"""
What workers used during the last two minutes.

Owns the samples, their bound, and when the next one is due: they are taken only while somebody looks at them, and
thirty seconds longer.
Must never read anything itself: how a process is measured is an argument.
"""

from __future__ import annotations

from launcher.lean import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

EVERY = 2.0  # seconds
WINDOW = 120.0  # seconds
LONGER = 30.0  # seconds after the last look
MOST = 200  # processes
_NOISE = EVERY / 2  # seconds: the kernel counts in hundredths, so a shorter time says nothing about a share


class Sample(NamedTuple):
    """One look at a process."""

    at: float  # monotonic
    rss: int  # bytes
    cpu: float  # seconds, since its start
    share: float | None = None  # of one CPU, since the look before; None: not known


class Samples:
    """The samples of each process, the oldest first."""

    __slots__ = ("_by_pid", "_due", "_measure", "_until")

    def __init__(self, measure: Callable[[int], tuple[int, float] | None]) -> None:
        """`measure` tells bytes and seconds of a process; None: nobody knows."""
        self._measure = measure
        self._by_pid: dict[int, list[Sample]] = {}
        self._due: float | None = None
        self._until = 0.0

    def look(self, pids: Iterable[int], now: float) -> dict[int, list[Sample]]:
        """Return what there is, and go on measuring for a while."""
        self._until = now + LONGER
        if self._due is None:
            self._take(pids, now)
        return self._by_pid

    def deadline(self) -> float | None:
        """Say when `tick` is due; None while nobody looks."""
        return self._due

    def tick(self, pids: Iterable[int], now: float) -> None:
        """Measure, if it is time to."""
        if self._due is None or now < self._due:
            return
        if now >= self._until:
            self._due = None
        else:
            self._take(pids, now)

    def _take(self, pids: Iterable[int], now: float) -> None:
        """Measure these processes; the others are forgotten."""
        fresh: dict[int, list[Sample]] = {}
        for pid in list(pids)[:MOST]:
            kept = [each for each in self._by_pid.get(pid, ()) if each.at > now - WINDOW]
            used = self._measure(pid)
            if used:
                kept.append(Sample(now, *used, _share(kept[-1], now, used[1]) if kept else None))
            fresh[pid] = kept
        self._by_pid = fresh
        self._due = now + EVERY


def _share(last: Sample, now: float, cpu: float) -> float | None:
    return max(0.0, cpu - last.cpu) / (now - last.at) if now - last.at >= _NOISE else None
