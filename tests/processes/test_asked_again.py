"""What operators send in the middle of something else: DESIGN §3.3, each once and one line for each."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from launcher.errors import Exit
from tests.processes.running import Running, children_of, is_alive, signals_in, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.commands import Ctl

DEAF = """
import threading
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    threading.Event().wait()
"""

# Each generation's import ends when somebody writes into the pipe.
HELD = """
with open("go") as pipe:
    pipe.read()
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    worker.stopping.wait()
"""

WORK = """
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    print("works", worker.slot, "of", worker.generation, flush=True)
    if worker.slot:
        worker.stopping.wait()
"""

FAILS = """
import sys
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    if worker.slot == 0:
        sys.exit(5)
    worker.stopping.wait()
"""


def go(tmp_path: Path) -> None:
    """Let one import end."""
    with (tmp_path / "go").open("w") as pipe:
        pipe.write("x")


def hear(running: Running, number: signal.Signals) -> None:
    """Send a signal, and wait until it is recorded: one that is sent after it is answered."""
    running.send(number)
    until(lambda: not signals_in(running.pid, "ShdPnd"), "it is taken")
    since = running.mark()
    running.send(signal.SIGUSR2)
    running.wait_for(event="ignored upgrade: not in this version", since=since)


def test_while_draining_each_is_one_line_and_changes_nothing(
    start: Callable[..., Running], app: Callable[..., Path], ctl: Ctl
) -> None:
    """No reload, no worker more or fewer; who asks by prod-ctl is told so by the exit code; a report is still there."""
    app(DEAF)
    running = start("-w", 2, "--drain-timeout", "1h", "app:main")
    running.wait_for(event="committed")
    workers = running.workers()
    running.send(signal.SIGTERM)
    running.wait_for(event="stopping")
    lines = {
        signal.SIGHUP: "ignored reload: stopping",
        signal.SIGUSR2: "ignored upgrade: not in this version",
        signal.SIGTTIN: "ignored scale: stopping",
        signal.SIGTTOU: "ignored scale: stopping",
        signal.SIGUSR1: "status",
    }
    for number, event in lines.items():
        since = running.mark()
        running.send(number)
        running.wait_for(event=event, since=since)
    codes = [ctl(*words).returncode for words in (("scale", 4), ("reload",), ("reload", "--wait"), ("health",))]

    assert codes == [Exit.TEMPORARY, Exit.TEMPORARY, Exit.TEMPORARY, Exit.REJECTED]
    assert running.workers() == workers
    assert not any(line.get("event") == "scaled" for line in running.lines)
    running.send(signal.SIGQUIT)
    assert running.wait() == 0


@pytest.mark.parametrize("when", ["boot", "reload"])
def test_of_several_reloads_one_is_remembered(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path, when: str
) -> None:
    """Three SIGHUPs while one is under way are one reload after it."""
    app(HELD)
    os.mkfifo(tmp_path / "go")
    running = start("app:main")
    busy = 1
    if when == "reload":
        go(tmp_path)
        running.wait_for(event="committed", generation=1)
        running.send(signal.SIGHUP)
        busy = 2
    running.wait_for(event="preparing", generation=busy)
    for _ in range(3):
        hear(running, signal.SIGHUP)
    for generation in (busy, busy + 1):
        go(tmp_path)
        running.wait_for(event="committed", generation=generation)

    assert running.stop() == 0
    assert sum("remembered reload" in line.get("event", "") for line in running.lines) == 1
    assert not any(line.get("event") == "preparing" and line["generation"] == str(busy + 2) for line in running.lines)


def test_sigquit_ends_a_reload_too(start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path) -> None:
    """A new generation that imports for ever, an old one that serves: nobody is waited for, exit code 0."""
    app(HELD)
    os.mkfifo(tmp_path / "go")
    running = start("-w", 2, "app:main")
    go(tmp_path)
    running.wait_for(event="committed")
    running.send(signal.SIGHUP)
    running.wait_for(event="preparing", generation=2)
    family = children_of(running.pid)
    running.send(signal.SIGQUIT)

    assert running.wait() == 0
    assert not any(map(is_alive, family))


def test_workers_are_counted_anew_in_the_middle_of_a_reload(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """SIGTTIN and SIGTTOU count for the generation that is being prepared; there is never less than one."""
    app(HELD)
    os.mkfifo(tmp_path / "go")
    running = start("-w", 2, "app:main")
    go(tmp_path)
    running.wait_for(event="committed", generation=1)
    for generation, number, counts in ((2, signal.SIGTTIN, (3,)), (3, signal.SIGTTOU, (2, 1, 1))):
        running.send(signal.SIGHUP)
        running.wait_for(event="preparing", generation=generation)
        for count in counts:
            since = running.mark()
            running.send(number)
            running.wait_for(event="scaled", workers=count, since=since)
        go(tmp_path)
        committed = running.wait_for(event="committed", generation=generation)

        assert committed["workers"] == f"{counts[-1]}/{counts[-1]}"
        until(lambda count=counts[-1]: len(running.workers()) == count, "that many workers")  # type: ignore[misc]
    assert running.stop() == 0


def test_a_reload_starts_the_full_count_again(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Under on-failure work that is done is done again by the new generation."""
    app(WORK)
    running = start("-w", 2, "--restart", "on-failure", "app:main")
    running.wait_for(event="finished worker", generation=1)
    assert running.reload()["event"] == "committed"
    for slot in (0, 1):
        running.wait_for(f"works {slot} of 2")

    assert running.stop() == 0


def test_a_second_instance_leaves_nothing_behind(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """One that had to take another name has a directory of its own, for which nobody will ever come again."""
    app(WORK)
    first = start("-w", 2, "app:main")
    first.wait_for(event="committed")
    second = start("-w", 2, "app:main")
    second.wait_for(event="committed")
    names = {path.name for path in (tmp_path / "run" / "prod-run").iterdir()}

    assert names == {"app", f"app-{second.pid}"}
    assert second.stop() == 0
    assert [path.name for path in (tmp_path / "run" / "prod-run").iterdir()] == ["app"]
    assert first.stop() == 0


@pytest.mark.parametrize(("restart", "code"), [("never", 5), ("always", 0)])
def test_a_stop_hides_no_copy_that_had_failed(
    start: Callable[..., Running], app: Callable[..., Path], restart: str, code: int
) -> None:
    """Under never the copies' exit codes are the result, also if the rest was told to stop; else a stop is 0."""
    app(FAILS)
    running = start("-w", 2, "--restart", restart, "app:main")
    running.wait_for("exit 5")
    running.wait_for(event="committed")

    assert running.stop() == code
