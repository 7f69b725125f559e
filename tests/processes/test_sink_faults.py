"""A log that takes nothing, or little, or goes away harms no request, and every line is accounted for: DESIGN §6."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.processes import loud
from tests.processes.load import Load
from tests.processes.loud import DROPPED, LINE, Counted, Loud
from tests.processes.running import LIMIT, Running, until
from tests.processes.test_output import into

ENOUGH = 40_000  # lines of 500 bytes: twice what the observer and all pipes hold


@pytest.fixture
def start_loud(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> Iterator[Callable[..., Loud]]:
    """Start the loud server with two workers: `start_loud("--log", …, before=…)`."""
    made: list[Loud] = []

    def start_one(*words: object, lines: int = 40, **options: object) -> Loud:
        loud.write_app(app, lines=lines)
        port = free_port()
        running = start("-w", 2, "-b", f"127.0.0.1:{port}", *words, "loud:main", **options)
        made.append(Loud(running, tmp_path, ("127.0.0.1", port)))
        return made[0]

    yield start_one
    for one in made:
        one.close()


def under_load(server: Loud, fact: Callable[[], object], what: str) -> None:
    """Make requests until a fact, and then some, and stop; no request may fail or wait."""
    load = server.load()
    try:
        until(fact, what)
        load.settle()
        server.running.send(signal.SIGTERM)
        load.finish()
        assert not loud.faults(load)
    finally:
        load.close()


def ended(server: Loud) -> Counted:
    """Wait for the end, and check that every line is accounted for."""
    assert server.running.wait() == 0
    counted = server.counted()
    # The last line is heard when it is out: else the supervisor says it on stderr.
    is_unheard = "lines could not be written at the end" in server.running.text()
    assert counted.taken == server.written() + counted.heard + is_unheard
    assert (counted.held, counted.lost) == (0, 0)
    return counted


def test_a_full_disk(start_loud: Callable[..., Loud]) -> None:
    """/dev/full refuses every write: all is dropped, and counted."""
    server = start_loud(before=("sh", "-c", 'exec "$@" >/dev/full', "sh"))
    under_load(server, lambda: server.written() > ENOUGH, "enough is written")

    assert ended(server).passed == 0


def test_a_pipe_that_nobody_reads(start_loud: Callable[..., Loud]) -> None:
    """What waits is bounded, the oldest go; whoever reads late is told how many.  The pipe's flags stay."""
    reading, writing = os.pipe()
    flags = fcntl.fcntl(writing, fcntl.F_GETFL)
    server = start_loud(before=into(writing), pass_fds=[writing])
    under_load(server, lambda: server.counted().dropped > 10_000, "lines are dropped")
    assert fcntl.fcntl(writing, fcntl.F_GETFL) == flags
    os.close(writing)
    with os.fdopen(reading, errors="replace") as stream:
        texts = stream.read().splitlines()
    counted = ended(server)

    arrived = [text for text in texts if LINE.search(text)]
    assert len(texts) - len([text for text in texts if DROPPED.search(text)]) == counted.passed
    assert loud.said(texts, DROPPED) == counted.dropped
    assert all(text.endswith('>"') for text in arrived)
    assert "event=stopped" in texts[-1]


def test_a_reader_that_goes_away(start_loud: Callable[..., Loud]) -> None:
    """What it has not read is in the broken pipe; all that comes later is dropped, and counted."""
    reading, writing = os.pipe()
    server = start_loud(before=into(writing), pass_fds=[writing])
    os.close(writing)
    taken = bytearray()

    def read_a_while() -> bool:
        taken.extend(os.read(reading, 65536))
        return taken.count(b"\n") > 2000

    load = server.load()
    try:
        until(read_a_while, "some lines")
        os.close(reading)
        until(lambda: server.counted().dropped > 5000, "the rest is dropped")
        load.settle()
        server.running.send(signal.SIGTERM)
        load.finish()
        assert not loud.faults(load)
    finally:
        load.close()
    assert ended(server).dropped > 5000


