"""
The connections of the introspection port.

Owns the listening sockets' accepts, every connection and its limits: of time, of number, of bytes.
Must never wait, never let one client harm another or the log, and never know what is answered.
"""

from __future__ import annotations

import select
import time

from launcher.lean_posix import socket
from launcher.observer import http
from launcher.observer.http import Reply, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 64  # connections; another one takes the place of the one that is idle for longest
AT_ONCE = 64  # accepts in one turn
REQUESTS = 16  # of one client in one turn
TURN = 0.02  # seconds of answering, then the log and the supervisor have theirs
RETRY = 1.0  # seconds until a listener is tried again whose accept(2) the system refused
IDLE = 10.0  # seconds between two requests
REQUEST = 5.0  # seconds from its first byte to its last
AWAIT = 5.0  # seconds for an answer that somebody else has to give
WRITE = 30.0  # seconds for a client to take a response
LINGER = 1.0  # seconds in which what is still sent is thrown away: a reset would take the response with it
_PIECE = 16 * 1024
_IN, _OUT, _GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR


class Connection:
    """One client."""

    __slots__ = ("awaits", "by_socket", "closes", "deadline", "is_head", "is_lingering", "received", "socket", "unsent")

    def __init__(self, sock: socket.socket, now: float, *, by_socket: bool) -> None:
        self.socket = sock
        self.by_socket = by_socket  # a unix socket
        self.received = b""
        self.unsent = memoryview(b"")
        self.deadline = now + IDLE
        self.awaits: object = None  # whom an answer is to come from
        self.is_head = False
        self.closes = False  # after the response
        self.is_lingering = False

    @property
    def is_idle(self) -> bool:
        """Say whether it has asked nothing."""
        return not (self.received or self.unsent or self.awaits) or self.is_lingering


