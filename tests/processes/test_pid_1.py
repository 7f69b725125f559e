"""As PID 1 of a container: an init that leaves no zombie and obeys SIGTERM."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import Running, children_of, processes, title, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ORPHANS = 1000
UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")

# A worker whose children leave children behind: all of them alive at once, and dead at once.
PARENT = """
import os
from launcher import Worker

def main(worker: Worker):
    worker.ready()
    reading, writing = os.pipe()
    for _ in range(ORPHANS):
        middle = os.fork()
        if middle == 0:
            if os.fork() == 0:
                os.close(writing)
                os.read(reading, 1)  # until the worker closes its end
            os._exit(0)
        os.waitpid(middle, 0)
    print("all orphaned", flush=True)
    open("let them die").read()
    os.close(writing)
    print("let go", flush=True)
    worker.stopping.wait()
""".replace("ORPHANS", str(ORPHANS))


@pytest.fixture
def start_as_pid_1(start: Callable[..., Running]) -> Callable[..., Running]:
    """Start prod-run as PID 1 of a namespace of its own."""
    if shutil.which("unshare") is None or subprocess.run((*UNSHARE, "true"), capture_output=True).returncode:
        pytest.skip("no PID namespace can be had here")
    return lambda *words: start(*words, before=UNSHARE)


def test_a_thousand_orphans_leave_no_zombie(
    start_as_pid_1: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """A thousand children of others are adopted, reaped and counted; then SIGTERM ends it with exit code 0."""
    os.mkfifo(tmp_path / "let them die")
    app(PARENT)
    running = start_as_pid_1("app:main")
    assert running.wait_for(event="started")["pid"] == "1"
    running.wait_for("all orphaned")
    init = children_of(running.pid)[0]
    until(lambda: len(children_of(init)) == ORPHANS + 4, "the orphans, observer, zygote, worker, spare")
    (tmp_path / "let them die").write_text("")
    running.wait_for("let go")
    until(lambda: len(children_of(init)) == 4, "only observer, zygote, worker and spare")
    until(lambda: not _zombies(init), "no zombie")
    os.kill(init, signal.SIGUSR1)
    report = running.wait_for(event="status")

    assert report["orphans"] == str(ORPHANS)
    os.kill(init, signal.SIGTERM)
    assert running.wait() == 0
    assert not any(line.get("level") in ("warning", "error") for line in running.lines), running.text()


def test_it_serves_reloads_and_replaces_as_pid_1(
    start_as_pid_1: Callable[..., Running], hello: Callable[..., Path]
) -> None:
    """All that works elsewhere works there: a worker's death, a reload, the end."""
    hello()
    running = start_as_pid_1("-w", 2, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed", generation=1)
    init = children_of(running.pid)[0]
    os.kill(next(pid for pid in children_of(init) if "[worker 1]" in title(pid)), signal.SIGKILL)
    running.wait_for(event="lost worker")
    hello(2)
    os.kill(init, signal.SIGHUP)
    running.wait_for(event="committed", generation=2)

    assert "version 2 generation 2" in running.ask()
    os.kill(init, signal.SIGTERM)
    assert running.wait() == 0


def _zombies(parent: int) -> list[int]:
    return [pid for pid, its_parent, state in processes() if its_parent == parent and state == "Z"]
