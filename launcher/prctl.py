"""
prctl(2), without what Python builds around a foreign function.

Owns one function: the C half of ctypes, which costs the supervisor 80 kB where the whole costs 400.
Must never be used where the reason of a refusal is wanted: it has no errno.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    _call: Callable[[int, tuple[int, ...]], int]
    _address: int
else:
    import _ctypes

    _call = _ctypes.call_function
    _address = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")

SET_PDEATHSIG = 1  # linux/prctl.h
SET_CHILD_SUBREAPER = 36


def prctl(option: int, argument: int) -> bool:
    """Ask for one thing; say whether it was granted."""
    return _call(_address, (option, argument, 0, 0, 0)) == 0
