"""A syslog receiver can be slow, full or away: the sink goes on, and every line that is lost is counted."""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.logs.batch import INNER_NEWLINE
from launcher.observer import connection, syslog
from tests.observer.syslog_world import OURS, SHOP, World, announced, datagrams, text_of, unix_receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a syslogd would listen."""
    return tmp_path / "log"


@pytest.fixture
def world(path: Path) -> Iterator[World]:
    """Give a sink for that path."""
    made = World(f"syslog:unix:{path}")
    yield made
    made.close()


@pytest.fixture
def small(path: Path) -> Iterator[World]:
    """Give a sink with room for few lines."""
    made = World(f"syslog:unix:{path}", limit=4000)
    yield made
    made.close()


def test_every_line_is_one_message_in_the_local_form(world: World, path: Path) -> None:
    """As syslog(3) would have sent it; who wrote is in the tag."""
    with unix_receiver(path) as receiver:
        world.write(b"one", b"two")
        world.write(b"started", source=OURS)

        found = datagrams(receiver)

    assert [message[:4] for message in found] == [b"<14>"] * 3
    assert [message.partition(b" shop[123]: ")[2] for message in found[:2]] == [b"one", b"two"]
    assert found[2].endswith(b" prod-run[1]: started")
    assert (world.sink.passed, world.sink.dropped, world.sink.backlog) == (3, 0, 0)


def test_the_options_of_an_address_are_in_every_message(path: Path) -> None:
    """Another facility (local3 is 19, of which 8 times makes the number), and RFC 5424 on a unix socket."""
    world = World(f"syslog:unix:{path}?facility=local3&format=rfc5424")
    with unix_receiver(path) as receiver:
        world.write(b"one")
        world.write(b"started", source=OURS)

        assert [message[:8] for message in datagrams(receiver)] == [b"<158>1 2"] * 2
    world.close()


def test_an_idle_sink_wants_nothing(world: World, path: Path) -> None:
    """Nothing to wait for, no timer: before the first line, and after the last."""
    before = world.sink.deadline()
    with unix_receiver(path):
        world.write(b"one")

        assert (before, world.sink.deadline(), world.watched) == (None, None, {})


def test_a_receiver_that_does_not_read_is_waited_for(world: World, path: Path) -> None:
    """The kernel's queue is full: no line is lost, none waits longer than it must, their order stays."""
    texts = [b"line %d" % number for number in range(400)]
    found: list[bytes] = []
    with unix_receiver(path) as receiver:
        for text in texts:
            world.write(text)

        assert list(world.watched.values()) == [select.EPOLLOUT]
        assert not world.turn(), "a full queue must not be reported as writable"
        assert 0 < world.sink.passed < len(texts)
        while world.sink.backlog:
            found += datagrams(receiver)
            world.turn(5000)
        found += datagrams(receiver)
        world.turn()

    assert list(map(text_of, found)) == texts
    assert (world.sink.passed, world.sink.dropped, world.watched) == (400, 0, {})


def test_what_is_dropped_is_counted_and_announced_where_it_is_missing(small: World, path: Path) -> None:
    """The oldest go; one message says how many, before the first that is there again."""
    with unix_receiver(path) as receiver:
        for number in range(400):
            small.write(b"line %d" % number)
        held = 400 - small.sink.passed - small.sink.dropped
        found = datagrams(receiver)
        while small.turn() or small.sink.backlog:
            found += datagrams(receiver)

    texts = list(map(text_of, found))
    notice = texts.index(b"dropped messages=%d" % small.sink.dropped)
    assert small.sink.dropped > 0
    assert 0 < held < 30
    before, after = texts[:notice], texts[notice + 1 :]
    assert before == [b"line %d" % number for number in range(len(before))]
    assert after == [b"line %d" % number for number in range(400 - len(after), 400)]
    assert len(before) + len(after) + small.sink.dropped == 400
    assert small.sink.passed == len(before) + len(after)


