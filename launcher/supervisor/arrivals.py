"""
The signals that come to the supervisor, as numbers from a descriptor.

Owns the pipe that Python's own handler writes to (`signal.set_wakeup_fd`) and, where each one is to be passed on, the
kernel's queue instead (signalfd(2)): of signals that wait together the handlers run in the wrong order, the last first.
Must never wait, and never say what a signal means.
"""

from __future__ import annotations

import os
import sys

from launcher.lean_posix import signal

_RECORD = 128  # bytes: struct signalfd_siginfo, which begins with the number, 4 bytes
_LOW_BYTE = 0 if sys.byteorder == "little" else 3
_MOST = 64  # at a time: the others must not wait for a storm


class Arrivals:
    """Signals that are to be heard; none is before `let_in`."""

    __slots__ = ("_in_order", "_numbers", "fd")

    def __init__(self, numbers: tuple[int, ...], *, in_order: bool) -> None:
        # The handlers must be there before the mask is lifted: signals wait since the exec.
        for number in numbers:
            signal.signal(number, _note)
        self._numbers = numbers
        self.fd = _queue(numbers) if in_order else -1
        self._in_order = self.fd >= 0
        if not self._in_order:
            self.fd, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)

    def let_in(self) -> None:
        """Have them heard from now on, those too that wait."""
        # What is blocked stays in the kernel's queue until it is read.
        signal.pthread_sigmask(signal.SIG_SETMASK, self._numbers if self._in_order else ())

    def take(self) -> bytes:
        """Return the numbers of those that came, as far as there is room for them in one turn."""
        try:
            data = os.read(self.fd, _MOST * _RECORD)
        except BlockingIOError:
            return b""
        return data[_LOW_BYTE::_RECORD] if self._in_order else data


def _queue(numbers: tuple[int, ...]) -> int:
    """Return a descriptor of the kernel's queue, or -1 where there is none to be had (a sandbox)."""
    from launcher.prctl import signalfd  # noqa: PLC0415  only commands pay for it

    mask = sum(1 << number - 1 for number in numbers)
    return signalfd(mask.to_bytes(128, "little"), os.O_NONBLOCK | os.O_CLOEXEC)  # SFD_… are the same


def _note(number: int, frame: object) -> None:
    """Do nothing: the number is in the pipe already."""
