"""A Kubernetes-like volume that is swapped a hundred times under load: never a mixed pair, never a failed request."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from tests.processes.load import Load
from tests.processes.running import LIMIT, PROD_RUN, Running, children_of, processes, title, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PACE = 0.02  # seconds from one swap to the next

# Each answer holds the pair that the worker's configuration was made of.
# Between the two a getter of the app's own waits for a swap, as long as there are any: who reads the files one by
# one gets the first of one generation of the volume, and the second of another.
APP = """
import os, time
import environ, hello, launcher

def wait_for_a_swap(*_):
    before = os.readlink("volume/..data")
    while os.path.exists("swapping") and os.readlink("volume/..data") == before:
        time.sleep(0.001)
    if os.path.exists("swapping"):
        open("seen", "w").close()
    return ""

def agreed(instance, attribute, value):
    if value == "wrong":
        raise ValueError(f"{value} is no password")

@environ.config(prefix="SHOP")
class Config:
    user = launcher.secret()
    between = environ.var()
    between.metadata["environ_config"].callback = wait_for_a_swap
    password = launcher.secret(validator=agreed)

def main(worker: launcher.Worker[Config]):
    hello.VERSION = f"{worker.config.user.reveal()}/{worker.config.password.reveal()}"
    hello.main(worker)
"""


class Volume:
    """What kubelet makes of a secret with two keys."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        self.number = 0

    def swap(self, password: str = "") -> str:
        """Show the next pair; return it as the app does."""
        self.number += 1
        new = self.path / f"..{self.number}"
        new.mkdir()
        pair = {"shop_user": str(self.number), "shop_password": password or str(self.number)}
        for name, text in pair.items():
            (new / name).write_text(text)
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        old = self.path / os.readlink(self.path / "..data") if self.number > 1 else None
        (self.path / "..data_tmp").symlink_to(new.name)
        (self.path / "..data_tmp").rename(self.path / "..data")
        if old:
            shutil.rmtree(old)
        return "/".join(pair.values())

    def burst(self, swaps: int) -> str:
        """Show so many pairs, and more until somebody has read in the middle of it; return the last."""
        swapping, seen = self.path.with_name("swapping"), self.path.with_name("seen")
        swapping.touch()
        while swaps > 0 or not seen.exists():
            shown = self.swap()
            swaps -= 1
            threading.Event().wait(PACE)  # noqa: TID251  the pace is what is under test
        swapping.unlink()
        seen.unlink()
        return shown


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """A volume with its first pair."""
    one = Volume(tmp_path / "volume")
    one.swap()
    return one


@pytest.fixture
def running(
    start: Callable[..., Running], hello: Callable[..., Path], app: Callable[..., Path], volume: Volume
) -> Running:
    """Two workers that watch the volume."""
    hello()
    app(APP)
    words = ("-w", 2, "-b", "127.0.0.1:0", "--watch", "--secrets-dir", "volume", "--control", "ctl.sock")
    one = start(*words, "app:main")
    one.wait_for(event="committed", generation=1)
    until(lambda: is_watched(one.pid), "a process that watches")
    return one


@pytest.fixture
def load(running: Running) -> Iterator[Load]:
    """Eight clients that never retry."""
    clients = Load(running.address())
    yield clients
    clients.close()


def is_watched(pid: int) -> bool:
    """Say whether a process looks at the files."""
    below = children_of(pid)
    return any("[watch]" in title(one) for one, parent, _ in processes() if parent in below)


def serves(load: Load, pair: str) -> None:
    """Wait until every client has had two answers in a row with this pair, and so has nobody with another."""

    def only(requests: list) -> bool:  # type: ignore[type-arg]
        each = [[r.version for r in requests if r.client == client][-2:] for client in range(load.clients)]
        return all(versions == [pair, pair] for versions in each)

    load.wait_for(only, f"the pair {pair} for each of them")


@pytest.mark.parametrize(
    ("bursts", "swaps"), [(1, 25), pytest.param(4, 25, marks=pytest.mark.slow)], ids=["one burst", "a hundred swaps"]
)
def test_bursts_of_swaps_end_with_the_last_pair_and_never_show_a_mixed_one(
    running: Running, load: Load, volume: Volume, bursts: int, swaps: int
) -> None:
    """Reloads that an operator asks for in the middle of a burst read one state of the volume too."""
    for _ in range(bursts):
        running.send(signal.SIGHUP)
        serves(load, volume.burst(swaps))
    load.close()
    reloads = [line for line in running.lines if line.get("event") == "preparing" and line["generation"] != "1"]
    pairs = {tuple(request.version.split("/")) for request in load.requests}

    assert [request for request in load.requests if request.failed] == []
    assert {user for user, password in pairs if user != password} == set()
    assert len(pairs) > bursts
    assert [line["origin"] for line in reloads if not line["origin"].startswith("--watch: ")] == ["SIGHUP"] * bursts
    assert bursts < len(reloads) <= 3 * bursts  # nothing like one for each swap
    assert running.stop() == 0


def test_a_swap_to_a_value_that_is_refused_is_told_and_the_next_good_one_taken(
    running: Running, load: Load, volume: Volume
) -> None:
    """Nobody is served anything but the pair of before; log and prod-ctl say why, and since when it is stale."""
    volume.swap("wrong")
    rejected = running.wait_for(event="rejected", generation=2)
    load.settle()
    status, events = (ctl(volume.path.parent, *words) for words in (("status",), ("events", "--past")))

    assert {request.version for request in load.requests} == {"1/1"}
    assert rejected["reason"].startswith("SHOP_PASSWORD: ValueError from agreed (from volume/shop_password)")
    assert "SHOP_PASSWORD: ValueError from agreed" in events
    assert "generation 1" in status
    assert "stale_for" in status
    assert "stale_because" in status
    serves_last = volume.swap()
    serves(load, serves_last)
    load.close()
    assert "stale_for" not in ctl(volume.path.parent, "status")
    assert {request.version for request in load.requests} == {"1/1", "3/3"}
    assert [request for request in load.requests if request.failed] == []
    assert running.stop() == 0


def ctl(folder: Path, *words: str) -> str:
    """Return what prod-ctl says."""
    argv = [PROD_RUN.with_name("prod-ctl"), "--socket", folder / "ctl.sock", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT).stdout
