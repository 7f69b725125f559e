"""
A server that writes lines for each request, and what became of every one of them.

Owns the app, the reading of the observer's counters from outside, and what holds for any sink.  The app counts for
itself: what it wrote is known even if nothing of it arrives.
"""

from __future__ import annotations

import os
import re
import struct
from typing import TYPE_CHECKING, NamedTuple

from tests.processes.conftest import HELLO
from tests.processes.load import Load, Request
from tests.processes.running import Running, descendants, descriptors, title, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

LONGEST_WAIT = 5.0  # seconds: this machine stalls by itself; a request that waits for a log waits for ever

SAY = """
import threading
_lock = threading.Lock()
_number = 0
def say():
    global _number
    with _lock:
        text = "".join(f"<{{os.getpid()}} {{_number + n}} {{'x' * {length}}}>\\\\n" for n in range({lines}))
        count = os.open(f"count.{{os.getpid()}}", os.O_WRONLY | os.O_CREAT)
        while text:
            text = text[os.write(1, text.encode()):]
        _number += {lines}
        os.pwrite(count, b"%d\\\\n" % _number, 0)
        os.close(count)
"""
LINE = re.compile(r"<(\d+) (\d+) (x*)>")
DROPPED = re.compile(r'"?dropped output"?,?.*?"?lines"?[=:]"?(\d+)')
LOST = re.compile(r'"?lost output"?,?.*?"?lines"?[=:]"?(\d+)')
DISCARDED = re.compile(r'"?discarded output"?,?.*?"?lines"?[=:]"?(\d+)')


class Counted(NamedTuple):
    """The page of launcher.logs.counters."""

    taken: int
    passed: int
    dropped: int
    lost: int
    heard: int

    @property
    def held(self) -> int:
        """Return what an observer has in its hands."""
        return self.taken - self.passed - self.dropped - self.lost


class Loud:
    """A running prod-run whose app writes `lines` lines of `length` letters for each request."""

    def __init__(self, running: Running, folder: Path, address: tuple[str, int]) -> None:
        self.running = running
        self.address = address
        self._folder = folder
        until(lambda: len(running.workers()) == 2, "two workers")
        fds = descriptors(running.pid)
        number = next(fd for fd, link in fds.items() if "memfd:log-counters" in link)
        self._page = os.open(f"/proc/{running.pid}/fd/{number}", os.O_RDONLY)  # outlives the process

    def counted(self) -> Counted:
        """Return what became of the lines, as the observers say."""
        return Counted(*struct.unpack("5q", os.pread(self._page, 40, 0)))

    def written(self) -> int:
        """Return how many lines the app wrote, as its processes say."""
        return sum(int(path.read_text() or 0) for path in self._folder.glob("count.*"))

    def load(self) -> Load:
        """Begin to make requests."""
        return Load(self.address)

    def observer(self) -> int:
        """Wait for the observer and return its PID."""
        until(lambda: observers(self.running), "an observer")
        return observers(self.running)[0]

    def close(self) -> None:
        """Let go of the page."""
        os.close(self._page)


def observers(running: Running) -> list[int]:
    """Return the PIDs of the living observers."""
    return [pid for pid in descendants(running.pid) if "observer" in title(pid)]


def write_app(app: Callable[..., Path], *, lines: int = 40, length: int = 480) -> None:
    """Write the server of the examples, with some lines more."""
    source = HELLO.read_text()
    answer = "        connection.sendall(answer.encode())"
    assert source.count(answer) == 1
    source = source.replace(answer, f"        say()\n{answer}")
    app(source + SAY.format(lines=lines, length=length).replace("\\\\n", "\\n"), "loud")


def said(texts: Iterable[str], pattern: re.Pattern[str]) -> int:
    """Add up the lines that were announced as missing."""
    return sum(int(found[1]) for text in texts if (found := pattern.search(text)))


def faults(load: Load) -> list[object]:
    """
    Return the requests that somebody would complain about.

    A stop refuses who comes after it, and it begins before the clients have heard that they are to open no more.
    """
    assert load.requests
    last = max(request.opened for request in load.requests if not request.fault)  # of the connections that were taken
    return [request for request in load.requests if _is_bad(request, last)]


def _is_bad(request: Request, last: float) -> bool:
    came_late = request.fault == "ECONNREFUSED" and request.opened > last
    return bool(request.fault and not came_late) or request.wait > LONGEST_WAIT
