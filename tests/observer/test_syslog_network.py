"""Syslog over UDP and TCP: what the network does to it is survived, and the frames are whole."""

from __future__ import annotations

import os
import socket
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from launcher.logs import rfc5424
from launcher.logs.batch import INNER_NEWLINE
from launcher.observer import resolve
from tests.observer.syslog_world import LIMIT, Frames, World, announced, datagrams, loopback, text_of
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM


@pytest.fixture
def opened() -> Iterator[Callable[[str], World]]:
    """Give a maker of sinks."""
    made: list[World] = []

    def make(url: str) -> World:
        made.append(World(url))
        return made[-1]

    yield make
    for world in made:
        world.close()


def connected(world: World, listener: socket.socket) -> Frames:
    """Let the sink connect, and return the receiver's side."""
    world.turn_until(lambda: world.sink._connection.is_up)
    world.receivers.append(listener.accept()[0])
    return Frames(world.receivers[-1])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_udp_is_one_datagram_for_each_message(opened: Callable[[str], World], host: str) -> None:
    """RFC 5426, with newlines; what RFC 5424's receivers need not take is cut."""
    receiver, port = loopback(UDP, host)
    with receiver:
        world = opened(f"syslog:udp://{f'[{host}]' if ':' in host else host}:{port}")
        world.write(b"one" + INNER_NEWLINE.encode() + b"two", "ö".encode() * 3000)

        short, long = receiver.recv(9000), receiver.recv(9000)

    assert short.startswith(b"<14>1 2026-01-31T08:05:09.250Z here.example shop 123 - [prod-run@32473 slot=")
    assert short.endswith(b"] one\ntwo")
    assert 2045 <= len(long) <= 2048
    assert long.decode().endswith("ö" + rfc5424.CUT.decode())


def test_udp_that_nobody_wants_is_kept(opened: Callable[[str], World]) -> None:
    """The kernel says so after the first datagram; the rest waits until somebody listens."""
    port = free_port(kind=UDP)
    world = opened(f"syslog:udp://127.0.0.1:{port}")
    world.write(b"lost")
    world.turn_until(lambda: world.sink._connection._socket is None)
    world.write(b"kept")
    assert (world.sink.passed, world.sink.backlog > 0) == (1, True)

    with socket.socket(socket.AF_INET, UDP) as receiver:
        receiver.bind(("127.0.0.1", port))
        world.tick_at_deadline()

        assert list(map(text_of, datagrams(receiver))) == [b"kept"]


def test_tcp_messages_are_counted_and_travel_together(opened: Callable[[str], World]) -> None:
    """RFC 6587 §3.4.1: newlines and long lines need no escape."""
    listener, port = loopback(TCP)
    with listener:
        world = opened(f"syslog:tcp://127.0.0.1:{port}")
        texts = [b"one" + INNER_NEWLINE.encode() + b"two", "zwölf".encode(), b"", b"x" * 65536]
        world.write(*texts)
        frames = connected(world, listener)
        world.write(b"last")

        found = frames.read()
        while len(found) < 5:
            found += frames.read()

    assert list(map(text_of, found)) == [text.replace(INNER_NEWLINE.encode(), b"\n") for text in [*texts, b"last"]]
    assert world.sink.passed == 5


