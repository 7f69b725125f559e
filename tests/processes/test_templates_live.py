"""Templates in a running prod-run: in place before the first worker, put back if the generation is rejected."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import Running, children_of, descriptors, title, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAIN = """
import os, launcher

def main(worker: launcher.Worker):
    path = worker.templates["web.conf"]
    print("seen", repr(open(path).read()), os.environ["PROD_RUN_TEMPLATE_WEB_CONF"] == path, flush=True)
    {deed}
    worker.ready()
    worker.stopping.wait()
"""
FAILS = "raise SystemExit(7)"
# It is there when the last worker is and the test has looked: no time is involved.
WAITS = "import time\n    while not os.path.exists('go'): time.sleep(0.01)"


@pytest.fixture
def folder(tmp_path: Path, app: Callable[..., Path]) -> Path:
    """Make an app, a template and a former file."""
    app(MAIN.format(deed="pass"))
    (tmp_path / "web.conf.tmpl").write_text("one ${PLACE}\n")
    (tmp_path / "web.conf").write_text("former\n")
    (tmp_path / "web.conf").chmod(0o604)
    return tmp_path


def left(folder: Path) -> list[str]:
    """Return the temporary files."""
    return [path.name for path in folder.iterdir() if ".prod-run-" in path.name]


TEMPLATE = ("--template", "web.conf.tmpl:web.conf")
PLACE = {"PLACE": "here"}


@pytest.mark.parametrize("preload", ["auto", "never"])
def test_a_file_is_there_before_the_first_worker_and_settled_by_the_commit(
    start: Callable[..., Running], folder: Path, preload: str
) -> None:
    """The worker reads the new file; after the commit nothing is kept of the former one, after the end it stays."""
    running = start("--preload", preload, "-w", 2, *TEMPLATE, "app:main", env=PLACE)
    running.wait_for(event="committed")

    assert running.count("seen 'one here\\n' True", 2) == 2
    until(lambda: not left(folder), "the former file is dropped")
    assert running.stop() == 0
    assert (folder / "web.conf").read_text() == "one here\n"
    assert (folder / "web.conf").stat().st_mode & 0o777 == 0o604


@pytest.mark.parametrize("preload", ["auto", "never"])
def test_a_rejected_reload_puts_the_former_file_back(
    start: Callable[..., Running], folder: Path, app: Callable[..., Path], preload: str
) -> None:
    """Bytes, mode and inode are those of before; the next good reload has its own."""
    running = start("--preload", preload, *TEMPLATE, "app:main", env=PLACE)
    running.wait_for(event="committed")
    until(lambda: not left(folder), "the former file is dropped")
    before = (folder / "web.conf").stat()
    (folder / "web.conf.tmpl").write_text("two ${PLACE}\n")
    app(MAIN.format(deed=FAILS))
    assert running.reload()["event"] == "rejected"

    running.wait_for("seen 'two here\\n' True")
    until(lambda: (folder / "web.conf").read_text() == "one here\n", "the former file is back")
    until(lambda: not left(folder), "nothing else is left")
    assert (folder / "web.conf").stat().st_ino == before.st_ino
    app(MAIN.format(deed="pass"))
    assert running.reload()["event"] == "committed"
    assert (folder / "web.conf").read_text() == "two here\n"
    assert running.stop() == 0
    assert (folder / "web.conf").read_text() == "two here\n"


def test_a_first_start_that_fails_leaves_no_file_where_there_was_none(
    start: Callable[..., Running], folder: Path, app: Callable[..., Path]
) -> None:
    """As if it had never been tried."""
    (folder / "web.conf").unlink()
    app(MAIN.format(deed=FAILS))
    running = start(*TEMPLATE, "app:main", env=PLACE)

    assert running.wait() == 70
    running.wait_for("seen 'one here\\n' True")
    assert not (folder / "web.conf").exists()
    assert left(folder) == []


def test_a_stop_before_the_commit_puts_the_former_file_back(
    start: Callable[..., Running], folder: Path, app: Callable[..., Path]
) -> None:
    """SIGTERM in the middle of the first fill: that generation never was."""
    app(MAIN.format(deed=WAITS))
    running = start(*TEMPLATE, "app:main", env=PLACE)
    running.wait_for("seen 'one here\\n' True")
    assert (folder / "web.conf").read_text() == "one here\n"
    assert running.stop() == 0

    assert (folder / "web.conf").read_text() == "former\n"
    assert left(folder) == []


def test_a_worker_forked_before_the_commit_holds_no_lock_of_a_former_file(
    start: Callable[..., Running], folder: Path, app: Callable[..., Path]
) -> None:
    """A lock that lives on in a worker would keep the file from being swept for ever."""
    app(MAIN.format(deed=WAITS))
    running = start(*TEMPLATE, "app:main", env=PLACE)
    running.wait_for("seen 'one here\\n' True")
    (zygote,), (worker,) = running.zygotes(), running.workers()

    def held(pid: int) -> list[str]:
        return [what for what in descriptors(pid).values() if "web.conf" in what]

    assert held(zygote) != []
    assert held(worker) == []
    (folder / "go").touch()
    running.wait_for(event="committed")
    until(lambda: held(zygote) == [], "the zygote lets go of it")
    assert running.stop() == 0


@pytest.mark.parametrize("preload", ["auto", "never"])
def test_each_generation_has_its_own_file_until_it_is_gone(
    start: Callable[..., Running], folder: Path, preload: str
) -> None:
    """`{generation}` in DEST: old workers keep theirs, and the last process of a generation removes it."""
    running = start("--preload", preload, "--template", "web.conf.tmpl:web-{generation}.conf", "app:main", env=PLACE)
    running.wait_for(event="committed")
    assert (folder / "web-1.conf").read_text() == "one here\n"
    os.kill(next(iter(running.workers())), signal.SIGKILL)
    running.wait_for(event="lost worker")
    until(lambda: running.text().count("seen 'one here\\n' True") >= 2, "its replacement reads the same file")
    assert running.reload()["event"] == "committed"

    running.wait_for(event="retired", generation=1)
    until(lambda: not (folder / "web-1.conf").exists(), "the file of generation 1 is gone")
    assert (folder / "web-2.conf").exists()
    assert running.stop() == 0
    assert not (folder / "web-2.conf").exists()


def test_a_replacement_zygote_makes_no_file_anew(start: Callable[..., Running], folder: Path) -> None:
    """A generation's files are those it was committed with, and its zygote can be replaced all the same."""
    running = start(*TEMPLATE, "app:main", env=PLACE)
    running.wait_for(event="committed")
    until(lambda: not left(folder), "the former file is dropped")
    running.spare()
    (folder / "web.conf.tmpl").write_text("two ${PLACE}\n")
    for pid in children_of(running.pid):
        if "[zygote]" in title(pid) or "[spare]" in title(pid):
            os.kill(pid, signal.SIGKILL)
    running.wait_for(event="replaced zygote")
    since = running.mark()
    os.kill(next(iter(running.workers())), signal.SIGKILL)
    running.wait_for("seen 'one here\\n' True", since=since)

    assert running.stop() == 0
    assert (folder / "web.conf").read_text() == "one here\n"


def test_a_check_that_refuses_rejects_and_leaves_everything_as_it_was(
    start: Callable[..., Running], folder: Path
) -> None:
    """The check sees the new bytes under another name, before any file is moved; what it says is in the reason."""
    check = shlex.join(
        [sys.executable, "-c", "import sys; text = open(sys.argv[1]).read(); sys.exit('bad' in text and text)", "{src}"]
    )
    running = start(*TEMPLATE, "--template-check", check, "app:main", env=PLACE)
    running.wait_for(event="committed")
    (folder / "web.conf.tmpl").write_text("bad ${PLACE}\n")
    result = running.reload()

    assert result["event"] == "rejected"
    assert "web.conf: " in result["reason"]
    assert "refuses it (exit code 1): bad here" in result["reason"]
    assert (folder / "web.conf").read_text() == "one here\n"
    assert left(folder) == []
    assert running.count("seen", 1) == 1
    assert running.stop() == 0
