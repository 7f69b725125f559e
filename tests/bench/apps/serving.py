"""
A small web server of the standard library: one thread, one epoll, kept-alive connections.

Owns the serving for prod-run and for the process managers, which bring no server of their own.
Must never wake up for nothing: an idle server makes no system calls.
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

LINGER = 5.0  # seconds that an idle kept-alive connection may still send its next request while we stop


class Connections:
    """The open connections and what each has sent so far."""

    def __init__(self, epoll: select.epoll, answer: Callable[[str], bytes]) -> None:
        self.is_stopping = False
        self.open: dict[int, socket.socket] = {}
        self._received: dict[int, bytes] = {}
        self._epoll = epoll
        self._answer = answer

    def accept(self, listener: socket.socket) -> bool:
        """Take one connection; say whether there was one."""
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return False  # another worker was quicker
        connection.setblocking(False)
        self.open[connection.fileno()] = connection
        self._received[connection.fileno()] = b""
        self._epoll.register(connection, select.EPOLLIN)
        self.read(connection.fileno())
        return True

    def read(self, fd: int) -> None:
        """Read what has come, answer what is whole."""
        try:
            piece = self.open[fd].recv(65536)
            self._received[fd] += piece
            if not piece:
                self.close(fd)
            elif b"\r\n\r\n" in self._received[fd]:
                self._reply(fd)
        except BlockingIOError:
            pass
        except ConnectionError:
            self.close(fd)

    def _reply(self, fd: int) -> None:
        head, _, self._received[fd] = self._received[fd].partition(b"\r\n\r\n")
        body = self._answer(head.split(b" ", 2)[1].decode())
        is_last = self.is_stopping or b"connection: close" in head.lower()
        kept = b"close" if is_last else b"keep-alive"
        self.open[fd].sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n%s" % (len(body), kept, body)
        )
        if is_last:
            self.close(fd)

    def close(self, fd: int) -> None:
        """End one connection, which also takes it out of the epoll."""
        del self._received[fd]
        self.open.pop(fd).close()


def serve(
    listener: socket.socket,
    stop_fd: int,
    answer: Callable[[str], bytes],
    *,
    is_last: Callable[[], bool] = lambda: True,
    stopped_accepting: Callable[[], None] = lambda: None,
) -> None:
    """Serve until `stop_fd` is readable; then finish what is open."""
    epoll = select.epoll()
    listener.setblocking(False)
    # Shared by all workers: without EXCLUSIVE each connection would wake every one of them.
    epoll.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
    epoll.register(stop_fd, select.EPOLLIN)
    connections = Connections(epoll, answer)
    while not connections.is_stopping:
        for fd, _ in epoll.poll():
            if fd == stop_fd:
                connections.is_stopping = True
            elif fd == listener.fileno():
                connections.accept(listener)
            else:
                connections.read(fd)
    epoll.unregister(stop_fd)
    epoll.unregister(listener)
    while is_last() and connections.accept(listener):
        pass
    listener.close()
    stopped_accepting()
    deadline = time.monotonic() + LINGER
    while connections.open and time.monotonic() < deadline:
        for fd, _ in epoll.poll(max(0.0, deadline - time.monotonic())):
            connections.read(fd)
