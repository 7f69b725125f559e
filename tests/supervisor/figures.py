"""
What the machine owes a limit of memory.

Owns the promises about the figures that a reload waits for, judged by what an onlooker hears.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.supervisor import events as on
from launcher.supervisor.weighing import WEIGH

if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.supervisor import actions as do
    from tests.supervisor.witness import Witness

EARLY = 1e-6


class Figures:
    """Since when they are asked for, and what the answer was."""

    def __init__(self, witness: Witness, promise: Callable[..., None]) -> None:
        """Begin with none."""
        self.witness = witness
        self.promise = promise
        self.since: float | None = None  # they were asked for, and no reload has begun since
        self.answer: on.Weighed | None = None

    def hear(self, event: on.Event) -> None:
        """Note what is told."""
        if isinstance(event, on.Weighed) and self.since is not None:
            self.answer = event
        if self.witness.stop_asked_at is not None:
            self.since = None

    def ask(self, order: do.Weigh, now: float) -> None:
        """Judge the question."""
        self.promise(self.witness.wants_reload and self.witness.current(), "the figures are asked for a reload", order)
        self.promise(self.since is None, "the figures are asked for once", order)
        self.since = now

    def begin(self, order: do.Action, now: float) -> None:
        """Judge a generation that is begun."""
        waited = self.since is not None and now >= self.since + WEIGH - EARLY
        known = self.answer or waited or not self.witness.current()
        self.promise(known, "a reload waits for the figures", order)
        self.promise(self._fit(), "what does not fit beside the old generation is not started", order, self.answer)
        self.since = self.answer = None

    def reject(self) -> None:
        """Judge a reload that was rejected before anything of it was started."""
        self.promise(not self._fit(), "only what does not fit is rejected before it begins", self.answer)
        self.since = self.answer = None

    def look_ahead(self, deadline: float | None) -> None:
        """Judge how long they are waited for."""
        if self.since is not None:
            soon = deadline is not None and deadline <= self.since + WEIGH
            self.promise(soon, "a reload waits for the figures no longer than a second", deadline)

    def _fit(self) -> bool:
        known, witness = self.answer, self.witness
        if known is None or not known.limit or not known.worker:
            return True
        surge = witness.policy.max_surge
        more = witness.wanted if surge < 0 else min(surge, witness.wanted)
        return known.use + known.zygote + more * known.worker <= known.limit
