"""
What an app asks for with `worker.check()`.

Owns the form of such a wish and what can be wrong with one; `runtime.health` fulfils it.
Pure.
"""

from __future__ import annotations

from launcher.lean import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_NAME = 40
MOST = 32  # who has more needs another tool
OURS = ("generation", "workers", "shutdown", "reload", "respawn", "supervisor")  # what the probes look at themselves
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class Wish(NamedTuple):
    """One check."""

    name: str
    function: Callable[[], object]
    timeout: float  # seconds
    is_required: bool


def look_at(wish: Wish, names: tuple[str, ...]) -> None:
    """
    Refuse what cannot be; `names` are those of the checks that are there already.

    Raises:
        ValueError, TypeError: with a sentence.
    """
    name, function, timeout, _ = wish
    if not 0 < len(name) <= LONGEST_NAME or not _CHARACTERS.issuperset(name) or name in OURS:
        message = f"{name!r} is no name for a check: up to 40 letters, digits, - and _, and none of prod-run's own"
        raise ValueError(message)
    if len(names) >= MOST:
        message = f"{name!r} would be one check too many: there are {MOST}"
        raise ValueError(message)
    if name in names:
        message = f"there is a check {name!r} already"
        raise ValueError(message)
    if not callable(function):
        message = f"the check {name!r} cannot be called"
        raise TypeError(message)
    if not 0 < timeout < float("inf"):
        message = f"the time limit of the check {name!r} is {timeout}: it is a number of seconds"
        raise ValueError(message)
