"""
The application around an ASGI application: what prod-run needs of any ASGI server, said in ASGI itself.

Owns the gate (the app's startup is over, and nothing is accepted until prod-run lets this worker serve),
`Connection: close` on every answer while draining, and the closing of websockets with a code that tells why.
Must never know which server runs it.
"""

from __future__ import annotations

import asyncio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Any

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Message, Receive, Send], Awaitable[None]]

SERVICE_RESTART, GOING_AWAY = 1012, 1001  # of a websocket that we close: RFC 6455 section 7.4.1, and IANA's registry
CLOSE = (b"connection", b"close")


class LifespanError(Exception):
    """The application said that its startup failed; its words are the argument."""


class ClosedError(OSError):
    """The application sends to a websocket that prod-run has closed: as the specification has it, an OSError."""

    def __init__(self) -> None:
        super().__init__("the worker stops, and has closed this websocket")

    @classmethod
    def is_behind(cls, error: BaseException | None) -> bool:
        """Say whether an application's exception comes of this one."""
        while error and not isinstance(error, cls):
            error = error.__cause__ or error.__context__
        return error is not None


class Shell:
    """
    An ASGI application that is served in place of `app`.

    Attributes:
        gate: awaited when the app has started up; may raise SystemExit, and then the app is shut down again.
        draining: every request that begins from now on is answered with the wish to close the connection.
        failure: why the startup failed; None if it did not.
        is_turned_away: the gate raised SystemExit.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._websockets: set[_WebSocket] = set()
        self.gate: Callable[[], Awaitable[None]] = _open
        self.draining = False
        self.failure: BaseException | None = None
        self.is_turned_away = False

    def drain(self) -> None:
        """Say close to every request that begins from now on; the answers to those before are the server's."""
        self.draining = True

    def __call__(self, scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
        """Run the app for one request, one websocket, or the life of the worker."""
        # Not `async`, and nothing around `send` until there is something to say: it would be 2 % of a small request.
        kind = scope["type"]
        if kind == "http":
            return self._app(scope, receive, _telling(send) if self.draining else send)
        return self._lifespan(scope, receive, send) if kind == "lifespan" else self._websocket(scope, receive, send)

    # ── lifespan ────────────────────────────────────────────────────────────────────────────────────

    async def _lifespan(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let the app live; an app that does not know the protocol is gated all the same."""
        life = _Life(self, receive, send)
        try:
            await self._app(scope, life.receive, life.send)
        except Exception as error:
            if life.is_started:
                raise
            # What the specification asks for: an exception means that the app has no lifespan.  But one that took
            # the event and then failed has one, and its startup is no success; unless it took it for a request.
            if life.has_received and not life.is_misunderstood:
                self.failure = error
        if self.failure or self.is_turned_away:
            await send({"type": "lifespan.startup.failed", "message": ""})
        elif not life.is_started:
            if not life.has_received:
                await receive()
            await self._live_without(receive, send)

    async def _live_without(self, receive: Receive, send: Send) -> None:
        if await self.may_serve():
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await send({"type": "lifespan.startup.failed", "message": ""})

    async def may_serve(self) -> bool:
        """Wait at the gate; say whether it opened."""
        try:
            await self.gate()
        except SystemExit:
            # Not from here: it would tear down the event loop under the app's own shutdown.
            self.is_turned_away = True
        return not self.is_turned_away

    # ── websockets ──────────────────────────────────────────────────────────────────────────────────

    async def _websocket(self, scope: Message, receive: Receive, send: Send) -> None:
        websocket = _WebSocket(receive, send)
        self._websockets.add(websocket)
        try:
            await self._app(scope, websocket.receive, websocket.send)
        except Exception as error:
            if not ClosedError.is_behind(error):
                raise
        finally:
            self._websockets.discard(websocket)

    @property
    def websocket_tasks(self) -> set[asyncio.Task[Any] | None]:
        """Return the tasks that are busy with websockets: they end when those are closed."""
        return {websocket.task for websocket in self._websockets}

    @property
    def has_websockets(self) -> bool:
        """Say whether a client has one that nobody has closed."""
        return any(websocket.is_open for websocket in self._websockets)

    async def close_websockets(self, code: int) -> None:
        """Tell every client that has a websocket why it ends; the app learns it from its next `receive`."""
        await asyncio.gather(*(websocket.close(code) for websocket in self._websockets), return_exceptions=True)


class _Life:
    """The lifespan protocol between the server and the app, with the gate between its two halves."""

    def __init__(self, shell: Shell, receive: Receive, send: Send) -> None:
        self._shell = shell
        self._receive = receive
        self._send = send
        self.has_received = False
        self.is_started = False
        self.is_misunderstood = False

    async def receive(self) -> Message:
        if self._shell.is_turned_away:
            return {"type": "lifespan.shutdown"}  # the server believes that we are still starting
        self.has_received = True
        return await self._receive()

    async def send(self, message: Message) -> None:
        if self._shell.is_turned_away:
            return
        if not message["type"].startswith("lifespan."):
            self.is_misunderstood = True  # and the server refuses it
        if message["type"] == "lifespan.startup.failed":
            self._shell.failure = LifespanError(message.get("message", "") or "the application's startup failed")
            return
        if message["type"] == "lifespan.startup.complete":
            if not await self._shell.may_serve():
                return
            self.is_started = True
        await self._send(message)


class _WebSocket:
    """One websocket, as far as it has to be closed from outside."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.is_open = False
        self.is_closed_by_us = False
        self.task = asyncio.current_task()

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.is_open = False
        return message

    async def send(self, message: Message) -> None:
        if self.is_closed_by_us:
            raise ClosedError  # an app that only sends would never learn it from `receive`
        kind = message["type"]
        if kind == "websocket.close":
            self.is_open = False
        await self._send(message)
        if kind == "websocket.accept":
            self.is_open = True

    async def close(self, code: int) -> None:
        if self.is_open:
            self.is_open = False
            self.is_closed_by_us = True
            await self._send({"type": "websocket.close", "code": code})


def _telling(send: Send) -> Send:
    def tell(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", ()) if bytes(pair[0]).lower() != CLOSE[0]]
            message = {**message, "headers": [*kept, CLOSE]}
        return send(message)

    return tell


async def _open() -> None:
    """Stand for the gate where there is none."""
