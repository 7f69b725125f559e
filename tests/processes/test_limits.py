"""Each phase has its limit: a boot, a drain, and the patience of whoever asks twice."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher.errors import Exit
from tests.processes.running import Running, children_of, is_alive, title, until

if TYPE_CHECKING:
    from collections.abc import Callable

DEAF = """
import threading
from launcher import Worker

def main(worker: Worker):
    worker.ready()
    if worker.slot == 0:
        threading.Event().wait()
    worker.stopping.wait()
"""

NEVER_READY = """
from launcher import Worker

def main(worker: Worker):
    worker.stopping.wait()
"""

QUIET = """
from launcher import Worker

def main(worker: Worker):
    worker.ready()
    worker.stopping.wait()
"""

CLOSES_ALL = """
import os, time
from launcher import Worker

def main(worker: Worker):
    worker.ready()
    print("all closed", flush=True)
    os.closerange(3, 1000)
    os.execvp("sleep", ["sleep", "3600"])
"""

TALKS = """
import threading
from launcher import Worker

def main(worker: Worker):
    worker.ready()
    while not (worker.slot == 0 and worker.stopping.is_set() or worker.slot and worker.stopping.wait(0.01)):
        worker.status("still here")
"""

# A worker with a child in its own group that does not want to end, and one that left the group altogether.
PARENT = """
import os, signal, time
from launcher import Worker

def stay(name):
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN if IGNORES else signal.SIG_DFL)
    print(f"{name} {os.getpid()} says", flush=True)
    os.close(1), os.close(2)
    time.sleep(3600)

def main(worker: Worker):
    worker.ready()
    if os.fork() == 0:
        stay("leftover")
    middle = os.fork()
    if middle == 0:
        os.setsid()
        if os.fork() == 0:
            stay("orphan")
        os._exit(0)
    os.waitpid(middle, 0)
    worker.stopping.wait()
"""


def test_a_worker_that_is_never_ready_ends_the_start(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """The first generation has no second chance: exit code 70, and the sentence that helps."""
    app(NEVER_READY)
    running = start("--boot-timeout", "500ms", "app:main")

    assert running.wait() == Exit.SOFTWARE
    assert "did not call ready() within --boot-timeout 0.5s" in running.text()


def test_an_import_that_hangs_ends_the_start(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """The same limit holds for the import."""
    app("import threading; threading.Event().wait()")
    running = start("--boot-timeout", "500ms", "app:main")

    assert running.wait() == Exit.SOFTWARE
    assert "the import did not end within --boot-timeout 0.5s" in running.text()


def test_a_straggler_is_killed_at_the_drain_limit(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """A worker that does not stop costs one error line, not the exit code."""
    app(DEAF)
    running = start("-w", 3, "--drain-timeout", "500ms", "app:main")
    running.wait_for(event="committed")
    family = children_of(running.pid)
    code = running.stop()
    errors = [line for line in running.lines if line.get("level") == "error"]

    assert code == 0
    assert [(line["event"], line["slot"]) for line in errors] == [("killed straggler: drain limit", "0")]
    assert not any(map(is_alive, family))


def test_a_straggler_of_a_reload_is_killed_too(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """A former generation cannot stay for ever."""
    app(DEAF)
    running = start("-w", 2, "--drain-timeout", "500ms", "app:main")
    running.wait_for(event="committed", generation=1)
    former = [*running.zygotes(), *running.workers()]
    app(DEAF)
    assert running.reload()["event"] == "committed"
    running.wait_for(event="retired", generation=1)
    until(lambda: not any(map(is_alive, former)), "the former generation's end")

    assert running.stop() == 0


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_sigterm_is_an_order(
    start: Callable[..., Running], app: Callable[..., Path], first: signal.Signals
) -> None:
    """Who asks again after more than a second means it, first by Ctrl-C or not: workers are killed, exit code 0."""
    app(DEAF)
    running = start("-w", 2, "--drain-timeout", "1h", "app:main")
    running.wait_for(event="committed")
    running.send(first)
    running.wait_for(event="stopping")
    asked = time.monotonic()
    until(lambda: time.monotonic() > asked + 1.1, "more than a second")
    family = children_of(running.pid)
    assert family
    running.send(signal.SIGTERM)

    assert running.wait() == 0
    assert not any(map(is_alive, family))
    assert "unkillable" not in running.text()


@pytest.mark.parametrize("when", ["serving", "draining", "delayed"])
def test_sigquit_ends_at_once(start: Callable[..., Running], app: Callable[..., Path], when: str) -> None:
    """SIGQUIT waits for nobody, whatever prod-run is doing."""
    app(DEAF)
    delay = "1h" if when == "delayed" else "0s"
    running = start("-w", 2, "--drain-timeout", "1h", "--drain-delay", delay, "app:main")
    running.wait_for(event="committed")
    family = children_of(running.pid)
    if when != "serving":
        running.send(signal.SIGTERM)
        running.wait_for(event="stopping")
    running.send(signal.SIGQUIT)

    assert running.wait() == 0
    assert "unkillable" not in running.text()
    assert not any(map(is_alive, family))


def test_sigquit_ends_a_start(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Even an import that hangs does not hold it up, nor does a first SIGTERM."""
    app("import threading; threading.Event().wait()")
    running = start("app:main")
    running.wait_for(event="preparing")
    running.send(signal.SIGQUIT)

    assert running.wait() == 0
    assert "unkillable" not in running.text()


