"""
prctl(2) and signalfd(2), without what Python builds around a foreign function.

Owns these two, by the C half of ctypes, which costs the supervisor 80 kB where the whole costs 400.
Must never be used where the reason of a refusal is wanted: it has no errno.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    _call: Callable[[int, tuple[int | bytes, ...]], int]
    _find: Callable[[str], int]
else:
    import _ctypes

    _call = _ctypes.call_function
    _library = _ctypes.dlopen(None, 0)

    def _find(name):  # noqa: ANN001, ANN202  typed above
        return _ctypes.dlsym(_library, name)


SET_PDEATHSIG = 1  # linux/prctl.h
GET_PDEATHSIG = 2
SET_CHILD_SUBREAPER = 36


def prctl(option: int, argument: int) -> bool:
    """Ask for one thing; say whether it was granted."""
    return _call(_find("prctl"), (option, argument, 0, 0, 0)) == 0


def may_set_death_signal() -> bool:
    """Ask for the signal that is set already, which our caller may have chosen: nothing changes; say whether it may."""
    number = bytes(4)  # nobody else has this one, and the kernel writes an int into it
    if _call(_find("prctl"), (GET_PDEATHSIG, number, 0, 0, 0)) != 0:
        return False
    return prctl(SET_PDEATHSIG, int.from_bytes(number, sys.byteorder))


def signalfd(signals: bytes, flags: int) -> int:
    """Return a descriptor of the signals in a sigset_t; -1 if there is none to be had."""
    return _call(_find("signalfd"), (-1, signals, flags))
