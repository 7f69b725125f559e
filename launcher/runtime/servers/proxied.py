"""
Accepting for an asyncio server whose connections begin with a PROXY header.

Owns a listening socket in place of asyncio's own Server, from accept(2) to the header's end; no byte behind the
header is read, so TLS or HTTP begins there.  Must never let a connection in whose client nobody has named.
"""

from __future__ import annotations

import asyncio

from launcher import proxy
from launcher.lean import NamedTuple
from launcher.lean_posix import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from typing import Any

    from launcher.proxy import Policy
    from launcher.runtime.servers.refusals import Refusals

PATIENCE = 5.0  # seconds for a whole header
_BREATH = 1.0  # seconds without accepting when there are no descriptors left, as asyncio has it


class Terms(NamedTuple):
    """What becomes of a connection, the same for all listening sockets of a worker."""

    policy: Policy
    make: Callable[[], Any]  # makes the protocol of one
    tls: ssl.SSLContext | None
    waiting: set[Any]  # has what is not yet a connection of HTTP, with a method `shutdown`, as long as that is so
    refusals: Refusals


class Listener:
    """Accepts on one socket, which does not block; what uvicorn asks of an asyncio.Server."""

    def __init__(self, sock: socket.socket, terms: Terms) -> None:
        self._sock = sock
        self._terms = terms
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        """Accept no more."""
        if self._pause:
            self._pause.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    async def wait_closed(self) -> None:
        """Wait for nothing: who is in `waiting` has been waited for."""

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        try:
            connection, address = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was quicker, or the client has gone
        except OSError:
            self._loop.remove_reader(self._sock)
            self._pause = self._loop.call_later(_BREATH, self._listen)
            return
        connection.setblocking(False)
        peer = proxy.UNIX if connection.family == socket.AF_UNIX else str(address[0])
        if self._terms.policy.trust.is_trusted(peer):
            _Newcomer(self._loop, self._terms, connection, peer)
        else:
            self._terms.refusals.tell(proxy.RefusedError(f"{peer} is not a trusted proxy"))
            connection.close()


class _Newcomer:
    """A connection from a trusted proxy, until its protocol has it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, terms: Terms, connection: socket.socket, peer: str) -> None:
        self._loop = loop
        self._terms = terms
        self._connection = connection
        self._peer = peer
        self._taken = bytearray()
        self._task: asyncio.Task[None] | None = None
        terms.waiting.add(self)
        self._limit = loop.call_later(PATIENCE, self._refuse, f"no whole PROXY header within {PATIENCE:g} s")
        loop.add_reader(connection, self._read)

    def shutdown(self) -> None:
        """Give up: the server ends."""
        if self._task:
            self._task.cancel()  # within a TLS handshake, for which a client has a minute
        else:
            self._stop_reading()
            self._leave()

    def _read(self) -> None:
        version = self._terms.policy.protocol
        try:
            header = proxy.take(self._connection, self._taken, version)
        except BlockingIOError:
            return
        except proxy.HeaderError as error:
            self._refuse(f"no PROXY header of {version}: {error}")
            return
        except OSError:
            self._stop_reading()
            self._leave()
            return
        if header:
            self._stop_reading()
            self._task = self._loop.create_task(self._hand_over(header.source))
            # Not in the task itself, which may be cancelled before it begins.
            self._task.add_done_callback(lambda _: self._terms.waiting.discard(self))

    def _refuse(self, reason: str) -> None:
        self._terms.refusals.tell(proxy.RefusedError(f"{self._peer} sent {reason}"))
        self._stop_reading()
        self._leave()

    def _stop_reading(self) -> None:
        self._limit.cancel()
        self._loop.remove_reader(self._connection)

    def _leave(self) -> None:
        self._terms.waiting.discard(self)
        self._connection.close()

    async def _hand_over(self, client: proxy.Address | None) -> None:
        terms = self._terms

        def make() -> Any:
            protocol = terms.make()
            return _introduced(protocol, (client.host, client.port)) if client else protocol

        try:
            await self._loop.connect_accepted_socket(make, self._connection, ssl=terms.tls)
        except OSError:
            self._connection.close()  # the client has gone, or speaks no TLS


def _introduced(protocol: Any, client: tuple[str, int]) -> Any:
    """Have a protocol, and the one that a websocket makes of it, believe that it is connected to `client`."""
    begin, websocket = protocol.connection_made, getattr(protocol, "ws_protocol_class", None)

    def connection_made(transport: asyncio.BaseTransport) -> None:
        del protocol.connection_made  # or each connection would leave a cycle behind
        begin(transport)
        protocol.client = client

    protocol.connection_made = connection_made
    if websocket:
        protocol.ws_protocol_class = lambda **words: _introduced(websocket(**words), client)
    return protocol
