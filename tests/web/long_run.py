"""
The long run of promise 4, by hand: `python -m tests.web.long_run [APPLICATION…]`.

Fifty reloads, two hundred kills, scaling 2 → 8 → 1 and recycling by age under load at fifty connections, and what
the clients say of it.  Minutes for each application; the figures of the last run stand in docs/explanation.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.processes.running import PROD_RUN, Running, until
from tests.web.load import Load

EXAMPLES = Path(__file__).parents[2] / "examples" / "web"
HTTP = {"fast": 12, "fast-close": 12, "slow": 7, "slow-close": 7, "post": 5, "post-close": 5, "big": 1}
APPLICATIONS: dict[str, tuple[tuple[str, ...], dict[str, int]]] = {
    "flask": (("flask_app:app",), HTTP),
    "waitress": (("--server-option", "server=waitress", "flask_app:app"), HTTP),
    "django": (("django_app:wsgi",), HTTP),
    "fastapi": (("fastapi_app:app",), {**HTTP, "websocket": 2}),
}
RELOADS, KILLS = int(os.environ.get("RELOADS", "50")), int(os.environ.get("KILLS", "200"))
HELD = 0.5  # seconds after a kill within which a client knows that its request died with the process
KILLED: list[float] = []


def run(name: str) -> None:
    """Run one application through all of it."""
    words, kinds = APPLICATIONS[name]
    with tempfile.TemporaryDirectory() as directory:
        env = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": directory}
        argv = [PROD_RUN, "--chdir", EXAMPLES, "--bind", "127.0.0.1:0", "--workers", 2, "--max-age", "20s", *words]
        running = Running(argv, cwd=Path(directory), env=env)
        running.wait_for(event="committed")
        clients = Load(running.address(), kinds)
        clients.settle()
        phase(name, "reloads", running, clients, reloads)
        phase(name, "scaling", running, clients, scaling)
        phase(name, "recycling", running, clients, recycling)
        phase(name, "kills", running, clients, kills)
        clients.finish()
        print(f"{name}: stopped with {running.stop()}", flush=True)
        clients.close()
        running.close()


def phase(name: str, what: str, running: Running, clients: Load, do: object) -> None:
    """Run one part and print what the clients saw."""
    failures, answers, began = len(clients.failures), clients.answers.copy(), time.monotonic()
    number = do(running, clients)  # type: ignore[operator]
    clients.settle()
    seen = {kind: count for kind, count in (clients.answers - answers).items() if count}
    seconds = time.monotonic() - began
    print(f"{name}: {number} {what} in {seconds:.0f} s, {sum(seen.values())} answers {seen}")
    failed = clients.failures[failures:]
    unexplained = [f for f in failed if not any(0 <= f.at - kill < HELD for kill in KILLED)]
    print(f"{name}: {len(failed)} failures, those that no kill explains: {unexplained}", flush=True)


def reloads(running: Running, clients: Load) -> int:
    """Reload again and again."""
    for _ in range(RELOADS):
        assert running.reload()["event"] == "committed"
    return RELOADS


def scaling(running: Running, clients: Load) -> str:
    """Go from 2 to 8 workers, and down to 1, and back."""
    for number, count in ((signal.SIGTTIN, 8), (signal.SIGTTOU, 1), (signal.SIGTTIN, 2)):
        while len(running.workers()) != count:
            before = len(running.workers())
            running.send(number)
            until(lambda before=before: len(running.workers()) != before, "a worker more or less")
        clients.settle()
    return "2→8→1→2"


def recycling(running: Running, clients: Load) -> int:
    """Wait until four workers were too old."""
    began = running.mark()
    until(lambda: sum(line.get("event") == "recycling" for line in running.lines[began:]) >= 4, "recycling", 120)
    return 4


def kills(running: Running, clients: Load) -> int:
    """Kill workers, one after the other."""
    for _ in range(KILLS):
        until(lambda: len(running.workers()) >= 2, "two workers")
        KILLED.append(time.monotonic())
        os.kill(random.choice(list(running.workers())), signal.SIGKILL)
        clients.settle(1)
    return KILLS


if __name__ == "__main__":
    for application in sys.argv[1:] or APPLICATIONS:
        run(application)