def test_sigterm_ends_a_start(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """SIGTERM during the first import: nothing serves yet, so there is nothing to drain."""
    app("import threading; threading.Event().wait()")
    running = start("app:main")
    running.wait_for(event="preparing")

    assert running.stop() == 0


def test_what_a_dead_worker_leaves_in_its_group_is_ended(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """Children of a crashed worker get SIGTERM; those that left its group are adopted and stay until the exit."""
    app(PARENT.replace("IGNORES", "False"))
    running = start("app:main")
    leftover, orphan = _pid(running, "leftover"), _pid(running, "orphan")
    os.kill(next(iter(running.workers())), signal.SIGKILL)
    until(lambda: not is_alive(leftover), "the end of what was left of the group")
    assert is_alive(orphan)

    assert running.stop() == 0
    assert not is_alive(orphan)


@pytest.mark.slow
def test_what_does_not_want_to_end_is_killed(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Leftovers and orphans that ignore SIGTERM get SIGKILL after five seconds; the exit code is 0."""
    app(PARENT.replace("IGNORES", "True"))
    running = start("app:main")
    leftover, orphan = _pid(running, "leftover"), _pid(running, "orphan")

    assert running.stop() == 0
    assert not is_alive(leftover)
    assert not is_alive(orphan)


def test_no_descriptors_left_costs_a_reload_and_not_the_service(
    start: Callable[..., Running], hello: Callable[..., Path]
) -> None:
    """What the kernel refuses to a new process is a rejected reload or a delayed respawn: the others serve."""
    hello()
    running = start("-w", 2, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed", generation=1)
    soft, hard = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{running.pid}/fd")) + 2, hard))
    rejected = running.reload()
    os.kill(next(pid for pid, slot in running.workers().items() if slot == 1), signal.SIGKILL)
    running.wait_for(event="delayed respawn")
    answer = running.ask()
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: "serving 2/2" in title(running.pid), "both slots serving")

    assert rejected["event"] == "rejected"
    assert "Too many open files" in rejected["reason"]
    assert "generation 1" in answer
    assert running.reload()["event"] == "committed"
    assert running.stop() == 0


def test_a_worker_that_closed_its_channel_costs_nothing(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """An app may close what it does not know, or exec another program: prod-run goes on to sleep, and stops it."""
    app(CLOSES_ALL)
    running = start("-w", 2, "app:main")
    running.wait_for("all closed")
    running.wait_for(event="committed")
    before, began = _worked(running), time.monotonic()
    until(lambda: time.monotonic() > began + 0.5, "half a second")

    assert _worked(running) - before < 0.1, "it is woken up again and again"
    assert running.stop() == 0


def test_a_worker_that_never_stops_talking_holds_nobody_up(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """What one worker says without a pause is taken in pieces: signals and the other workers have their turn."""
    app(TALKS)
    running = start("-w", 2, "app:main")
    running.wait_for(event="committed")
    running.send(signal.SIGUSR1)
    running.wait_for(event="status")
    assert running.reload()["event"] == "committed"

    assert running.stop() == 0


def test_the_last_lines_wait_for_a_slow_reader(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """A reader that was stuck until the very end still gets the last line, if it comes back within a second."""
    app(QUIET)
    os.mkfifo(tmp_path / "log")
    reading = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(tmp_path / "log", os.O_WRONLY | os.O_NONBLOCK)
    running = start("app:main", before=("sh", "-c", 'exec "$@" >log', "sh"))
    until(lambda: b"committed" in _take(reading), "a commit")
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b"." * 4096):
            pass
    os.close(writing)
    family = [*running.zygotes(), *running.workers(), running.spare()]
    running.send(signal.SIGTERM)
    until(lambda: not any(map(is_alive, family)), "the end of the app's processes")
    taken = bytearray()
    until(lambda: taken.extend(_take(reading)) or running.process.poll() is not None, "its own end")
    taken += _take(reading)
    os.close(reading)

    assert running.wait() == 0
    assert b"event=stopped" in taken


def test_a_zygote_that_hangs_is_replaced(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """A zygote that does not fork within the boot limit is killed; the next one gives the worker."""
    app(QUIET)
    running = start("-w", 2, "--boot-timeout", "2s", "app:main")
    running.wait_for(event="committed")
    os.kill(running.zygotes()[0], signal.SIGSTOP)
    os.kill(next(iter(running.workers())), signal.SIGKILL)
    running.wait_for(event="gave up")
    running.wait_for(event="replaced zygote")
    until(lambda: "serving 2/2" in title(running.pid), "both slots serving")

    assert running.stop() == 0


@pytest.mark.slow
def test_time_in_which_nobody_ran_does_not_count(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """A machine that was suspended in the middle of an import gives it the time back that it had left."""
    app(QUIET)
    running = start("-w", 1, "--boot-timeout", "2s", "app:main")
    running.wait_for(event="committed")
    app(f"import time\nprint('imports', flush=True)\nfor _ in range(20): time.sleep(0.05)\n{QUIET}")
    running.send(signal.SIGHUP)
    running.wait_for("imports")
    family = [running.pid, *children_of(running.pid)]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 4.5, "the end of the suspension")
    for pid in reversed(family):
        os.kill(pid, signal.SIGCONT)
    running.wait_for("woke up late")
    running.wait_for(event="committed", generation=2)

    assert running.stop() == 0


def _take(fd: int) -> bytes:
    """Return what is there."""
    taken = b""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(fd, 65536):
            taken += piece
    return taken


def _worked(running: Running) -> float:
    """Return the seconds of CPU that the supervisor has used."""
    words = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")  # proc_pid_stat(5): utime, stime


def _pid(running: Running, name: str) -> int:
    return int(running.wait_for(lambda line: line["text"].startswith(f"{name} "))["text"].split()[1])
