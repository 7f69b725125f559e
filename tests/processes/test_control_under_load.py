"""`prod-ctl` while prod-run serves a crowd, and while others misuse the same socket."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

import pytest

from launcher import protocol
from launcher.supervisor.control import MOST_CLIENTS
from tests.processes.load import PAUSE, Load
from tests.processes.running import LIMIT, PROD_RUN, Running, descriptors, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CTL = PROD_RUN.with_name("prod-ctl")
CROWD = 24  # clients of the service: with their pause, more than 1,000 requests a second where the machine can
STUCK = 100  # clients of the control socket
SMALL_MESSAGES = 10_000
QUIET = STUCK + 40  # lines at most: what the test orders, and one for each client that asked for a reload

# What no release of prod-ctl would say; each gets a sentence or a closed connection.
GARBAGE = [
    *(random.Random(seed).randbytes(size) for seed, size in enumerate((1, 7, 100, 4096, 65536))),
    bytes(200_000),
    b"x" * 200_000,
    b"\n=" * 60_000,
    b"status=" + b"\xff" * 100_000,
    b'{"verb": "status"}',
    b'{"verb": ["reload"], "wait": {"a": null}}',
    b"[]",
    b"null",
    b"\n\n\n",
    b"\0" * 100,
    b"relaod",
    b"upgrade\nwait=1",
    b"shutdown\nnow=1",
    b"reload\nwait",
    b"reload\nwait=perhaps",
    b"reload\nwait=1\nwait=1",
    b"stop\nnow=soon",
    b"scale\nworkers=many",
    b"scale\nworkers=0",
    b"scale\nworkers=-2",
    b"scale\nworkers=" + b"9" * 5000,
    b"scale\nworkers=2\nworkers=4",
    b"stacks\nslot=first",
    b"events\nfollow=",
]


class Door:
    """The way to a control socket, for those who follow the rules and for others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._clients = ExitStack()

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run prod-ctl."""
        argv = [str(CTL), "--socket", str(self.path), *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT)

    def connect(self) -> socket.socket:
        """Connect as a client that may do what it likes; it is closed after the test at the latest."""
        client = self._clients.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        client.settimeout(LIMIT)
        client.connect(str(self.path))
        return client

    def close(self) -> None:
        """Close all connections."""
        self._clients.close()


class Service(NamedTuple):
    """A prod-run that is busy."""

    running: Running
    load: Load
    door: Door


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """Have a way to `ctl.sock` in the test's directory."""
    one = Door(tmp_path / "ctl.sock")
    yield one
    one.close()


@pytest.fixture
def service(start: Callable[..., Running], hello: Callable[..., Path], door: Door) -> Iterator[Service]:
    """Two workers of the example, under as many requests as the machine can make and answer."""
    hello()
    running = start("-w", 2, "-b", "127.0.0.1:0", "--control", door.path, "hello:main")
    running.wait_for(event="committed")
    load = Load(running.address(), CROWD)
    yield Service(running, load, door)
    load.close()


def test_prod_ctl_answers_under_load_with_a_hundred_stuck_clients(service: Service, hello: Callable[..., Path]) -> None:
    """Silent ones, ones that ask and never read, halves of messages: every answer comes, with the right exit code."""
    running = service.running
    running.spare()
    before, since = len(descriptors(running.pid)), running.mark()
    for number in range(STUCK):
        misuse(service.door, number)

    obeys(service, hello)
    assert len(descriptors(running.pid)) <= before + MOST_CLIENTS
    service.door.close()
    goes_back(running, before)
    nobody_noticed(service, since)
    assert running.stop() == 0


def test_prod_ctl_answers_under_load_beside_a_client_that_talks_nonsense(
    service: Service, hello: Callable[..., Path]
) -> None:
    """Random bytes, huge datagrams, wrong shapes, ten thousand small messages: prod-run and its log do not mind."""
    running = service.running
    running.spare()
    before, since = len(descriptors(running.pid)), running.mark()
    faults: list[str] = []
    babbler = threading.Thread(target=lambda: faults.extend(babble(service.door)))
    babbler.start()

    try:
        obeys(service, hello)
    finally:
        babbler.join(LIMIT)
    assert not babbler.is_alive()
    assert faults == []
    goes_back(running, before)
    nobody_noticed(service, since)
    assert running.stop() == 0


def test_a_thousand_wishes_are_not_a_thousand_lines(
    start: Callable[..., Running], app: Callable[..., Path], door: Door, tmp_path: Path
) -> None:
    """A client that asks for a reload again and again while one is under way is remembered once, and said once."""
    app("import os, launcher\nos.read(os.open('go', os.O_RDONLY), 1)\ndef main(): signal.pause()")
    os.mkfifo(tmp_path / "go")
    running = start("--control", door.path, "app:main")
    running.wait_for(event="preparing")
    with door.connect() as client:
        for _ in range(1000):
            client.send(protocol.encode("reload", wait=False))
            client.recv(4096)
    remembered = [line for line in running.lines if "remembered reload" in line["text"]]

    assert len(remembered) < 10


