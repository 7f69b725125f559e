"""
What a request costs, counted: `python -m tests.web.instructions`.

Instructions in user space for each request, of one worker of prod-run's beside the same library under its own
command, counted by valgrind: the difference between a short run and a long one.  Unlike time it is the same from run
to run to 0.5 %, and shows what `throughput` cannot tell from noise.  valgrind does not know pidfd_open(2), so the
worker has no supervisor here: what it runs for a request is the same.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.ports import free_port
from tests.processes.running import until
from tests.web.long_run import answers
from tests.web.peers import BY_NAME, Place
from tests.web.throughput import APP

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SHORT, LONG = 100, 600  # requests
SLOW = 120.0  # seconds until a server is up: valgrind takes fifty times as long
REQUEST = "GET / HTTP/1.1\r\nHost: shop\r\n%s\r\n"
BODY = b"hello from a server\n"
WAYS = {"kept": "", "closed": "Connection: close\r\n"}
PEERS = {"asgi": ("uvicorn", ("--no-proxy-headers",)), "wsgi": ("gunicorn", ())}


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.web.instructions", description=__doc__)
    parser.add_argument("--serve", nargs=2, metavar=("INTERFACE", "PORT"), help="be that one worker")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], int(options.serve[1]))
        return
    if not shutil.which("valgrind"):
        sys.exit("valgrind is not installed")
    print("| | | prod-run | the library's own command | |\n|---|---|---|---|---|")
    for interface, (name, _) in PEERS.items():
        for way in WAYS:
            ours, theirs = (cost(interface, way, who) for who in ("prod-run", name))
            print(f"| {name} | {way} | {ours:,.0f} | {theirs:,.0f} | {100 * (ours / theirs - 1):+.1f} % |", flush=True)


def serve(interface: str, port: int) -> None:
    """Run what a worker runs."""
    from launcher.api import Worker
    from launcher.runtime import servers

    sys.path.insert(0, os.getcwd())
    import app  # type: ignore[import-not-found]

    run = servers.prepare(getattr(app, interface), interface, ())
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.setblocking(False)
        worker = Worker(sockets={"web": listener})  # type: ignore[var-annotated]
        signal.signal(signal.SIGTERM, lambda *_: worker.stopping.set())
        run(worker)


def cost(interface: str, way: str, who: str) -> float:
    """Return how many instructions one request takes."""
    short, long = (count(interface, way, who, requests) for requests in (SHORT, LONG))
    return (long - short) / (LONG - SHORT)


def count(interface: str, way: str, who: str, requests: int) -> int:
    """Return how many instructions the busiest of a server's processes has run from its start to its end."""
    with tempfile.TemporaryDirectory() as name:
        with started(interface, who, Path(name)) as port:
            ask(port, way, requests)
        return max(
            int(re.findall(r"^totals: (\d+)", path.read_text(), re.MULTILINE)[-1]) for path in Path(name).glob("out.*")
        )


@contextlib.contextmanager
def started(interface: str, who: str, directory: Path) -> Iterator[int]:
    """Start a server under valgrind, and let it end in peace."""
    port = free_port()
    (directory / "app.py").write_text(APP)
    words = ["valgrind", "--tool=callgrind", "--trace-children=yes", "--callgrind-out-file=out.%p", "--log-file=log.%p"]
    if who == "prod-run":
        words += [sys.executable, "-m", "tests.web.instructions", "--serve", interface, str(port)]
    else:
        *argv, target = BY_NAME[who].argv(Place(port, 1, interface, f"app:{interface}"))
        words += [*argv, *PEERS[interface][1], target]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{directory}", "PYTHONHASHSEED": "0"}
    with subprocess.Popen(words, cwd=directory, env=env, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: answers(port), f"{who} answers", SLOW)
            yield port
        finally:
            process.terminate()


def ask(port: int, way: str, requests: int) -> None:
    """Ask one after the other."""
    request = (REQUEST % WAYS[way]).encode()
    while requests:
        with socket.create_connection(("127.0.0.1", port)) as client:
            requests -= _ask_on(client, request, 1 if way == "closed" else requests)


def _ask_on(client: socket.socket, request: bytes, requests: int) -> int:
    for _ in range(requests):
        client.sendall(request)
        answer = b""
        while not answer.endswith(BODY):
            piece = client.recv(4096)
            assert piece, answer
            answer += piece
    if requests == 1:
        assert client.recv(1) == b""  # the server closes first
    return requests


if __name__ == "__main__":
    main()
