"""What prod-run relies upon in uvicorn beyond its documentation: a new release that changes it fails here first."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import socket
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from launcher.runtime.servers import uvicorn as driver
from launcher.runtime.servers.asgi import Shell


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Wait for the body, then answer."""
    if scope["type"] == "http":
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("name", [*driver.OPTIONS, *("interface", "lifespan", "log_config", "workers", "backlog")])
def test_the_options_are_there(name: str) -> None:
    """Every option that is passed on has its name in `uvicorn.Config`."""
    assert name in inspect.signature(uvicorn.Config).parameters


def test_what_is_overridden_is_there() -> None:
    """The methods that the driver replaces, as they are called."""
    assert inspect.iscoroutinefunction(uvicorn.Server.startup)
    assert list(inspect.signature(uvicorn.Server.startup).parameters) == ["self", "sockets"]
    assert inspect.iscoroutinefunction(uvicorn.Server.on_tick)
    assert list(inspect.signature(uvicorn.Server.on_tick).parameters) == ["self", "counter"]
    assert hasattr(uvicorn.Server.capture_signals, "__wrapped__")  # a context manager


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_connections_and_tasks_are_counted(http: str, loop: str) -> None:
    """`servers`, `server_state.connections` and `.tasks` tell what the drain waits for; `close` honours the app."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", http=http, loop=loop)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()

    async def look() -> None:
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
        while not server.server_state.tasks:  # noqa: ASYNC110  nor for this
            await asyncio.sleep(0.01)
        assert len(server.server_state.connections) == 1
        (task,) = server.server_state.tasks
        for one in server.servers:
            one.close()
        with pytest.raises(OSError, match=r"."):
            await asyncio.open_connection(*address)
        writer.write(b"x")
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.wait([task])
        assert len(server.server_state.connections) == 1  # kept alive, and nobody closed it
        server.should_exit = True
        assert await reader.read() == b""
        writer.close()
        await serving

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(asyncio.wait_for(look(), 60))


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("requests", [1, 2])
def test_an_answer_that_has_not_begun_may_still_be_told_to_close(http: str, requests: int) -> None:
    """A connection's `cycle` is the last request's; its `default_headers` are read when the answer begins."""
    may_answer, asked = asyncio.Event(), asyncio.Event()

    async def late(scope: Any, _receive: Any, send: Any) -> None:
        asked.set()
        await may_answer.wait()
        headers = [(b"content-length", b"0"), (b"path", scope["raw_path"])]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    shell = Shell(late)
    config = uvicorn.Config(shell, interface="asgi3", log_config=None, lifespan="off", http=http)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))

    async def look() -> None:
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(requests)))
        await asked.wait()
        ours: Any = SimpleNamespace(_shell=shell, server_state=server.server_state)
        for _ in range(2):  # stop-soon, and then stop
            driver._Server.tell_clients(ours)
        may_answer.set()
        try:
            answers = (await asyncio.wait_for(reader.read(), 20)).lower().split(b"\r\n\r\n")[:-1]
        finally:
            writer.close()
            server.should_exit = server.force_exit = True
            await serving
        assert b"connection: close" in answers[-1]
        assert answers[-1].count(b"connection:") == 1

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(asyncio.wait_for(look(), 60))


def test_what_is_done_in_its_place_behind_a_proxy() -> None:
    """Without sockets `startup` leaves no server; a protocol has `client`, and makes that of a websocket by a name."""
    source = inspect.getsource(uvicorn.Server.startup)
    assert "if sockets is not None:" in source
    for words in ("config=config", "server_state=self.server_state", "app_state=self.lifespan.state"):
        assert words in source
    for name in ("h11_impl", "httptools_impl"):
        protocol = inspect.getsource(importlib.import_module(f"uvicorn.protocols.http.{name}"))
        assert "self.client = get_remote_addr(transport)" in protocol
        assert "protocol = self.ws_protocol_class(" in protocol
    assert "connection.shutdown()" in inspect.getsource(uvicorn.Server.shutdown)