def test_a_request_that_was_sent_is_answered_though_a_hundred_connect_after_it(
    start: Callable[..., Running], hello: Callable[..., Path], door: Door
) -> None:
    """Who makes room for others is a client that asked nothing, not one whose request was not read yet."""
    hello()
    running = start("-b", "127.0.0.1:0", "--control", door.path, "hello:main")
    running.wait_for(event="committed")
    running.send(signal.SIGSTOP)  # stands for one long turn of its loop
    os.waitid(os.P_PID, running.pid, os.WSTOPPED | os.WNOWAIT)
    with door.connect() as client:
        client.send(protocol.encode("health"))
        for _ in range(STUCK):
            door.connect()
        running.send(signal.SIGCONT)
        answer = protocol.decode(client.recv(4096))

    assert (answer.verb, answer.number("code")) == ("end", 0)


def test_health_is_not_good_when_nobody_hears_the_question(tmp_path: Path) -> None:
    """The connection was closed before the request could be sent: EPIPE is no answer."""
    code = """
import socket, sys
from launcher import ctl
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
theirs.close()
ctl.connect = lambda path: ours
sys.argv = ["prod-ctl", "--socket", "x", "health"]
ctl.main()
"""
    asked = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT)

    assert asked.returncode in (69, 75)


@pytest.mark.parametrize(("words", "code"), [(("reload", "--wait"), 75), (("health",), 75), (("stop",), 0)])
def test_a_prod_run_that_ends_before_it_reads_the_request_gets_a_sentence(
    tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    """The kernel says ECONNRESET when a request is thrown away unread (unix(7)): an end like any other."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "ctl.sock"))
        listener.listen()
        argv = [str(CTL), "--socket", str(tmp_path / "ctl.sock"), *words]
        asking = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        connection, _ = listener.accept()
        assert select.select([connection], [], [], LIMIT)[0]
        connection.close()
        _, said = asking.communicate(timeout=LIMIT)

    assert "Traceback" not in said
    assert asking.returncode == code


# ── what the clients do ─────────────────────────────────────────────────────────────────────────────


def misuse(door: Door, number: int) -> None:
    """Connect and get stuck, each in another way."""
    client = door.connect()
    client.setblocking(False)
    ways: list[list[bytes]] = [
        [],
        [protocol.encode("status")],
        [protocol.encode("events", follow=True)],
        [protocol.encode("events", follow=True)] * 1000,
        [protocol.encode("reload", wait=True)[:-3]],
        [protocol.encode("reload", wait=True)],
    ]
    with suppress(OSError):  # cut off, or full: both are allowed
        for message in ways[number % len(ways)]:
            client.send(message)


def babble(door: Door) -> list[str]:
    """Say all the nonsense, each piece on a connection of its own, then ten thousand pieces on one; return faults."""
    faults = []
    for message in GARBAGE:
        with door.connect() as client:
            with suppress(OSError):
                client.send(message)
            said = heard(client)
            if said not in (2, None):
                faults.append(f"{message[:40]!r} was answered with {said}")
    with door.connect() as client:
        for number in range(SMALL_MESSAGES):
            client.send(b"%d" % number)
            if heard(client) != 2:
                return [*faults, f"the small message {number} was not answered"]
    with door.connect() as client:
        try:
            for number in range(SMALL_MESSAGES):
                client.send(b"%d" % number)
        except ConnectionError:
            return faults
    return [*faults, "who never reads was not cut off"]


def heard(client: socket.socket) -> int | None:
    """Return the code of an answer; None if the connection was closed instead."""
    with suppress(ConnectionError):
        while answer := client.recv(protocol.LARGEST * 2):
            message = protocol.decode(answer)
            if message.verb == "end":
                return message.number("code")
    return None


# ── what must be true all the same ──────────────────────────────────────────────────────────────────


def obeys(service: Service, hello: Callable[..., Path]) -> None:
    """Ask for everything that an operator asks for on a bad day."""
    begin = service.load.mark()
    started = service.load.requests[-1].answered
    assert "serving 2/2" in service.door.ctl("status").stdout
    assert service.door.ctl("health").returncode == 0
    hello(2)
    good = service.door.ctl("reload", "--wait")
    assert (good.returncode, good.stdout.split()[0]) == (0, "committed")
    hello(3, "raise ValueError('half deployed')")
    bad = service.door.ctl("reload", "--wait")
    assert (bad.returncode, "half deployed" in bad.stdout) == (1, True)
    for number in (3, 2):
        assert service.door.ctl("scale", str(number)).returncode == 0
        until(lambda number=number: len(service.running.workers()) == number, f"{number} workers")  # type: ignore[misc]
    assert service.door.ctl("status").returncode == 0
    assert service.door.ctl("health").returncode == 0
    service.load.settle()
    answered = service.load.requests[begin:]
    rate = len(answered) / (answered[-1].answered - started)
    print(f"{rate:.0f} requests/s of at most {CROWD / PAUSE:.0f}")
    assert {request.version for request in answered[-CROWD:]} == {"2"}


def goes_back(running: Running, before: int) -> None:
    """Have as many descriptors as before."""
    running.spare()
    until(lambda: len(descriptors(running.pid)) == before, f"{before} descriptors again")


def nobody_noticed(service: Service, since: int) -> None:
    """No request failed, and the log has the lines of what was ordered."""
    lines = service.running.lines[since:]

    assert [request for request in service.load.requests if request.fault] == []
    assert len(lines) <= QUIET, "\n".join(line["text"] for line in lines[:100])
