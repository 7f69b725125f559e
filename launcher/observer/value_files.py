"""
The files in which prometheus_client's processes keep their values.

Owns their format: an int32 that says how many bytes are used, padding, then entries: an int32 with the length of the
key, the key, blanks up to a multiple of 8, a double with the value, a double with its time.  Entries are only added,
and counted as used when they are complete, so what is used can be read while it is written.
Must never map a file: one that is cut off meanwhile would end this process (mmap(2), SIGBUS).
"""

from __future__ import annotations

import os
import struct
import sys
from operator import itemgetter

from launcher.lean import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIRST = 8  # where the first entry begins
LARGEST = 64 * 1024 * 1024  # bytes, some 500,000 series of one process: more is taken for garbage
_GROWTH = 4096  # bytes that are read at once beyond what was used the last time
_AT_ONCE = 100  # new keys in one slice

_pair = struct.Struct("dd")


class BadFileError(ValueError):
    """A file is torn or garbage."""


class Entry(NamedTuple):
    """One value in a file."""

    key: bytes
    place: int  # of the value, in doubles from the beginning of the file; its time is the next
    end: int  # bytes


class Layout:
    """What stands where in one file, as far as it has been looked at."""

    __slots__ = ("gather", "inode", "last", "places", "series", "used")

    def __init__(self, inode: int) -> None:
        self.inode = inode
        self.used = FIRST
        self.last: Entry | None = None
        self.places: list[int] = []
        self.series: list[int] = []  # what the caller calls each of them
        self.gather: Callable[[memoryview[float]], tuple[float, ...]] | None = None

    def fits(self, inode: int, data: bytes) -> bool:
        """Say whether this is still the file that was looked at; inodes are used again."""
        if inode != self.inode or len(data) < self.used:
            return False
        last = self.last
        return last is None or data.startswith(last.key, last.end - 16 - _padded(last.key))

    def learn(self, data: bytes, name: Callable[[bytes], int]) -> Iterator[None]:
        """
        Look at what is new, in slices; `name` says what the caller calls a key.

        Raises:
            BadFileError: this is no such file.
        """
        while self.used < len(data):
            for _ in range(_AT_ONCE):
                entry = _entry(data, self.used)
                self.series.append(name(entry.key))
                self.places.append(entry.place)
                self.last, self.used, self.gather = entry, entry.end, None
                if self.used == len(data):
                    break
            yield

    def values(self, data: bytes) -> tuple[float, ...]:
        """Return the value of each series of a file that was looked at; one more than there are series."""
        if self.gather is None:
            # With one place alone it would return no tuple.
            self.gather = itemgetter(*self.places, 0, 0)
        return self.gather(memoryview(data).cast("d"))

    def times(self, data: bytes) -> tuple[float, ...]:
        """Return the time of each value, in seconds; 0 if none was given."""
        doubles = memoryview(data).cast("d")
        return tuple(doubles[place + 1] for place in self.places)


def read(path: str, used: int) -> bytes:
    """
    Read what is used of a file; `used` is how much that was the last time.

    A file without a value, which its process is making or was killed while it did, is read as one without entries:
    empty, or nothing but zeros.

    Raises:
        OSError: it cannot be read.
        BadFileError: it is torn, or garbage.
    """
    # A name may stand for anything by now: a pipe would have us wait.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        data = os.pread(fd, used + _GROWTH, 0)
        used = int.from_bytes(data[:4], sys.byteorder, signed=True)
        if used == 0 and not any(data):
            return bytes(FIRST)  # the first byte that its process writes is that of the number
        if not FIRST <= used <= LARGEST or used % 8:
            message = "the number of used bytes is impossible"
            raise BadFileError(message)
        if used > len(data):
            data += os.pread(fd, used - len(data), len(data))
    finally:
        os.close(fd)
    if used > len(data):
        message = "it ends too early"
        raise BadFileError(message)
    return data[:used]


def entries(data: bytes) -> Iterator[tuple[bytes, float, float]]:
    """Go through all entries: key, value, time."""
    used = FIRST
    while used < len(data):
        entry = _entry(data, used)
        used = entry.end
        yield (entry.key, *_pair.unpack_from(data, entry.end - 16))


def encode(content: dict[bytes, tuple[float, float]]) -> bytes:
    """Make the content of a file of keys with their values and times."""
    body = b"".join(
        len(key).to_bytes(4, sys.byteorder) + key.ljust(_padded(key)) + _pair.pack(*pair)
        for key, pair in content.items()
    )
    return (FIRST + len(body)).to_bytes(4, sys.byteorder) + bytes(4) + body


def _entry(data: bytes, start: int) -> Entry:
    length = int.from_bytes(data[start : start + 4], sys.byteorder, signed=True)
    key = data[start + 4 : start + 4 + length]
    end = start + 4 + _padded(key) + 16
    if length <= 0 or len(key) != length or end > len(data):
        message = f"the entry at byte {start} is torn"
        raise BadFileError(message)
    return Entry(key, (end - 16) // 8, end)


def _padded(key: bytes) -> int:
    return len(key) + 8 - (len(key) + 4) % 8
