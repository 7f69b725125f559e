"""
Connections that begin with a PROXY header, for apps that read raw sockets.

Owns `accept` and its parts.  No byte behind the header is taken: what follows, TLS or HTTP, is the app's.
Must never let a peer in that is not trusted, nor a trusted one without a header: nobody may choose.
"""

from __future__ import annotations

import time

from launcher.lean import NamedTuple
from launcher.lean_posix import socket
from launcher.proxy.nodes import UNIX, Address, canonical
from launcher.proxy.proxy_protocol import Header, Need, parse
from launcher.proxy.tlvs import HeaderError

TYPE_CHECKING = False

if TYPE_CHECKING:
    from launcher.proxy.policy import Policy

SHORTEST_WAIT = 3.0  # seconds; §2 of the specification: a lost first segment is sent again after 3 s

_PIECE = 4096


class RefusedError(ConnectionError):
    """A connection was closed instead of being let in; the next one may be good."""


class Accepted(NamedTuple):
    """A connection, behind its header; `client` is whom it is for: the header's source, or else the peer."""

    connection: socket.socket
    client: Address
    header: Header | None = None  # None: the policy has no PROXY protocol


def accept(listener: socket.socket, policy: Policy, timeout: float = 5.0) -> Accepted:
    """
    Accept one connection and read its PROXY header; the connection is a blocking one.

    A proxy that is slow holds the caller for up to `timeout` seconds (at least `SHORTEST_WAIT`); others hold it not
    at all.  To wait elsewhere, call `listener.accept()` and `receive`, or `take` in an event loop.

    Raises:
        RefusedError: the peer is not trusted, or sent no good header in time; the connection is closed.
        BlockingIOError: nobody is there, if the listener does not block.
    """
    connection, _ = listener.accept()
    try:
        return receive(connection, policy, timeout)
    except BaseException:
        connection.close()
        raise


def receive(connection: socket.socket, policy: Policy, timeout: float = 5.0) -> Accepted:
    """Do what `accept` does with a connection that was accepted already; it stays open when this raises."""
    if timeout < SHORTEST_WAIT:
        message = f"timeout must be at least {SHORTEST_WAIT:g} seconds, for the sake of lost segments"
        raise ValueError(message)
    peer = _peer(connection)
    if not policy.protocol:
        return Accepted(connection, peer)
    if not policy.trust.is_trusted(peer.host):
        message = f"{peer.host} is not a trusted proxy"
        raise RefusedError(message)
    end = time.monotonic() + timeout
    taken = bytearray()
    header = None
    try:
        while header is None:
            _wait_until(end, connection)
            header = take(connection, taken, policy.protocol)
        connection.settimeout(None)
    except HeaderError as error:
        message = f"{peer.host} sent no PROXY header of {policy.protocol}: {error}"
        raise RefusedError(message) from error
    except TimeoutError as error:
        message = f"{peer.host} sent no whole PROXY header within {timeout:g} s"
        raise RefusedError(message) from error
    except OSError as error:
        message = f"{peer.host} reset the connection"
        raise RefusedError(message) from error
    return Accepted(connection, header.source or peer, header)


def take(connection: socket.socket, taken: bytearray, version: str) -> Header | None:
    """
    Take as much of the header as has come, once; `taken` holds what was taken before.

    Returns:
        The header, or None: call again when the connection is readable.

    Raises:
        HeaderError: it is none, or the connection ended within it.
    """
    peeked = connection.recv(_PIECE, socket.MSG_PEEK)
    if not peeked:
        message = "the connection ended"
        raise HeaderError(message)
    found = parse(bytes(taken + peeked), version)
    # What is part of a header that goes on can be taken: left in place, it would wake up the next poll(2) for nothing.
    rest = len(peeked) if isinstance(found, Need) else found.consumed - len(taken)
    while rest:
        piece = connection.recv(rest)
        taken += piece
        rest -= len(piece)
    return None if isinstance(found, Need) else found


def _wait_until(end: float, connection: socket.socket) -> None:
    """Let the next call on a connection wait until a moment, in monotonic seconds, and no longer."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)


def _peer(connection: socket.socket) -> Address:
    if connection.family == socket.AF_UNIX:
        return Address(UNIX)
    try:
        host, number = connection.getpeername()[:2]
    except OSError as error:  # it was reset already
        message = "the connection was reset"
        raise RefusedError(message) from error
    return Address(canonical(host) or host, number)
