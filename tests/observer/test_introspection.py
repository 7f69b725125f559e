"""What the observer answers, as far as it can be seen without a supervisor."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from launcher import protocol
from launcher.logs import counters
from launcher.logs.batch import SEVERITIES, Batch, Form, Source
from launcher.logs.counters import Counters
from launcher.observer import endpoints
from launcher.observer.introspection import ASK_EVERY, TELL_EVERY, Introspection

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHOLE = protocol.encode(
    "whole", sentence="fine", is_ready=True, is_committed=True, is_draining=False, wanted=1, orphans=0, current=1
).decode()
GENERATION = protocol.encode(
    "generation",
    number=1,
    phase="committed",
    origin="start",
    since=0.0,
    zygote=0,
    zygote_state="",
    stale_because="",
    cannot_respawn="",
).decode()


class Scene:
    """The subject behind a unix socket, what it says to the supervisor, and what it complains of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics_directory = ""
        self.said: list[str] = []
        self.complaints: list[str] = []
        self.warnings: list[str] = []
        self.clients: list[socket.socket] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "s"))
        self.listener.listen()
        self.listener.setblocking(False)
        page = counters.page()
        self.subject = Introspection(
            [(self.listener.fileno(), "unix:s")],
            Counters(page),
            Form("logfmt"),
            lambda data: self.said.append(protocol.decode(data).verb),
            self.complaints.append,
            warn=self.warnings.append,
        )
        os.close(page)

    def hear(self, verb: str, **fields: protocol.Field) -> None:
        """Have the supervisor say something."""
        self.subject.hear(protocol.decode(protocol.encode(verb, **fields)))

    def learn(self) -> None:
        """Have it say everything."""
        nothing: tuple[str, ...] = ()
        self.hear(
            "about",
            name="app",
            started=1.0,
            supervisor=1,
            directory=str(self.folder),
            token_file="",
            metrics_directory=self.metrics_directory,
            setting_names=nothing,
            setting_values=nothing,
            setting_origins=nothing,
        )
        self.hear("state", row=(WHOLE,), last=False)
        self.hear("state", row=(GENERATION,), last=True)

    def connect(self) -> socket.socket:
        """Return a client."""
        client = socket.socket(socket.AF_UNIX)
        client.connect(self.listener.getsockname())
        client.setblocking(False)
        self.clients.append(client)
        return client

    def close(self) -> None:
        """Close everything, on both sides."""
        for client in self.clients:
            client.close()
        self.subject.serve()
        for sock, _ in self.subject._port._listeners.values():
            sock.detach()
        self.listener.close()

    def take(self, client: socket.socket) -> bytes:
        """Return what is there for a client at once."""
        try:
            return client.recv(1 << 20)
        except BlockingIOError:
            return b""

    def ask(self, path: str) -> bytes:
        """Ask, and return what is there at once."""
        client = self.connect()
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        self.subject.serve()
        answer = self.take(client)
        client.close()
        self.subject.serve()
        return answer

    @contextmanager
    def waiting(self, path: str) -> Iterator[socket.socket]:
        """Ask, and go on listening."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.listener.getsockname())
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            client.setblocking(False)
            self.subject.serve()
            yield client
        self.subject.serve()

    def print(self, slot: int, text: str) -> None:
        """Have a worker say a line."""
        self.subject.remember(Batch(Source("app", 1, 9, slot), SEVERITIES["info"], f"{text}\n".encode(), 1))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """One of one's own."""
    one = Scene(tmp_path)
    yield one
    one.close()


def test_nobody_is_answered_before_the_first_snapshot(scene: Scene) -> None:
    """An observer that was started anew would say for an instant that nothing is ready."""
    assert scene.ask("/readyz") == b""
    scene.hear("state", row=(WHOLE,), last=False)
    assert scene.ask("/readyz") == b""
    scene.learn()

    assert scene.ask("/readyz").endswith(b"\r\n\r\nok\n")


