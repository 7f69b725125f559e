"""
What became of every line, in a page that outlives an observer.

Owns the layout of a memfd that the supervisor makes and every observer maps: lines taken from pipes, lines that the
sink has, lines dropped on purpose, lines lost with an observer that was killed.  The difference between the first and
the rest is what the running observer holds; for a dead one it is what was lost.  And how many of prod-run's own lines
the observers have heard: the supervisor says the others again.  And how many files of metrics had to be skipped.
Must never be written by two: only the living observer writes.
"""

from __future__ import annotations

import mmap
import os

SIZE = 4096
TAKEN, PASSED, DROPPED, LOST, HEARD, SKIPPED = range(6)


class Counters:
    """The page, as numbers."""

    __slots__ = ("_dropped_before", "_numbers", "_passed_before")

    def __init__(self, fd: int) -> None:
        """Map a page; the descriptor stays the caller's."""
        self._numbers = memoryview(mmap.mmap(fd, SIZE)).cast("q")
        self._passed_before = self._numbers[PASSED]
        self._dropped_before = self._numbers[DROPPED]

    def __getitem__(self, place: int) -> int:
        return self._numbers[place]

    def add(self, place: int, lines: int) -> None:
        """Count lines; a negative number takes back."""
        self._numbers[place] += lines

    def keep(self, passed: int, dropped: int) -> None:
        """Take over what the living observer's sink has counted; the dead ones' share is added."""
        self._numbers[PASSED] = self._passed_before + passed
        self._numbers[DROPPED] = self._dropped_before + dropped

    @property
    def held(self) -> int:
        """Return how many lines an observer has in its hands."""
        return self._numbers[TAKEN] - self._numbers[PASSED] - self._numbers[DROPPED] - self._numbers[LOST]

    def lose_what_was_held(self) -> int:
        """Write off what the observer before this one had in its hands; return how many lines."""
        lost = max(self.held, 0)
        self._numbers[LOST] += lost
        return lost


def page() -> int:
    """Make an empty page; return its descriptor."""
    fd = os.memfd_create("log-counters", os.MFD_CLOEXEC)
    os.ftruncate(fd, SIZE)
    return fd
