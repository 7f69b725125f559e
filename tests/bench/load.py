"""
Clients under whose eyes a contender reloads, in a process of their own.

`Load` is the benchmark's side.  The clients' side, `python -m tests.bench.load PORT CLIENTS PAUSE PATH`, is one
epoll loop, so that what is measured is the server's wait.  Clients must never retry: what fails, counts.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, Self

CALM = 2.0  # seconds without an answer of old code until a reload counts as over
GIVES_UP = 10.0  # seconds that a client waits for an answer


class Request(NamedTuple):
    """One request; times are monotonic seconds, the same in all processes."""

    asked: float
    answered: float
    version: int
    fault: str


class Load:
    """The clients, as a measure sees them; use it in a `with`."""

    def __init__(self, port: int, *, clients: int = 8, pause: float = 0.02, path: str = "/") -> None:
        words = [str(port), str(clients), str(pause), path]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.load", *words],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_until_calm(self, limit: float) -> bool:
        """Wait until new code has answered and old code no more; say whether that came."""
        return bool(select.select((self._process.stdout,), (), (), limit)[0])

    def finish(self) -> list[Request]:
        """End the clients and return all they asked."""
        output = self._process.communicate()[0]
        return [Request(*values) for values in json.loads(output.splitlines()[-1])]


# ── the clients' side ───────────────────────────────────────────────────────────────────────────────


class Client:
    """One client: asks, waits, rests, and asks again."""

    def __init__(self, port: int, path: str, epoll: select.epoll, *, is_keeping: bool, due: float) -> None:
        self.due = due
        self.asked = 0.0  # 0: it rests
        self.sock: socket.socket | None = None
        self._address = ("127.0.0.1", port)
        self._is_keeping = is_keeping
        kept = "keep-alive" if is_keeping else "close"
        self._words = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: {kept}\r\n\r\n".encode()
        self._epoll = epoll
        self._received = b""

    def ask(self) -> str:
        """Send a request; return what went wrong at once."""
        self.asked = time.monotonic()
        self._received = b""
        try:
            if self.sock is None:
                self.sock = socket.create_connection(self._address, GIVES_UP)
                self.sock.setblocking(False)
                self._epoll.register(self.sock, select.EPOLLIN)
            self.sock.sendall(self._words)
        except OSError as error:
            return error.strerror or "timed out"
        return ""

    def read(self) -> tuple[int, str]:
        """Return the version that answered, 0 if none did yet, and what went wrong."""
        if self.sock is None:
            return 0, ""
        try:
            piece = self.sock.recv(65536)
        except BlockingIOError:
            return 0, ""
        except OSError as error:
            return 0, error.strerror or str(error)
        if not piece:
            self.close()
            return 0, "closed without an answer" if self.asked else ""
        self._received += piece
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if separator and body.endswith(b"\n"):
            if not self._is_keeping or b"connection: close" in head.lower():
                self.close()
            # Only an answer of the app has a version: a server's own page of regrets is a failure.
            return (int(body.split()[1]), "") if body.startswith(b"version") else (0, head[:40].decode())
        return 0, ""

    def close(self) -> None:
        """End the connection, which also takes it out of the epoll."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None


class Crowd:
    """All clients and what became of their requests."""

    def __init__(self, port: int, clients: int, pause: float, path: str) -> None:
        self.epoll = select.epoll()
        self.requests: list[Request] = []
        self.old_seen = time.monotonic()  # when old code answered last
        self.new_seen = 0.0
        self._pause = pause
        now = time.monotonic()
        self._clients = [
            Client(port, path, self.epoll, is_keeping=bool(pause and n % 2), due=now + pause * n / clients)
            for n in range(clients)
        ]

    def turn(self) -> bool:
        """Wait for something and deal with it; say whether stdin is closed."""
        due = min((client.due for client in self._clients if not client.asked), default=time.monotonic() + 0.1)
        ready = {fd for fd, _ in self.epoll.poll(max(0.0, due - time.monotonic()))}
        for client in self._clients:
            if client.sock and client.sock.fileno() in ready:
                self._note(client, *client.read())
        now = time.monotonic()
        for client in self._clients:
            if not client.asked and client.due <= now:
                self._note(client, 0, client.ask())
            elif client.asked and client.asked < now - GIVES_UP:
                self._note(client, 0, "no answer")
        return 0 in ready

    def _note(self, client: Client, version: int, fault: str) -> None:
        if not (version or fault):
            return
        now = time.monotonic()
        if fault:
            client.close()
        if client.asked:
            self.requests.append(Request(client.asked, now, version, fault))
        client.asked, client.due = 0.0, now + self._pause
        if version == 1:
            self.old_seen = now
        elif version > 1:
            self.new_seen = now


def main(port: int, clients: int, pause: float, path: str) -> None:
    """Ask until stdin is closed."""
    crowd = Crowd(port, clients, pause, path)
    crowd.epoll.register(0, select.EPOLLIN)
    is_calm = False
    while not crowd.turn():
        if not is_calm and crowd.new_seen and crowd.old_seen < time.monotonic() - CALM:
            is_calm = True
            print("calm", flush=True)
    print(json.dumps(crowd.requests))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
