"""The main job: a program starts, serves, is replaced when it dies, reloads and stops."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.processes.running import Running, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_an_app_is_served_and_stopped(start: Callable[..., Running], hello: Callable[..., Path]) -> None:
    """The example answers, and SIGTERM ends it with exit code 0."""
    hello()
    running = start("-w", 2, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed", generation=1)

    assert "hello from version 1 generation 1" in running.ask()
    assert running.stop() == 0


def test_a_killed_worker_is_replaced_from_memory(start: Callable[..., Running], hello: Callable[..., Path]) -> None:
    """Broken code on disk does not matter to a crashed worker's successor."""
    path = hello()
    running = start("-w", 2, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed", generation=1)
    path.write_text("this is not Python")
    before = running.workers()
    os.kill(next(iter(before)), signal.SIGKILL)
    until(lambda: len(running.workers().keys() - before.keys()) == 1, "a new worker")

    assert "generation 1" in running.ask()
    assert running.stop() == 0


def test_a_rejected_reload_keeps_the_old_generation(start: Callable[..., Running], hello: Callable[..., Path]) -> None:
    """A reload with broken code leaves the same workers where they were; a good one replaces them."""
    path = hello()
    running = start("-w", 2, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed", generation=1)
    before = running.workers()
    path.write_text("raise ValueError('half deployed')")
    result = running.reload()
    assert (result["event"], result["kept"]) == ("rejected", "1")
    assert "half deployed" in result["reason"]
    assert running.workers() == before
    hello(2)
    assert running.reload()["event"] == "committed"

    assert "version 2 generation 3" in running.ask()
    assert running.stop() == 0
