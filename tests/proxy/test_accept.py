"""Connections that begin with a PROXY header, over real sockets."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from launcher.proxy import Address, HeaderError, Policy, RefusedError, accept, sockets, take
from tests.proxy.headers import v2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINE = b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n"
BINARY = v2(0x11, bytes([203, 0, 113, 9, 10, 0, 0, 1]) + (4711).to_bytes(2, "big") + (443).to_bytes(2, "big"))
REQUEST = b"GET / HTTP/1.1\r\n\r\nPROXY TCP4"
CLIENT = Address("203.0.113.9", 4711)
LIMIT = 20.0  # seconds; never reached when all is well


class Wire:
    """A listener and a client that is connected to it."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.client = socket.socket(listener.family)
        self.client.settimeout(LIMIT)
        self.client.connect(listener.getsockname())

    def close(self) -> None:
        """End both sides."""
        self.listener.close()
        self.client.close()

    def answer(self) -> bytes:
        """Return what the client gets until the connection ends, b"" for a reset."""
        with suppress(ConnectionResetError):
            return self.client.recv(100)
        return b""


@pytest.fixture(params=["127.0.0.1", "::1", "unix:"])
def wire(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Wire]:
    """Connect by IPv4, IPv6 and a unix socket."""
    if request.param == "unix:":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "shop.sock"))
    else:
        listener = socket.socket(socket.AF_INET6 if ":" in request.param else socket.AF_INET)
        listener.bind((request.param, 0))
    listener.listen()
    with closing(Wire(listener)) as wire:
        yield wire


def policy(version: str, trust: str = "127.0.0.1,::1,unix:") -> Policy:
    """Make a policy for the PROXY protocol alone."""
    return Policy.read("", version, trust)


@pytest.mark.parametrize(("version", "header"), [("v1", LINE), ("v2", BINARY)])
def test_the_client_is_who_the_header_says(wire: Wire, version: str, header: bytes) -> None:
    """And the app reads on at the first byte behind it, which may look like another header."""
    wire.client.sendall(header + REQUEST)

    connection, client, found = accept(wire.listener, policy(version))

    with connection:
        assert connection.gettimeout() is None
        connection.settimeout(LIMIT)
        assert connection.recv(100) == REQUEST
    assert found is not None
    assert (client, found.destination, found.consumed) == (CLIENT, Address("10.0.0.1", 443), len(header))


@pytest.mark.parametrize(("version", "header"), [("v1", LINE), ("v2", BINARY)])
def test_a_header_may_come_in_pieces(wire: Wire, version: str, header: bytes) -> None:
    """Each piece is taken at once, so that a loop that waits for more does not spin; what is behind stays."""
    connection, _ = wire.listener.accept()
    connection.settimeout(LIMIT)
    taken = bytearray()

    with connection:
        for place in range(len(header) - 1):
            wire.client.sendall(header[place : place + 1])
            assert take(connection, taken, version) is None
            assert bytes(taken) == header[: place + 1]
        wire.client.sendall(header[-1:] + REQUEST)
        found = take(connection, taken, version)
        assert found is not None
        assert found.source == CLIENT
        assert connection.recv(100) == REQUEST


def test_accept_waits_for_the_rest(wire: Wire) -> None:
    """A client that sends while `accept` waits already."""
    wire.client.sendall(LINE[:10])
    results: list[Address] = []

    def serve() -> None:
        connection, client, _ = accept(wire.listener, policy("v1"), timeout=LIMIT)
        with connection:
            results.append(client)

    thread = threading.Thread(target=serve)
    thread.start()
    for byte in LINE[10:]:
        wire.client.sendall(bytes([byte]))
    thread.join(LIMIT)

    assert results == [CLIENT]


@pytest.mark.parametrize(
    ("version", "header"), [("v1", b"PROXY UNKNOWN\r\n"), ("v2", v2(0x11, BINARY[16:], command=0x20))]
)
def test_a_proxy_that_speaks_for_itself_is_the_client(wire: Wire, version: str, header: bytes) -> None:
    """Health checks: the connection's own addresses hold."""
    wire.client.sendall(header)

    connection, client, found = accept(wire.listener, policy(version))

    with connection:
        own = wire.client.getsockname()
    assert found is not None
    assert client == (Address("unix:") if isinstance(own, str) else Address(*own[:2]))