def test_what_is_left_at_the_end_is_counted(world: World, path: Path) -> None:
    """And so is what comes after it; nothing is raised, nothing is opened."""
    with unix_receiver(path) as receiver:
        for number in range(100):
            world.write(b"line %d" % number)
        world.sink.close()
        world.write(b"late", b"later")

        assert world.sink.passed == len(datagrams(receiver))
    assert world.sink.passed + world.sink.dropped == 102
    assert (world.sink.backlog, world.sink.deadline(), world.watched) == (0, None, {})


@pytest.mark.parametrize("rounds", range(60))
def test_what_no_notice_tells_of_is_known_at_the_end(small: World, path: Path, rounds: int) -> None:
    """Wherever the end comes, also with a notice on its way."""
    found: list[bytes] = []
    with unix_receiver(path) as receiver:
        for _ in range(rounds + 1):
            for _ in range(10):
                small.write(*[b"line"] * 30)
            found += datagrams(receiver)
            small.turn()
        small.sink.close()
        found += datagrams(receiver)

    assert announced(found) + small.sink.missing == small.sink.dropped > 0


def test_a_receiver_that_comes_late_gets_everything(world: World, path: Path) -> None:
    """Its socket is not there at the start; it is tried again when that is due, not with every line."""
    tried = world.now
    world.write(b"one")
    with unix_receiver(path) as receiver:
        world.write(b"two")
        world.sink.tick()
        early = datagrams(receiver)
        waited = world.tick_at_deadline()

        found = datagrams(receiver)

    assert early == []
    assert 0.09 <= waited <= 0.11, (tried, world.now)
    assert list(map(text_of, found)) == [b"one", b"two"]


def test_attempts_become_rare(world: World) -> None:
    """From 0.1 s, doubled, to 30 s, ± 10 %; one sentence says why, once."""
    world.write(b"one")

    waits = [world.tick_at_deadline() for _ in range(12)]

    expected = [min(0.1 * 2**n, 30.0) for n in range(12)]
    assert all(0.899 * ideal <= wait <= 1.101 * ideal for wait, ideal in zip(waits, expected, strict=True))
    ratios = [wait / ideal for wait, ideal in zip(waits, expected, strict=True)]
    assert max(ratios) - min(ratios) > 0.01, "no jitter"
    assert len(world.complaints) == 1
    assert "/log: No such file or directory" in world.complaints[0]


def test_a_receiver_that_restarts_gets_the_rest(world: World, path: Path) -> None:
    """What it had not read is its own; the line that found it gone comes again, whole."""
    with unix_receiver(path):
        world.write(b"one")
    path.unlink()
    world.write(b"two")
    assert world.sink.backlog > 0
    with unix_receiver(path) as receiver:
        world.tick_at_deadline()

        assert list(map(text_of, datagrams(receiver))) == [b"two"]
    assert world.complaints == []


def test_a_full_receiver_that_goes_away_is_noticed(world: World, path: Path) -> None:
    """Who waits for room must not wait for a dead socket."""
    with unix_receiver(path):
        for number in range(50):
            world.write(b"line %d" % number)
    path.unlink()
    passed = world.sink.passed
    world.turn_until(lambda: world.sink.deadline() is not None)
    with unix_receiver(path) as receiver:
        world.tick_at_deadline()
        found = datagrams(receiver)
        while world.turn():
            found += datagrams(receiver)

    assert list(map(text_of, found)) == [b"line %d" % number for number in range(passed, 50)]


def test_a_message_that_the_kernel_finds_too_long_is_cut(world: World, path: Path) -> None:
    """EMSGSIZE: to 8 KiB, then 2 KiB, with a mark."""
    with unix_receiver(path) as receiver:
        world.write(b"first")
        found = []
        for room in (1 << 17, 1 << 14, 4608):
            world.sink._connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room // 2)
            world.write("ö".encode() * 20_000)
            found.append(datagrams(receiver)[-1])

    assert [len(message) for message in found] == [40_031, pytest.approx(8192, abs=2), pytest.approx(2048, abs=2)]
    assert [message.decode().endswith(" …[cut]") for message in found] == [False, True, True]
    assert world.sink.passed == 4


