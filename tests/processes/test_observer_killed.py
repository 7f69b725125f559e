"""An observer that is killed, stopped or cannot be had harms no request, and what is lost with it is counted: §6."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import launcher
from launcher.supervisor.observing import MANY_DEATHS
from tests.ports import free_port
from tests.processes import loud
from tests.processes.loud import DISCARDED, DROPPED, LINE, LOST, Loud
from tests.processes.running import LIMIT, Running, is_alive, until
from tests.processes.test_output import into

PIECE = 64 * 1024  # bytes that the observer reads at once: what it cannot have counted when it is killed
CHATTY = """
import os
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    text = b"".join(b"%06d " % n + b"x" * 93 + b"\\n" for n in range(1000))
    for number in range({pieces}):
        os.write(1, text)
    open(f"done.{{worker.slot}}.{{os.getpid()}}", "w").close()
    worker.stopping.wait()
    print("last words", flush=True)
"""


class Reader:
    """Reads a pipe to its end beside the test."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.texts: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        """Begin; the test's copy of the writing end is closed."""
        os.close(self.writing)
        self._thread.start()

    def join(self) -> list[str]:
        """Wait for the end; return all lines."""
        self._thread.join(LIMIT)
        return self.texts

    def _read(self) -> None:
        with os.fdopen(self.reading, errors="replace") as stream:
            self.texts.extend(line.rstrip("\n") for line in stream)


