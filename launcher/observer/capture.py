"""
One stdout or stderr of a zygote or worker, on its way to the log.

Owns the reading of that pipe, how long an unfinished line is held back, and the count of newlines that each batch
stands for.
Must never wait, and never read more than one piece per call: a chatty worker would hold the only loop.
"""

from __future__ import annotations

import os
from time import time

from launcher.logs import formats
from launcher.logs.batch import INNER_NEWLINE, RECORD, SEVERITIES, Batch, newlines
from launcher.observer.sorting import Sorting
from launcher.observer.whole_lines import WholeLines

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.logs.batch import Form, Source
    from launcher.observer.sorting import Written

PARTIAL_IDLE = 0.25  # seconds without another byte
PARTIAL_LONGEST = 5.0  # seconds in any case: a progress bar never pauses
TRACEBACK_IDLE = 0.1  # seconds

PIECE = 128 * 1024  # bytes read at once
_WORD_LINES = 50
_INFO = SEVERITIES["info"]


class Capture:
    """What one process prints, as batches in the sink's form; `ended` once every holder of the writing end is gone."""

    def __init__(
        self, fd: int, stream: str, source: Source, form: Form, *, mark: str, took: Callable[[int], None]
    ) -> None:
        """
        Read `fd`, which is non-blocking and stays the caller's.

        `stream` is stdout or stderr, `mark` begins the finished records of this process (empty: it writes none), and
        `took` hears of the newlines of each piece before anything else is done with it.
        """
        self.source = source  # may be replaced: slot, pid and version become known later
        self.ended = False
        self._fd = fd
        self._took = took
        self._sorting = Sorting(stream, form, mark)
        self._lines = WholeLines(remember=stream == "stderr", head=f"{RECORD}{mark}".encode() if mark else b"")
        self._read_at = 0.0
        self._begun_at = 0.0  # when the unfinished line began
        self._owed = 0  # newlines that no batch stands for yet

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._fd

    def read(self, now: float) -> list[Batch]:
        """Return the lines that are there, at most one piece; at the end of all, what was held back."""
        try:
            piece = os.read(self._fd, PIECE)
        except BlockingIOError:
            return []
        if not piece:
            self.ended = True
            return self.finish()
        count = newlines(piece)
        self._took(count)
        self._owed += count
        self._read_at = now
        self._sorting.time = formats.timestamp(time())
        is_new = not self._lines.partial
        whole, lines = self._lines.add(piece, count)
        if whole or is_new:
            self._begun_at = now
        return self._batches(self._sorting.add(whole, lines, self.source)) if whole else []

    def deadline(self) -> float | None:
        """Return when `expire` is due, in monotonic seconds; None if nothing is held back."""
        if self._sorting.traceback:
            return self._read_at + TRACEBACK_IDLE
        return self._partial_due() if self._has_open_end() else None

    def expire(self, now: float) -> list[Batch]:
        """Return what was held back long enough."""
        found: list[Written] = []
        if self._sorting.traceback and now >= self._read_at + TRACEBACK_IDLE:
            found += self._sorting.close(self.source)
        if self._has_open_end() and now >= self._partial_due():
            found += self._sorting.partial(self._lines.give(is_last=False), self.source)
            self._read_at = self._begun_at = now
        return self._batches(found)

    def finish(self) -> list[Batch]:
        """
        Return all that is held back.

        A last batch without lines may stand for newlines whose lines went out before them.
        """
        found = self._sorting.close(self.source)
        if self._lines.partial:
            found += self._sorting.partial(self._lines.give(is_last=True), self.source)
        batches = self._batches(found)
        if self._owed:
            batches.append(Batch(self.source, _INFO, b"", self._owed))
            self._owed = 0
        return batches

    def last_words(self) -> str:
        """Return the last 50 lines, at most 16 KiB, the unfinished one included; nothing of a stdout."""
        text = self._sorting.unmarked(self._lines.last_words()).decode("utf-8", "backslashreplace")
        return "\n".join(text.replace(INNER_NEWLINE, "\n").rstrip("\n").split("\n")[-_WORD_LINES:])

    def _partial_due(self) -> float:
        return min(self._read_at + PARTIAL_IDLE, self._begun_at + PARTIAL_LONGEST)

    def _has_open_end(self) -> bool:
        """Say whether there is an unfinished line that may be all for long; of a finished record the rest is coming."""
        return bool(self._lines.partial) and not self._sorting.begins_record(self._lines.partial)

    def _batches(self, found: list[Written]) -> list[Batch]:
        if not found:
            return []
        batches = []
        held = self._sorting.held()
        last = len(found) - 1
        for index, written in enumerate(found):
            # A line that was cut, or given out half, comes before its newline: the last batch makes up for it.
            free = max(self._owed - held, 0)
            taken = free if index == last else min(written.newlines, free)
            self._owed -= taken
            batches.append(Batch(self.source, written.severity, written.lines, taken, written.number))
        return batches