def test_a_tcp_receiver_that_does_not_read_is_waited_for(opened: Callable[[str], World]) -> None:
    """Messages are parted where the kernel has no more room, and whole on the other side."""
    listener, port = loopback(TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    with listener:
        world = opened(f"syslog:tcp://127.0.0.1:{port}")
        texts = [b"%d " % number + b"x" * (number * 37 % 20_000) for number in range(400)]
        for text in texts:
            world.write(text)
        frames = connected(world, listener)
        assert not world.turn(), "a full connection must not be reported as writable"
        assert world.sink.backlog > 1_000_000

        found = []
        while len(found) < 400:
            found += frames.read()
            world.turn()

    assert list(map(text_of, found)) == texts
    assert (world.sink.passed, world.sink.dropped) == (400, 0)


def test_what_is_dropped_before_a_stuck_tcp_receiver_is_announced(opened: Callable[[str], World]) -> None:
    """8 MiB wait, the rest is counted, and when it reads again it is told."""
    listener, port = loopback(TCP)
    with listener:
        world = opened(f"syslog:tcp://127.0.0.1:{port}")
        world.write(b"0")
        frames = connected(world, listener)
        for number in range(1, 3000):
            world.write(b"%d " % number + b"x" * 10_000)
        assert world.sink.dropped > 0

        found = []
        while world.sink.backlog or world.turn():
            found += frames.read()
            world.turn()
        found += frames.read()

    assert len(found) + announced(found) - 1 == 3000
    assert announced(found) == world.sink.dropped
    assert world.sink.passed == 3000 - world.sink.dropped


def test_a_message_whose_connection_breaks_comes_whole_on_the_next(opened: Callable[[str], World]) -> None:
    """What the kernel had is lost with the connection; no torn message begins the next one, and none is skipped."""
    listener, port = loopback(TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    with listener:
        world = opened(f"syslog:tcp://127.0.0.1:{port}")
        for number in range(400):
            world.write(b"%d " % number + b"x" * 20_000)
        frames = connected(world, listener)
        world.turn()
        assert world.sink._connection.offset > 0, "the test needs a message that is half out"
        passed = world.sink.passed
        frames.connection.close()
        world.turn_until(lambda: world.sink._connection._socket is None)
        world.tick_at_deadline()
        again = connected(world, listener)
        found = []
        while world.sink.backlog or world.turn():
            found += again.read()
            world.turn()
        found += again.read()

    assert [int(text_of(message).split()[0]) for message in found] == list(range(passed, 400))
    assert world.sink.passed == 400


def test_a_tcp_receiver_that_closes_while_nothing_is_said_is_noticed(opened: Callable[[str], World]) -> None:
    """Else the next line would vanish in the old connection; nobody is called before there is a line."""
    listener, port = loopback(TCP)
    with listener:
        world = opened(f"syslog:tcp://127.0.0.1:{port}")
        world.write(b"one")
        frames = connected(world, listener)
        assert list(map(text_of, frames.read())) == [b"one"]
        frames.connection.send(b"what a syslog receiver never says")
        assert world.turn(LIMIT)
        assert not world.turn(), "what was said must be read"
        assert world.sink._connection.is_up
        frames.connection.close()
        world.turn_until(lambda: not world.watched)

        assert world.sink.deadline() is None
        world.write(b"two")
        world.tick_at_deadline()
        assert list(map(text_of, connected(world, listener).read())) == [b"two"]


def test_a_tcp_receiver_that_closes_at_once_is_tried_ever_less(opened: Callable[[str], World]) -> None:
    """A connection is no success by itself: a proxy without its backend takes every one."""
    listener, port = loopback(TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with listener:
        world = opened(f"syslog:tcp://127.0.0.1:{port}")
        world.write(*[b"x" * 50_000] * 150)
        waits = []
        for _ in range(4):
            listener.accept()[0].close()
            world.turn_until(lambda: world.sink._connection._socket is None)
            waits.append(world.tick_at_deadline())

    assert [wait > 1.5 * before for before, wait in pairwise(waits)] == [True] * 3


def test_a_tcp_receiver_that_is_not_there_yet(opened: Callable[[str], World]) -> None:
    """Refused at the start, reached later; the operator is told once."""
    port = free_port()
    world = opened(f"syslog:tcp://127.0.0.1:{port}")
    world.write(b"one")
    for _ in range(3):
        world.turn_until(lambda: world.sink._connection._socket is None)
        world.tick_at_deadline()
    world.turn_until(lambda: world.sink._connection._socket is None)
    with socket.socket(socket.AF_INET, TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        world.tick_at_deadline()

        assert list(map(text_of, connected(world, listener).read())) == [b"one"]
    sentence = f"cannot reach syslog at tcp://127.0.0.1:{port}: Connection refused. Lines wait, then the oldest go."
    assert world.complaints == [sentence]


def test_an_unanswered_connection_is_given_up(opened: Callable[[str], World]) -> None:
    """After ten seconds, where the kernel would try for two minutes."""
    listener, port = loopback(TCP)
    listener.listen(0)
    with listener, socket.create_connection(("127.0.0.1", port)):
        # listen(2): the queue is full, and further calls are not answered.
        world = opened(f"syslog:tcp://127.0.0.1:{port}")
        world.write(b"one")
        assert not world.turn(), "the test needs a call that is not answered"

        assert world.tick_at_deadline() == 10.0
        assert world.watched == {}
        assert world.sink.deadline() == pytest.approx(world.now + 0.1, abs=0.011)


def test_all_addresses_of_a_name_are_tried(opened: Callable[[str], World], monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is often two, and the receiver listens on one: that is no failure, and needs no waiting."""
    listener, port = loopback(TCP)
    monkeypatch.setattr(resolve, "_found", lambda _: f"{int(socket.AF_INET6)} ::1 0\n{int(socket.AF_INET)} 127.0.0.1 0")
    with listener:
        world = opened(f"syslog:tcp://logs:{port}")
        world.write(b"one")

        assert list(map(text_of, connected(world, listener).read())) == [b"one"]
    assert world.now == 1000.0
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_an_address_that_is_refused_at_once_is_passed_over(
    opened: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A family without a route, say; here connect(2) says no to a broadcast address."""
    receiver, port = loopback(UDP)
    family = int(socket.AF_INET)
    monkeypatch.setattr(resolve, "_found", lambda _: f"{family} 255.255.255.255 0\n{family} 127.0.0.1 0")
    with receiver:
        world = opened(f"syslog:udp://logs:{port}")
        world.write(b"one")
        world.turn_until(lambda: world.sink.passed or not world.watched)

        assert text_of(receiver.recv(999)) == b"one"
    assert world.now == 1000.0


def test_a_name_that_is_not_known_is_asked_for_again(
    opened: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer may come with the next attempt; meanwhile lines wait."""
    receiver, port = loopback(UDP)
    with receiver:
        world = opened(f"syslog:udp://logs:{port}")
        monkeypatch.setattr(resolve, "_found", lambda _: "!Name or service not known")
        world.write(b"one")
        for _ in range(2):
            world.turn_until(lambda: not world.watched)
            world.tick_at_deadline()
        monkeypatch.setattr(resolve, "_found", lambda _: f"{int(socket.AF_INET)} 127.0.0.1 0")
        world.turn_until(lambda: not world.watched)
        world.tick_at_deadline()
        world.turn_until(lambda: world.sink.passed)
        receiver.settimeout(LIMIT / 1000)

        assert text_of(receiver.recv(999)) == b"one"
    assert world.complaints[0].startswith(f"cannot reach syslog at udp://logs:{port}: Name or service not known. ")