def test_a_message_that_is_always_too_long_is_given_up(
    world: World, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted and announced, and the next ones come."""
    with unix_receiver(path) as receiver:
        world.write(b"first")
        send = world.sink._connection.send

        def refuse(data: bytes) -> int:
            if b"xxx" in data:
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
            return send(data)

        monkeypatch.setattr(world.sink._connection, "send", refuse)
        world.write(b"x" * 10_000, b"y")
        world.write(b"z")

        texts = list(map(text_of, datagrams(receiver)))

    assert texts == [b"first", b"y", b"dropped messages=1", b"z"]
    assert (world.sink.passed, world.sink.dropped) == (3, 1)


def test_a_record_counts_for_all_the_lines_that_it_stands_for(world: World, path: Path) -> None:
    """A traceback is one message of many lines; a piece of a line is a message that ends none."""
    with unix_receiver(path) as receiver:
        world.write(b"raw", b"Traceback:" + INNER_NEWLINE.encode() + b"Error", taken=3)
        world.write(b"a prompt without its end", taken=0)

        found = datagrams(receiver)

    assert list(map(text_of, found)) == [b"raw", b"Traceback:#012Error", b"a prompt without its end"]
    assert world.sink.passed == 3


def test_a_batch_of_very_many_lines_is_parted(world: World, path: Path) -> None:
    """64 KiB of empty lines would else be 10 MB of headers at once."""
    with unix_receiver(path) as receiver:
        world.write(*[b"%d" % number for number in range(1000)], taken=1004)
        largest, found = 0, []
        while world.sink.backlog:
            largest = max(largest, len(world.sink._window))
            found += datagrams(receiver)
            world.turn(5000)
        found += datagrams(receiver)

    assert list(map(text_of, found)) == [b"%d" % number for number in range(1000)]
    assert largest <= syslog._WINDOW_MESSAGES
    assert world.sink.passed == 1004


def test_one_call_has_an_end(world: World, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that takes everything does not hold the loop until a long queue is empty."""
    world.write(*[b"line"] * 5000)
    sent = []
    with unix_receiver(path):
        monkeypatch.setattr(connection.Connection, "send", lambda _, data: sent.append(data) or len(data))
        world.tick_at_deadline()
        first = len(sent)
        world.turn_until(lambda: not world.sink.backlog)

    assert first <= syslog._WINDOWS * (syslog._WINDOW_MESSAGES + 1)
    assert len(sent) == world.sink.passed == 5000


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(("write", "read", "turn", "away", "tick")), st.integers(1, 40)), max_size=40))
def test_whatever_happens_every_message_is_received_or_announced(
    tmp_path_factory: pytest.TempPathFactory, script: list[tuple[str, int]]
) -> None:
    """Written = received + announced + on its way, with a receiver that reads now and then and goes away and back."""
    path = tmp_path_factory.mktemp("any") / "log"
    world, receiver, written = World(f"syslog:unix:{path}", limit=6000), unix_receiver(path), 0
    found: list[bytes] = []
    steps: dict[str, Callable[[int], object]] = {
        "write": lambda count: world.write(*[b"line"] * count, source=SHOP),
        "read": lambda _: found.extend(datagrams(receiver)),
        "turn": lambda _: world.turn(),
        "tick": lambda _: world.sink.deadline() is not None and world.tick_at_deadline(),
    }
    for word, count in [*script, ("write", 1)]:
        if word == "away":
            found += datagrams(receiver)
            receiver.close()
            path.unlink()
            world.turn()
            receiver = unix_receiver(path)
            continue
        written += count if word == "write" else 0
        steps[word](count)
        assert world.sink.backlog <= 6000 + 64 * 1024
    while world.sink.backlog:
        steps["tick"](0)
        world.turn()
        found += datagrams(receiver)
    found += datagrams(receiver)
    receiver.close()
    world.close()

    lines = [message for message in found if message.endswith(b"line")]
    assert len(lines) == world.sink.passed
    assert announced(found) == world.sink.dropped
    assert len(lines) + announced(found) == written
