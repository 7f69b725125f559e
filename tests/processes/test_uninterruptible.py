"""A worker in state D: it hears no signal but SIGKILL, so it can tell nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import PROD_RUN, Running, children_of, descendants, is_alive, status, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# vfork(2): the parent is suspended until the child ends or execs, in state D, and only SIGKILL gets it out of there.
# The child is on the parent's stack and in its memory, so it does no more than to wait for the end in pause(2), with
# SIGTERM as the kernel has it; PyDLL, since another thread must not find the GIL free.
APP = """
import ctypes, os, signal
from launcher import Worker

libc = ctypes.PyDLL(None)

def main(worker: Worker):
    worker.ready()
    while not worker.stopping.wait(0.05):
        worker.heartbeat()
        if worker.slot == 0 and os.path.exists("sleep"):
            os.unlink("sleep")
            if libc.vfork() == 0:
                libc.signal(signal.SIGTERM, None)
                while True:
                    libc.pause()
"""


@pytest.fixture
def begin(start: Callable[..., Running], app: Callable[..., Path]) -> Callable[..., Running]:
    """Start two workers, one of which can be sent into state D."""

    def begin_with(*words: object) -> Running:
        app(APP)
        running = start("-w", 2, *words, "app:main")
        running.wait_for(event="committed")
        return running

    return begin_with


def send_to_sleep(running: Running, tmp_path: Path) -> tuple[int, int]:
    """Have worker 0 fall into the uninterruptible wait; return its PID and that of the child it waits for."""
    pid = next(pid for pid, slot in running.workers().items() if slot == 0)
    (tmp_path / "sleep").touch()
    until(lambda: status(pid)["State"].startswith("D") and children_of(pid), "state D")
    return pid, children_of(pid)[0]


def test_a_worker_in_state_d_is_said_to_be_and_replaced(begin: Callable[..., Running], tmp_path: Path) -> None:
    """No heartbeat and no stack: the log says what the kernel says, the other worker stays, and stop works."""
    running = begin("--stall-timeout", "1s")
    before = running.workers()
    pid, child = send_to_sleep(running, tmp_path)
    stalled = running.wait_for(event="stalled", level="error", slot=0, pid=pid)
    no_stacks = running.wait_for(event="no stacks", slot=0, pid=pid)
    # The child has the title of its parent, until it is ended with the rest of the dead worker's group.
    until(lambda: len(running.workers().keys() - before.keys() - {child}) == 1, "a successor")
    until(lambda: not is_alive(child) and not is_alive(pid), "the end of both")
    running.wait_for(event="ended worker", pid=pid)
    said = {line["event"] for line in running.lines if line.get("pid") == str(pid)}

    assert "gave no heartbeat within --stall-timeout 1s" in stalled["reason"]
    assert no_stacks["process"] == "in an uninterruptible wait of the kernel"
    # SIGKILL ends a wait like this one (TASK_KILLABLE), so nobody is called unkillable.
    assert said == {"stalled", "no stacks", "ended worker"}
    assert sorted(running.workers().values()) == [0, 1]
    assert {other for other, slot in before.items() if slot == 1} <= running.workers().keys()
    nobody_is_left(running)


def test_an_operator_who_asks_for_its_stack_is_told_why_there_is_none(
    begin: Callable[..., Running], tmp_path: Path
) -> None:
    """`prod-ctl stacks` and SIGUSR1 say it too; the worker is left alone, since nobody set a limit."""
    running = begin("--drain-timeout", "100ms", "--control", tmp_path / "ctl.sock")
    pid, _ = send_to_sleep(running, tmp_path)
    os.spawnv(os.P_WAIT, PROD_RUN.with_name("prod-ctl"), ["prod-ctl", "--socket", str(tmp_path / "ctl.sock"), "stacks"])

    line = running.wait_for(event="no stacks", slot=0, pid=pid)
    assert line["process"] == "in an uninterruptible wait of the kernel"
    assert "app.py" in running.wait_for(event="stacks", slot=1)["detail"]
    assert status(pid)["State"].startswith("D")
    nobody_is_left(running)


def test_a_straggler_in_state_d_is_killed_at_the_drain_limit(begin: Callable[..., Running], tmp_path: Path) -> None:
    """SIGTERM does not reach it: the log says so, SIGKILL does, and prod-run stops with 0."""
    running = begin("--drain-timeout", "500ms")
    pid, _ = send_to_sleep(running, tmp_path)
    nobody_is_left(running)

    running.wait_for(event="killed straggler: drain limit", slot=0, pid=pid)
    assert running.wait_for(event="no stacks", pid=pid)["process"] == "in an uninterruptible wait of the kernel"


def nobody_is_left(running: Running) -> None:
    """Stop, with exit code 0, and leave none of the family: also not the child for which the worker waited."""
    family = descendants(running.pid)

    assert running.stop() == 0
    assert "unkillable" not in running.text()
    assert not any(map(is_alive, family))
