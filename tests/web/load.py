"""
HTTP clients that never retry, in a process of their own.

`Load` is the test's side.  The clients' side, `python -m tests.web.load HOST PORT CA KIND…`, runs one client for each
KIND that is named: `fast`, `slow`, `post`, `big` on a kept connection, the same with `-close` on a fresh one for
every request, and `websocket`; CA is a file of whom to believe if they speak TLS, or `-`.  A client that has an answer without `Connection: close` may use its connection
again, and whatever happens to that request then is a failure: that is the promise under test.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

LIMIT = 120.0  # seconds that a test waits for the clients
GIVES_UP = 60.0  # seconds after which a request without an answer is one that failed
PAUSE = 0.005  # seconds between an answer and the client's next request
BODY = os.urandom(16 * 1024)
MEBIBYTES = 100  # in a big answer, for clients called `big`
WAS_RESTARTED, GOES_AWAY = 1012, 1001


class Failure(NamedTuple):
    """A request that failed; `at` is in monotonic seconds, the same in all processes."""

    kind: str
    at: float
    reason: str
    port: int  # the client's own; 0: it never had a connection


class Load:
    """The clients, as a test sees them."""

    def __init__(self, address: tuple[str, int], kinds: dict[str, int], ca: Path | str = "-") -> None:
        self.answers: collections.Counter[str] = collections.Counter()
        self.failures: list[Failure] = []
        self.worst: dict[str, float] = {}  # seconds that an answer took, by kind; whoever looks may clear it
        self._is_over = False  # no answer can come any more
        self._news = threading.Condition()
        words = [kind for kind, number in kinds.items() for _ in range(number)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.web.load", address[0], str(address[1]), str(ca), *words],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._kinds = set(kinds)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def settle(self, rounds: int = 2) -> None:
        """Wait until there are so many more answers of each kind."""
        wanted = {kind: self.answers[kind] + rounds for kind in self._kinds}
        with self._news:
            is_true = self._news.wait_for(
                lambda: all(self.answers[kind] >= n for kind, n in wanted.items()) or self._is_over,
                LIMIT,
            )
        assert is_true, f"the clients wait: {self.answers}, wanted {wanted}, {self.failures}"
        assert not self._is_over, "the clients ended"

    def finish(self) -> list[Failure]:
        """Let every client finish the request that it has begun, and return all failures."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(LIMIT)
        self._reader.join(LIMIT)
        self._process.stdout.close()  # type: ignore[union-attr]
        return self.failures

    def close(self) -> None:
        """End the clients, whatever they are doing."""
        self._process.kill()
        self._process.wait(LIMIT)
        self._reader.join(LIMIT)  # who alone reads what they say
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]

    def _read(self) -> None:
        try:
            for line in self._process.stdout or ():
                kind, at, took, reason, port = json.loads(line)
                with self._news:
                    self.answers[kind] += not reason
                    self.worst[kind] = max(took, self.worst.get(kind, 0.0))
                    if reason:
                        self.failures.append(Failure(kind, at, reason, port))
                    self._news.notify_all()
        finally:
            with self._news:
                self._is_over = True
                self._news.notify_all()


# ── the clients' side ───────────────────────────────────────────────────────────────────────────────


class FailedError(Exception):
    """A request did not get the answer that it should have."""


