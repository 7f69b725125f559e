"""
A scrape: from the question for `/metrics` to its answer.

Owns the aggregate of the app's files, the collection that is under way, and the CPU time of a slot over all its lives.
Must never work longer than a moment at a time: lines and probes wait meanwhile.
"""

from __future__ import annotations

import time

from launcher import __version__
from launcher.logs import counters as places
from launcher.metrics_directory import LOW, low
from launcher.observer import metrics, usage
from launcher.observer.aggregate import Aggregate
from launcher.observer.http import Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from launcher.logs.counters import Counters
    from launcher.observer.endpoints import Known, Scrape
    from launcher.observer.state import State, Worker

TURN = 0.002  # seconds of work; then the others
AT_ONCE = 16  # workers that are looked at


class Scraper:
    """Collects, for all who ask for one form at a time."""

    __slots__ = (
        "_aggregate",
        "_complain",
        "_counters",
        "_is_low",
        "_skipped",
        "_told",
        "_under_way",
        "_waiting",
        "_warn",
    )

    def __init__(
        self, directory: str, counters: Counters, complain: Callable[[str], None], warn: Callable[[str], None]
    ) -> None:
        """`directory` is empty if the app has none; `complain` says a fault of ours, `warn` one of the place's."""
        self._aggregate = Aggregate(directory) if directory else None
        self._counters = counters
        self._complain = complain
        self._warn = warn
        self._is_low = False
        self._told: dict[int, float] = {}  # by slot: CPU seconds, at the last scrape
        self._skipped = 0
        self._waiting: list[Scrape] = []  # the first is under way
        self._under_way: Iterator[bytes] | None = None

    @property
    def is_busy(self) -> bool:
        """Say whether `work` has something to do."""
        return bool(self._waiting)

    def begin(self, scrape: Scrape, state: State, known: Callable[[], Known]) -> Reply | Scrape:
        """
        Take a question; those that ask the same while it is under way get the same answer.

        Returns:
            The answer, if it is there after a moment, else what `work` answers.
        """
        if self._waiting:
            if scrape not in self._waiting:
                self._waiting.append(scrape)
            return scrape
        self._waiting.append(scrape)
        return next((reply for _, reply in self.work(state, known)), scrape)

    def work(self, state: State, known: Callable[[], Known]) -> list[tuple[Scrape, Reply]]:
        """Work for a moment; return what was answered."""
        try:
            return self._work(state, known)
        except Exception as error:  # noqa: BLE001  a fault in an answer must not cost the workers' lines
            self._complain(f"cannot collect metrics: {type(error).__name__}: {error}")
            waiting, self._waiting, self._under_way = self._waiting, [], None
            return [(scrape, Reply(500, b"this is a fault of prod-run's\n")) for scrape in waiting]

    def _work(self, state: State, known: Callable[[], Known]) -> list[tuple[Scrape, Reply]]:
        ends = time.monotonic() + TURN
        answers: list[tuple[Scrape, Reply]] = []
        while self._waiting and (not answers or time.monotonic() < ends):
            scrape = self._waiting[0]
            if self._under_way is None:
                self._under_way = self._collect(scrape, state, known)
            for text in self._under_way:
                if text:
                    answers.append((scrape, Reply(200, text, _kind(scrape))))
                elif time.monotonic() >= ends:
                    return answers
            self._under_way = None
            del self._waiting[0]
        return answers

    def _collect(self, scrape: Scrape, state: State, known: Callable[[], Known]) -> Iterator[bytes]:
        """Yield nothing many times, and the whole answer at last."""
        pieces: list[bytes] = []
        files, room = 0, -1
        if self._aggregate:
            self._aggregate.living = frozenset(state.living)
            for piece in self._aggregate.collect(openmetrics=scrape.is_open):
                pieces.append(piece)
                yield b""
            self._counters.add(places.SKIPPED, self._aggregate.skipped_total - self._skipped)
            self._skipped = self._aggregate.skipped_total
            files, room = self._aggregate.files, self._aggregate.free_bytes()
            self._look_at(room)
        looks: list[tuple[Worker, usage.Usage]] = []
        then = known().state  # who lives and what the dead used belong together: both of one moment
        workers = then.workers
        for first in range(0, len(workers), AT_ONCE):
            some = [worker for worker in workers[first : first + AT_ONCE] if worker.pid]
            looks += [(worker, used) for worker in some if (used := usage.of(worker.pid))]
            yield b""
        now = known()
        measured = metrics.Measured(
            now.monotonic,
            now.time,
            __version__,
            now.about.name,
            self._uses(then, looks),
            files,
            self._counters[places.SKIPPED],
            room,
        )
        own = metrics.render(now.state, measured, openmetrics=scrape.is_open)
        yield b"".join((own, *pieces, metrics.END if scrape.is_open else b""))

    def _look_at(self, room: int) -> None:
        """Warn of want of room, once until there was enough again."""
        is_low = 0 <= room < (2 * LOW if self._is_low else LOW)
        if is_low and not self._is_low:
            self._warn(low(room))
        self._is_low = is_low

    def _uses(self, state: State, looks: list[tuple[Worker, usage.Usage]]) -> tuple[metrics.Use, ...]:
        """Say what is used in each slot; its CPU time never goes back, whoever is in it."""
        placed = [(worker, used) for worker, used in looks if worker.slot >= 0]
        totals = {slot.number: slot.cpu for slot in state.slots}
        if not (placed or totals or self._told):
            return ()  # there is nobody yet, or no /proc
        for worker, used in placed:
            totals[worker.slot] = totals.get(worker.slot, 0.0) + used.cpu + used.children
        for slot, told in self._told.items():
            # Of one that is just being reaped nobody knows anything for a moment.
            totals[slot] = max(told, totals.get(slot, 0.0))
        self._told = totals
        newest = {worker.slot: used.rss for worker, used in sorted(placed, key=lambda look: look[0].since)}
        slots = sorted({*range(state.wanted), *newest})
        return tuple(metrics.Use(slot, newest.get(slot, 0), totals.get(slot, 0.0)) for slot in slots)


def _kind(scrape: Scrape) -> str:
    return metrics.OPENMETRICS if scrape.is_open else metrics.TEXT
