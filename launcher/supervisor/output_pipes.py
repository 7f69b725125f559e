"""
The pipes that workers write to, as the supervisor treats them.

Owns their size, and the making of room in one that nobody reads.  Must never wait.
"""

from __future__ import annotations

import fcntl
import os
import sys

_PIECE = 64 * 1024
_ALL_PIPES = 16 * 1024 * 1024
_LARGEST_PIPE = 1024 * 1024
_SMALLEST_PIPE = 64 * 1024
_NEAR = 4 * 1024  # bytes
_FIONREAD = 0x541B  # ioctl_tty(2)


def share_out(new: tuple[int, int], living: list[int], workers: int) -> None:
    """
    Give the two pipes of a new process their share, and take from the others what is too much by now.

    `living` are all other pipes, `workers` what the start was told.  A reload has room from the beginning: two
    generations of them, each with a zygote, and a spare.
    """
    planned = 2 * workers + 3
    found = len(living) // 2 + 1
    size = _size_for(max(planned, found))
    for fd in new:
        _resize(fd, size)
    if found > planned:  # scaled up, or several generations drain
        for fd in living:
            if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) > size:
                _resize(fd, size)


def _size_for(processes: int) -> int:
    """Return how large each of so many processes' two pipes may be, in bytes."""
    size = _LARGEST_PIPE
    while size > _SMALLEST_PIPE and size * 2 * processes > _ALL_PIPES:
        size //= 2
    return size


def _resize(fd: int, size: int) -> None:
    """Let a pipe hold so much, as far as the user's share allows (pipe(7): pipe-user-pages-soft) and what it holds."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
    except OSError:
        pass  # fcntl(2): EPERM is the share's, EBUSY that it holds more


def make_room(fd: int) -> int:
    """
    Read a pipe that is more than half full until it is not; return how many lines that were.

    The last line is read to its end if that is near: its rest would come out as a line of its own.
    """
    lines = 0
    piece = b"\n"
    half = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) // 2
    try:
        while int.from_bytes(fcntl.ioctl(fd, _FIONREAD, bytes(4)), sys.byteorder) > half:
            piece = os.read(fd, _PIECE)
            lines += piece.count(b"\n")
        left = _NEAR
        while left and piece and piece[-1] != ord("\n"):
            piece = os.read(fd, 1)  # a pipe cannot be looked into, and what is read cannot be put back
            lines += piece == b"\n"
            left -= 1
    except BlockingIOError:
        pass
    return lines
