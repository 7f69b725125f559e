"""What prod-run leaves behind when the supervisor itself is wrong, and a setting of months that once was such a case."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import launcher
from launcher.errors import Exit
from tests.processes.running import Running, is_alive, until

if TYPE_CHECKING:
    from collections.abc import Callable

QUIET = """
from launcher import Worker

def main(worker: Worker):
    worker.check("far", lambda: None, timeout=3e6)
    worker.ready()
    worker.stopping.wait(3e6)
"""


def test_limits_of_months_are_limits(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """--max-age and the time of an app's check may be longer than epoll_wait(2) can be told, 24.8 days."""
    app(QUIET)
    running = start("--max-age", "720h", "--control", "ctl.sock", "app:main")
    running.wait_for(event="committed")

    assert running.reload()["event"] == "committed"
    assert running.stop() == 0
    assert "Traceback" not in running.text()


def test_a_fault_of_the_supervisor_leaves_nothing_behind(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """An exception that nobody thought of: exit 70 with a sentence, no worker, no socket's file."""
    copy = tmp_path / "copy" / "launcher"
    shutil.copytree(Path(launcher.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    loop = copy / "supervisor" / "loop.py"
    sound = "        events: list[on.Event] = []\n        for fd, _"
    faulty = f"        import os\n        1 / (not os.path.exists({str(tmp_path / 'fault')!r}))\n{sound}"
    assert sound in loop.read_text()
    loop.write_text(loop.read_text().replace(sound, faulty))
    app(QUIET)
    control, web = tmp_path / "ctl.sock", tmp_path / "web.sock"
    running = start("--control", control, "-b", f"unix:{web}", "app:main", env={"PYTHONPATH": str(copy.parent)})
    running.wait_for(event="committed")
    workers = running.workers()
    assert control.exists()
    assert web.exists()

    (tmp_path / "fault").touch()
    running.send(signal.SIGTTIN)  # the loop has to turn
    assert running.wait() == Exit.SOFTWARE
    assert "ended by a fault of its own (ZeroDivisionError: " in running.text()
    assert not control.exists()
    assert not web.exists()
    until(lambda: not any(is_alive(pid) for pid in workers), "the workers are gone")
