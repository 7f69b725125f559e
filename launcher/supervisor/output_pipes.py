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


def size_for(workers: int) -> int:
    """Return how large each of so many workers' two pipes may be, in bytes."""
    size = _LARGEST_PIPE
    while size > _SMALLEST_PIPE and size * 2 * workers > _ALL_PIPES:
        size //= 2
    return size


def enlarge(fd: int, size: int) -> None:
    """Let a pipe hold more than its 64 KiB, as far as the user's share allows (pipe(7): pipe-user-pages-soft)."""
    if size > _SMALLEST_PIPE:
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
        except OSError:
            pass


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
