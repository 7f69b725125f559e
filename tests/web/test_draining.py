"""Until when the last worker accepts."""

from __future__ import annotations

import signal
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from launcher.runtime.servers import draining
from tests.web.serving import APP, SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.running import Running
    from tests.web.serving import Client


@pytest.mark.parametrize(
    ("lasted", "left", "expected"),
    [
        (0.0, 25.0, True),
        (5.0, 20.0, True),  # a fifth of the time
        (15.0, 10.0, False),  # the rest is for answering
        (0.0, 0.01, True),
        (1.0, None, True),
        (3.0, None, False),
    ],
)
def test_as_long_as_somebody_waits_but_for_half_of_the_time(
    lasted: float,
    left: float | None,
    expected: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing new comes meanwhile, and what is queued would be reset."""
    now = 1000.0
    monkeypatch.setattr(draining, "time", SimpleNamespace(monotonic=lambda: now))
    until = now + left if left is not None else 0.0
    with socket.create_server(("127.0.0.1", 0)) as sock, socket.create_connection(sock.getsockname()):
        assert draining.may_come([sock], now - lasted, until) is expected
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert draining.may_come([sock], now - lasted, until) is (lasted < draining.SETTLING)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gunicorn", "waitress"])
def test_a_worker_that_is_full_answers_who_waits_in_the_queue(
    name: str, start: Callable[..., Running], app: Callable[..., Path], client: Callable[[Running], Client]
) -> None:
    """It accepts the next one when one has ended, and so for longer than two seconds."""
    app(APP)
    # waitress counts its own descriptors as well.
    full = {"gunicorn": "worker_connections=2", "waitress": "connection_limit=6"}[name]
    running = start("--bind", "127.0.0.1:0", "--server-option", full, *SERVERS[name])
    running.wait_for(event="committed")
    clients = [client(running) for _ in range(10)]
    for one in clients:
        one.socket.sendall(b"GET /sleep/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    running.send(signal.SIGTERM)

    for one in clients:
        assert one.socket.recv(12) == b"HTTP/1.1 200"
        one.socket.close()
    assert running.wait() == 0