def test_without_the_protocol_nothing_is_read(wire: Wire) -> None:
    """The header is the app's, whatever it does with it."""
    wire.client.sendall(LINE)

    connection, client, header = accept(wire.listener, Policy.read("", "", ""))

    with connection:
        assert connection.recv(100) == LINE
    assert (client == CLIENT, header) == (False, None)


@pytest.mark.parametrize("header", [LINE, b"", REQUEST])
def test_a_peer_that_is_not_trusted_is_refused(wire: Wire, header: bytes) -> None:
    """Netflix/zuul #2197: whoever reaches the port could say who it is.  Nothing is read of it, nor waited for."""
    wire.client.sendall(header)

    with pytest.raises(RefusedError, match="not a trusted proxy"):
        accept(wire.listener, policy("v1", "192.0.2.1"))

    assert wire.answer() == b""


@pytest.mark.parametrize(
    ("version", "sent"),
    [
        ("v1", REQUEST),
        ("v1", BINARY),
        ("v2", LINE),
        ("v2", REQUEST),
        ("v1", b"\x16\x03\x01\x02\x00"),
        ("v2", b"\r\n\r\n\0\r\nQUIT\r"),
        ("v1", b"PROXY TCP4 " + b"1" * 200),
    ],
)
def test_a_trusted_peer_without_the_header_is_refused(wire: Wire, version: str, sent: bytes) -> None:
    """Optional (caddy #5915) means that a client behind a proxy that adds none may add its own."""
    wire.client.sendall(sent)

    with pytest.raises(RefusedError, match=f"sent no PROXY header of {version}"):
        accept(wire.listener, policy(version))

    assert wire.answer() == b""


@pytest.mark.parametrize("sent", [b"", LINE[:-1], LINE[:3]])
def test_a_peer_that_leaves_early_is_refused(wire: Wire, sent: bytes) -> None:
    """A balancer's plain TCP check, for one."""
    wire.client.sendall(sent)
    wire.client.shutdown(socket.SHUT_WR)

    with pytest.raises(RefusedError, match="the connection ended"):
        accept(wire.listener, policy("v1"))


def test_a_silent_peer_is_refused(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """When its time is over."""
    monkeypatch.setattr(sockets, "SHORTEST_WAIT", 0.0)
    wire.client.sendall(LINE[:-1])

    with pytest.raises(RefusedError, match=r"no whole PROXY header within 0\.05 s"):
        accept(wire.listener, policy("v1"), timeout=0.05)

    assert wire.answer() == b""


def test_a_peer_that_never_ends_is_refused(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for the whole header: a byte now and then does not buy more time."""
    seconds = iter(range(100))
    monkeypatch.setattr("launcher.proxy.sockets.time.monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr(sockets, "take", lambda *_: None)

    with pytest.raises(RefusedError, match="within 5 s"):
        accept(wire.listener, policy("v1"), timeout=5.0)

    assert next(seconds) < 10


def test_less_than_three_seconds_are_refused(wire: Wire) -> None:
    """§2 of the specification; a mistake in the app, not the peer's."""
    with pytest.raises(ValueError, match="at least 3 seconds"):
        accept(wire.listener, policy("v1"), timeout=2.9)


def test_a_listener_that_does_not_block_says_that_nobody_is_there(wire: Wire) -> None:
    """Sockets of a Worker are such; the connection that comes of them blocks."""
    wire.client.sendall(LINE)
    wire.listener.setblocking(False)

    connection, client, _ = accept(wire.listener, policy("v1"))

    with connection:
        assert (connection.getblocking(), client) == (True, CLIENT)
    with pytest.raises(BlockingIOError):
        accept(wire.listener, policy("v1"))


def test_an_event_loop_can_take_a_header(wire: Wire) -> None:
    """`take` on a socket that does not block: nothing there is not an error of the header."""
    connection, _ = wire.listener.accept()
    connection.setblocking(False)

    with connection:
        with pytest.raises(BlockingIOError):
            take(connection, bytearray(), "v2")
        wire.client.close()
        with pytest.raises(HeaderError, match="ended"):
            take(connection, bytearray(), "v2")


def test_an_ipv4_peer_of_a_dual_stack_listener_is_an_ipv4_peer() -> None:
    """::ffff:127.0.0.1 is 127.0.0.1, for the trust list and for the app."""
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", 0))
    listener.listen()
    with listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1]), LIMIT) as client:
        client.sendall(b"PROXY UNKNOWN\r\n")

        connection, address, _ = accept(listener, policy("v1", "127.0.0.1"))

        with connection:
            assert address == Address(*client.getsockname())
