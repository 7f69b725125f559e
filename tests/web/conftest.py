"""What every test with web applications uses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes.conftest import app, start
from tests.web.load import Load
from tests.web.serving import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.processes.running import Running

__all__ = ["app", "examples", "load", "start"]


@pytest.fixture
def examples() -> Path:
    """Return the directory of the example applications."""
    return Path(__file__).parents[2] / "examples" / "web"


@pytest.fixture
def load() -> Iterator[Callable[..., Load]]:
    """Start clients: `load(address, fast=8, slow_close=2)`, `ca=` for TLS; all are gone after the test."""
    started: list[Load] = []

    def start_some(address: tuple[str, int], *, ca: Path | str = "-", **kinds: int) -> Load:
        clients = Load(address, {kind.replace("_", "-"): number for kind, number in kinds.items()}, ca)
        started.append(clients)
        return clients

    yield start_some
    for clients in started:
        clients.close()


@pytest.fixture
def client() -> Iterator[Callable[[Running], Client]]:
    """Open a kept connection."""
    clients: list[Client] = []

    def connect(running: Running) -> Client:
        clients.append(Client(running))
        return clients[-1]

    yield connect
    for one in clients:
        one.socket.close()
