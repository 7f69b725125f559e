"""The loop and what it waits with, on real descriptors but without a service."""

from __future__ import annotations

import os
import time
from threading import Timer
from types import SimpleNamespace
from unittest.mock import MagicMock

from launcher.lean_posix import signal, socket
from launcher.link import Link, Stopping
from launcher.supervisor import actions as do
from launcher.supervisor import events as on
from launcher.supervisor.carry_out import Hands
from launcher.supervisor.children import Child, Inputs
from launcher.supervisor.loop import Clock, Watcher

MONTHS = 3e7  # seconds: more milliseconds than an int holds


def test_a_deadline_may_be_months_away() -> None:
    """epoll_wait(2) takes an int of milliseconds, 24.8 days; --max-age and the app's checks may ask for more."""
    watcher = Watcher()
    reading, writing = os.pipe()
    watcher.watch(reading, lambda: [on.Tick()])
    os.write(writing, b"x")

    assert watcher.wait(MONTHS) == [on.Tick()]
    watcher.forget(reading)
    os.close(reading)
    os.close(writing)


def test_a_worker_may_wait_for_months() -> None:
    """poll(2) has the same limit: `worker.stopping.wait(3e6)` is the app's, and must not raise."""
    stopping = Stopping(Link())
    Timer(0.01, stopping.set).start()

    assert stopping.wait(MONTHS)


def test_a_drain_limit_is_told_in_the_time_of_those_who_hear_it() -> None:
    """After a late wake-up the supervisor's clock is behind: the limit would be over before it began."""
    handoff = SimpleNamespace(notify_socket="", watchdog=0.0, command=(), zygote=None)
    clock = Clock()
    clock.skew = 9.0
    hands = Hands(handoff, Watcher(), MagicMock(), clock)  # type: ignore[arg-type]
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = hands.children[1] = Child(1, 1, Inputs(), is_zygote=False)
    child.channel = channel
    link = Link(theirs)

    hands.carry_out(do.Stop(1, 0, "stop", True, clock.now() + 5.0, signal.SIGTERM))
    link.listen()

    assert link.stopping.is_set()
    assert 0.0 < link.stop_until - time.monotonic() <= 5.0
    child.close()
    theirs.close()
