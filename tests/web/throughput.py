"""
What a request costs, by hand: `python -m tests.web.throughput --help`.

The same application with the same number of workers on prod-run and its peers, all running at once, under wrk in
turns.  CPU time of a request (of all processes of a server) is the figure to trust: on a machine that is shared,
requests per second say what the others were doing.  With `--cpu 0` the servers stay on one processor: there what
threads of one process cost each other by the GIL is the same for all, and small differences can be seen.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.bench import procfs
from tests.processes.running import Running, until
from tests.web.long_run import answers
from tests.web.peers import BY_NAME, Peer, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = """
BODY = b"hello from a server\\n"
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"20")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})
def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "20")])
    return [BODY]
"""
# Beside each pair of the same library: what it does that prod-run leaves to its own settings is off on both sides.
PAIRS = {
    "asgi": (
        ("prod-run", ()),
        ("uvicorn", ("--no-proxy-headers",)),
        ("uvicorn", ()),
        ("granian", ()),
        ("gunicorn", ()),
    ),
    "wsgi": (("prod-run", ()), ("gunicorn", ()), ("granian", ()), ("prod-run waitress", ())),
}
WAYS = {"kept": (), "closed": ("-H", "Connection: close")}


class Server(NamedTuple):
    """A peer that runs."""

    name: str
    running: Running
    port: int


class Sample(NamedTuple):
    """What one go of wrk has shown."""

    rate: float  # requests per second
    cost: float  # microseconds of CPU for each


@contextlib.contextmanager
def started(interface: str, workers: int) -> Iterator[list[Server]]:
    """Start all of them."""
    servers = []
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        Path(directory, "app.py").write_text(APP)
        env = {"PATH": os.environ["PATH"], "HOME": directory, "XDG_RUNTIME_DIR": directory, "PYTHONPATH": directory}
        for name, more in PAIRS[interface]:
            peer: Peer = BY_NAME[name]
            if not peer.program.exists():
                print(f"without {name}: {peer.program} is not there", flush=True)
                continue
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            *words, target = peer.argv(Place(port, workers, interface, f"app:{interface}"))
            running = Running([*words, *more, target], cwd=Path(directory), env=env)
            stack.callback(running.close)
            until(lambda port=port: answers(port), f"{name} answers")  # type: ignore[misc]
            servers.append(Server(" ".join((name, *more)), running, port))
        yield servers


def go(server: Server, way: str, seconds: int, cpus: set[int]) -> Sample:
    """Have wrk ask for so long, on these processors."""
    pids = procfs.tree(server.running.pid)
    before = procfs.cpu_seconds(pids)
    argv = [
        "taskset",
        "-c",
        ",".join(map(str, cpus)),
        "wrk",
        "-t1",
        "-c50",
        f"-d{seconds}s",
        *WAYS[way],
        f"http://127.0.0.1:{server.port}/",
    ]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    used = procfs.cpu_seconds(pids) - before
    number, rate = (re.search(words, text) for words in (r"(\d+) requests in", r"Requests/sec: +([\d.]+)"))
    assert number, text
    assert rate, text
    return Sample(float(rate[1]), 1e6 * used / int(number[1]))


def main() -> None:
    """Go round by round, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.web.throughput", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each go")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cpu", type=int, help="the only processor of the servers; wrk has the others")
    parser.add_argument("--interfaces", type=lambda text: text.split(","), default=list(PAIRS))
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed")
    others = os.sched_getaffinity(0) - {options.cpu}
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    for interface in options.interfaces:
        with started(interface, options.workers) as servers:
            for way in WAYS:
                samples: dict[str, list[Sample]] = {server.name: [] for server in servers}
                for server in servers:
                    go(server, way, 1, others)  # warm
                for number in range(options.rounds):
                    turn = number % len(servers)
                    for server in servers[turn:] + servers[:turn]:
                        samples[server.name].append(go(server, way, options.seconds, others))
                for name, found in samples.items():
                    print(row(f"{interface}, {way}", name, found, samples[servers[0].name]), flush=True)


def row(what: str, name: str, found: list[Sample], own: list[Sample]) -> str:
    """Write one line: medians, their spread, and the cost of prod-run in units of this one's, round by round."""
    rate, cost = (statistics.median(values) for values in zip(*found, strict=True))
    ratio = statistics.median(mine.cost / theirs.cost for mine, theirs in zip(own, found, strict=True))
    spread = f"{min(one.cost for one in found):.1f} to {max(one.cost for one in found):.1f}"
    return f"| {what} | {name} | {rate:.0f} /s | {cost:.1f} µs ({spread}) | {ratio:.3f} |"


if __name__ == "__main__":
    main()
