"""A stop leaves nobody connected to a socket that is about to be closed."""

from __future__ import annotations

import contextlib
import errno
import select
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from launcher.supervisor import syn_filter
from tests.processes.running import LIMIT, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.processes.running import Running

HOLDING = """
import pathlib, select
from launcher import Worker
def main(worker: Worker):
    listener = worker.sockets["default"]
    worker.ready()
    worker.stopping.wait()
    while not pathlib.Path("go").exists():
        select.select((), (), (), 0.02)
    listener.setblocking(False)
    while select.select((listener,), (), (), 0)[0]:
        connection, _ = listener.accept()
        connection.sendall(b"late")
        connection.close()
"""


@contextlib.contextmanager
def connecting(address: tuple[str, int]) -> Iterator[socket.socket]:
    """Begin to connect."""
    with socket.socket() as client:
        client.setblocking(False)
        client.connect_ex(address)
        yield client


def is_connected(client: socket.socket, seconds: float = 0.0) -> bool:
    """Say whether the handshake has ended."""
    return bool(select.select((), (client,), (), seconds)[1])


@pytest.mark.slow
def test_whoever_connects_while_the_queue_is_emptied_is_refused_and_not_reset(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Who was queued is served; who comes later waits for whoever listens next, and has sent nothing."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        if not syn_filter.attach(probe.fileno()):
            pytest.skip("the kernel takes no filter from us")
    app(HOLDING)
    running = start("--bind", "127.0.0.1:0", "app:main")
    running.wait_for(event="committed")
    address = running.address()
    with socket.create_connection(address, LIMIT) as early, contextlib.ExitStack() as others:
        running.send(signal.SIGTERM)
        running.wait_for(event="stopping")

        def is_closed() -> bool:
            return not is_connected(others.enter_context(connecting(address)), 0.3)

        until(is_closed, "new handshakes are dropped")
        with connecting(address) as late:
            assert not is_connected(late, 0.3)
            (tmp_path / "go").touch()
            assert early.recv(100) == b"late"
            assert running.wait() == 0
            # Its SYN comes again after a second, or three.
            assert is_connected(late, LIMIT)
            assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_a_socket_that_others_hold_stays_open(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """One that was inherited, as with socket activation, goes on queueing for whoever is next."""
    app(HOLDING)
    (tmp_path / "go").touch()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        running = start("--bind", f"fd:{fd}", "app:main", pass_fds=(fd,))
        running.wait_for(event="committed")
        assert running.stop() == 0
        with connecting(listener.getsockname()) as late:
            assert is_connected(late, 1.0)
            assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