class Connection:
    """One connection of one client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.port: int = writer.get_extra_info("sockname")[1]
        self.is_kept = True

    async def ask(self, kind: str) -> None:
        """Make one request and look at its answer."""
        what, _, close = kind.partition("-")
        body = BODY if what == "post" else b""
        method, path = {
            "fast": ("GET", "/"),
            "slow": ("GET", "/slow"),
            "post": ("POST", "/length"),
            "big": ("GET", f"/big/{MEBIBYTES}"),
        }[what]
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        self.writer.write(f"{head}{'Connection: close' if close else 'X-Y: z'}\r\n\r\n".encode() + body)
        status, headers = await self.head()
        if status != "200":
            message = f"status {status}"
            raise FailedError(message)
        length = 0
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline() or b"x", 16):
                length += len((await self.reader.readexactly(size + 2))[:-2])
            await self.reader.readexactly(2)
        elif "content-length" in headers:
            answer = await self.reader.readexactly(int(headers["content-length"]))
            length = len(answer)
            if what == "post" and int(answer) != len(BODY):
                message = f"{answer!r} bytes arrived"
                raise FailedError(message)
        else:
            while piece := await self.reader.read(65536):
                length += len(piece)
            self.is_kept = False
        if what == "big" and length != MEBIBYTES * 1024 * 1024:
            message = f"{length} bytes came"
            raise FailedError(message)
        self.is_kept = self.is_kept and "close" not in headers.get("connection", "") and not close

    async def head(self) -> tuple[str, dict[str, str]]:
        """Read the head of an answer."""
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        first, *lines = text.strip().split("\r\n")
        return first.split()[1], dict(line.split(": ", 1) for line in lines if ": " in line)

    async def echo(self, limit: asyncio.Timeout) -> None:
        """Send something over a websocket (RFC 6455) and have it sent back, until the server closes it; `limit` is for each."""
        key = base64.b64encode(os.urandom(16)).decode()
        upgrade = f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13"
        self.writer.write(f"GET /echo HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n\r\n".encode())
        status, _ = await self.head()
        if status != "101":
            message = f"status {status}"
            raise FailedError(message)
        while not ENDING.is_set():
            began = time.monotonic()
            limit.reschedule(asyncio.get_running_loop().time() + GIVES_UP)
            self.writer.write(b"\x81\x84\0\0\0\0ping")  # masked with zeros
            opcode, length = await self.reader.readexactly(2)
            payload = await self.reader.readexactly(length)
            if opcode == 0x89:  # a ping, whose answer is its payload
                self.writer.write(bytes((0x8A, 0x80 | length, 0, 0, 0, 0)) + payload)
                opcode, length = await self.reader.readexactly(2)
                payload = await self.reader.readexactly(length)
            if opcode == 0x88:
                code = int.from_bytes(payload[:2], "big")
                if code not in (WAS_RESTARTED, GOES_AWAY):
                    message = f"closed with {code}"
                    raise FailedError(message)
                self.writer.write(b"\x88\x82\0\0\0\0" + payload[:2])
                tell(f"websocket {code}", began)
                return
            if payload != b"ping":
                message = f"{payload!r} came back"
                raise FailedError(message)
            tell("websocket", began)
            await asyncio.sleep(0.02)


ENDING = asyncio.Event()


def tell(kind: str, began: float, reason: str = "", port: int = 0) -> None:
    """Print one answer."""
    now = time.monotonic()
    print(json.dumps([kind, now, now - began, reason, port]), flush=True)


async def client(address: tuple[str, int], tls: ssl.SSLContext | None, kind: str) -> None:
    """Ask until the end."""
    connection: Connection | None = None
    while not ENDING.is_set():
        began = time.monotonic()
        try:
            async with asyncio.timeout(GIVES_UP) as limit:
                if connection and connection.reader.at_eof():
                    connection.writer.close()  # closed while nothing was asked: nobody lost anything
                    connection = None
                if not connection:
                    connection = Connection(*await asyncio.open_connection(*address, limit=1 << 20, ssl=tls))
                if kind == "websocket":
                    await connection.echo(limit)
                    connection.is_kept = False
                else:
                    await connection.ask(kind)
                    tell(kind, began)
        except (OSError, EOFError, ValueError, FailedError, TimeoutError) as error:
            tell(kind, began, repr(error), connection.port if connection else 0)
            if connection:
                connection.is_kept = False
        if connection and not connection.is_kept:
            connection.writer.close()
            connection = None
        await asyncio.sleep(PAUSE)
    if connection:
        connection.writer.close()


async def main(host: str, port: int, ca: str, kinds: list[str]) -> None:
    """Run the clients until stdin is closed."""
    asyncio.get_running_loop().add_reader(0, ENDING.set)
    tls = None if ca == "-" else ssl.create_default_context(cafile=ca)
    await asyncio.gather(*(client((host, port), tls, kind) for kind in kinds))


if __name__ == "__main__":
    # A test that died has closed the pipe: nobody wants to know any more.
    with contextlib.suppress(BrokenPipeError):
        asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
    os._exit(0)