def test_a_slow_reader_gets_all_of_it(start_loud: Callable[..., Loud]) -> None:
    """A reader that pauses for a moment slows the writers down, and loses nothing; so at the end."""
    reading, writing = os.pipe()
    server = start_loud(before=into(writing), pass_fds=[writing])
    os.close(writing)
    texts: list[str] = []

    def read() -> None:
        with os.fdopen(reading, errors="replace") as stream:
            texts.extend(line.rstrip("\n") for line in stream)

    reader = threading.Thread(target=read, daemon=True)
    load = server.load()
    try:
        until(lambda: server.written() > 1000, "more than the pipe holds")
        reader.start()
        until(lambda: server.written() > 10_000, "more is written")
        server.running.send(signal.SIGTERM)
        load.finish()
    finally:
        load.close()
    counted = ended(server)
    reader.join(LIMIT)

    assert counted.dropped == 0
    assert sum(bool(LINE.search(text)) for text in texts) == server.written()
    assert "event=stopped" in texts[-1]


def test_a_local_syslog_that_nobody_reads(start_loud: Callable[..., Loud], tmp_path: Path) -> None:
    """A full datagram queue of somebody else."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "log"))
        server = start_loud("--log", f"syslog:unix:{tmp_path}/log")
        under_load(server, lambda: server.counted().dropped > 10_000, "lines are dropped")
        counted = ended(server)

    assert counted.passed < 1000


def test_a_syslog_over_tcp_that_accepts_and_never_reads(start_loud: Callable[..., Loud]) -> None:
    """The kernel's buffers are full, then ours."""
    with socket.create_server(("127.0.0.1", 0)) as receiver:
        server = start_loud("--log", f"syslog:tcp://127.0.0.1:{receiver.getsockname()[1]}")
        connection, _ = receiver.accept()
        with connection:
            under_load(server, lambda: server.counted().dropped > 10_000, "lines are dropped")
            ended(server)


def test_a_syslog_that_is_down_at_the_start_and_comes_back(start_loud: Callable[..., Loud], tmp_path: Path) -> None:
    """The service starts, the lines wait, and arrive when the receiver is there: all, or announced."""
    server = start_loud("--log", f"syslog:unix:{tmp_path}/log")
    load = server.load()
    texts: list[str] = []
    try:
        until(lambda: server.counted().dropped > 10_000, "lines are dropped")
        assert server.counted().passed == 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(str(tmp_path / "log"))
            reader = threading.Thread(target=_receive, args=(receiver, texts), daemon=True)
            counted = _read_to_the_end(server, load, reader)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"", str(tmp_path / "log"))
            reader.join(LIMIT)
    finally:
        load.close()

    _all_or_announced(texts, counted)


def _read_to_the_end(server: Loud, load: Load, reader: threading.Thread) -> Counted:
    """Read what waited and what comes, end the service, and return its accounts; no request was lost."""
    reader.start()
    until(lambda: server.counted().passed > 1000, "lines arrive")
    load.settle()
    server.running.send(signal.SIGTERM)
    load.finish()
    assert not loud.faults(load)
    return ended(server)


def _all_or_announced(texts: list[str], counted: Counted) -> None:
    announced = [text for text in texts if DROPPED.search(text)]
    assert len(texts) - len(announced) == counted.passed
    assert loud.said(texts, DROPPED) == counted.dropped
    assert "stopped" in texts[-1]


def _receive(receiver: socket.socket, texts: list[str]) -> None:
    """Take datagrams until an empty one."""
    while data := receiver.recv(1 << 17):
        texts.append(data.decode("utf-8", "replace"))


