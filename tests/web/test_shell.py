"""The application around ASGI applications, without any server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from launcher.runtime.servers.asgi import GOING_AWAY, LifespanError, Shell

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Message = dict[str, Any]


class Server:
    """The server's side of the shell: what it sent, and what it was sent."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []

    async def send(self, message: Message) -> None:
        """Note a message of the app's."""
        self.sent.append(message)

    def types(self) -> list[str]:
        """Return what came, in short."""
        return [message["type"] for message in self.sent]


def live(
    app: Callable[..., Awaitable[None]], gate: Callable[[], Awaitable[None]] | None = None
) -> tuple[Shell, Server]:
    """Let an app go through a whole lifespan."""
    server = Server()
    shell = Shell(app)
    if gate:
        shell.gate = gate

    async def send(message: Message) -> None:
        assert message["type"].startswith("lifespan.")  # as uvicorn
        await server.send(message)

    async def run() -> None:
        server.inbox.put_nowait({"type": "lifespan.startup"})
        if gate is not closed_gate:  # a server that never started does not shut down
            server.inbox.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait_for(_awaited(shell({"type": "lifespan"}, server.inbox.get, send)), 30)

    asyncio.run(run())
    return shell, server


async def closed_gate() -> None:
    """Turn everybody away."""
    raise SystemExit(0)


async def _awaited(it: Awaitable[None]) -> None:
    await it


def test_the_gate_stands_between_the_apps_startup_and_the_servers() -> None:
    """The server learns that startup is complete only when the gate has opened; the app was done before."""
    happened = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        happened.append("started")
        await send({"type": "lifespan.startup.complete"})
        happened.append("serving")
        assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})

    async def gate() -> None:
        happened.append("gate")

    shell, server = live(app, gate)

    assert happened == ["started", "gate", "serving"]
    assert server.types() == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert not shell.failure


async def _raises_at_once(scope: Message, receive: Any, send: Any) -> None:
    message = "only HTTP"
    raise ValueError(message)


async def _returns_at_once(scope: Message, receive: Any, send: Any) -> None:
    return


async def _takes_and_returns(scope: Message, receive: Any, send: Any) -> None:
    await receive()


async def _reads_a_body_and_answers(scope: Message, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})


@pytest.mark.parametrize("app", [_raises_at_once, _returns_at_once, _takes_and_returns, _reads_a_body_and_answers])
def test_an_app_without_lifespan_is_gated_too(app: Callable[..., Awaitable[None]]) -> None:
    """Not to know the protocol is no failure."""
    gates = []

    async def gate() -> None:
        gates.append(1)

    shell, server = live(app, gate)

    assert gates == [1]
    assert server.types() == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert not shell.failure


def test_a_startup_that_raises_is_a_failure() -> None:
    """An app that took the event has a lifespan: its exception is why it cannot serve."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        message = "no database"
        raise RuntimeError(message)

    shell, server = live(app)

    assert isinstance(shell.failure, RuntimeError)
    assert server.types() == ["lifespan.startup.failed"]


def test_a_startup_that_says_failed_and_raises_keeps_its_exception() -> None:
    """Starlette says `failed` with a traceback as text, then raises: the exception tells the same, but can be cut."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "Traceback …"})
        message = "no database"
        raise RuntimeError(message)

    shell, server = live(app)

    assert isinstance(shell.failure, RuntimeError)
    assert server.sent == [{"type": "lifespan.startup.failed", "message": ""}]


def test_a_startup_that_says_failed_is_a_failure_with_its_words() -> None:
    """The protocol's own way to fail."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    shell, server = live(app)

    assert isinstance(shell.failure, LifespanError)
    assert "no database" in str(shell.failure)
    assert server.types() == ["lifespan.startup.failed"]


def test_an_app_that_may_not_serve_is_shut_down_again() -> None:
    """In a rejected generation the server never starts to accept, and what the app opened is closed."""
    happened = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        happened.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    shell, server = live(app, closed_gate)

    assert happened == ["lifespan.shutdown"]
    assert shell.is_turned_away
    assert server.types() == ["lifespan.startup.failed"]


def test_requests_that_begin_while_draining_are_answered_with_close() -> None:
    """Whatever the app said of the connection; before, the app has the server's own `send`."""
    senders = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        senders.append(send)
        headers = [(b"x", b"y"), (b"Connection", b"keep-alive")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    shell, server = Shell(app), Server()

    async def run() -> None:
        await shell({"type": "http"}, server.inbox.get, server.send)
        shell.draining = True
        await shell({"type": "http"}, server.inbox.get, server.send)

    asyncio.run(run())

    assert [dict(m["headers"]) for m in server.sent if "headers" in m] == [
        {b"x": b"y", b"Connection": b"keep-alive"},
        {b"x": b"y", b"connection": b"close"},
    ]
    assert senders[0] == server.send


def test_websockets_are_closed_from_outside_once() -> None:
    """An open one gets the code, and an app that sends later learns it; one that is not accepted gets nothing."""
    go_on = asyncio.Event()
    learned: list[BaseException] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        if scope["path"] == "/open":
            await send({"type": "websocket.accept"})
            await go_on.wait()
            try:
                await send({"type": "websocket.send", "text": "late"})
            except OSError as error:  # as ASGI has it
                learned.append(error)
                message = "what a framework makes of it"
                raise LookupError(message) from error
        else:
            await go_on.wait()

    shell, server = Shell(app), Server()

    async def run() -> None:
        tasks = [
            asyncio.ensure_future(shell({"type": "websocket", "path": path}, server.inbox.get, server.send))
            for path in ("/open", "/waiting")
        ]
        await asyncio.sleep(0)
        assert shell.websocket_tasks == set(tasks)
        assert shell.has_websockets
        for _ in range(2):
            await shell.close_websockets(GOING_AWAY)
            assert not shell.has_websockets
        go_on.set()
        await asyncio.gather(*tasks)
        assert shell.websocket_tasks == set()

    asyncio.run(run())

    assert server.sent == [{"type": "websocket.accept"}, {"type": "websocket.close", "code": GOING_AWAY}]
    assert len(learned) == 1


def test_an_apps_own_failure_in_a_websocket_is_not_hidden() -> None:
    """Closed by us or not: only what comes of our closing is no news."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await asyncio.sleep(0)
        raise LookupError

    shell, server = Shell(app), Server()

    async def run() -> None:
        websocket = asyncio.ensure_future(shell({"type": "websocket"}, server.inbox.get, server.send))
        await asyncio.sleep(0)
        await shell.close_websockets(GOING_AWAY)
        with pytest.raises(LookupError):
            await websocket

    asyncio.run(run())
