"""Workers that are replaced because they are too large or too old."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.processes.running import Running, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GROWING = """
import os
from launcher import Worker

def main(worker: Worker):
    worker.ready()
    grows = worker.slot == 0 and not os.path.exists("grown")
    ballast = bytearray(os.urandom(1)) * (200_000_000 if grows else 1)
    if grows:
        open("grown", "w").close()
    worker.stopping.wait()
    print("reason", worker.stopping.reason, flush=True)
"""


def test_a_worker_that_has_grown_is_replaced_first_and_ended_then(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """--max-rss: the log says how large it was, the successor is up before it is told to go."""
    app(GROWING)
    running = start("-w", 2, "--max-rss", "150M", "app:main")
    running.wait_for(event="committed")
    before = {slot: pid for pid, slot in running.workers().items()}
    line = running.wait_for(event="recycling", slot=0)
    assert "more than --max-rss 150M" in line["reason"]
    running.wait_for("reason recycle")
    until(lambda: before[0] not in running.workers(), "the old one gone")

    after = {slot: pid for pid, slot in running.workers().items()}
    assert after[1] == before[1]
    assert after[0] != before[0]


def test_old_workers_are_replaced_one_at_a_time(start: Callable[..., Running], hello: Callable[..., Path]) -> None:
    """--max-age: each is replaced in its turn, and never fewer than wanted serve."""
    hello()
    running = start("-w", 2, "-b", "127.0.0.1:0", "--max-age", "1s", "hello:main")
    running.wait_for(event="committed")
    before = set(running.workers())
    until(lambda: not before & set(running.workers()), "both replaced")
    for pid in before:
        running.wait_for(event="ended worker", pid=pid)

    events = [line for line in running.lines if line.get("event") in ("recycling", "ended worker", "lost worker")]
    assert {line["event"] for line in events} == {"recycling", "ended worker"}
    assert "hello" in running.ask()
    assert running.stop() == 0


def test_singletons_are_recycled_without_overlap(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """--max-surge 0 with --max-age: the old one ends before the new one starts."""
    app(
        "import fcntl, launcher\n"
        "def main(worker: launcher.Worker):\n"
        "    lock = open('lock', 'w')\n"
        "    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    worker.ready()\n"
        "    worker.stopping.wait()\n"
    )
    running = start("--max-surge", "0", "--max-age", "1s", "app:main")
    running.wait_for(event="committed")
    first = set(running.workers())
    until(lambda: running.workers() and not first & set(running.workers()), "replaced")

    assert "lost worker" not in running.text()
    assert running.stop() == 0
