"""The spare: forked ahead, so that a crashed worker is replaced at once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.processes.running import Running, children_of, title, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def spares(running: Running) -> list[int]:
    """Return the PIDs of the living spares."""
    return [pid for pid in children_of(running.pid) if "[spare]" in title(pid)]


def test_a_spare_waits_and_becomes_the_successor(start: Callable[..., Running], hello: Callable[..., Path]) -> None:
    """There is one spare; it takes the slot of a killed worker, and another one is forked."""
    hello()
    running = start("-w", 2, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")
    until(lambda: len(spares(running)) == 1, "a spare")
    spare = spares(running)[0]
    victim, slot = next(iter(running.workers().items()))
    os.kill(victim, signal.SIGKILL)
    until(lambda: running.workers().get(spare) == slot, "the spare in the slot")
    until(lambda: len(spares(running)) == 1, "the next spare")

    assert running.stop() == 0


def test_a_commit_closes_the_old_spare(start: Callable[..., Running], hello: Callable[..., Path]) -> None:
    """A spare of the old generation would run old code: it goes when the new one is committed."""
    hello()
    running = start("-w", 1, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")
    until(lambda: len(spares(running)) == 1, "a spare")
    old = spares(running)
    hello(2)
    assert running.reload()["event"] == "committed"
    until(lambda: len(spares(running)) == 1 and spares(running) != old, "a new spare, and the old one gone")
    os.kill(next(iter(running.workers())), signal.SIGKILL)
    running.wait_for(event="lost worker")

    assert "version 2" in running.ask()


def test_a_killed_spare_is_nobodys_loss(start: Callable[..., Running], hello: Callable[..., Path]) -> None:
    """The end of a spare touches no worker; there is a new one."""
    hello()
    running = start("-w", 1, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")
    until(lambda: len(spares(running)) == 1, "a spare")
    before, spare = running.workers(), spares(running)[0]
    os.kill(spare, signal.SIGKILL)
    running.wait_for(event="lost spare")
    until(lambda: spares(running) not in ([], [spare]), "a new spare")

    assert running.workers() == before
