"""A crash loop is slowed down, and is nobody else's problem."""

from __future__ import annotations

import os
import signal
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import Line, Running, title, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Slot 1 dies at its start while the file is there.
BEFORE_READY = """
import os
import launcher, hello

def main(worker: launcher.Worker):
    if worker.slot == 1 and os.path.exists("crash"):
        os._exit(1)
    hello.main(worker)
"""

# Every worker dies as soon as it serves, while the file is there.
AFTER_READY = """
import os, threading
from launcher import Worker

def main(worker: Worker):
    worker.ready()
    while not worker.stopping.wait(0.01):
        if os.path.exists("crash"):
            os._exit(1)
"""


def test_a_crash_loop_before_ready_is_paced_while_the_others_serve(
    start: Callable[..., Running], hello: Callable[..., Path], app: Callable[..., Path], tmp_path: Path
) -> None:
    """One slot is tried again after 100 ms, then 1.5 times later each time; it serves again when it can."""
    hello()
    app(BEFORE_READY)
    running = start("-w", 2, "-b", "127.0.0.1:0", "app:main")
    running.wait_for(event="committed")
    (tmp_path / "crash").touch()
    os.kill(next(pid for pid, slot in running.workers().items() if slot == 1), signal.SIGKILL)
    until(lambda: len(_delays(running)) >= 5, "five delayed respawns")
    answer = running.ask()
    (tmp_path / "crash").unlink()
    until(lambda: "serving 2/2" in title(running.pid), "both slots serving")

    assert "generation 1 slot 0" in answer
    delays = [_seconds(line) for line in _delays(running)[:5]]
    assert delays == [pytest.approx(0.1 * 1.5**n, abs=0.01 * 1.5**n + 0.006) for n in range(5)]
    assert {line["slot"] for line in _delays(running)} == {"1"}
    deaths = [_time(line) for line in running.lines if line.get("event") == "lost worker"][1:6]
    for (death, next_death), delay in zip(pairwise(deaths), delays, strict=False):
        assert next_death - death > delay - 0.01, "tried again before its time"
    assert running.stop() == 0


def test_a_ready_worker_is_replaced_at_once_while_tokens_last(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Ten deaths and one for each worker cost no delay; then a loop is paced, until it serves again."""
    app(AFTER_READY)
    running = start("-w", 2, "app:main")
    running.wait_for(event="committed")
    (tmp_path / "crash").touch()
    until(lambda: len(_delays(running)) >= 4, "four delayed respawns")
    (tmp_path / "crash").unlink()
    until(lambda: "serving 2/2" in title(running.pid), "both slots serving")
    lost = [line for line in running.lines if line.get("event") == "lost worker"]
    at_once = lost.index(next(line for line in lost if line["pid"] == _delays(running)[0]["pid"]))

    # One token comes back each second, so a slow machine sees a few more.
    assert at_once >= 12
    for slot in ("0", "1"):
        delays = [_seconds(line) for line in _delays(running) if line["slot"] == slot]
        assert all(shorter < longer for shorter, longer in pairwise(delays)), delays
    assert running.stop() == 0


def test_without_preload_a_failed_respawn_touches_nothing_else(
    start: Callable[..., Running], hello: Callable[..., Path]
) -> None:
    """A worker that imports for itself needs the files: broken ones cost its slot, until they are right again."""
    path = hello()
    running = start("-w", 2, "--preload", "never", "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")
    before = running.workers()
    right = path.stat()
    path.write_text("raise ValueError('half deployed')")
    os.kill(next(pid for pid, slot in before.items() if slot == 1), signal.SIGKILL)
    until(lambda: len(_delays(running)) >= 2, "two delayed respawns")
    answer = running.ask()
    hello()
    os.utime(path, ns=(right.st_atime_ns, right.st_mtime_ns))  # a release that is there again, not a new one
    until(lambda: "serving 2/2" in title(running.pid), "both slots serving")

    assert "slot 0" in answer
    assert before.keys() & running.workers().keys() == {pid for pid, slot in before.items() if slot == 0}
    running.wait_for("half deployed")
    assert running.stop() == 0


def _delays(running: Running) -> list[Line]:
    return [line for line in running.lines if line.get("event") == "delayed respawn"]


def _time(line: Line) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()


def _seconds(line: Line) -> float:
    return float(line["by"].removesuffix("s"))
