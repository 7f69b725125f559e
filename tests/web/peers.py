"""
The servers that are measured side by side by hand: prod-run and its peers, as values.

Owns their command lines, with the same number of workers and threads for each, and how each is told to reload, to
scale and to recycle.  Must never start anything: `long_run` and `throughput` do.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.processes.running import children_of, title, until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.processes.running import Running

BIN = Path(sys.executable).parent
THREADS = 10  # of each worker that serves WSGI
LIMIT = 100.0  # seconds that anybody has for a reload


class Application(NamedTuple):
    """One application, by the interfaces that it has; the preferred one first."""

    targets: Mapping[str, str]
    has_websockets: bool = False


class Place(NamedTuple):
    """Where and what a peer serves."""

    port: int
    workers: int
    interface: str
    target: str

    @property
    def bind(self) -> str:
        """The address in the form that most have."""
        return f"127.0.0.1:{self.port}"


def _own_workers(running: Running) -> list[int]:
    return list(running.workers())


def _children(running: Running) -> list[int]:
    # A helper of Python's multiprocessing is nobody's worker.
    return [pid for pid in children_of(running.pid) if "resource_tracker" not in title(pid)]


def _reload_ours(running: Running) -> None:
    result = running.reload()
    assert result["event"] == "committed", result


def _reload(running: Running) -> None:
    """Ask for it, and wait until all workers of before are gone, and as many others there."""
    before = set(_children(running))
    running.send(signal.SIGHUP)

    def is_done() -> bool:
        now = set(_children(running))
        return not now & before and len(now) >= len(before)

    until(is_done, "no worker of before is left", LIMIT)


class Peer(NamedTuple):
    """How one server is started and told what to do; None: it cannot."""

    name: str
    interfaces: tuple[str, ...]
    argv: Callable[[Place], list[str]]
    recycling: tuple[str, ...] = ()  # what its command line has besides, to recycle workers soon
    more: signal.Signals | None = signal.SIGTTIN
    fewer: signal.Signals | None = signal.SIGTTOU
    workers: Callable[[Running], list[int]] = _children
    reload: Callable[[Running], None] = _reload

    @property
    def program(self) -> Path:
        """What has to be installed."""
        return BIN / self.name.partition(" ")[0]


def prod_run(place: Place) -> list[str]:
    """Say the interface, which the signature would tell as well."""
    words = ["--bind", place.bind, "--workers", str(place.workers), "--interface", place.interface]
    return [str(BIN / "prod-run"), *words, "--drain-timeout", "60s", "--introspect", "off", place.target]


def prod_run_on_waitress(place: Place) -> list[str]:
    """Take the other library for WSGI."""
    *words, target = prod_run(place)
    return [*words, "--server-option", "server=waitress", target]


def gunicorn(place: Place) -> list[str]:
    """Take the worker for threads, or its own for ASGI."""
    kind = ("gthread", "--threads", str(THREADS)) if place.interface == "wsgi" else ("asgi",)
    words = ["--bind", place.bind, "--workers", str(place.workers), "--log-level", "warning", "--worker-class", *kind]
    return [str(BIN / "gunicorn"), *words, place.target]


def uvicorn(place: Place) -> list[str]:
    """Take uvloop and httptools, which it does by itself if they are installed."""
    words = ["--host", "127.0.0.1", "--port", str(place.port), "--workers", str(place.workers), "--no-access-log"]
    return [str(BIN / "uvicorn"), *words, "--log-level", "warning", place.target]


def granian(place: Place) -> list[str]:
    """Without the flag for respawning a dead worker ends the whole."""
    words = ["--host", "127.0.0.1", "--port", str(place.port), "--workers", str(place.workers)]
    threads = ["--blocking-threads", str(THREADS)] if place.interface == "wsgi" else []
    words += ["--interface", place.interface, *threads, "--respawn-failed-workers", "--log-level", "warning"]
    return [str(BIN / "granian"), *words, place.target]


PEERS = (
    Peer("prod-run", ("wsgi", "asgi"), prod_run, ("--max-age", "6s"), workers=_own_workers, reload=_reload_ours),
    Peer(
        "prod-run waitress",
        ("wsgi",),
        prod_run_on_waitress,
        ("--max-age", "6s"),
        workers=_own_workers,
        reload=_reload_ours,
    ),
    Peer("gunicorn", ("wsgi", "asgi"), gunicorn, ("--max-requests", "2000")),
    Peer("uvicorn", ("asgi",), uvicorn, ("--limit-max-requests", "2000")),
    Peer("granian", ("wsgi", "asgi"), granian, ("--workers-lifetime", "60s"), more=None, fewer=None),
)
BY_NAME = {peer.name: peer for peer in PEERS}
