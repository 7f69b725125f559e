"""
Everything that goes wrong in production, under clients that never retry.

    python -m tests.processes.hostile_tree

prints one line for each phase, and what was promised and not kept; `test_hostile_tree` runs the same.
The app is the example server behind an import of one second, with 4 workers and 8 clients, half of which
keep their connections alive.  A wait over one second is a failure.  Connections that a killed process had
itself accepted are known by their ports, and counted apart.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.processes.load import CLIENTS, Load, Request
from tests.processes.running import LIMIT, PROD_RUN, Line, Running, children_of, is_alive, title, until

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKERS = 4
BOOT_TIMEOUT = 4.0  # seconds; an import that hangs is rejected then
HELLO = Path(__file__).parents[2] / "examples" / "hello.py"
RESULTS = ("committed", "rejected", "rolled-back", "pre-empted")

SHOP = """\
import os, sys, threading, time
from launcher import Worker
import hello

hello.VERSION = {version!r}
time.sleep(1.0)  # an import that takes its time
{at_import}

def main(worker: Worker) -> None:
    {at_start}
    threading.Event().wait(0.3)  # so that there is a time in which a generation fills
    said = worker.stopped_accepting
    worker.stopped_accepting = lambda: (threading.Event().wait(0.4), said())  # and one in which it hands over
    hello.main(worker)
"""
BROKEN = "raise RuntimeError('half deployed')"
HANGS = "time.sleep(3600)"
SECOND_DIES = "if worker.slot == 1: time.sleep(0.8); os._exit(3)"  # when the others are ready, and held


class Row(NamedTuple):
    """One phase, as the clients saw it."""

    phase: str
    requests: int
    failures: int
    of_killed: int  # failures on connections that a killed process itself had accepted
    worst: float  # seconds
    generations: tuple[int, ...]


class Verdict(NamedTuple):
    """All phases, and the promises that were not kept, in words."""

    rows: list[Row]
    complaints: list[str]


class Tree:
    """One prod-run with its clients, and what is to be said of it."""

    def __init__(self, directory: Path, *options: object) -> None:
        directory.mkdir(parents=True)
        (directory / "run").mkdir(mode=0o700)
        shutil.copy(HELLO, directory / "hello.py")
        self.directory = directory
        self.rows: list[Row] = []
        self.complaints: list[str] = []
        # The client's port of each connection that died with its worker, and when.
        self.killed: list[tuple[int, float]] = []
        self.write("1")
        words = ("-w", WORKERS, "-b", "127.0.0.1:0", "--boot-timeout", f"{BOOT_TIMEOUT}s", *options, "shop:main")
        self.running = Running(
            [str(word) for word in (PROD_RUN, *words)],
            cwd=directory,
            env={
                "PATH": os.environ["PATH"],
                "XDG_RUNTIME_DIR": str(directory / "run"),
                "PROD_RUN_INTROSPECT": "off",
                "PYTHONDONTWRITEBYTECODE": "1",  # its second's resolution would hide a quick deployment
            },
        )
        self.running.wait_for(event="committed", generation=1)
        self.load = Load(self.running.address())

    def write(self, version: str, *, at_import: str = "", at_start: str = "pass") -> None:
        """Deploy a version of the app."""
        fresh = self.directory / "shop.new"
        fresh.write_text(SHOP.format(version=version, at_import=at_import, at_start=at_start))
        fresh.rename(self.directory / "shop.py")

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what the clients see meanwhile; at least two whole rounds of them are seen after it."""
        begin = self.load.mark()
        yield
        self.load.settle()
        self.count(name, self.load.requests[begin:])

    def count(self, name: str, requests: list[Request]) -> None:
        """Add a row."""
        failures = [request for request in requests if request.failed]
        of_killed = [request for request in failures if self._is_of_killed(request)]
        self.rows.append(
            Row(
                name,
                len(requests),
                len(failures) - len(of_killed),
                len(of_killed),
                max((request.wait for request in requests if request not in of_killed), default=0.0),
                tuple(sorted({request.generation for request in requests if not request.fault})),
            )
        )
        if real := [request for request in failures if request not in of_killed]:
            self.complain(f"{name}: {len(real)} failures, the first: {real[0]}")

    def complain(self, sentence: str) -> None:
        """Note a promise that was not kept."""
        self.complaints.append(sentence)

    def expect(self, event: str, line: Line) -> None:
        """Complain if a reload came out otherwise."""
        if line.get("event") != event:
            self.complain(f"{event} was expected, not: {line['text']}")

    def kill_worker(self) -> None:
        """SIGKILL a worker that holds connections, note which, and wait for its successor to be answered by."""
        before = self.running.workers()
        pid = max(before, key=lambda pid: len(self._accepted_by(pid)))
        os.kill(pid, signal.SIGSTOP)  # so that what it has accepted can be looked at
        until(lambda: set(_states_of(pid)) <= {"T"}, f"{pid} stopped")
        now = time.monotonic()
        self.killed += [(port, now) for port in self._accepted_by(pid)]
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid), f"{pid} died")

    def wait_for_workers(self, fresh: int, before: dict[int, int]) -> None:
        """Wait until so many workers that were not there `before` exist, and all slots are served."""
        running = self.running
        until(lambda: len(running.workers().keys() - before.keys()) == fresh, f"{fresh} new workers")
        until(lambda: f"serving {WORKERS}/{WORKERS}" in title(running.pid), "all slots served")

    def judge(self) -> Verdict:
        """Compare what the clients saw with what the log says."""
        wrong = {int(line["generation"]) for line in self.running.lines if line.get("event") in RESULTS[1:]}
        answered = [request for request in self.load.requests if not request.fault]
        for seen in sorted(wrong.intersection(request.generation for request in answered)):
            self.complain(f"generation {seen} was not committed, and a client saw it")
        for line in self.running.lines:
            if line.get("event") == "committed":
                number, at = int(line["generation"]), _monotonic(line["time"])
                late = [request for request in answered if request.opened > at and request.generation < number]
                if late:
                    self.complain(f"{len(late)} opened after {line['text']}, the first: {late[0]}")
        return Verdict(self.rows, self.complaints)

    def close(self) -> None:
        """End everything."""
        self.load.close()
        self.running.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _is_of_killed(self, request: Request) -> bool:
        return any(port == request.port and request.opened <= at <= request.answered for port, at in self.killed)

    def _accepted_by(self, pid: int) -> list[int]:
        """Return the clients' ports of the connections that a process has accepted."""
        held = set()
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                held.add(os.readlink(fd))
        port = self.running.address()[1]
        found = []
        for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:  # proc_net_tcp in the kernel's documentation
            _, local, remote, state, *_, inode = row.split()[:10]
            if int(local.split(":")[1], 16) == port and state != "0A" and f"socket:[{inode}]" in held:
                found.append(int(remote.split(":")[1], 16))
        return found


