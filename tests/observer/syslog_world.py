"""A loop, a clock and receivers for tests of the syslog sink: real sockets, and no time that passes."""

from __future__ import annotations

import re
import select
import socket
from typing import TYPE_CHECKING

from launcher.logs.batch import Batch, Source
from launcher.logs.syslog_address import parse
from launcher.observer.syslog import Syslog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OURS = Source("prod-run", 0, 1)
SHOP = Source("shop", 7, 123, 3)
NOTICE = re.compile(rb"dropped messages=(\d+)$")
LIMIT = 5000  # ms; an outer limit, never reached by a sink that works


class World:
    """One sink, the epoll that it asks to watch for it, and a clock that stands."""

    def __init__(self, url: str, *, limit: int = 8 << 20) -> None:
        """Make the sink; nothing is opened yet."""
        self.now = 1000.0
        self.complaints: list[str] = []
        self.watched: dict[int, int] = {}
        self.receivers: list[socket.socket] = []  # closed with the world
        self._epoll = select.epoll()
        self.sink = Syslog(
            parse(url),
            host="here.example",
            notice=lambda missing: Batch(OURS, 4, b"dropped messages=%d\n" % missing, 0),
            watch=self._watch,
            complain=self.complaints.append,
            limit=limit,
            clock=lambda: self.now,
            wall=lambda: 1_769_846_709.25,
        )

    def _watch(self, fd: int, events: int) -> None:
        # Strict: a descriptor that was closed too early, or told twice, is an error of epoll_ctl(2).
        if not events:
            self._epoll.unregister(fd)
            del self.watched[fd]
            return
        (self._epoll.modify if fd in self.watched else self._epoll.register)(fd, events)
        self.watched[fd] = events

    def write(self, *texts: bytes, taken: int | None = None, source: Source = SHOP) -> None:
        """Write a batch of these lines."""
        self.sink.write(
            Batch(source, 6, b"".join(text + b"\n" for text in texts), len(texts) if taken is None else taken)
        )

    def turn(self, wait: int = 0) -> bool:
        """Go round the loop once; say whether anything was ready."""
        ready = self._epoll.poll(wait / 1000)
        for fd, mask in ready:
            self.sink.on_ready(fd, mask)
        return bool(ready)

    def turn_until(self, fact: Callable[[], object]) -> None:
        """Go round until it is so."""
        while not fact():
            assert self.turn(LIMIT), "nothing happens any more"

    def tick_at_deadline(self) -> float:
        """Let the time pass until something is due, and do it; return how long that was, in seconds."""
        deadline = self.sink.deadline()
        assert deadline is not None
        waited, self.now = deadline - self.now, deadline
        self.sink.tick()
        return waited

    def close(self) -> None:
        """Close the sink; it must have let go of everything."""
        self.sink.close()
        assert self.watched == {}
        self._epoll.close()
        for receiver in self.receivers:
            receiver.close()


def datagrams(receiver: socket.socket) -> list[bytes]:
    """Return what waits in a socket."""
    receiver.setblocking(False)
    found = []
    while True:
        try:
            found.append(receiver.recv(1 << 18))
        except BlockingIOError:
            return found


def unix_receiver(path: Path) -> socket.socket:
    """Listen like a syslogd on its socket."""
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(path))
    return receiver


def loopback(kind: int, host: str = "127.0.0.1") -> tuple[socket.socket, int]:
    """Listen on a free port."""
    receiver = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    receiver.bind((host, 0))
    if kind == socket.SOCK_STREAM:
        receiver.listen()
    receiver.settimeout(LIMIT / 1000)
    return receiver, receiver.getsockname()[1]


class Frames:
    """The reading side of RFC 6587: strict, so that a torn message is an error."""

    def __init__(self, connection: socket.socket) -> None:
        """Read from a connection."""
        self.connection = connection
        self.rest = b""
        connection.setblocking(False)

    def read(self) -> list[bytes]:
        """Return the whole messages that are there now."""
        while True:
            try:
                piece = self.connection.recv(1 << 20)
            except BlockingIOError:
                break
            if not piece:
                break
            self.rest += piece
        found = []
        while match := re.match(rb"([1-9]\d*) (?=<)", self.rest):
            end = match.end() + int(match[1])
            if len(self.rest) < end:
                break
            found.append(self.rest[match.end() : end])
            self.rest = self.rest[end:]
        assert not self.rest or re.match(rb"[1-9]\d*( <|$| $)", self.rest), self.rest[:100]
        return found


def text_of(message: bytes) -> bytes:
    """Return what follows the header, in either form."""
    return re.sub(
        rb"^<\d+>(1 \S+ \S+ \S+ \S+ - (-|\[[^]]*\]) |\w{3} [ \d]\d [\d:]{8} [^:]*: )(\xef\xbb\xbf)?", b"", message
    )


def announced(messages: list[bytes]) -> int:
    """Return how many messages the notices among these say are missing."""
    return sum(int(match[1]) for match in map(NOTICE.search, messages) if match)
