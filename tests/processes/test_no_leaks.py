"""What comes goes again: hundreds of reloads and deaths leave nothing behind in the processes that stay."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.processes.running import LIMIT, Running, children_of, processes, title, until

if TYPE_CHECKING:
    from collections.abc import Callable

RELOADS = 200
KILLS = 500
SLOTS = 100  # many, so that pacing does not make it last

APP = """
from launcher import Worker

def main(worker: Worker):
    worker.ready()
    worker.stopping.wait()
"""


class Holdings(NamedTuple):
    """What a process holds of the kernel."""

    descriptors: list[str]
    threads: int
    zombies: int


@pytest.mark.slow
def test_reloads_and_deaths_leave_nothing_behind(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """After 200 reloads and 500 killed workers supervisor and zygote hold what they held before."""
    app(APP)
    running = start("-w", 1, "app:main")
    running.wait_for(event="committed")
    _reload(running)
    _scale_to(running, 2)
    _scale_to(running, 1)
    before, memory = _all_holdings(running), _resident(running.pid)

    for _ in range(RELOADS):
        _reload(running)
    after_reloads, memory_after_reloads = _all_holdings(running), _resident(running.pid)
    _scale_to(running, SLOTS)
    for _ in range(KILLS // SLOTS):
        _kill_all(running)
    _scale_to(running, 1)
    after, memory_after = _all_holdings(running), _resident(running.pid)

    print(f"resident: {memory} KiB, after reloads {memory_after_reloads} KiB, after kills {memory_after} KiB")
    assert after_reloads == before
    assert after == before
    assert running.stop() == 0


def _reload(running: Running) -> None:
    since = running.mark()
    assert running.reload()["event"] == "committed"
    running.wait_for(event="retired", since=since)


def _scale_to(running: Running, wanted: int) -> None:
    """Ask for one more or fewer until there are as many; signals of a kind that wait are one (signal(7))."""
    while (now := len(running.workers())) != wanted:
        since = running.mark()
        running.send(signal.SIGTTIN if now < wanted else signal.SIGTTOU)
        count = int(running.wait_for(event="scaled", since=since)["workers"])
        until(lambda count=count: len(running.workers()) == count, f"{count} workers")  # type: ignore[misc]
    until(lambda: f"serving {wanted}/{wanted}" in title(running.pid), f"{wanted} serving")


def _kill_all(running: Running) -> None:
    before = running.workers()
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    def are_new() -> bool:
        now = running.workers()
        return len(now) == len(before) and not now.keys() & before.keys()

    until(are_new, "as many new workers", 2 * LIMIT)
    until(lambda: f"serving {len(before)}/{len(before)}" in title(running.pid), "all serving")


def _all_holdings(running: Running) -> tuple[Holdings, Holdings]:
    running.spare()
    until(lambda: len(children_of(running.pid)) == 4, "only observer, zygote, worker and spare")
    return _holdings(running.pid), _holdings(running.zygotes()[0])


def _holdings(pid: int) -> Holdings:
    """Look at a process that does nothing."""
    links = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    return Holdings(
        sorted(link.partition(":")[0] for link in links),  # numbers of pipes and sockets differ
        len(list(Path(f"/proc/{pid}/task").iterdir())),
        sum(parent == pid and state == "Z" for _, parent, state in processes()),
    )


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
