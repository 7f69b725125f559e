"""
Clients that never retry, in a process of their own.

`Load` is the test's side: it starts the clients and collects one `Request` for each thing they asked.  The
clients' side, `python -m tests.processes.load HOST PORT`, is one epoll loop at a paced rate, so that what is
measured is the server's wait and not that of a thread for its turn.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENTS = 8  # every second one keeps its connection alive
PAUSE = 0.02  # seconds between an answer and the client's next request
TOO_LONG = 1.0  # seconds; a longer wait is a failure
GIVES_UP = 30.0  # seconds after which a client stops waiting, to be able to say how long a wait was
LIMIT = 60.0  # seconds that a test waits for the clients


class Request(NamedTuple):
    """One request and what became of it; times are monotonic seconds, the same in all processes."""

    client: int
    kept: bool  # by a client that keeps its connection alive
    port: int  # the client's end of the connection
    opened: float  # when the connection was begun
    asked: float  # when the request was sent, or its connection begun for it
    answered: float
    fault: str  # empty: there was an answer
    version: str = ""
    generation: int = 0
    slot: int = -1
    pid: int = 0

    @property
    def wait(self) -> float:
        """Return how long the client waited, in seconds."""
        return self.answered - self.asked

    @property
    def failed(self) -> bool:
        """Say whether the client has a reason to complain."""
        return bool(self.fault) or self.wait > TOO_LONG


class Load:
    """The clients, as a test sees them."""

    def __init__(self, address: tuple[str, int], clients: int = CLIENTS) -> None:
        self.clients = clients
        self.requests: list[Request] = []
        self._is_over = False  # no answer can come any more
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.processes.load", address[0], str(address[1]), str(clients)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.settle()

    def mark(self) -> int:
        """Return an index into `requests`: what is answered from here on."""
        return len(self.requests)

    def settle(self, rounds: int = 2) -> None:
        """Wait until every client has been answered so many times more; fewer than two may have begun before."""
        self.wait_for(
            lambda since: all(sum(r.client == c for r in since) >= rounds for c in range(self.clients)),
            f"{rounds} more answers for each of {self.clients} clients",
        )

    def wait_for(self, fact: Callable[[list[Request]], bool], what: str) -> None:
        """Wait until the requests that are answered from now on make `fact` true."""
        begin = self.mark()
        with self._news:
            is_true = self._news.wait_for(lambda: fact(self.requests[begin:]) or self._is_over, LIMIT)
        if not is_true or not fact(self.requests[begin:]):
            message = f"not seen by the clients: {what}; the last: {self.requests[-self.clients :]}"
            raise AssertionError(message)

    def finish(self) -> None:
        """Open no new connection, go on with each kept one until the server closes it, then end."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(LIMIT)
        self._reader.join(LIMIT)

    def close(self) -> None:
        """End the clients, whatever they are doing."""
        self._process.kill()
        self._process.wait(LIMIT)
        self._reader.join(LIMIT)
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]

    def _read(self) -> None:
        try:
            for line in self._process.stdout or ():
                with self._news:
                    self.requests.append(Request(*json.loads(line)))
                    self._news.notify_all()
        finally:
            with self._news:
                self._is_over = True
                self._news.notify_all()


# ── the clients' side ───────────────────────────────────────────────────────────────────────────────


class Client:
    """One client: asks, waits, rests, and asks again."""

    def __init__(self, number: int, address: tuple[str, int], epoll: select.epoll) -> None:
        self.number = number
        self.is_keeping = number % 2 == 0
        self.due = time.monotonic() + PAUSE * number / CLIENTS
        self.sock: socket.socket | None = None
        self.is_waiting = False
        self._address = address
        self._epoll = epoll
        self._port = 0
        self._opened = self._asked = 0.0
        self._answer = b""

    def ask(self) -> Request | None:
        """Send a request; return it if it failed at once."""
        self._asked = time.monotonic()
        self._answer = b""
        self.is_waiting = True
        connection = "keep-alive" if self.is_keeping else "close"
        try:
            if self.sock is None:
                self._open()
            self.sock.sendall(f"GET / HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n".encode())  # type: ignore[union-attr]
        except OSError as error:
            return self._end(errno.errorcode.get(error.errno or 0, str(error)))
        return None

    def on_readable(self) -> Request | None:
        """Read; return the request if its answer is whole, or will never be."""
        if self.sock is None:
            return None
        try:
            piece = self.sock.recv(65536)
        except BlockingIOError:
            return None
        except OSError as error:
            return self._end(errno.errorcode.get(error.errno or 0, str(error)))
        if not piece:
            if not self.is_waiting:
                self._close()  # a kept connection that the server did not want to keep any longer
                return None
            return self._end("closed without an answer")
        self._answer += piece
        head, separator, body = self._answer.partition(b"\r\n\r\n")
        if separator and body.endswith(b"\n"):
            return self._end("", head.lower(), body.decode())
        return None

    def give_up(self) -> Request | None:
        """Return the request if it has waited for too long altogether."""
        is_lost = self.is_waiting and time.monotonic() - self._asked > GIVES_UP
        return self._end("no answer") if is_lost else None

    def _open(self) -> None:
        self._opened = self._asked
        self._port = 0
        self.sock = socket.socket()
        self.sock.settimeout(GIVES_UP)
        # On the loopback this ends at once, or never: the queue is longer than there are clients.
        self.sock.connect(self._address)
        self._port = self.sock.getsockname()[1]
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._epoll.register(self.sock, select.EPOLLIN)

    def _end(self, fault: str, head: bytes = b"", body: str = "") -> Request:
        now = time.monotonic()
        self.is_waiting = False
        self.due = now + PAUSE
        said = dict(zip(*[iter(body.split()[2:])] * 2, strict=False))
        request = Request(
            self.number,
            self.is_keeping,
            self._port,
            self._opened,
            self._asked,
            now,
            fault,
            said.get("version", ""),
            int(said.get("generation", 0)),
            int(said.get("slot", -1)),
            int(said.get("pid", 0)),
        )
        if fault or b"connection: close" in head:
            self._close()
        return request

    def _close(self) -> None:
        if self.sock is not None:
            self.sock.close()  # which also takes it out of the epoll
            self.sock = None


def main(host: str, port: int, number: int) -> None:
    """Ask until stdin is closed, then until no connection is left."""
    epoll = select.epoll()
    epoll.register(0, select.EPOLLIN)
    clients = [Client(n, (host, port), epoll) for n in range(number)]
    is_ending = False
    while not (is_ending and all(client.sock is None for client in clients)):
        asking = [c for c in clients if not c.is_waiting and not (is_ending and c.sock is None)]
        next_due = min((client.due for client in asking), default=time.monotonic() + 0.1)
        ready = dict(epoll.poll(max(0.0, next_due - time.monotonic())))
        if 0 in ready:
            is_ending = True
            epoll.unregister(0)
        found = [client.on_readable() for client in clients if client.sock and client.sock.fileno() in ready]
        now = time.monotonic()
        found += [c.ask() for c in clients if not c.is_waiting and c.due <= now and not (is_ending and c.sock is None)]
        found += [client.give_up() for client in clients]
        for request in found:
            if request:
                print(json.dumps(request), flush=True)


if __name__ == "__main__":
    # A test that died has closed the pipe: nobody wants to know any more.
    with contextlib.suppress(BrokenPipeError):
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    os._exit(0)
