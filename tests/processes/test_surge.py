"""A reload in small steps: rolling with one worker more, or singletons that are never there twice."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.processes.hostile_tree import BROKEN, WORKERS, Tree
from tests.processes.running import LIMIT, Running, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

THIRD_DIES = "if worker.slot == 2: os._exit(3)"

# Whoever runs while another generation's worker does raises: each holds a lock of its generation.
SINGLETON = """
import fcntl, glob, os, time
from launcher import Worker

VERSION = "1"

def main(worker: Worker):
    own = open(f"generation-{worker.generation}.lock", "w")
    fcntl.flock(own, fcntl.LOCK_SH)
    with open("one looks at a time", "w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        for path in glob.glob("generation-*.lock"):
            if path != own.name:
                fcntl.flock(open(path), fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if somebody holds it
    print(f"runs version={VERSION} generation={worker.generation} slot={worker.slot}", flush=True)
    worker.ready()
    print(f"serves generation={worker.generation} slot={worker.slot}", flush=True)
    worker.stopping.wait()
    time.sleep(0.3 * worker.slot)  # not all are gone at the same time
"""


def test_a_rolling_reload_loses_nothing(tmp_path: Path) -> None:
    """With `--max-surge 1` there is never more than one worker too many, and no client notices."""
    with contextlib.closing(Tree(tmp_path / "tree", "--max-surge", "1")) as tree:
        with tree.phase("good code, SIGHUP, rolling"), _most_workers(tree.running) as most:
            tree.write("2")
            since = tree.running.mark()
            tree.expect("committed", tree.running.reload())
            tree.running.wait_for(event="retired", generation=1, since=since)
        last = tree.load.mark()
        tree.load.settle()

        assert tree.complaints == []
        assert max(most) == WORKERS + 1
        assert {request.generation for request in tree.load.requests[last:] if not request.kept} == {2}


def test_a_rolling_reload_that_fails_half_way_is_rolled_back(tmp_path: Path) -> None:
    """A later worker of the new generation dies: the old generation comes back from memory, and no client notices."""
    with contextlib.closing(Tree(tmp_path / "tree", "--max-surge", "1")) as tree:
        with tree.phase("the third worker dies at start, SIGHUP, rolling"):
            tree.write("2", at_start=THIRD_DIES)
            since = tree.running.mark()
            tree.running.reload()
            tree.running.wait_for(event="rolled-back", generation=2, kept=1, since=since)
            tree.write("broken", at_import=BROKEN)
            tree.running.wait_for(event="retired", generation=2, since=since)
            until(lambda: sorted(tree.running.workers().values()) == [*range(WORKERS)], "all workers back")
        last = tree.load.mark()
        tree.load.settle()

        assert tree.complaints == []
        assert {request.generation for request in tree.load.requests[last:] if not request.kept} == {1}


def test_singletons_are_never_there_twice(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """With `--max-surge 0` the old workers have ended before the new ones begin; a failure brings them back."""
    app(SINGLETON)
    running = start("-w", 2, "--max-surge", "0", "app:main")
    running.wait_for(event="committed", generation=1)

    app(SINGLETON.replace('"1"', '"2"'))
    assert running.reload()["event"] == "committed"

    before = running.workers()
    app("raise ValueError('half deployed')")
    assert running.reload()["event"] == "rejected"
    assert running.workers() == before, "a failed import does not touch them"

    app(SINGLETON.replace("worker.ready()", "os._exit(3)"))
    since = running.mark()
    assert running.reload()["event"] == "rolled-back"
    for slot in (0, 1):
        running.wait_for(f"serves generation=2 slot={slot}", since=since)
    assert sorted(running.workers().values()) == [0, 1]
    assert not running.workers().keys() & before.keys(), "they had ended, and came back from memory"

    assert running.stop() == 0
    assert "BlockingIOError" not in running.text()


def test_singletons_lose_no_connection(start: Callable[..., Running], hello: Callable[..., Path]) -> None:
    """While nobody serves, connections wait in the queue, since the listening socket stays open."""
    hello(1, "time.sleep(0.2)")
    running = start("-w", 1, "--max-surge", "0", "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed", generation=1)
    with _asking(running) as answers:
        for version in (2, 3):
            hello(version, "time.sleep(0.2)")
            assert running.reload()["event"] == "committed"
        running.ask()

    assert len(answers) > 2
    assert all("hello from version" in answer for answer in answers)
    assert running.stop() == 0


def test_a_stop_between_two_singletons_answers_who_waits(
    start: Callable[..., Running], hello: Callable[..., Path]
) -> None:
    """The old worker has gone and the new one only boots: one comes back from memory and empties the queue."""
    path = hello(1)
    running = start("-w", 1, "--max-surge", "0", "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed", generation=1)
    running.spare()
    hello(2)
    path.write_text(path.read_text().replace("worker.ready()", 'print("hangs", flush=True); worker.stopping.wait()'))
    running.send(signal.SIGHUP)
    running.wait_for("hangs")
    client = socket.create_connection(running.address(), timeout=LIMIT)
    client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    running.send(signal.SIGTERM)

    with client, client.makefile("rb") as answer:
        assert b"hello from version 1" in answer.read()
    assert running.wait() == 0


@contextlib.contextmanager
def _most_workers(running: Running) -> Iterator[list[int]]:
    """Count workers, again and again."""
    counts = [0]
    is_over = threading.Event()  # noqa: TID251  no signal comes to this thread

    def count() -> None:
        while not is_over.wait(0.005):
            counts.append(len(running.workers()))

    with _thread(count, is_over):
        yield counts


@contextlib.contextmanager
def _asking(running: Running) -> Iterator[list[str]]:
    """Ask, again and again."""
    answers: list[str] = []
    is_over = threading.Event()  # noqa: TID251  no signal comes to this thread

    def ask() -> None:
        while not is_over.wait(0.005):
            answers.append(running.ask())

    with _thread(ask, is_over):
        yield answers


@contextlib.contextmanager
def _thread(target: Callable[[], None], is_over: threading.Event) -> Iterator[None]:  # noqa: TID251  the same
    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
