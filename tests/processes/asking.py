"""How a test asks a running prod-run's introspection port."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from tests.processes.running import LIMIT, PROD_RUN, children_of, title, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.processes.running import Running


ANYWHERE = ("--introspect", "127.0.0.1:0")
SIMPLE = "from launcher import Worker\n\ndef main(worker: Worker):\n    worker.ready()\n    worker.stopping.wait()\n"
# Whatever a test wants to happen it says by files beside the app.
OBEDIENT = """
import os, time
from launcher import Worker
while os.path.exists("slow"):
    time.sleep(0.01)
if os.path.exists("bad"):
    raise ValueError("hunter2 in a message")

def main(worker: Worker):
    if os.path.exists("crash"):
        raise SystemExit(3)
    worker.ready()
    worker.stopping.wait()
"""


class Answer(NamedTuple):
    """What came back."""

    code: int
    text: str
    headers: dict[str, str]

    @property
    def json(self) -> dict:
        """The body."""
        return json.loads(self.text)


class _ByPath(http.client.HTTPConnection):
    """A connection through a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=LIMIT)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT)
        self.sock.connect(self._path)


def ask(where: Running | Path, path: str, method: str = "GET", **headers: str) -> Answer:
    """Ask once, over a connection of its own."""
    if hasattr(where, "address"):
        connection = http.client.HTTPConnection(*where.address("introspect"), timeout=LIMIT)
    else:
        connection = _ByPath(where)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read().decode(), dict(answer.getheaders()))
    finally:
        connection.close()


def codes(running: Running) -> tuple[int, ...]:
    """Return what the three probes say: livez, readyz, startupz."""
    return tuple(ask(running, path).code for path in ("/livez", "/readyz", "/startupz"))


def private(tmp_path: Path, name: str = "app") -> Path:
    """Return the path of the private socket."""
    return tmp_path / "run" / "prod-run" / name / "introspect.sock"


def ctl(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run prod-ctl."""
    path = tmp_path / "run" / "prod-run" / "app" / "control.sock"
    argv = [str(PROD_RUN.with_name("prod-ctl")), "--socket", str(path), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT)


def observer_of(running: Running) -> int:
    """Return the PID of the living observer."""
    until(lambda: any("[observer]" in title(pid) for pid in children_of(running.pid)), "an observer")
    return next(pid for pid in children_of(running.pid) if "[observer]" in title(pid))


def wait_until_served(running: Running) -> None:
    """Wait for the commit and for the snapshot that tells it, which comes a moment later than its line."""
    running.wait_for(event="committed")
    until(lambda: ask(running, "/readyz").code == 200, "ready")
