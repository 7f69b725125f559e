"""`--watch`: what a generation was made of changes, and a reload follows."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import Running, children_of, processes, title, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

APP = """
import environ, launcher

@environ.config(prefix="SHOP")
class Config:
    name = environ.var()
    token = launcher.secret()
    size = environ.var(default="1", converter=int)

def main(worker: launcher.Worker[Config]):
    print("serving", worker.config.name, worker.config.token.reveal() == worker.config.name)
    worker.ready()
    worker.stopping.wait()
"""


def swap(folder: Path, name: str, files: dict[str, str]) -> None:
    """Replace a volume's files as Kubernetes does: a new folder, and one rename of `..data`."""
    (folder / name).mkdir()
    for file, text in files.items():
        (folder / name / file).write_text(text)
        link = folder / file
        if not link.is_symlink():
            link.symlink_to(f"..data/{file}")
    (folder / "..data_tmp").symlink_to(name)
    os.rename(folder / "..data_tmp", folder / "..data")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Return a folder like a Kubernetes secret volume."""
    folder = tmp_path / "volume"
    folder.mkdir()
    swap(folder, "..one", {"shop_token": "a", "env": "SHOP_NAME=a\n"})
    return folder


def watching(start: Callable[..., Running], volume: Path, *words: object) -> Running:
    """Start with everything in that volume, and wait until it is watched."""
    running = start("--watch", "--secrets-dir", volume, "--env-file", volume / "env", *words, "app:main")
    running.wait_for(event="committed", generation=1)
    until(lambda: watchers(running.pid), "a process that watches")
    return running


def watchers(pid: int) -> list[int]:
    """Return the processes that watch: children of zygotes."""
    below = set(children_of(pid))
    return [one for one, parent, _ in processes() if parent in below and "[watch]" in title(one)]


@pytest.mark.parametrize("preload", ["always", "never"])
def test_a_swap_is_followed_by_a_reload_that_reads_all_of_it(
    start: Callable[..., Running], app: Callable[..., Path], volume: Path, preload: str
) -> None:
    """Secret and env file are of one generation of the volume, and the origin says what changed."""
    app(APP)
    running = watching(start, volume, "--preload", preload)

    swap(volume, "..two", {"shop_token": "b", "env": "SHOP_NAME=b\n"})

    assert running.wait_for(event="preparing", generation=2)["origin"].startswith("--watch: ")
    running.wait_for(event="committed", generation=2)
    running.wait_for("serving b True")
    assert running.stop() == 0
    assert watchers(running.pid) == []


def test_a_swap_to_something_invalid_is_rejected_and_the_next_good_one_taken(
    start: Callable[..., Running], app: Callable[..., Path], volume: Path
) -> None:
    """The old generation stays, status says since when it is stale, and the next change is tried."""
    app(APP)
    running = watching(start, volume)

    swap(volume, "..two", {"shop_token": "b", "env": "SHOP_NAME=b\nSHOP_SIZE=many\n"})
    running.wait_for(event="rejected", generation=2)
    os.kill(running.pid, signal.SIGUSR1)
    assert running.wait_for(event="status of generation", generation=1)["stale_for"]

    swap(volume, "..three", {"shop_token": "c", "env": "SHOP_NAME=c\n"})
    running.wait_for(event="committed", generation=3)
    running.wait_for("serving c True")
    assert running.stop() == 0


def test_a_change_while_a_generation_fills_is_not_missed(
    start: Callable[..., Running], app: Callable[..., Path], volume: Path
) -> None:
    """It is made after the files were read, and before anybody watches them."""
    app(
        APP.replace(
            "    worker.ready()", "    open('filling', 'w').close()\n    open('go').close()\n    worker.ready()"
        )
    )
    os.mkfifo(volume.parent / "go")
    running = start("--watch", "--secrets-dir", volume, "--env-file", volume / "env", "app:main")
    until((volume.parent / "filling").exists, "a worker that boots")
    swap(volume, "..two", {"shop_token": "b", "env": "SHOP_NAME=b\n"})
    (volume.parent / "go").write_text("")

    running.wait_for(event="committed", generation=1)
    until(lambda: running.text().count("generation=2") > 0, "a second generation")
    (volume.parent / "go").write_text("")
    running.wait_for(event="committed", generation=2)
    assert running.stop() == 0


def test_a_dead_watch_is_told(start: Callable[..., Running], app: Callable[..., Path], volume: Path) -> None:
    """Nobody should believe that changes are seen when they are not."""
    app(APP)
    running = watching(start, volume)
    (watcher,) = watchers(running.pid)

    os.kill(watcher, signal.SIGKILL)

    running.wait_for("nothing is watched until the next reload", level="error", logger="prod-run")
    assert running.reload()["event"] == "committed"
    until(lambda: watchers(running.pid), "a process that watches again")
    assert running.stop() == 0


def test_it_goes_on_when_its_zygote_dies_though_workers_import_for_themselves(
    start: Callable[..., Running], app: Callable[..., Path], volume: Path
) -> None:
    """`delayed respawn` is kept: a new zygote comes for the watch alone, whatever code lies on disk by then."""
    app(APP)
    running = watching(start, volume, "--preload", "never")
    app(APP + "\n# deployed\n")
    os.kill(running.zygotes()[0], signal.SIGKILL)
    running.wait_for(event="replaced zygote", generation=1)
    until(lambda: watchers(running.pid), "a process that watches")

    swap(volume, "..two", {"shop_token": "b", "env": "SHOP_NAME=b\n"})

    running.wait_for(event="committed", generation=2)
    running.wait_for("serving b True")
    assert running.stop() == 0


def test_environ_configs_own_secrets_are_watched(
    start: Callable[..., Running], app: Callable[..., Path], volume: Path
) -> None:
    """Their getter reads the files itself."""
    app(
        APP.replace(
            "launcher.secret()",
            "environ.secrets.DirectorySecrets.from_path_in_env('FOLDER', None).secret(name='shop_token')",
        ).replace("token.reveal()", "token")
    )
    running = start("--watch", "app:main", env={"FOLDER": str(volume), "SHOP_NAME": "b"})
    running.wait_for(event="committed", generation=1)
    running.wait_for("serving b False")
    until(lambda: watchers(running.pid), "a process that watches")

    swap(volume, "..two", {"shop_token": "b"})

    running.wait_for(event="committed", generation=2)
    running.wait_for("serving b True")
    assert running.stop() == 0


def test_that_there_is_nothing_to_watch_is_a_warning(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Not one of the app's lines."""
    app("import launcher\ndef main(worker: launcher.Worker):\n    worker.ready()\n    worker.stopping.wait()\n")
    running = start("--watch", "app:main")

    running.wait_for("there is no env file", level="warning", logger="prod-run")
    assert running.stop() == 0
