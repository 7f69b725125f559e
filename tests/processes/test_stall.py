"""Workers that do nothing any more: their stacks, and their replacement."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.processes.running import Running, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

APP = """
import ctypes, os, time
from launcher import Worker

def hold_the_gil():
    ctypes.PyDLL(None).sleep(3600)

def block_in_a_full_pipe():
    _, writing = os.pipe()
    while True:
        os.write(writing, bytes(65536))

def sleep_for_ever():
    time.sleep(3600)

def main(worker: Worker):
    worker.ready()
    while not worker.stopping.wait(0.05):
        worker.heartbeat()
        if os.path.exists(f"stall{worker.slot}") and worker.generation == 1:
            what = open(f"stall{worker.slot}").read()
            os.unlink(f"stall{worker.slot}")
            globals()[what]()
"""


def stall(running: Running, tmp_path: Path, what: str) -> tuple[dict[int, int], dict[str, str]]:
    """Have worker 0 of two do something for ever; return the workers before, and the line on its stacks."""
    before = running.workers()
    fresh = tmp_path / "stall0.new"
    fresh.write_text(what)
    fresh.rename(tmp_path / "stall0")
    running.wait_for(event="stalled", slot=0)
    line = running.wait_for(lambda line: line.get("event") in ("stacks", "no stacks"))
    until(lambda: len(running.workers().keys() - before.keys()) == 1, "a successor")
    return before, line


def begin(start: Callable[..., Running], app: Callable[..., Path]) -> Running:
    """Start two workers that must give a heartbeat twice a second."""
    app(APP)
    running = start("-w", 2, "--stall-timeout", "1s", "app:main")
    running.wait_for(event="committed")
    return running


def test_a_sleeping_worker_is_replaced_with_its_stack_in_the_log(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """No heartbeat: the stack says where it hangs, then it is replaced; the other one stays."""
    running = begin(start, app)
    before, line = stall(running, tmp_path, "sleep_for_ever")

    assert "sleep_for_ever" in line["detail"]
    assert next(pid for pid, slot in before.items() if slot == 1) in running.workers()
    assert running.stop() == 0


def test_a_worker_that_holds_the_gil_in_c_tells_its_stack(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """The stack is written without the GIL."""
    running = begin(start, app)
    _, line = stall(running, tmp_path, "hold_the_gil")

    assert "hold_the_gil" in line["detail"]


def test_a_worker_blocked_in_a_full_pipe_tells_its_stack(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """A system call that blocks is interrupted for the stack, and goes on."""
    running = begin(start, app)
    _, line = stall(running, tmp_path, "block_in_a_full_pipe")

    assert "block_in_a_full_pipe" in line["detail"]


def test_a_stopped_worker_is_said_to_be_stopped(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """SIGSTOP: there is no stack to be had, and the log says why."""
    running = begin(start, app)
    pid = next(pid for pid, slot in running.workers().items() if slot == 0)
    os.kill(pid, signal.SIGSTOP)
    running.wait_for(event="stalled", slot=0)

    assert running.wait_for(event="no stacks", slot=0)["process"] == "stopped by a signal"
    until(lambda: pid not in running.workers() and len(running.workers()) == 2, "a successor")


def test_a_suspended_machine_is_no_stall(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """When everything stood still, supervisor included, nobody is killed for it."""
    running = begin(start, app)
    before = running.workers()
    everybody = [running.pid, *before, *running.zygotes()]
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, running.pid, os.WSTOPPED | os.WNOWAIT)
    signal.sigtimedwait([], 5.0)  # longer than the stall limit and what counts as late
    for pid in reversed(everybody):
        os.kill(pid, signal.SIGCONT)
    running.wait_for("woke up late")
    since = running.mark()
    os.kill(running.pid, signal.SIGUSR1)
    running.wait_for(event="status", since=since)

    assert running.workers() == before


def test_a_report_holds_the_stacks_of_all_workers(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """SIGUSR1 writes a line for each worker, and its stack."""
    running = begin(start, app)
    running.send(signal.SIGUSR1)
    for slot in (0, 1):
        assert "app.py" in running.wait_for(event="stacks", slot=slot)["detail"]


def test_a_straggler_leaves_its_stack(start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path) -> None:
    """At the drain limit the log says where the worker hung, before it is killed; the exit code is 0."""
    app(APP)
    running = start("-w", 1, "--drain-timeout", "500ms", "app:main")
    running.wait_for(event="committed")
    (tmp_path / "stall0").write_text("sleep_for_ever")
    until(lambda: not (tmp_path / "stall0").exists(), "it hangs")

    assert running.stop() == 0
    assert "sleep_for_ever" in running.wait_for(event="stacks")["detail"]
    running.wait_for(event="killed straggler: drain limit")
