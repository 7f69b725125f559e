"""When the supervisor is killed, nothing of it stays behind: no worker serves without one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import Running, children_of, is_alive, title, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ALLOWED = 10.0  # seconds: one is the contract, and a busy machine may need more

# Deaf to everything that can be ignored, and busy in a call that does not look at signals.
DEAF = """
import signal, sys, threading
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
    signal.signal(number, signal.SIG_IGN)
"""


def test_workers_and_zygote_go_with_it(start: Callable[..., Running], hello: Callable[..., Path]) -> None:
    """A serving tree is gone at once, and its port is free."""
    hello()
    running = start("-w", 3, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")
    running.spare()
    with _connections(running, 4):
        took = _time_to_end(running, 6)

    assert took < ALLOWED
    _assert_free(running.address())


def test_deaf_workers_go_with_it(start: Callable[..., Running], hello: Callable[..., Path]) -> None:
    """An app that ignores every signal does not outlive the supervisor either."""
    hello(1, DEAF)
    running = start("-w", 2, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")
    until(lambda: "hello" in running.ask(), "an answer")
    running.spare()

    assert _time_to_end(running, 5) < ALLOWED
    _assert_free(running.address())


def test_workers_that_import_for_themselves_go_with_it(
    start: Callable[..., Running], hello: Callable[..., Path]
) -> None:
    """Without preload there is no zygote, and the same promise."""
    hello()
    running = start("-w", 2, "--preload", "never", "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")

    assert _time_to_end(running, 3) < ALLOWED
    _assert_free(running.address())


@pytest.mark.parametrize("state", ["preparing", "filling"])
def test_an_unfinished_reload_goes_with_it(
    start: Callable[..., Running], hello: Callable[..., Path], state: str
) -> None:
    """A zygote in the middle of its import and workers that are held in ready() are gone as well."""
    hello()
    running = start("-w", 2, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")
    if state == "preparing":
        hello(2, "time.sleep(3600)")
    else:
        hello(2, "import launcher; launcher.Worker.ready = lambda worker: time.sleep(3600)")
    running.spare()
    running.send(signal.SIGHUP)
    until(lambda: f"generation 2 {state}" in title(running.pid), state)
    # Observer, zygote, two workers, spare; another zygote, and its two workers.
    expected = 6 if state == "preparing" else 8
    until(lambda: len(children_of(running.pid)) == expected, f"{expected} children")

    assert _time_to_end(running, expected) < ALLOWED
    _assert_free(running.address())


def _time_to_end(running: Running, expected: int) -> float:
    """Kill the supervisor; return how long the last of its children lived on."""
    family = children_of(running.pid)
    assert len(family) == expected, [title(pid) for pid in family]
    began = time.monotonic()
    os.kill(running.pid, signal.SIGKILL)
    until(lambda: not any(map(is_alive, [running.pid, *family])), "everybody's end")
    return time.monotonic() - began


@contextlib.contextmanager
def _connections(running: Running, count: int) -> Iterator[None]:
    """Hold connections with a slow request in flight on each."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(running.address()))
            connection.sendall(b"GET /slow/3600 HTTP/1.1\r\nHost: x\r\n\r\n")
        yield


def _assert_free(address: tuple[str, int]) -> None:
    with socket.socket() as sock:
        # Only those that listen stand in the way of SO_REUSEADDR (socket(7)), not what connections leave behind.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen()
