"""
How long a probe takes while workers are stuck or spin: `python -m tests.bench.probe_speed [REQUESTS]`.

A new connection for each request, as a kubelet makes it.  The client asks for a higher priority, so that it is not
its own waiting that is measured; what else runs on the machine counts.
"""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

PROGRAM = Path(sys.executable).with_name("prod-run")
PATH = "/readyz"
REQUESTS = 1000
APP = """
import ctypes, os
from launcher import Worker

def main(worker: Worker):
    worker.ready()
    if os.environ["HOW"] == "stuck":
        ctypes.PyDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1)  # keeps the GIL
    os.nice(int(os.environ["NICE"]))
    while os.environ["HOW"] == "spinning":
        pass
    worker.stopping.wait()
"""


class Case(NamedTuple):
    """What the workers do."""

    name: str
    how: str
    workers: int
    nice: int = 0


SPINNING = 2 * len(os.sched_getaffinity(0))
CASES = (
    Case("idle", "idle", 4),
    Case("stuck in C, holding the GIL", "stuck", 4),
    Case("2 spinning per CPU", "spinning", SPINNING),
    Case("2 spinning per CPU, nice 5", "spinning", SPINNING, 5),
    Case("2 spinning per CPU, nice 10", "spinning", SPINNING, 10),
    Case("2 spinning per CPU, nice 19", "spinning", SPINNING, 19),
)


def main() -> None:
    """Print a table, in milliseconds."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    priority = "as usual"
    try:
        os.nice(-10)
        priority = "10 steps above"
    except PermissionError:
        pass
    load = os.getloadavg()[0]
    sys.stdout.write(f"{requests} GET {PATH}, client {priority}, {os.cpu_count()} CPUs, load {load:.1f} before\n")
    sys.stdout.write(f"{'workers':<30}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>9}\n")
    for case in CASES:
        times = sorted(measured(case, requests))
        picked = (times[int(part * (len(times) - 1))] * 1000 for part in (0.5, 0.95, 0.99, 1.0))
        p50, p95, p99, most = picked
        sys.stdout.write(f"{case.name:<30}{p50:8.2f}{p95:8.2f}{p99:8.2f}{most:9.2f}\n")
        sys.stdout.flush()


def measured(case: Case, requests: int) -> list[float]:
    """Start prod-run, ask, and return how long each answer took, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "app.py").write_text(APP)
        environ = {**os.environ, "HOW": case.how, "NICE": str(case.nice), "XDG_RUNTIME_DIR": folder}
        argv = [PROGRAM, "-w", str(case.workers), "--introspect", "127.0.0.1:0", "--drain-timeout", "0s", "app:main"]
        # Our own priority is not theirs.
        running = subprocess.Popen(
            ["nice", "-n", str(-os.nice(0)), *map(str, argv)],
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            port = _port(running)
            return [_ask(port) for _ in range(requests)]
        finally:
            running.terminate()
            running.communicate()


def _port(running: subprocess.Popen[str]) -> int:
    port = 0
    for line in running.stdout or ():
        found = re.search(r"address=127\.0\.0\.1:(\d+)", line)
        port = int(found[1]) if found else port
        if "committed" in line:
            while _code(port) != 200:
                pass
            return port
    sys.exit("prod-run did not start")


def _ask(port: int) -> float:
    begin = time.perf_counter()
    assert _code(port) == 200
    return time.perf_counter() - begin


def _code(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", PATH, headers={"Connection": "close"})
        return connection.getresponse().status
    finally:
        connection.close()


if __name__ == "__main__":
    main()
