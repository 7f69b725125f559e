"""The file of a generation that was given up goes back at once, by whoever is left, and under nobody who serves."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import Running, children_of, title, until

if TYPE_CHECKING:
    from collections.abc import Callable

MAIN = """
import os, signal, time, launcher

def main(worker: launcher.Worker):
    print("seen", open("web.conf").read().strip(), flush=True)
    {deed}
    worker.ready()
    worker.stopping.wait()
"""
# The second one hears nothing until the test has looked, long after the first one has failed.
FAILS_WITH_A_STRAGGLER = """if worker.slot == 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open("there", "w").close()
    while not os.path.exists("there" if worker.slot == 0 else "go"): time.sleep(0.01)
    raise ValueError("no database")"""
FAILS = 'raise ValueError("no database")'
WAITS = "while not os.path.exists('go'): time.sleep(0.01)"
TEMPLATE = ("--template", "web.conf.tmpl:web.conf")


@pytest.fixture
def deploy(tmp_path: Path, app: Callable[..., Path]) -> Callable[..., None]:
    """Change what the next generation is made of."""

    def write(content: str, deed: str = "pass") -> None:
        (tmp_path / "web.conf.tmpl").write_text(f"{content}\n")
        app(MAIN.format(deed=deed))

    (tmp_path / "web.conf").write_text("former\n")
    write("one")
    return write


def kept(folder: Path) -> list[Path]:
    """Return the former files that somebody keeps."""
    return [path for path in folder.iterdir() if ".prod-run-" in path.name]


def zygote_of(running: Running, generation: int) -> int:
    """Return the PID of a generation's zygote."""
    found = [pid for pid in children_of(running.pid) if f"zygote] generation {generation}" in title(pid)]
    return found[0] if found else 0


@pytest.mark.parametrize("preload", ["auto", "never"])
@pytest.mark.parametrize("content", ["two", "three"])
def test_a_straggler_of_a_rejected_generation_takes_no_file_from_the_next(
    start: Callable[..., Running], deploy: Callable[..., None], tmp_path: Path, preload: str, content: str
) -> None:
    """It ends long after the next generation has its own file, also if that is the same again."""
    running = start("--preload", preload, "-w", 2, *TEMPLATE, "app:main")
    running.wait_for(event="committed")
    deploy("two", FAILS_WITH_A_STRAGGLER)
    assert running.reload()["event"] == "rejected"
    deploy(content)
    since = running.mark()
    assert running.reload()["event"] == "committed"
    assert (tmp_path / "web.conf").read_text() == f"{content}\n"

    (tmp_path / "go").touch()
    until(lambda: not zygote_of(running, 2), "nothing of generation 2 is left")
    assert (tmp_path / "web.conf").read_text() == f"{content}\n"
    assert "seen one" not in "\n".join(line["text"] for line in running.lines[since:])
    until(lambda: not kept(tmp_path), "nothing else is left")
    assert running.stop() == 0


@pytest.mark.parametrize("preload", ["auto", "never"])
@pytest.mark.parametrize(("surge", "workers"), [(0, 1), (1, 2)])
def test_a_rollback_starts_nobody_on_the_file_that_was_given_up(
    start: Callable[..., Running],
    deploy: Callable[..., None],
    tmp_path: Path,
    preload: str,
    surge: int,
    workers: int,
) -> None:
    """The former workers were told to go already; those that replace them read the former file."""
    # While rolling, the last one fails: the first serves by then, and a former one was told to go.
    deed = f"if 'two' in open('web.conf').read() and worker.slot == {workers - 1}: {FAILS}"
    deploy("one", deed)  # the same code: without preload a former generation cannot go on with another
    running = start("--preload", preload, "-w", workers, "--max-surge", surge, *TEMPLATE, "app:main")
    running.wait_for(event="committed")
    assert running.count("seen one", workers) == workers
    (tmp_path / "web.conf.tmpl").write_text("two\n")
    running.send(signal.SIGHUP)
    running.wait_for(event="rolled-back")

    assert running.count("seen one", workers + 1) == workers + 1
    assert running.count("seen two", workers) == workers
    assert (tmp_path / "web.conf").read_text() == "one\n"
    assert running.stop() == 0


def test_the_zygote_that_serves_puts_back_what_a_killed_one_moved(
    start: Callable[..., Running], deploy: Callable[..., None], tmp_path: Path
) -> None:
    """Bytes and inode are the former ones; the next generation sees nothing of it."""
    running = start("-w", 2, *TEMPLATE, "app:main")
    running.wait_for(event="committed")
    until(lambda: not kept(tmp_path), "the former file is dropped")
    before = (tmp_path / "web.conf").stat()
    deploy("two", WAITS)
    since = running.mark()
    running.send(signal.SIGHUP)
    running.wait_for("seen two", since=since)
    os.kill(zygote_of(running, 2), signal.SIGKILL)
    running.wait_for(event="rejected")

    until(lambda: (tmp_path / "web.conf").read_text() == "one\n", "the former file is back")
    assert (tmp_path / "web.conf").stat().st_ino == before.st_ino
    (tmp_path / "go").touch()
    until(lambda: not kept(tmp_path), "nothing else is left")
    deploy("three")
    assert running.reload()["event"] == "committed"
    assert (tmp_path / "web.conf").read_text() == "three\n"
    assert running.stop() == 0


def test_a_file_that_nobody_can_put_back_is_named_with_the_former_one(
    start: Callable[..., Running], deploy: Callable[..., None], tmp_path: Path
) -> None:
    """No zygote is left at a first start; the next one spares the former file until it has its own."""
    deploy("one", WAITS)
    running = start(*TEMPLATE, "app:main")
    running.wait_for("seen one")
    os.kill(zygote_of(running, 1), signal.SIGKILL)
    line = running.wait_for("not put back")
    (tmp_path / "go").touch()
    assert running.wait() == 70
    (former,) = kept(tmp_path)
    assert (line["path"], line["remedy"]) == (str(tmp_path / "web.conf"), f"its former content is in {former}")
    assert former.read_text() == "former\n"

    deploy("two", FAILS)
    assert start(*TEMPLATE, "app:main").wait() == 70
    assert kept(tmp_path) == [former]
    deploy("two")
    running = start(*TEMPLATE, "app:main")
    running.wait_for(event="committed")
    until(lambda: not kept(tmp_path), "there is no way back any more")
    assert running.stop() == 0
