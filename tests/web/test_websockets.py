"""Websockets: they go on while a worker drains, and are closed with a code before its limit."""

from __future__ import annotations

import contextlib
import io
import signal
import time
from typing import TYPE_CHECKING, BinaryIO

import pytest

from launcher.runtime.servers import draining

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.processes.running import Running
    from tests.web.serving import Client

PUSHING = """
import asyncio
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await receive()
    await send({"type": "websocket.accept"})
    try:
        while True:
            await send({"type": "websocket.send", "text": "tick"})
            await asyncio.sleep(0.02)
    finally:
        print("the app has ended", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [("reload", 1012), ("stop", 1001)])
def test_a_websocket_goes_on_until_the_drain_limit(
    end: str, code: int, start: Callable[..., Running], examples: Path, client: Callable[[Running], Client]
) -> None:
    """Shortly before it is closed: 1012 asks the client to come back, 1001 says that the server goes away (RFC 6455)."""
    running = start("--chdir", examples, "--bind", "127.0.0.1:0", "--drain-timeout", "4s", "fastapi_app:app")
    running.wait_for(event="committed")
    with opened(client(running), "/echo") as stream:
        began = time.monotonic()
        running.send(signal.SIGHUP if end == "reload" else signal.SIGTERM)
        while (seen := echoed(stream))[0] == 0x81:
            time.sleep(0.01)  # noqa: TID251  a client's own pause
        lasted = time.monotonic() - began

    assert seen == (0x88, code.to_bytes(2, "big")), running.text()
    assert lasted > draining.LINGER + 0.5, "the linger of kept connections is no limit for websockets"
    assert (running.stop() if end == "reload" else running.wait()) == 0
    assert "killed" not in running.text()
    assert running.text().count("closed") == (2 if end == "reload" else 1), "the lifespan ended as well"


def test_an_app_that_only_sends_to_websockets_ends_too(
    start: Callable[..., Running], app: Callable[..., Path], client: Callable[[Running], Client]
) -> None:
    """It reads nothing, so nobody could tell it that its websocket was closed but `send`."""
    app(PUSHING)
    running = start("--bind", "127.0.0.1:0", "--drain-timeout", "1s", "app:asgi")
    running.wait_for(event="committed")
    with opened(client(running), "/") as stream:
        assert frame(stream) == (0x81, b"tick")
        running.send(signal.SIGTERM)
        while (seen := frame(stream)) == (0x81, b"tick"):
            pass

    assert seen == (0x88, (1001).to_bytes(2, "big")), running.text()
    assert running.wait() == 0
    running.wait_for("the app has ended")
    assert "Traceback" not in running.text()


PATIENT = """
import asyncio, os, socket
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message["text"] == "more":
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.sendto(b"EXTEND_TIMEOUT_USEC=600000000", "\\0" + os.environ["NOTIFY_SOCKET"][1:])
        await send({"type": "websocket.send", "text": message["text"]})
"""


@pytest.mark.slow
def test_an_app_that_asks_for_more_time_keeps_its_websockets(
    start: Callable[..., Running], app: Callable[..., Path], client: Callable[[Running], Client]
) -> None:
    """The limit that they are closed before is the one that has moved (EXTEND_TIMEOUT_USEC)."""
    app(PATIENT)
    running = start("--bind", "127.0.0.1:0", "--drain-timeout", "4s", "app:asgi")
    running.wait_for(event="committed")
    with opened(client(running), "/") as stream:
        running.send(signal.SIGTERM)
        running.wait_for(event="stopping")
        began = time.monotonic()
        assert echoed(stream, b"more") == (0x81, b"more"), running.text()
        while time.monotonic() < began + 5.0:
            assert echoed(stream) == (0x81, b"ping"), "closed before the limit that was asked for"
            time.sleep(0.05)  # noqa: TID251  a client's own pause

    assert running.wait() == 0
    assert "killed" not in running.text()


@contextlib.contextmanager
def opened(connection: Client, path: str) -> Iterator[BinaryIO]:
    """Open a websocket."""
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13"
    connection.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n\r\n".encode())
    with connection.socket.makefile("rwb", buffering=0) as raw, io.BufferedReader(raw) as stream:
        while stream.readline() != b"\r\n":
            pass
        yield stream


def echoed(stream: BinaryIO, word: bytes = b"ping") -> tuple[int, bytes]:
    """Send four letters, masked with zeros, and return what comes back."""
    stream.raw.write(b"\x81\x84\0\0\0\0" + word)  # type: ignore[attr-defined]
    return frame(stream)


def frame(stream: BinaryIO) -> tuple[int, bytes]:
    """Read one frame that is no ping (RFC 6455 section 5.2)."""
    while True:
        kind, length = stream.read(2)
        payload = stream.read(length)
        if kind != 0x89:
            return kind, payload
