"""
The long run of promise 4, by hand, beside the peers: `python -m tests.web.long_run --help`.

Clients at fifty connections never retry, while workers are reloaded, killed, scaled and recycled; what fails is
counted by phase.  A kill may cost what the killed process held, and nothing else: each failure's own port is looked
up among the connections that the victim had.  Minutes for each application; the last figures are in docs/explanation.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import re
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.processes.running import Running, until
from tests.web.load import Load
from tests.web.peers import BIN, PEERS, Application, Peer, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXAMPLES = Path(__file__).parents[2] / "examples" / "web"
HTTP = {"fast": 12, "fast-close": 12, "slow": 7, "slow-close": 7, "post": 5, "post-close": 5, "big": 2}
APPLICATIONS = {
    "flask": Application({"wsgi": "flask_app:app"}),
    "django": Application({"wsgi": "django_app:wsgi", "asgi": "django_app:asgi"}),
    "fastapi": Application({"asgi": "fastapi_app:app"}, has_websockets=True),
}
WEBSOCKETS = 3
WORKERS, MOST = 2, 8
RECYCLED = 4  # workers that were too old
SLOW_TO_NOTICE = 5.0  # seconds after a kill within which a client knows that its request died with the process
# The first that is in the failure's words; all others are "other".
CLASSES = {
    "refused": "refused",
    "0 bytes read on a total of": "closed",
    "0 bytes read": "closed",
    "Connection lost": "reset",
    "reset": "reset",
    "Broken pipe": "reset",
    "closed with": "closed with another code",
    "bytes read": "cut off",
    "bytes came": "cut off",
    "Timeout": "no answer",
    "status": "status",
}


class Kill(NamedTuple):
    """A worker that was killed: when, and the ports of the clients whose connections it held."""

    at: float
    held: frozenset[int]


class Result(NamedTuple):
    """One phase, as the clients saw it."""

    did: str
    answers: int
    worst: float  # seconds that a fast answer took
    failed: collections.Counter[str]
    unexplained: int  # failures that no kill explains
    closed: collections.Counter[str]  # websockets, by code


class Session(NamedTuple):
    """A peer that runs, and its clients."""

    peer: Peer
    running: Running
    clients: Load
    port: int
    kills: list[Kill]


# ── the phases ──────────────────────────────────────────────────────────────────────────────────────


def reload(session: Session, number: int) -> str:
    """Reload again and again."""
    for _ in range(number):
        session.peer.reload(session.running)
        session.clients.settle(1)
    return f"{number} reloads"


def scale(session: Session, number: int) -> str:
    """Go up, down to one worker, and back, so many times."""
    if not (session.peer.more and session.peer.fewer):
        return ""
    for _ in range(number):
        for how, count in ((session.peer.more, MOST), (session.peer.fewer, 1), (session.peer.more, WORKERS)):
            for _ in range(MOST):
                before = len(session.peer.workers(session.running))
                if before != count:
                    session.running.send(how)
                    until(lambda b=before: len(session.peer.workers(session.running)) != b, "one more or less")  # type: ignore[misc]
            assert len(session.peer.workers(session.running)) == count
            session.clients.settle(1)
    return f"{WORKERS}→{MOST}→1→{WORKERS}"


def recycle(session: Session, number: int) -> str:
    """Wait until so many workers have been replaced by themselves."""
    seen: set[int] = set()

    def is_done() -> bool:
        now = set(session.peer.workers(session.running))
        seen.update(now)
        return len(seen - now) >= number

    until(is_done, "workers are recycled", 240)
    session.clients.settle(1)
    return f"{number} recycled"


def kill(session: Session, number: int) -> str:
    """Kill workers, one after the other, and note what each had in its hands."""
    for _ in range(number):
        until(lambda: len(session.peer.workers(session.running)) >= WORKERS, "two workers")
        victim = random.choice(session.peer.workers(session.running))
        # Stopped, it accepts nothing between the look at its connections and its end.
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGSTOP)
            until(lambda v=victim: is_stopped(v), "all its threads have stopped")  # type: ignore[misc]
            session.kills.append(Kill(time.monotonic(), frozenset(held(victim, session.port))))
            os.kill(victim, signal.SIGKILL)
        until(lambda v=victim: v not in session.peer.workers(session.running), "it is gone")  # type: ignore[misc]
        session.clients.settle(1)
    return f"{number} kills"


def is_stopped(pid: int) -> bool:
    """Say whether no thread of a process runs any more."""
    states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) <= {"T", "Z"}


def held(pid: int, port: int) -> Iterator[int]:
    """Yield the clients' ports of the connections that a process has open."""
    inodes = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(f"/proc/{pid}/fd/{name}").removeprefix("socket:[").rstrip("]"))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()  # proc(5): local address, remote address, …, the tenth is the inode
        if words[9] in inodes and int(words[1].partition(":")[2], 16) == port:
            yield int(words[2].partition(":")[2], 16)


