"""
Whether there is memory for a reload, in which two generations live side by side (DESIGN §3.5).

Owns the expected peak and the sentence that refuses it.
Pure: the figures are a fact that somebody else found out.
"""

from __future__ import annotations

from launcher.handoff import AS_MANY_AS_WORKERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.supervisor.events import Weighed

WEIGH = 1.0  # seconds until a reload begins without the figures
MOST_WEIGHED = 32  # workers: enough to find a usual one


def refusal(weight: Weighed | None, wanted: int, max_surge: int) -> str:
    """Say why a reload cannot be had; empty if it can, or if that is not known."""
    if weight is None or not weight.limit or not weight.worker:
        return ""
    workers = beside(wanted, max_surge)
    peak = expected(weight, workers)
    if peak <= weight.limit:
        return ""
    figures = (
        f"{_size(weight.use)} in use, {_size(weight.zygote)} for its zygote, "
        f"{workers} x {_size(weight.worker)} for workers"
    )
    sentence = f"no memory for it: {_size(peak)} with a limit of {_size(weight.limit)} ({figures})"
    if workers > 1 and expected(weight, 1) <= weight.limit:
        return f"{sentence}; with --max-surge 1 it would need {_size(expected(weight, 1))}"
    return f"{sentence}; raise the limit, or restart" + ("; --max-surge 1 would not do" if workers > 1 else "")


def beside(wanted: int, max_surge: int) -> int:
    """Return how many workers of a new generation live beside all of the old one."""
    return wanted if max_surge == AS_MANY_AS_WORKERS else min(max_surge, wanted)


def expected(weight: Weighed, workers: int) -> int:
    """Return the bytes in use when so many workers and a zygote more are there."""
    return weight.use + weight.zygote + workers * weight.worker


def _size(size: int) -> str:
    return f"{-(-size // (1024 * 1024))}M"
