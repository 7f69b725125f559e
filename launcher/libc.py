"""
What only libc can do: prctl(2) and sigaltstack(2).

Owns the functions that are called through ctypes, looked up once, before any fork: each `CDLL(None)` builds a
class, 300 KB that every worker would have of its own.
"""

from __future__ import annotations

import ctypes

from launcher.lean_posix import signal

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SS_DISABLE = 2  # sigaltstack(2)


class _Stack(ctypes.Structure):
    """The stack_t of sigaltstack(2)."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


_libc = ctypes.CDLL(None)
_prctl = _libc.prctl
_sigaltstack = _libc.sigaltstack
_NO_STACK = ctypes.byref(_Stack(None, _SS_DISABLE, 0))


def kill_with_parent() -> bool:
    """Have the kernel kill this process when its parent dies, prctl(2); say whether it will."""
    return bool(_prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)


def drop_signal_stack() -> None:
    """Have signal handlers run on the ordinary stack again, sigaltstack(2)."""
    _sigaltstack(_NO_STACK, None)