def test_a_syslog_over_tcp_that_is_down_at_the_start_and_comes_back(start_loud: Callable[..., Loud]) -> None:
    """Connected when it is there: what waited arrives whole, each message as long as it says (RFC 6587, 3.4.1)."""
    port = free_port()
    server = start_loud("--log", f"syslog:tcp://127.0.0.1:{port}")
    load = server.load()
    received = bytearray()
    try:
        until(lambda: server.counted().dropped > 10_000, "lines are dropped")
        assert server.counted().passed == 0
        with socket.create_server(("127.0.0.1", port)) as listener:
            connection = _accepted(listener)
            reader = threading.Thread(target=_read, args=(connection, received), daemon=True)
            counted = _read_to_the_end(server, load, reader)
            reader.join(LIMIT)
    finally:
        load.close()

    texts = _messages(bytes(received))
    _all_or_announced(texts, counted)


def test_a_syslog_over_tcp_that_goes_away_and_comes_back(start_loud: Callable[..., Loud]) -> None:
    """
    The next connection begins with a whole message, and the service has not noticed.

    What was in the broken connection is gone, and nobody can count it: RFC 6587 has no acknowledgement.
    """
    port = free_port()
    received: list[bytearray] = [bytearray(), bytearray()]
    readers = []
    with socket.create_server(("127.0.0.1", port)) as listener:
        server = start_loud("--log", f"syslog:tcp://127.0.0.1:{port}")
        load = server.load()
        connection = _accepted(listener)
    try:
        with connection:
            while len(received[0]) < 500_000 and (piece := connection.recv(65536)):
                received[0] += piece
            # It takes no more, so that part of a message is out when it goes.
            until(lambda: server.counted().dropped > 10_000, "lines are dropped")
        with socket.create_server(("127.0.0.1", port)) as listener:
            connection = _accepted(listener)
            readers.append(threading.Thread(target=_read, args=(connection, received[1]), daemon=True))
            readers[0].start()
            until(lambda: len(received[1]) > 500_000, "lines arrive again")
            load.settle()
            server.running.send(signal.SIGTERM)
            load.finish()
            assert not loud.faults(load)
            counted = ended(server)
            readers[0].join(LIMIT)
    finally:
        load.close()

    texts = _messages(bytes(received[1]))
    assert loud.said(texts, DROPPED) == counted.dropped
    assert "stopped" in texts[-1]


def _accepted(listener: socket.socket) -> socket.socket:
    listener.settimeout(LIMIT)
    connection, _ = listener.accept()
    connection.settimeout(LIMIT)
    return connection


def _read(connection: socket.socket, received: bytearray) -> None:
    """Take what a stream brings until its end."""
    with connection:
        while piece := connection.recv(1 << 17):
            received += piece


def _messages(stream: bytes) -> list[str]:
    """Take a stream apart: each message has its length in front, a number and a blank."""
    texts = []
    while stream:
        length, _, stream = stream.partition(b" ")
        size = int(length)
        assert len(stream) >= size, "a message that is cut"
        texts.append(stream[:size].decode("utf-8", "replace"))
        stream = stream[size:]
    return texts


TRACEBACKS = """
import sys, traceback
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    for number in range(20):
        try:
            [].pop()
        except IndexError:
            traceback.print_exc()
    open(f"done.{worker.slot}", "w").close()
    worker.stopping.wait()
"""


@pytest.mark.parametrize("sink", ["stdout", "syslog"])
def test_what_comes_out_is_what_counts(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path, sink: str
) -> None:
    """Many lines that become one (a traceback): nothing seems to be held by anybody at the end."""
    app(TRACEBACKS)
    texts: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "log"))
        reader = threading.Thread(target=_receive, args=(receiver, texts), daemon=True)
        reader.start()
        running = start("-w", 2, "--log", f"syslog:unix:{tmp_path}/log" if sink == "syslog" else "stdout", "app:main")
        server = Loud(running, tmp_path, ("", 0))
        until(lambda: len(list(tmp_path.glob("done.*"))) == 2, "all is written")
        assert running.stop() == 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", str(tmp_path / "log"))
        reader.join(LIMIT)
    counted = server.counted()
    server.close()
    texts = texts or [line["text"] for line in running.lines if line.get("time")]

    assert (counted.held, counted.dropped, counted.lost) == (0, 0, 0)
    assert counted.taken == len(texts) == 40 + counted.heard
