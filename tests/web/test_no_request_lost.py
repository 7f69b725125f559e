"""Promise 4 with real applications: reloads, scaling and the stop lose no request."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.running import Running
    from tests.web.load import Load

APPLICATIONS = {
    "Flask": ("flask_app:app",),
    "Flask on waitress": ("--server-option", "server=waitress", "flask_app:app"),
    "Django": ("django_app:wsgi",),
    "Django, ASGI": ("django_app:asgi",),
    "FastAPI": ("fastapi_app:app",),
}
CLIENTS = {"fast": 6, "fast_close": 6, "slow": 4, "slow_close": 4, "post": 3, "post_close": 3}
RELOADS = 3


@pytest.mark.parametrize("name", APPLICATIONS)
def test_reload_scale_and_stop_lose_nothing(
    name: str, start: Callable[..., Running], examples: Path, load: Callable[..., Load]
) -> None:
    """Every request that clients make during reloads and scaling, kept alive or not, is answered."""
    running = start("--chdir", examples, "--bind", "127.0.0.1:0", "--workers", 2, *APPLICATIONS[name])
    running.wait_for(event="committed")
    clients = load(running.address(), **CLIENTS)
    clients.settle()
    for _ in range(RELOADS):
        assert running.reload()["event"] == "committed", running.text()
        clients.settle()
    for number, count in ((signal.SIGTTIN, 3), (signal.SIGTTOU, 2), (signal.SIGTTOU, 1)):
        running.send(number)
        until(lambda count=count: len(running.workers()) == count, f"{count} workers")
        clients.settle()

    assert clients.finish() == [], running.text()
    assert running.stop() == 0
    assert "ERROR" not in running.text()
    assert "Traceback" not in running.text()


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_last_workers_answer_what_is_in_flight_and_queued(
    name: str, start: Callable[..., Running], examples: Path
) -> None:
    """On a stop the requests that were sent before it are answered: those in flight, and those nobody accepted yet."""
    import socket

    running = start("--chdir", examples, "--bind", "127.0.0.1:0", *APPLICATIONS[name])
    running.wait_for(event="committed")
    ((worker, _),) = running.workers().items()
    in_flight = [_ask(running, "/slow") for _ in range(3)]
    in_flight_answered = running.ask("/")  # the loop has accepted what came before
    os.kill(worker, signal.SIGSTOP)
    queued = [_ask(running, "/") for _ in range(50)]
    running.send(signal.SIGTERM)
    running.wait_for(event="stopping")
    os.kill(worker, signal.SIGCONT)

    assert "hello" in in_flight_answered
    for connection in (*in_flight, *queued):
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        connection.close()
        assert b"hello from" in answer, (answer, running.text())
        assert isinstance(connection, socket.socket)
    assert running.wait() == 0


def _ask(running: Running, path: str) -> object:
    import socket

    connection = socket.create_connection(running.address(), 60)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return connection
