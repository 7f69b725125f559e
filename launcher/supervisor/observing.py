"""
When the observer is started, asked and given up (DESIGN §6).

Owns the facts about it and every time limit: how soon a dead one is replaced, how long a question may stay without
an answer, and from when on the supervisor itself has to keep the workers' pipes from filling.
Pure: it never waits, never acts, never asks the time.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

AWAY_AFTER = 1.0  # seconds without a live one
DOUBT_AFTER = 2.0  # seconds without an answer; it answers within half a second
GIVE_UP_AFTER = 5.0  # seconds without an answer
BOOT_LIMIT = 30.0  # seconds until it has to say that it watches
STABLE_AFTER = 3.0  # seconds of life that make earlier deaths history
FIRST_DELAY = 0.1  # seconds
LONGEST_DELAY = 30.0
GROWTH = 1.5
MANY_DEATHS = 3
WITHIN = 10.0  # seconds
LOOK = 0.1  # seconds between two looks at the pipes while nobody reads them


class Observing:
    """What is known of the observer."""

    __slots__ = (
        "_asked_at",
        "_chance",
        "_deaths",
        "_failures",
        "_gone_at",
        "_is_up",
        "_started_at",
        "is_given_up",
        "pid",
        "retry_at",
    )

    def __init__(self, now: float, chance: Callable[[], float]) -> None:
        self.pid = 0
        self.retry_at = now
        self._chance = chance
        self._gone_at = now
        self._is_up = False
        self.is_given_up = False
        self._started_at = now
        self._asked_at: float | None = None
        self._deaths: tuple[float, ...] = ()  # the last few times
        self._failures = 0

    # ── facts ───────────────────────────────────────────────────────────────────────────────────

    def started(self, pid: int, now: float) -> None:
        """It has a PID; it has said nothing yet."""
        self.pid = pid
        self._started_at = now

    def came_up(self) -> None:
        """It says that it watches."""
        self._is_up = True

    def asked(self, now: float) -> bool:
        """Note that it is to be asked; say whether it really has to be, for one question at a time is enough."""
        if self._asked_at is not None or not self._is_up:
            return False
        self._asked_at = now
        return True

    def answered(self) -> None:
        """It lives."""
        self._asked_at = None

    def given_up(self) -> None:
        """It was sent SIGKILL; that it ends may take its time (an uninterruptible wait of the kernel)."""
        self.is_given_up = True

    def ended(self, now: float) -> float:
        """It is gone, or cannot be had; return the seconds until it is tried again."""
        was_up = self._is_up
        if was_up:
            self._gone_at = now
            self._deaths = (*self._deaths[1 - MANY_DEATHS :], now)
        if was_up and now - self._started_at >= STABLE_AFTER:
            self._failures = 0
        delay = min(LONGEST_DELAY, FIRST_DELAY * GROWTH ** min(self._failures, 15)) * (0.9 + 0.2 * self._chance())
        self._failures += 1
        self.pid, self._is_up, self.is_given_up, self._asked_at = 0, False, False, None
        self.retry_at = now + delay
        return delay

    # ── what follows ────────────────────────────────────────────────────────────────────────────

    @property
    def is_up(self) -> bool:
        """Say whether it reads."""
        return self._is_up

    def must_start(self, now: float) -> bool:
        """Say whether a new one is due."""
        return not self.pid and now >= self.retry_at

    def must_end(self, now: float) -> bool:
        """Say whether it has been silent for too long."""
        limit = self._limit()
        return limit is not None and now >= limit

    def is_away(self, now: float) -> bool:
        """Say whether the pipes have no reader that can be relied on."""
        if self._is_up:
            return self._asked_at is not None and now >= self._asked_at + DOUBT_AFTER
        return now >= self._gone_at + AWAY_AFTER or self._dies_often(now)

    def deadline(self, now: float, *, is_needed: bool) -> float | None:
        """Say when to look again; `is_needed`: there are pipes that somebody has to read."""
        times: list[float] = []
        if not self.pid:
            times.append(self.retry_at)
        limit = self._limit()
        if limit is not None:
            times.append(limit)
        if is_needed and self.is_away(now):
            times.append(now + LOOK)
        elif is_needed and not self._is_up:
            times.append(self._gone_at + AWAY_AFTER)
        elif is_needed and self._asked_at is not None:
            times.append(self._asked_at + DOUBT_AFTER)
        return min(times, default=None)

    def _limit(self) -> float | None:
        if self.is_given_up:
            return None
        if self.pid and not self._is_up:
            return self._started_at + BOOT_LIMIT
        return None if self._asked_at is None else self._asked_at + GIVE_UP_AFTER

    def _dies_often(self, now: float) -> bool:
        return len(self._deaths) >= MANY_DEATHS and now - self._deaths[-MANY_DEATHS] < WITHIN
