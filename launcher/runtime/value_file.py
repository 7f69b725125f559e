"""
prometheus_client's file of values, made so that want of room costs a metric and not the process.

Owns what is laid over its `MmapedDict`.  That one makes sparse files and maps them: a write where the file system has
no page left is SIGBUS, and the worker is dead (mmap(2)).  Here the pages are there before they are written.
Must never raise for want of room, nor change the format: launcher.observer.value_files reads it.
"""

from __future__ import annotations

import mmap
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

    class _Plain:
        """What is taken for granted of prometheus_client; tests/processes/test_metrics_room.py holds it."""

        _f: BinaryIO | None
        _m: mmap.mmap | None
        _capacity: int
        _used: int
        _positions: dict[str, int]

        def __init__(self, filename: str, read_mode: bool = False) -> None: ...  # noqa: FBT001, FBT002

        def read_value(self, key: str) -> tuple[float, float]: ...

        def write_value(self, key: str, value: float, timestamp: float) -> None: ...

        def close(self) -> None: ...

else:
    _Plain = object

_FIRST = 4096  # bytes of a new file; it doubles
_ENTRY = 4 + 8 + 16  # bytes that an entry has besides its key, at most
RETRY = 1.0  # seconds until room is looked for again
_NEEDED = ("read_value", "write_value", "close", "_init_value")


def safe(plain: type[Any]) -> type[Any]:
    """Return a class like prometheus_client's `MmapedDict` that takes only what there is room for."""
    if not all(hasattr(plain, name) for name in _NEEDED):
        return plain  # another release, which keeps its values in another way
    return type(plain.__name__, (_Roomy, plain), {})


class _Roomy(_Plain):
    """One file of values; what has no room is kept by its owner, and comes in as soon as there is some."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:  # noqa: FBT001, FBT002  as it stands there
        self._filename = filename
        self._retry_at = 0.0
        self._is_open = read_mode
        self._f = self._m = None
        self._positions = {}
        if read_mode:
            super().__init__(filename, read_mode)

    def read_value(self, key: str) -> tuple[float, float]:
        """Return what stands in the file, zeros if there is no room for it."""
        return super().read_value(key) if self._has(key) else (0.0, 0.0)

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Write it, if there is room."""
        if key in self._positions or self._has(key):  # it is called with each request
            super().write_value(key, value, timestamp)

    def close(self) -> None:
        """Close it, if it was ever opened."""
        if self._f is not None:
            super().close()

    def _has(self, key: str) -> bool:
        """Say whether there is room for a value; make some."""
        return key in self._positions or (time.monotonic() >= self._retry_at and self._makes_room(key))

    def _makes_room(self, key: str) -> bool:
        try:
            if not self._is_open:
                self._open()
            while self._f and self._used + len(key.encode()) + _ENTRY > self._capacity:
                os.posix_fallocate(self._f.fileno(), self._capacity, self._capacity)  # enlarges it too
                size = os.fstat(self._f.fileno()).st_size
                self._m = mmap.mmap(self._f.fileno(), size)  # may want memory too
                self._capacity = size
        except OSError as error:
            self._retry_at = time.monotonic() + RETRY
            _complain(self._filename, error)
            return False
        return True

    def _open(self) -> None:
        fd = os.open(self._filename, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if os.fstat(fd).st_size < _FIRST:
                os.posix_fallocate(fd, 0, _FIRST)
        finally:
            os.close(fd)
        try:
            super().__init__(self._filename)
        except OSError:
            self._f = self._m = None
            raise
        self._is_open = True


class _Said:
    """Who said that there is no room: each process does it once."""

    pid = 0


def _complain(path: str, error: OSError) -> None:
    if _Said.pid == os.getpid():
        return
    _Said.pid = os.getpid()
    why = f"{path}: {error.strerror}"
    print(f"prod-run: {why}: new series of the app's metrics are not counted until there is room", file=sys.stderr)