@pytest.fixture
def start_loud(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> Iterator[Callable[..., tuple[Loud, Reader]]]:
    """Start the loud server with two workers, and a reader of its log."""
    made: list[Loud] = []

    def start_one(*words: object, lines: int, length: int, reads: bool = True) -> tuple[Loud, Reader]:
        loud.write_app(app, lines=lines, length=length)
        port = free_port()
        reader = Reader()
        words = ("-w", 2, "-b", f"127.0.0.1:{port}", *words, "loud:main")
        running = start(*words, before=into(reader.writing), pass_fds=[reader.writing])
        if reads:
            reader.start()
        made.append(Loud(running, tmp_path, ("127.0.0.1", port)))
        return made[0], reader

    yield start_one
    for one in made:
        one.close()


def kill_observers(server: Loud, kills: int, pause: float, number: int = signal.SIGKILL) -> None:
    """Kill as many observers, each when it has worked for a while."""
    for _ in range(kills):
        victim = server.observer()
        began = time.monotonic()
        taken = server.counted().taken
        until(lambda t=taken, b=began: server.counted().taken > t and time.monotonic() > b + pause, "it works")  # type: ignore[misc]
        os.kill(victim, number)
        until(lambda v=victim: not is_alive(v), "its end")  # type: ignore[misc]
    before = server.counted().taken
    until(lambda: server.counted().taken > before, "the last one works")


def check_account(server: Loud, texts: list[str], kills: int) -> None:
    """Every line that the app wrote arrived whole or was announced, but for what a kill tears."""
    counted = server.counted()
    arrived = sum(bool(LINE.search(text)) for text in texts)
    announced = sum(loud.said(texts, kind) for kind in (LOST, DROPPED, DISCARDED))
    lines_of_a_piece = PIECE // 20  # the shortest line has as many bytes
    missing = server.written() - arrived
    print(f"{kills} kills: {server.written()} written, {arrived} arrived, {announced} announced, {counted}")
    assert counted.held == 0
    assert loud.said(texts, LOST) == counted.lost
    assert loud.said(texts, DROPPED) == counted.dropped
    # A kill between read(2) and the count hides what was read; one between write(2) and the count names too many.
    # Each also tears the line that begins in what it had read, and the one that it was writing.
    assert missing <= announced + kills * (lines_of_a_piece + 4), (missing, announced)
    assert announced <= missing + kills * (lines_of_a_piece + 4), (missing, announced)
    assert len([text for text in texts if 'event="lost the observer"' in text and "how=SIGKILL" in text]) == kills
    events = [found[1] for text in texts if (found := re.search(r'event=("[^"]+"|\S+)', text))]
    for event in ("started", "committed", "stopping", "stopped"):
        assert events.count(event) == 1, event
    assert "event=stopped" in texts[-1]


@pytest.mark.parametrize(("kills", "pause"), [(3, 0.2), pytest.param(10, 4.0, marks=pytest.mark.slow)], ids=["3", "10"])
def test_killed_under_load(start_loud: Callable[..., tuple[Loud, Reader]], kills: int, pause: float) -> None:
    """No request fails, no worker hears of it, and the sum is right."""
    server, reader = start_loud(lines=30, length=60)
    workers = server.running.workers()
    load = server.load()
    try:
        kill_observers(server, kills, pause)
        load.settle()
        assert server.running.workers() == workers
        server.running.send(signal.SIGTERM)
        load.finish()
        assert not loud.faults(load)
    finally:
        load.close()

    assert server.running.wait() == 0
    check_account(server, reader.join(), kills)
    assert "BrokenPipe" not in "".join(reader.texts)


def test_killed_while_the_sink_is_stuck(start_loud: Callable[..., tuple[Loud, Reader]]) -> None:
    """What it held is gone with it, and counted; the service does not notice."""
    server, reader = start_loud(lines=40, length=480, reads=False)
    load = server.load()
    try:
        until(lambda: server.counted().held > 5000, "much is held")
        kill_observers(server, 1, 0)
        until(lambda: server.counted().lost > 5000, "it is counted")
        load.settle()
        server.running.send(signal.SIGTERM)
        reader.start()
        load.finish()
        assert not loud.faults(load)
    finally:
        load.close()

    assert server.running.wait() == 0
    check_account(server, reader.join(), 1)


def test_three_deaths_in_a_row(start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path) -> None:
    """The supervisor makes room: no worker waits although it writes megabytes; it is said once, and how many."""
    app(CHATTY.format(pieces=100))  # 10 MB, ten times what the pipe holds
    running = start("app:main")
    running.wait_for(event="committed")
    until(lambda: len(list(tmp_path.glob("done.*"))) == 1, "the first worker has written everything")
    for number in range(MANY_DEATHS + 1):  # the last one is stopped before it reads
        until(lambda: loud.observers(running), "an observer")
        victim = loud.observers(running)[0]
        os.kill(victim, signal.SIGKILL if number < MANY_DEATHS else signal.SIGSTOP)
        if number < MANY_DEATHS:
            until(lambda v=victim: not is_alive(v), "its end")  # type: ignore[misc]
    running.send(signal.SIGHUP)
    until(lambda: len(list(tmp_path.glob("done.*"))) == 2, "the new worker has written everything")
    os.kill(victim, signal.SIGKILL)
    discarded = int(running.wait_for(event="discarded output")["lines"])

    assert running.stop() == 0
    second = [line for line in running.lines if line.get("generation") == "2" and line.get("stream")]
    assert discarded > 1000
    assert running.text().count("nobody reads what the workers write") == 1
    assert 100_000 - 1 <= sum(len(line["text"]) == 100 for line in second) + discarded <= 100_000
    assert running.lines[-1]["event"] == "stopped"


@pytest.mark.parametrize("seconds", [0, pytest.param(30, marks=pytest.mark.slow)])
def test_stopped_for_a_while(start_loud: Callable[..., tuple[Loud, Reader]], seconds: float) -> None:
    """One that does nothing is replaced; what does not fit into the pipes is discarded and counted."""
    server, reader = start_loud(lines=40, length=480)
    load = server.load()
    stopped = []
    began = time.monotonic()
    try:
        while not stopped or time.monotonic() < began + seconds:
            victim = server.observer()
            stopped.append(victim)
            os.kill(victim, signal.SIGSTOP)
            until(lambda v=victim: not is_alive(v), "it is killed")  # type: ignore[misc]
            taken = server.counted().taken
            until(lambda t=taken: server.counted().taken > t, "the next one works")  # type: ignore[misc]
        load.settle()
        server.running.send(signal.SIGTERM)
        load.finish()
        assert not loud.faults(load)
    finally:
        load.close()

    assert server.running.wait() == 0
    texts = reader.join()
    assert loud.said(texts, DISCARDED) > 1000
    assert "nobody reads what the workers write" in server.running.text()
    assert any("lost the observer" in text and 'reason="it gave no answer"' in text for text in texts)
    check_account(server, texts, len(stopped))


def test_stopped_and_continued(start_loud: Callable[..., tuple[Loud, Reader]]) -> None:
    """One that comes to itself before it is given up goes on, and what was discarded meanwhile is said."""
    server, reader = start_loud(lines=40, length=480)
    load = server.load()
    try:
        victim = server.observer()
        os.kill(victim, signal.SIGSTOP)
        server.running.wait_for("nobody reads what the workers write")
        os.kill(victim, signal.SIGCONT)
        server.running.send(signal.SIGHUP)
        load.settle()
        taken = server.counted().taken
        until(lambda: server.counted().taken > taken + 1000, "it works")
        assert server.observer() == victim
        server.running.send(signal.SIGTERM)
        load.finish()
        assert not loud.faults(load)
    finally:
        load.close()

    assert server.running.wait() == 0
    texts = reader.join()
    counted = server.counted()
    assert loud.said(texts, DISCARDED) > 0
    torn = 2 * 40  # where two have read one pipe
    arrived = sum(bool(LINE.search(text)) for text in texts)
    assert abs(server.written() - arrived - loud.said(texts, DISCARDED) - counted.dropped) <= torn


def test_killed_during_a_reload(start_loud: Callable[..., tuple[Loud, Reader]]) -> None:
    """The reload commits; both generations go on to be read."""
    server, reader = start_loud(lines=3, length=60)
    load = server.load()
    try:
        for _ in range(3):
            victim, before = server.observer(), set(server.running.workers())
            server.running.send(signal.SIGHUP)
            os.kill(victim, signal.SIGKILL)
            until(lambda v=victim: not is_alive(v) and loud.observers(server.running), "another one")  # type: ignore[misc]
            until(lambda b=before: not b & set(server.running.workers()), "new workers")  # type: ignore[misc]
        load.settle()
        server.running.send(signal.SIGTERM)
        load.finish()
        assert not loud.faults(load)
    finally:
        load.close()

    assert server.running.wait() == 0
    texts = reader.join()
    arrived = sum(bool(LINE.search(text)) for text in texts)
    assert abs(server.written() - arrived - loud.said(texts, LOST)) <= 3 * 100  # as in check_account
    assert len([text for text in texts if "event=committed" in text]) >= 2
    assert "event=stopped" in texts[-1]


def test_killed_during_the_stop(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Another one says the last lines."""
    app(CHATTY.format(pieces=1))
    running = start("-w", 2, "app:main")
    running.wait_for(event="committed")
    until(lambda: loud.observers(running), "an observer")
    victim = loud.observers(running)[0]
    os.kill(victim, signal.SIGSTOP)  # it hears nothing of the stop
    running.send(signal.SIGTERM)
    until(lambda: not running.workers(), "the workers' end")
    os.kill(victim, signal.SIGKILL)

    assert running.wait() == 0
    texts = [line["text"] for line in running.lines]
    assert texts.count("last words") == 2
    assert running.lines[-1]["event"] == "stopped"


def test_one_that_cannot_be_started(start: Callable[..., Running], hello: Callable[..., Path]) -> None:
    """No descriptor left (so that not even stderr can be told): it is tried again, and nobody else notices."""
    hello()
    running = start("-w", 2, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")
    soft, hard = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
    victim = loud.observers(running)[0]
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (8, hard))
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    until(lambda: "hello" in running.ask() and time.monotonic() > began + 1, "answers without an observer")
    assert not loud.observers(running)
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (soft, hard))
    running.wait_for(event="lost the observer")

    assert running.stop() == 0
    assert running.lines[-1]["event"] == "stopped"


def test_one_that_fails_at_its_start(start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path) -> None:
    """The package on the disk is broken: the service starts, workers may write megabytes, and it stops."""
    shutil.copytree(Path(launcher.__file__).parent, tmp_path / "copy" / "launcher")
    (tmp_path / "copy" / "launcher" / "observer" / "main.py").unlink()
    app(CHATTY.format(pieces=100))
    running = start("-w", 2, "app:main", env={"PYTHONPATH": str(tmp_path / "copy")})
    until(lambda: len(list(tmp_path.glob("done.*"))) == 2, "both workers have written everything")
    running.wait_for("nobody reads what the workers write")
    before = set(running.workers())
    running.send(signal.SIGHUP)
    until(lambda: len(running.workers()) == 2 and not before & set(running.workers()), "new workers")

    assert running.stop() == 0