class SlowRequest:
    """A request that is in flight for some seconds, and must be answered."""

    def __init__(self, address: tuple[str, int], seconds: float) -> None:
        self._connection = socket.create_connection(address, LIMIT)
        self._connection.sendall(f"GET /slow/{seconds} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())

    def answer(self) -> str:
        """Wait for the body."""
        with self._connection:
            answer = b""
            while piece := self._connection.recv(65536):
                answer += piece
        return answer.partition(b"\r\n\r\n")[2].decode()


def run(directory: Path) -> Verdict:
    """Go through all phases, each with a fresh tree where the last one has ended."""
    verdicts = [_faults(directory / "faults"), *(_stop_in(directory / state, state) for state in STATES)]
    verdicts.append(_without_preload(directory / "without preload"))
    return Verdict([row for v in verdicts for row in v.rows], [text for v in verdicts for text in v.complaints])


def _without_preload(directory: Path) -> Verdict:
    """Go through what is promised also where every worker imports for itself."""
    with contextlib.closing(Tree(directory, "--preload", "never", "--drain-delay", "1s")) as tree:
        with tree.phase("without preload: broken code, SIGHUP"):
            tree.write("broken", at_import=BROKEN)
            tree.expect("rejected", tree.running.reload())
        with tree.phase("without preload: a second worker dies"):
            tree.write("second dies", at_start=SECOND_DIES)
            tree.expect("rejected", tree.running.reload())
        with tree.phase("without preload: good code, SIGHUP"):
            tree.write("2")
            tree.expect("committed", tree.running.reload())
        _stop(tree, "without preload: SIGTERM")
        return tree.judge()


def control(directory: Path) -> Verdict:
    """Kill the supervisor: the clients must notice, or they would notice nothing else."""
    with contextlib.closing(Tree(directory)) as tree:
        begin = tree.load.mark()
        os.kill(tree.running.pid, signal.SIGKILL)
        tree.load.wait_for(lambda since: sum(request.failed for request in since) >= CLIENTS, "failures")
        tree.count("control: the supervisor killed", tree.load.requests[begin:])
        return Verdict(tree.rows, tree.complaints)


# ── the phases of one tree ──────────────────────────────────────────────────────────────────────────


def _faults(directory: Path) -> Verdict:
    with contextlib.closing(Tree(directory, "--drain-delay", "1s")) as tree:
        with tree.phase("nothing happens"):
            tree.load.settle(20)
        _broken_code(tree)
        _broken_generations(tree)
        with tree.phase("good code, SIGHUP"):
            tree.write("2")
            tree.expect("committed", tree.running.reload())
        _zygote_killed(tree)
        _storm(tree)
        with tree.phase("two workers fewer, then two more"):
            for number, count in ((signal.SIGTTOU, 3), (signal.SIGTTOU, 2), (signal.SIGTTIN, 3), (signal.SIGTTIN, 4)):
                tree.running.send(number)
                until(lambda count=count: len(tree.running.workers()) == count, f"{count} workers")  # type: ignore[misc]
            until(lambda: f"serving {WORKERS}/{WORKERS}" in title(tree.running.pid), "all slots served")
        for state in STATES:
            with tree.phase(f"SIGHUP while {state}"):
                _reload_in(tree, state)
        with tree.phase("good code, SIGHUP again"):
            tree.write("last")
            tree.expect("committed", tree.running.reload())
        _stop(tree, "SIGTERM")
        return tree.judge()


def _broken_code(tree: Tree) -> None:
    with tree.phase("broken code on disk, kill -9 of two workers"):
        tree.write("broken", at_import=BROKEN)
        before = tree.running.workers()
        for dead in (1, 2):
            tree.kill_worker()
            tree.wait_for_workers(dead, before)
            tree.load.settle()
    with tree.phase("broken code, SIGHUP"):
        tree.expect("rejected", tree.running.reload())


def _broken_generations(tree: Tree) -> None:
    with tree.phase("an import that hangs, SIGHUP"):
        tree.write("hangs", at_import=HANGS)
        tree.expect("rejected", tree.running.reload())
    with tree.phase("a second worker that dies at start, SIGHUP"):
        tree.write("second dies", at_start=SECOND_DIES)
        tree.expect("rejected", tree.running.reload())
    with tree.phase("the new zygote killed while preparing"):
        tree.write("good-but-killed")
        since = _ask_for_reload(tree, "preparing")
        importing = " importing"  # in the title of a zygote
        until(lambda: any(importing in title(pid) for pid in tree.running.zygotes()), "an importing zygote")
        os.kill(next(pid for pid in tree.running.zygotes() if importing in title(pid)), signal.SIGKILL)
        tree.expect("rejected", _result(tree, since))
    with tree.phase("a new worker killed while filling"):
        before = tree.running.workers()
        since = _ask_for_reload(tree, "filling")
        until(lambda: tree.running.workers().keys() - before.keys(), "a new worker")
        os.kill(max(tree.running.workers().keys() - before.keys()), signal.SIGKILL)
        tree.expect("rejected", _result(tree, since))


def _zygote_killed(tree: Tree) -> None:
    running = tree.running
    with tree.phase("the zygote killed, then a worker"):
        since, before = running.mark(), running.workers()
        os.kill(running.zygotes()[0], signal.SIGKILL)
        running.wait_for(event="replaced zygote", since=since)
        tree.kill_worker()
        tree.wait_for_workers(1, before)
    with tree.phase("the zygote killed, broken code on disk"):
        tree.write("broken", at_import=BROKEN)
        since = running.mark()
        os.kill(running.zygotes()[0], signal.SIGKILL)
        running.wait_for("cannot respawn", since=since)
        tree.kill_worker()
        tree.load.settle()
    with tree.phase("good code, SIGHUP, out of that"):
        tree.write("3")
        tree.expect("committed", running.reload())


def _storm(tree: Tree) -> None:
    with tree.phase("five SIGHUPs in a second"):
        tree.write("4")
        since = tree.running.mark()
        for _ in range(5):
            tree.running.send(signal.SIGHUP)
            tree.load.settle(3)
        first = _result(tree, since)
        tree.expect("committed", first)
        tree.expect("committed", _result(tree, tree.running.lines.index(first) + 1))
    begun = [line for line in tree.running.lines[since:] if line.get("event") == "preparing"]
    if len(begun) > 2:
        tree.complain(f"five SIGHUPs began {len(begun)} reloads")


def _ask_for_reload(tree: Tree, state: str) -> int:
    """SIGHUP, and wait until the reload is in this state; return where its lines begin."""
    since = tree.running.mark()
    tree.running.send(signal.SIGHUP)
    generation = tree.running.wait_for(event="preparing", since=since)["generation"]
    if state in ("preparing", "filling"):
        until(lambda: f"generation {generation} {state}" in title(tree.running.pid), state)
    elif state == "handing over":
        until(lambda: f"generation {generation} serving" in title(tree.running.pid), state)
    else:
        tree.running.wait_for(event="committed", since=since)
    return since


def _result(tree: Tree, since: int) -> Line:
    return tree.running.wait_for(lambda line: line.get("event") in RESULTS, since=since)


def _reload_in(tree: Tree, state: str) -> None:
    """SIGHUP again while a reload is in this state: it is remembered, or begins at once when only draining."""
    slow = SlowRequest(tree.running.address(), 4) if state == "draining" else None
    tree.write("once")
    since = _ask_for_reload(tree, state)
    tree.write("twice")
    tree.running.send(signal.SIGHUP)
    if slow:
        tree.running.wait_for(event="preparing", since=_index(tree, "committed", since))
    else:
        tree.running.wait_for("remembered reload", since=since)
    again = _index(tree, "committed", since) + 1
    tree.expect("committed", _result(tree, again))
    if slow and "generation" not in slow.answer():
        tree.complain(f"SIGHUP while {state}: a request of the generation before last was not answered")


def _index(tree: Tree, event: str, since: int) -> int:
    return tree.running.lines.index(tree.running.wait_for(event=event, since=since))


def _stop_in(directory: Path, state: str) -> Verdict:
    """SIGTERM while a reload is in this state."""
    with contextlib.closing(Tree(directory, "--drain-delay", "1s")) as tree:
        slow = SlowRequest(tree.running.address(), 4) if state == "draining" else None
        tree.load.settle()
        since = _ask_for_reload(tree, state)
        _stop(tree, f"SIGTERM while {state}")
        if state in ("preparing", "filling"):
            tree.expect("pre-empted", _result(tree, since))
        if slow and "generation 1" not in slow.answer():
            tree.complain(f"SIGTERM while {state}: a request of the old generation was not answered")
        return tree.judge()


def _stop(tree: Tree, name: str) -> None:
    """SIGTERM; the clients open no connection from the end of the drain delay on, as a load balancer would."""
    family = children_of(tree.running.pid)
    begin = tree.load.mark()
    tree.running.send(signal.SIGTERM)
    tree.running.wait_for(event="stopping")
    tree.load.settle()
    tree.load.finish()
    tree.count(name, tree.load.requests[begin:])
    if code := tree.running.wait():
        tree.complain(f"{name}: exit code {code}")
    if left := [pid for pid in family if is_alive(pid)]:
        tree.complain(f"{name}: left behind: {left}")


STATES = ("preparing", "filling", "handing over", "draining")


# ── small words ─────────────────────────────────────────────────────────────────────────────────────


def _states_of(pid: int) -> list[str]:
    return [
        (task / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        for task in Path(f"/proc/{pid}/task").iterdir()
    ]


def _monotonic(stamp: str) -> float:
    """Turn the time of a log line, which is cut to milliseconds, into that of the clients."""
    return datetime.fromisoformat(stamp).timestamp() + 0.001 - time.time() + time.monotonic()


def table(rows: list[Row]) -> str:
    """Write the rows for people."""
    lines = [f"{'phase':45} {'requests':>8} {'failures':>8} {'of killed':>9} {'worst wait':>10}  generations seen"]
    lines += [
        f"{row.phase:45} {row.requests:8} {row.failures:8} {row.of_killed:9} {row.worst * 1000:7.0f} ms  "
        + " ".join(map(str, row.generations))
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    """Print the table, and what was not kept; return the exit code."""
    with tempfile.TemporaryDirectory() as directory:
        verdict = run(Path(directory) / "tree")
        noticed = control(Path(directory) / "control")
    print(table([*verdict.rows, *noticed.rows]))
    complaints = list(verdict.complaints)
    if not noticed.rows[0].failures:
        complaints.append("the control run shows no failure: these clients notice nothing")
    print("\n".join(complaints or ["all promises kept; the control run must show failures, and does"]))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