PHASES: dict[str, tuple[Callable[[Session, int], str], int]] = {
    "reload": (reload, 50),
    "scale": (scale, 1),
    "recycle": (recycle, RECYCLED),
    "kill": (kill, 200),
}


# ── one of them ─────────────────────────────────────────────────────────────────────────────────────


def run(peer: Peer, application: Application, phase: str, number: int) -> Result | None:
    """Start a peer, have it loaded, and do one phase; None: it has no such thing."""
    interface = next(name for name in application.targets if name in peer.interfaces)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    *words, target = peer.argv(Place(port, WORKERS, interface, application.targets[interface]))
    if phase == "recycle":
        words += peer.recycling
    kinds = {**HTTP, "websocket": WEBSOCKETS} if application.has_websockets else HTTP
    with tempfile.TemporaryDirectory() as directory:
        env = {"PATH": os.environ["PATH"], "HOME": directory, "XDG_RUNTIME_DIR": directory, "PYTHONPATH": str(EXAMPLES)}
        running = Running([*words, target], cwd=Path(directory), env=env)
        try:
            until(lambda: answers(port), "it answers")
            clients = Load(("127.0.0.1", port), kinds)
            try:
                clients.settle()
                clients.worst.clear()
                session = Session(peer, running, clients, port, [])
                did = PHASES[phase][0](session, number)
                clients.settle()
                clients.finish()
                return seen(session, did) if did else None
            finally:
                clients.close()
        finally:
            running.close()


def answers(port: int) -> bool:
    """Say whether somebody answers there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return connection.recv(4096).startswith(b"HTTP/1.1 200")
    return False


def seen(session: Session, did: str) -> Result:
    """Sum up what the clients saw."""
    failures = session.clients.failures
    unexplained = [
        failure
        for failure in failures
        if not any(failure.port in kill.held and 0 <= failure.at - kill.at < SLOW_TO_NOTICE for kill in session.kills)
    ]
    for failure in unexplained[:5]:
        print(f"    {failure.kind}: {failure.reason}", flush=True)
    for line in session.running.lines:
        if line.get("level") == "error" and line["event"] != "lost worker":
            print(f"    {line['text']}", flush=True)
    classes = collections.Counter(classify(failure.reason) for failure in failures)
    told = {kind: count for kind, count in session.clients.answers.items() if re.fullmatch(r"websocket \d+", kind)}
    fast = max(session.clients.worst.get(kind, 0.0) for kind in ("fast", "fast-close"))
    total = session.clients.answers.total() - sum(told.values())
    return Result(did, total, fast, classes, len(unexplained), collections.Counter(told))


def classify(reason: str) -> str:
    """Name a failure's class."""
    return next((name for words, name in CLASSES.items() if words in reason), "other")


def main() -> None:
    """Run what is asked for, and print a table."""
    options = understand()
    for name in options.applications:
        application = APPLICATIONS[name]
        for peer in PEERS:
            if peer.name not in options.peers or not set(application.targets) & set(peer.interfaces):
                continue
            if not peer.program.exists():
                print(f"without {peer.name}: {BIN} has no {peer.program.name}", flush=True)
                continue
            for phase in options.phases:
                number = getattr(options, phase)
                try:
                    result = run(peer, application, phase, number)
                except AssertionError as error:
                    print(f"| {name} | {peer.name} | {phase} | failed: {str(error)[:300]!r}", flush=True)
                else:
                    print(row(name, peer, phase, result), flush=True)


def row(name: str, peer: Peer, phase: str, result: Result | None) -> str:
    """Write one line of the table."""
    if result is None:
        return f"| {name} | {peer.name} | {phase} | it has no such thing |"
    failed = ", ".join(f"{count} {what}" for what, count in result.failed.most_common()) or "0"
    unexplained = f"{result.unexplained} of them not held" if phase == "kill" and result.failed else ""
    closed = ", ".join(f"{count} of {what}" for what, count in result.closed.items())
    words = (name, peer.name, result.did, str(result.answers), failed, unexplained, f"{result.worst:.2f} s", closed)
    return f"| {' | '.join(words)} |"


def understand() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="python -m tests.web.long_run", description=__doc__)
    for what, names in (
        ("applications", list(APPLICATIONS)),
        ("peers", [peer.name for peer in PEERS]),
        ("phases", list(PHASES)),
    ):
        parser.add_argument(f"--{what}", type=lambda text: text.split(","), default=names, help=", ".join(names))
    for phase, (function, number) in PHASES.items():
        parser.add_argument(f"--{phase}", type=int, default=number, help=f"{function.__doc__} ({number})")
    return parser.parse_args()


if __name__ == "__main__":
    main()
    sys.exit(0)
