"""
How fast the dead are replaced (DESIGN §3.6).

Owns the bucket of immediate replacements, the back-off of a slot, and what is worth another try.
Pure: time and chance come in as arguments; never waits.
"""

from __future__ import annotations

from launcher.errors import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_DELAY = 0.1  # seconds
GROWTH = 1.5
LONGEST_DELAY = 30.0  # seconds
JITTER = 0.1
FORGET_AFTER = 30.0  # seconds of life that make earlier failures history
BURST = 10  # immediate replacements, on top of one for each worker
PASSING = (Exit.UNAVAILABLE, Exit.OS_ERROR)  # EMFILE, ENOMEM, a directory that is just being replaced: tried again
REFILL = 1.0  # tokens a second


class Bucket:
    """Tokens for immediate replacements: a burst is taken at once, a storm is slowed down."""

    __slots__ = ("_at", "_tokens")

    def __init__(self, workers: int, now: float) -> None:
        self._tokens = float(BURST + workers)
        self._at = now

    def take(self, workers: int, now: float) -> bool:
        """Take one token; say whether there was one."""
        size = float(BURST + workers)
        self._tokens = min(size, self._tokens + (now - self._at) * REFILL)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Backoff:
    """When something that keeps failing may be tried again: 1.5^n from 100 ms, at most 30 s, ± 10 %."""

    __slots__ = ("failures", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.until = 0.0

    def forget(self, lived: float) -> None:
        """Forget earlier failures if it lived for so many seconds, however it is replaced."""
        if lived >= FORGET_AFTER:
            self.failures = 0

    def fail(self, now: float, chance: Callable[[], float]) -> float:
        """
        Count a failure and return the delay in seconds.

        `chance` returns a number from 0 to 1; it decides the jitter.
        """
        # 1.5 ** 15 is already past the longest delay; more would overflow a float after weeks.
        delay = min(LONGEST_DELAY, FIRST_DELAY * GROWTH ** min(self.failures, 15))
        delay *= 1.0 - JITTER + 2.0 * JITTER * chance()
        self.failures += 1
        self.until = now + delay
        return delay
