"""
Read on, or not: the answer to a sink that is behind.

Owns one decision.  While the sink takes what comes, everything is read; when too much waits for it, reading pauses for
a moment, and the pipes hold what comes (nothing is lost, and the writers are slowed down to the sink's pace); when the
moment is over and still too much waits, reading goes on for as long and the sink drops its oldest: no worker may wait
for a log.  Then the sink gets another moment: it may have been a short stall.
Pure: time comes in as an argument.
"""

from __future__ import annotations

FULL = 1024 * 1024  # bytes that wait for the sink: enough to keep it busy
PATIENCE = 0.3  # seconds


class Valve:
    """Open, closed for a moment, or open although the sink is behind."""

    __slots__ = ("_closed_at", "_forced_until")

    def __init__(self) -> None:
        self._closed_at: float | None = None
        self._forced_until = 0.0

    @property
    def is_open(self) -> bool:
        """Say whether to read."""
        return self._closed_at is None

    def adjust(self, backlog: int, now: float) -> None:
        """Take note of how many bytes wait for the sink."""
        if backlog < FULL // 2:
            self._closed_at, self._forced_until = None, 0.0
        elif self._closed_at is not None and now >= self._closed_at + PATIENCE:
            self._closed_at, self._forced_until = None, now + PATIENCE
        elif backlog >= FULL and self.is_open and now >= self._forced_until:
            self._closed_at = now

    def deadline(self) -> float | None:
        """Say when to adjust again even if the sink takes nothing."""
        return None if self._closed_at is None else self._closed_at + PATIENCE
