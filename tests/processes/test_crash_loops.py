"""What dies again and again is tried again ever more rarely, costs nobody else anything, and fills no log."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.processes.running import LIMIT, PROD_RUN, Line, Running, title, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TIMES = 12  # the last pauses are the longest: 15 last a minute and show the same
ROUNDING = 0.01  # seconds: the delay is written with two digits, the time with three

# A slot's worker dies as the first thing it does while its file is there.
IN_MAIN = """
import os
import launcher, hello

def main(worker: launcher.Worker):
    if os.path.exists(f"crash{worker.slot}"):
        os._exit(3)
    hello.main(worker)
"""

# Workers and spares die inside the fork, before they could say hello; the zygote forks twice for each.
IN_THE_FORK = """
import os
import launcher, hello

forks = 0

def count():
    global forks
    forks += 1
    if forks == 2 and os.path.exists("crash-in-fork"):
        os._exit(4)

os.register_at_fork(after_in_child=count)

def main(worker: launcher.Worker):
    hello.main(worker)
"""


# A zygote dies while it imports.
AT_IMPORT = """
import os
if os.path.exists("crash-at-import"):
    os._exit(5)
from hello import main
"""

LINES_OF_A_LOOP = {
    *("lost worker", "lost zygote", "lost spare", "lost spare with its zygote"),
    *("delayed respawn", "replaced zygote"),
}


def begin(start: Callable[..., Running], target: str, *words: object) -> Running:
    """Start two workers, and wait for all there is: workers, zygote, spare."""
    running = start("-w", 2, "-b", "127.0.0.1:0", *words, f"{target}:main")
    running.wait_for(event="committed")
    running.spare()
    return running


def kill_slot(running: Running, slot: int) -> None:
    """Kill the worker of a slot."""
    os.kill(next(pid for pid, its in running.workers().items() if its == slot), signal.SIGKILL)


def kill_zygote(running: Running) -> None:
    """Kill the zygote, or the one that is to be the next, as soon as there is one."""
    until(running.zygotes, "a zygote")
    os.kill(running.zygotes()[0], signal.SIGKILL)


def events(running: Running, event: str, since: int = 0, **fields: object) -> list[Line]:
    """Return the lines of an event; a field that is None must not be there."""
    return [
        line
        for line in running.lines[since:]
        if line.get("event") == event
        and all(line.get(name) == (None if value is None else str(value)) for name, value in fields.items())
    ]


def ctl(path: Path, verb: str) -> subprocess.CompletedProcess[str]:
    """Run prod-ctl."""
    argv = [str(PROD_RUN.with_name("prod-ctl")), "--socket", str(path), verb]
    return subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT)


def test_not_ready_only_when_no_worker_is_ready(
    start: Callable[..., Running], hello: Callable[..., Path], app: Callable[..., Path], tmp_path: Path
) -> None:
    """With one slot in a crash loop prod-run is ready; with all it is not, but lives, and nothing queued is lost."""
    hello()
    app(IN_MAIN)
    control = tmp_path / "ctl.sock"
    running = begin(start, "app", "--control", control)
    (tmp_path / "crash1").touch()
    kill_slot(running, 1)
    until(lambda: len(events(running, "delayed respawn", slot=1)) >= 3, "three tries of slot 1")
    assert ctl(control, "health").returncode == 0
    assert "slot 0" in running.ask()
    (tmp_path / "crash0").touch()
    kill_slot(running, 0)
    until(lambda: len(events(running, "delayed respawn", slot=0)) >= 3, "three tries of slot 0")

    assert ctl(control, "health").returncode == 1
    assert "serving 0/2" in title(running.pid)
    with socket.create_connection(running.address(), LIMIT) as queued:
        queued.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        (tmp_path / "crash0").unlink()
        (tmp_path / "crash1").unlink()
        assert b"200 OK" in queued.recv(65536)
    until(lambda: "serving 2/2" in title(running.pid), "both slots")
    assert ctl(control, "health").returncode == 0
    assert running.stop() == 0


def test_a_good_reload_ends_a_crash_loop_at_once(
    start: Callable[..., Running], hello: Callable[..., Path], app: Callable[..., Path], tmp_path: Path
) -> None:
    """The back-off is the generation's: new code does not wait for the old code's, and the old loop is over."""
    hello()
    app(IN_MAIN)
    running = begin(start, "app")
    for slot in (0, 1):
        (tmp_path / f"crash{slot}").touch()
        kill_slot(running, slot)
    until(lambda: all(len(events(running, "delayed respawn", slot=slot)) >= 4 for slot in (0, 1)), "a crash loop")
    app(IN_MAIN.replace('f"crash{worker.slot}"', '"no such file"'))

    assert running.reload()["event"] == "committed"
    running.wait_for(event="retired", generation=1)
    since = running.mark()
    assert "generation 2" in running.ask()
    assert running.stop() == 0
    assert events(running, "lost worker", since) == []


def test_a_worker_that_dies_while_the_zygote_is_down_comes_from_the_next_one(
    start: Callable[..., Running], hello: Callable[..., Path]
) -> None:
    """Zygote, spare and a worker die together, three times: the slot is filled again, the other is not touched."""
    hello()
    running = begin(start, "hello")
    other = next(pid for pid, slot in running.workers().items() if slot == 0)
    for times in range(1, 4):
        spare = running.spare()
        kill_zygote(running)
        os.kill(spare, signal.SIGKILL)
        kill_slot(running, 1)
        until(lambda times=times: len(events(running, "replaced zygote")) >= times, "the next zygote")  # type: ignore[misc]
        until(lambda: "serving 2/2" in title(running.pid), "both slots")

    assert other in running.workers()
    assert len(events(running, "lost worker")) == 3
    assert running.stop() == 0


def test_a_zygote_that_dies_again_and_again_is_given_up_when_the_code_differs(
    start: Callable[..., Running], hello: Callable[..., Path], tmp_path: Path
) -> None:
    """One line says that nothing can be respawned; the workers stay, a lost one stays lost, and a reload heals it."""
    hello()
    control = tmp_path / "ctl.sock"
    running = begin(start, "hello", "--control", control)
    before = running.workers()
    for times in range(1, 4):
        kill_zygote(running)
        until(lambda times=times: len(events(running, "replaced zygote")) >= times, "the next zygote")  # type: ignore[misc]
    assert running.workers() == before
    hello(2)
    kill_zygote(running)
    line = running.wait_for(event="cannot respawn: reload when the code is right", level="error", generation=1)
    until(lambda: not running.zygotes(), "the end of the zygote with other code")
    assert line["reason"] == "code on disk differs"
    os.kill(running.spare(), signal.SIGKILL)
    running.wait_for(event="lost spare")
    kill_slot(running, 1)
    until(lambda: "serving 1/2" in title(running.pid), "the end of worker 1")

    assert ctl(control, "health").returncode == 0
    assert "version 1" in running.ask()
    assert len(events(running, "lost zygote")) == 4
    assert len(events(running, "cannot respawn: reload when the code is right")) == 1
    assert running.reload()["event"] == "committed"
    until(lambda: "generation 2 serving 2/2" in title(running.pid), "both slots")
    assert running.stop() == 0


def test_a_spare_that_is_there_takes_a_slot_though_nothing_more_can_be_forked(
    start: Callable[..., Running], hello: Callable[..., Path], tmp_path: Path
) -> None:
    """A spare is of the right code whatever is on disk: it must not idle while nobody serves."""
    hello()
    control = tmp_path / "ctl.sock"
    running = begin(start, "hello", "--control", control)
    hello(2)
    kill_zygote(running)
    running.wait_for(event="cannot respawn: reload when the code is right")
    spare = running.spare()
    for slot in (0, 1):
        kill_slot(running, slot)
    until(lambda: len(events(running, "lost worker")) == 2, "the end of both")

    assert f"pid {spare}" in ctl(control, "status").stdout


@pytest.mark.slow
def test_each_of_many_deaths_is_a_pause(
    start: Callable[..., Running], hello: Callable[..., Path], app: Callable[..., Path], tmp_path: Path
) -> None:
    """
    A worker dies in its first millisecond, one inside its fork, and a zygote, 12 times each; all three at once.

    Each time it is tried again no sooner than after 100 ms times 1.5^n, less 10 %.  The others serve, and the log
    has two or three lines for each death.
    """
    hello()
    for target, source in {"in_main": IN_MAIN, "in_fork": IN_THE_FORK, "at_import": AT_IMPORT}.items():
        app(source, target)
    in_main, in_fork, at_import = (begin(start, target) for target in ("in_main", "in_fork", "at_import"))
    loops = (
        Loop(in_main, "lost worker", 1, in_main.mark(), in_main.workers()),
        Loop(in_fork, "lost worker", 1, in_fork.mark(), in_fork.workers()),
        Loop(at_import, "lost zygote", None, at_import.mark(), at_import.workers()),
    )
    (tmp_path / "crash1").touch()
    kill_slot(in_main, 1)
    (tmp_path / "crash-in-fork").touch()
    os.kill(in_fork.spare(), signal.SIGKILL)
    in_fork.wait_for(event="lost spare")
    kill_slot(in_fork, 1)
    (tmp_path / "crash-at-import").touch()
    kill_zygote(at_import)
    loops[2].wait_for_pauses(TIMES - 1)
    (tmp_path / "crash-at-import").unlink()
    at_import.wait_for(event="replaced zygote")
    kill_zygote(at_import)

    for loop in loops:
        loop.wait_for_pauses(TIMES)
        each_pause_is_kept(loop)
        the_log_is_readable(loop)
        assert loop.running.process.poll() is None
        assert "hello" in loop.running.ask()
        untouched = {pid for pid, slot in loop.workers.items() if slot != loop.slot}
        assert untouched <= loop.running.workers().keys()
    assert [loop.running.stop() for loop in loops] == [0, 0, 0]


class Pause(NamedTuple):
    """A death, and how long nothing was to be tried after it; in seconds."""

    died: float
    delay: float


class Loop(NamedTuple):
    """Something that dies again and again."""

    running: Running
    event: str
    slot: int | None
    since: int
    workers: dict[int, int]

    def pauses(self) -> list[Pause]:
        """Return the deaths that were followed by a delay."""
        deaths = {
            line["pid"]: datetime.fromisoformat(line["time"]).timestamp()
            for line in events(self.running, self.event, self.since, slot=self.slot)
        }
        delays = events(self.running, "delayed respawn", self.since, slot=self.slot)
        # What has no slot may also be a spare.
        return [Pause(deaths[d["pid"]], float(d["by"].removesuffix("s"))) for d in delays if d["pid"] in deaths]

    def wait_for_pauses(self, number: int) -> None:
        """Wait until there were so many; one at a time, since together they last longer than any other wait."""
        for n in range(1, number + 1):
            self.running.wait_for(lambda _, n=n: len(self.pauses()) >= n)  # type: ignore[misc]


def each_pause_is_kept(loop: Loop) -> None:
    """Check that each delay is long enough, and that the next death came only after it."""
    for n, pause in enumerate(loop.pauses()):
        assert pause.delay >= min(30.0, 0.1 * 1.5**n) * 0.9 - ROUNDING
    for pause, following in pairwise(loop.pauses()):
        assert following.died - pause.died >= pause.delay - ROUNDING


def the_log_is_readable(loop: Loop) -> None:
    """Check that each death has its few lines: of this loop, and of the spare that may die as often."""
    lines = loop.running.lines[loop.since :]

    assert {line.get("event") for line in lines} <= LINES_OF_A_LOOP, loop.running.text()
    assert len(lines) <= 2 * 3 * TIMES