class Port:
    """The server."""

    __slots__ = ("_answer", "_connections", "_ends_at", "_listeners", "_overdue", "_poll", "_retry_at")

    def __init__(self, answer: Callable[[Request, bool], object], overdue: Callable[[object], Reply]) -> None:
        """
        Serve nobody yet.

        `answer` gets a request, and whether it came by a unix socket; what is no Reply is something to wait for, and
        after five seconds `overdue` says what is answered instead.
        """
        self._answer = answer
        self._overdue = overdue
        self._connections: dict[int, Connection] = {}
        self._listeners: dict[int, tuple[socket.socket, bool]] = {}
        self._poll = select.epoll()
        self._retry_at: float | None = None
        self._ends_at = 0.0

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to do (epoll(7))."""
        return self._poll.fileno()

    def listen(self, fd: int, *, by_socket: bool) -> None:
        """Accept from a listening socket, which others may hold too."""
        self._listeners[fd] = socket.socket(fileno=fd), by_socket
        self._poll.register(fd, _IN)

    def serve(self) -> None:
        """Do what there is to do, for a moment: no asker keeps the log or the supervisor waiting."""
        self._ends_at = time.monotonic() + TURN
        # One at a time: what is still ready goes to the end of the kernel's list (epoll(7)), so everybody has a turn.
        while time.monotonic() < self._ends_at and (ready := self._poll.poll(0, 1)):
            self._serve_one(*ready[0])

    def _serve_one(self, fd: int, mask: int) -> None:
        if fd in self._listeners:
            self._accept(*self._listeners[fd])
            return
        connection = self._connections[fd]
        if mask & _OUT:
            self._go_on(connection)
        elif mask & _IN:
            self._receive(connection)
        elif mask & _GONE:
            self._drop(connection)

    def deadline(self) -> float | None:
        """Say when `expire` is due."""
        times = [connection.deadline for connection in self._connections.values()]
        return min((*times, *(() if self._retry_at is None else (self._retry_at,))), default=None)

    def expire(self, now: float) -> None:
        """End what took too long."""
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            for listener, _ in self._listeners.values():
                self._poll.modify(listener, _IN)
        for connection in [each for each in self._connections.values() if now >= each.deadline]:
            if connection.awaits is not None:
                self._reply(connection, self._overdue(connection.awaits))
                self._advance(connection)
            elif connection.received and not connection.unsent and not connection.is_lingering:
                connection.closes = True
                self._reply(connection, Reply(408, b"the request took too long\n"))
            else:
                self._drop(connection)

    def awaited(self) -> list[object]:
        """Return all that clients wait for."""
        return [each.awaits for each in self._connections.values() if each.awaits is not None]

    def deliver(self, awaited: object, reply: Reply) -> None:
        """Give their answer to all who wait for it."""
        for connection in [each for each in self._connections.values() if each.awaits == awaited]:
            self._reply(connection, reply)
            self._advance(connection)

    # ── one client ──────────────────────────────────────────────────────────────────────────────

    def _accept(self, listener: socket.socket, by_socket: bool) -> None:  # noqa: FBT001  as it stands in the table
        for _ in range(AT_ONCE):
            try:
                sock = socket.socket(fileno=listener._accept()[0])  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # it did not wait for us
            except OSError:  # no descriptors, no memory: it would be readable for ever
                self._poll.modify(listener, 0)
                self._retry_at = time.monotonic() + RETRY
                return
            if len(self._connections) >= MOST:
                self._make_room()
            connection = self._connections[sock.fileno()] = Connection(sock, time.monotonic(), by_socket=by_socket)
            self._poll.register(sock.fileno(), _IN)
            self._receive(connection)  # mostly it has said what it wants

    def _make_room(self) -> None:
        self._drop(min(self._connections.values(), key=lambda each: (not each.is_idle, each.deadline)))

    def _receive(self, connection: Connection) -> None:
        try:
            piece = connection.socket.recv(_PIECE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if connection.is_lingering:
            if not piece:
                self._drop(connection)
            return
        if not piece:
            self._drop(connection)
            return
        if not connection.received:
            connection.deadline = time.monotonic() + REQUEST
        connection.received += piece
        self._advance(connection)

    def _advance(self, connection: Connection) -> None:
        """Answer what is complete, as far as the client takes the answers."""
        for _ in range(REQUESTS):
            if connection.awaits is not None or connection.unsent or not connection.received:
                return
            if time.monotonic() >= self._ends_at:
                break
            if not self._answer_one(connection):
                return
        if connection.received and not connection.unsent and connection.awaits is None:
            self._poll.modify(connection.socket, _OUT)  # the others first: at once ready, and then the next ones

    def _answer_one(self, connection: Connection) -> bool:
        """Answer the next request; say whether there was one."""
        try:
            request, length = http.read(connection.received)
        except http.RefusedError as error:
            connection.closes = True
            self._reply(connection, error.reply)
            return False
        if request is None:
            return False
        connection.received = connection.received[length:]
        connection.is_head = request.method == "HEAD"
        connection.closes = not request.keeps_alive or request.has_body
        answer = self._answer(request, connection.by_socket)
        if isinstance(answer, Reply):
            self._reply(connection, answer)
        else:
            connection.awaits = answer
            connection.deadline = time.monotonic() + AWAIT
            self._poll.modify(connection.socket, 0)
        return True

    def _reply(self, connection: Connection, reply: Reply) -> None:
        connection.awaits = None
        data = http.write(reply, is_head=connection.is_head, closes=connection.closes)
        connection.unsent = memoryview(data)
        connection.deadline = time.monotonic() + WRITE
        self._send(connection)

    def _go_on(self, connection: Connection) -> None:
        """Go on where the client, or the others' turn, stopped us."""
        self._send(connection)
        if not connection.unsent:
            self._advance(connection)

    def _send(self, connection: Connection) -> None:
        try:
            flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
            count = connection.socket.send(connection.unsent, flags) if connection.unsent else 0
        except BlockingIOError:
            count = 0
        except OSError:
            self._drop(connection)
            return
        connection.unsent = connection.unsent[count:]
        if connection.unsent:
            self._poll.modify(connection.socket, _OUT)  # nothing more is read until it took this
        elif connection.closes:
            self._linger(connection)
        else:
            connection.is_head = False
            connection.deadline = time.monotonic() + (REQUEST if connection.received else IDLE)
            self._poll.modify(connection.socket, _IN)

    def _linger(self, connection: Connection) -> None:
        connection.is_lingering, connection.received = True, b""
        connection.deadline = time.monotonic() + LINGER
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._drop(connection)
            return
        self._poll.modify(connection.socket, _IN)

    def _drop(self, connection: Connection) -> None:
        if self._connections.pop(connection.socket.fileno(), None) is not None:
            self._poll.unregister(connection.socket)
            connection.socket.close()
            connection.received = b""
