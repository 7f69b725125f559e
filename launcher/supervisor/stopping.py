"""
How far a stop has come.

Owns the stages from the wish to the exit.
Pure: never decides, never acts.
"""

from __future__ import annotations

from launcher.lean import Enum


class Stage(Enum):
    """The stages of a stop, in their order."""

    DELAY = "waiting: still accepting"
    DRAIN = "draining"
    SWEEP = "ending what is left"
    LAST_SWEEP = "killing what is left"
    OVER = "over"


class Stopping:
    """One stop: why, with which exit code, and how far it has come."""

    __slots__ = ("asked_at", "code", "deadline", "immediate", "is_refilling", "orphans_left", "reason", "stage")

    def __init__(self, reason: str, code: int, asked_at: float | None = None, deadline: float = 0.0) -> None:
        self.reason = reason
        self.code = code  # of a command that ends by the stop, its own is set at the end
        self.asked_at = asked_at  # None: nobody did, there was nothing else to do
        self.deadline: float | None = deadline
        self.stage = Stage.DELAY
        self.immediate = False
        self.is_refilling: bool | None = False  # None: it came between two singletons, and a drain delay comes first
        self.orphans_left = 0  # -1: not counted yet

    def enter(self, stage: Stage, deadline: float | None) -> None:
        """Go on to the next stage."""
        self.stage = stage
        self.deadline = deadline

    def is_over(self, now: float, *, leftovers: bool) -> bool:
        """Say whether prod-run can exit: nobody is left, or nobody listens."""
        if self.stage not in (Stage.SWEEP, Stage.LAST_SWEEP):
            return False
        if self.orphans_left == 0 and not leftovers:
            return True
        return self.stage is Stage.LAST_SWEEP and self.deadline is not None and now >= self.deadline
