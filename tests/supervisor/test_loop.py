"""The loop and what it waits with, on real descriptors but without a service."""

from __future__ import annotations

import os
from threading import Timer

from launcher.api import Link, Stopping
from launcher.supervisor import events as on
from launcher.supervisor.loop import Watcher

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