def test_the_supervisor_is_asked_when_somebody_asks_and_not_more_often(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a second at most, once until it answers, and never while nobody asks."""
    now = 1000.0
    monkeypatch.setattr("launcher.observer.introspection.time.monotonic", lambda: now)
    scene.learn()
    assert scene.said == []
    for _ in range(3):
        scene.ask("/livez")
    assert scene.said == ["ask"]
    scene.hear("alive", backlog=("web=3",))
    scene.ask("/livez")
    assert scene.said == ["ask"]
    now += ASK_EVERY
    scene.ask("/livez")
    assert scene.said == ["ask", "ask"]
    now += 9.9
    assert scene.ask("/livez").startswith(b"HTTP/1.1 200")
    now += 0.1
    assert scene.ask("/livez").startswith(b"HTTP/1.1 503")
    scene.hear("alive", backlog=())

    assert scene.ask("/livez").startswith(b"HTTP/1.1 200")
    assert scene.said == ["ask", "ask"]


def test_a_fault_in_an_answer_costs_that_answer_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """500, one line for us, and the next one is answered."""

    def fail(*_: object) -> None:
        {}["nothing"]

    broken = [route._replace(answer=fail) if route.path == "/status" else route for route in endpoints.ROUTES]
    monkeypatch.setattr(endpoints, "ROUTES", tuple(broken))
    scene.learn()

    assert scene.ask("/status").startswith(b"HTTP/1.1 500 ")
    assert scene.complaints == ["cannot answer '/status': KeyError: 'nothing'"]
    assert scene.ask("/readyz").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("kind", ["fifo", "directory", "too large"])
def test_a_version_file_that_is_none_makes_nobody_wait(scene: Scene, kind: str) -> None:
    """Above all a FIFO, which has no writer."""
    path = scene.folder / "version.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(b" " * 100_000)
    scene.learn()

    assert scene.ask("/__version__").startswith(b"HTTP/1.1 404 ")


# ── the log ──


def test_who_follows_the_log_gets_what_comes_at_once_and_nothing_twice(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A little later, with what came meanwhile; whose slot says nothing goes on waiting, and is answered in the end."""
    now = 1000.0
    for place in ("introspection", "port"):
        monkeypatch.setattr(f"launcher.observer.{place}.time.monotonic", lambda: now)
    scene.learn()
    scene.print(0, "one")
    first = scene.ask("/logs")
    position = _position(first)
    with (
        scene.waiting(f"/logs?follow&since={position}") as all_of_it,
        scene.waiting(f"/logs?follow&slot=7&since={position}") as of_another,
    ):
        assert scene.subject.deadline() == now + 5
        scene.print(0, "two")
        scene.print(1, "three")
        due = scene.subject.deadline()
        assert due == now + TELL_EVERY
        now = due
        scene.subject.expire(now)
        told = all_of_it.recv(4096)
        with pytest.raises(BlockingIOError):
            of_another.recv(4096)
        assert _body(first) == b"one\n"
        assert _body(told) == b"two\nthree\n"
        assert _body(scene.ask(f"/logs?since={_position(told)}")) == b""
        now += 5
        scene.subject.expire(now)
        overdue = of_another.recv(4096)
        assert (overdue.startswith(b"HTTP/1.1 200"), _body(overdue)) == (True, b"")
    scene.print(0, "four")
    now += TELL_EVERY
    scene.subject.expire(now)
    scene.print(0, "five")
    assert scene.subject.deadline() is None, "nobody follows any more: a busy log costs no wake-up"


def test_a_wrong_query_is_answered_with_what_is_wrong(scene: Scene) -> None:
    """400."""
    scene.learn()

    assert scene.ask("/logs?slot=x").startswith(b"HTTP/1.1 400")
    assert _body(scene.ask("/logs?slot=x")) == b"slot is a number\n"


def _position(answer: bytes) -> str:
    return answer.partition(b"Log-Position: ")[2].partition(b"\r")[0].decode()


def _body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]
