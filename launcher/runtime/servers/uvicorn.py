"""
uvicorn in a worker: ASGI.

Owns its configuration, the order in which a worker that is told to stop leaves (DESIGN promise 4), and its exit.
Must never let it catch signals, bind, fork or write log configuration: these are prod-run's, or the app's.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import time

import uvicorn

from launcher.quantities import OFF, ON
from launcher.runtime.servers import draining
from launcher.runtime.servers.asgi import CLOSE, GOING_AWAY, SERVICE_RESTART, Shell

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from launcher.api import Worker
    from launcher.runtime.servers import Front, Serve

OPTIONS = (
    *("access_log", "date_header", "server_header", "root_path", "reset_contextvars"),
    *("http", "loop", "h11_max_incomplete_event_size", "limit_concurrency", "timeout_keep_alive"),
    *("ws", "ws_max_size", "ws_max_queue", "ws_ping_interval", "ws_ping_timeout", "ws_per_message_deflate"),
)
_CHOICES = {
    "http": ("auto", "httptools", "h11"),
    "loop": ("auto", "uvloop", "asyncio"),
    "ws": ("auto", "websockets-sansio", "websockets", "wsproto", "none"),
}
_LIBRARIES = {"uvicorn", "websockets"}
_GLANCE = 0.02  # seconds between two looks at what is left while draining


def prepare(app: Any, options: Mapping[str, str], front: Front) -> Serve:
    """Configure uvicorn and import its parts; an event loop is only made in the worker."""
    if not any(logging.getLogger(name).level for name in ("uvicorn", "uvicorn.error")):
        ours = logging.getLogger("uvicorn.error")
        ours.setLevel(max(logging.INFO, logging.root.level))
        ours.addFilter(_is_news)
    shell = Shell(app)
    config = uvicorn.Config(
        shell.__call__,  # the method: looking it up in the object would be 1 % of a small request
        interface="asgi3",
        lifespan="on",  # of the shell, so that nothing is accepted if it fails
        log_config=None,
        workers=1,  # or it would read WEB_CONCURRENCY
        backlog=draining.BACKLOG,  # it calls listen(2) again on the shared socket
        proxy_headers=False,
        forwarded_allow_ips="",
        ssl_context_factory=_always(front.tls) if front.tls else None,
        **{name: _value(name, text) for name, text in options.items()},  # type: ignore[arg-type]
    )
    config.load()
    access = logging.getLogger("uvicorn.access")
    if "access_log" in options and config.access_log and logging.lastResort and not access.hasHandlers():
        access.addHandler(logging.lastResort)  # without one uvicorn writes none
    loop_factory = config.get_loop_factory()
    if front.proxies:
        from launcher.runtime.servers import proxied, refusals  # noqa: F401, PLC0415  so that workers share them
    return lambda worker: _serve(config, front, shell, loop_factory, worker)


def _is_news(record: logging.LogRecord) -> bool:
    """Say whether to show a record: prod-run says that a worker started, but applications use this logger too."""
    return record.levelno >= logging.WARNING or _LIBRARIES.isdisjoint(record.pathname.split(os.sep))


def _always(context: ssl.SSLContext) -> Callable[[object, object], ssl.SSLContext]:
    def give(_config: object, _default: object) -> ssl.SSLContext:
        return context

    return give


def _serve(
    config: uvicorn.Config,
    front: Front,
    shell: Shell,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
    worker: Worker[Any],
) -> None:
    """
    Serve until the worker is told to stop and has stopped.

    Raises:
        SystemExit: it was never to serve.
        Exception: the app's startup failed.
    """
    shell.gate = worker.ready_async
    server = _Server(config, front, shell, worker)
    worker._link.on_stop_soon = server.tell_clients
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(server.serve(sockets=list(worker.sockets.values())))
    except SystemExit:
        if shell.failure:
            raise shell.failure from None
        if shell.is_turned_away:
            raise SystemExit(0) from None
        raise


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves without losing a request."""

    def __init__(self, config: uvicorn.Config, front: Front, shell: Shell, worker: Worker[Any]) -> None:
        super().__init__(config)
        self._front = front
        self._shell = shell
        self._worker = worker
        self._leaving: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to prod-run; uvicorn would also die of the one that it caught."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept, after the gate; and wait to be told to stop."""
        if self._front.proxies:
            await super().startup([])
            self._accept_from_proxies(sockets or [])
        else:
            await super().startup(sockets)
        self._leaving = asyncio.get_running_loop().create_task(self._leave(sockets or []))

    def _accept_from_proxies(self, sockets: list[socket.socket]) -> None:
        """Do what uvicorn's `startup` does with sockets, but read the PROXY header first."""
        from launcher.runtime.servers import proxied, refusals  # noqa: PLC0415  loaded before the fork

        config = self.config
        told = refusals.Refusals(logging.getLogger("uvicorn.error"))

        def make() -> Any:
            protocol: Any = config.http_protocol_class
            return protocol(config=config, server_state=self.server_state, app_state=self.lifespan.state)

        assert self._front.proxies  # noqa: S101  or we would not be here
        waiting: set[Any] = self.server_state.connections
        terms = proxied.Terms(self._front.proxies, make, config.ssl, waiting, told)
        self.servers = [proxied.Listener(sock, terms) for sock in sockets]  # type: ignore[misc]

    async def on_tick(self, counter: int) -> bool:
        """Say ten times a second that the event loop is alive."""
        self._worker.heartbeat()
        return await super().on_tick(counter)

    def tell_clients(self) -> None:
        """Say close with every answer that begins from now on."""
        if self._shell.draining:
            return
        self._shell.drain()
        for connection in self.server_state.connections:
            # A websocket has no cycle.  With a pipeline it is the last one's, whom the shell tells when its turn comes.
            cycle = getattr(connection, "cycle", None)
            if cycle and not (cycle.response_started or getattr(connection, "pipeline", None)):
                cycle.default_headers = [*cycle.default_headers, CLOSE]

    async def _leave(self, sockets: list[socket.socket]) -> None:
        """Leave in this order: tell clients to close, accept no more, wait for them, close websockets, stop."""
        stopping = self._worker.stopping
        await stopping.wait_async()
        self.tell_clients()
        began_before = self.server_state.tasks - self._shell.websocket_tasks
        began, until = time.monotonic(), self._worker._link.stop_until
        if stopping.last:
            # Nothing tells that the kernel's queue is empty: it is looked at, while the event loop accepts.
            while draining.may_come(sockets, began, until):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        for server in self.servers:
            server.close()
        self._worker.stopped_accepting()
        code = GOING_AWAY if stopping.reason == "stop" else SERVICE_RESTART
        now = untold = time.monotonic()  # until then there was a request whose client might not have been told
        while self.server_state.connections and (now < untold + draining.LINGER or self._shell.has_websockets):
            await asyncio.sleep(_GLANCE)
            now = time.monotonic()
            if any(not task.done() for task in began_before):
                untold = now
            self._worker._link.listen()  # the app may have asked for more time
            if now >= draining.last_words(began, self._worker._link.stop_until):
                await self._shell.close_websockets(code)
        await self._shell.close_websockets(code)
        self.should_exit = True


def _value(name: str, text: str) -> object:
    """
    Read an option as what uvicorn.Config takes, which looks at nothing itself.

    Raises:
        ValueError: it is something else.
    """
    default = inspect.signature(uvicorn.Config).parameters[name].default
    if name in _CHOICES:
        if text in _CHOICES[name]:
            return text
        kind = " or ".join(_CHOICES[name])
    elif isinstance(default, bool):
        if text in ON + OFF:
            return text in ON
        kind = "true or false"
    elif isinstance(default, str):
        return text
    elif text.isdecimal():
        return int(text)
    else:
        kind = "a whole number"
    message = f"{name} is {kind}"
    raise ValueError(message)
