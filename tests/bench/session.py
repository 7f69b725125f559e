"""
One contender, running: started, listened to, and ended without a trace.

Owns one process tree, its directory and the pipe that its workers report into.  Must never leave a process
behind, and never signal one that it did not start.
"""

from __future__ import annotations

import compileall
import contextlib
import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, Self

from tests.bench import environment, procfs
from tests.bench.contenders import Contender, Place

APPS = Path(__file__).with_name("apps")
LIMIT = 60.0  # seconds to wait for a fact
PATIENCE = 8.0  # seconds from SIGTERM to SIGKILL
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


class NotSeenError(Exception):
    """A fact that a measure waited for did not come from a contender."""

    def __init__(self, contender: str, what: str) -> None:
        super().__init__(f"{contender}: {what}")


class Weight(NamedTuple):
    """How heavy the app is."""

    heap_mb: int = 0
    import_seconds: float = 0.0


TRIVIAL = Weight()
SLOW = Weight(70, 1.0)  # with a plain interpreter 80 MB


class Report(NamedTuple):
    """What a worker said."""

    event: str
    pid: int
    when: float  # monotonic seconds, the same in all processes
    detail: float


def environ(weight: Weight, directory: Path) -> dict[str, str]:
    """Return the environment of a contender: small, and the same for all."""
    return {
        "PATH": f"{environment.BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(directory),
        "XDG_RUNTIME_DIR": str(directory),
        "LANG": "C.UTF-8",
        "BENCH_PIPE": str(directory / "reports"),
        "BENCH_HEAP_MB": str(weight.heap_mb),
        "BENCH_IMPORT_SECONDS": str(weight.import_seconds),
    }


def pause(seconds: float) -> None:
    """Let time pass."""
    select.select((), (), (), seconds)


def adopt_orphans() -> None:
    """Have every orphan of a contender become our child, so that none is lost."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Session:
    """A contender with so many workers of an app; use it in a `with`."""

    def __init__(self, contender: Contender, workers: int, weight: Weight = TRIVIAL) -> None:
        self.contender = contender
        # Short, since the paths of unix sockets are below it.
        directory = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
        self.place = Place(directory, _free_port(), workers, environment.BIN)
        self.reports: list[Report] = []
        self._environ = environ(weight, directory)
        shutil.copytree(APPS, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(directory, quiet=2)
        os.mkfifo(directory / "reports")
        self._pipe = os.open(directory / "reports", os.O_RDWR | os.O_NONBLOCK)
        self._unread = b""
        self.argv = contender.argv(self.place)
        with (directory / "output").open("wb") as output:
            self.began = time.monotonic()
            self._process = subprocess.Popen(
                self.argv, cwd=directory, env=self._environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The first process."""
        return self._process.pid

    def tree(self) -> list[int]:
        """Return all processes."""
        return procfs.tree(self.pid)

    def workers(self) -> list[int]:
        """Return the living processes that have said that they serve."""
        self.listen(0.0)
        said = {report.pid for report in self.reports if report.event in {"inside", "up"}}
        return [pid for pid in self.tree() if pid in said]

    def supervisors(self) -> list[int]:
        """Return the contender's supervising part: one process, or all but the workers."""
        if not self.contender.is_split:
            return [self.pid]
        workers = set(self.workers())
        return [pid for pid in self.tree() if pid not in workers]

    def wait_for(self, event: str, count: int = 1, *, since: float = 0.0, limit: float = LIMIT) -> list[Report]:
        """Wait until so many processes have reported an event after `since`; return each one's first report."""
        deadline = time.monotonic() + limit
        while True:
            found: dict[int, Report] = {}
            for report in self.reports:
                if report.event == event and report.when > since:
                    found.setdefault(report.pid, report)
            if len(found) >= count:
                return sorted(found.values(), key=lambda report: report.when)
            if self._process.poll() is not None:
                raise NotSeenError(self.contender.name, f"ended with {self._process.returncode}: {self.output()}")
            if time.monotonic() > deadline:
                raise NotSeenError(self.contender.name, f"{len(found)} of {count} {event!r}: {self.output()}")
            self.listen(min(0.2, max(0.0, deadline - time.monotonic())))

    def listen(self, seconds: float) -> None:
        """Take in what workers report, waiting for it at most so long."""
        select.select((self._pipe,), (), (), seconds)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._unread += os.read(self._pipe, 65536)
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            event, pid, when, detail = line.decode().split()
            self.reports.append(Report(event, int(pid), float(when), float(detail)))

    def first_answer(self) -> float:
        """Ask until there is an answer; return when it came, in monotonic seconds."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.place.port), 5.0) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if client.recv(65536).startswith(b"HTTP/1.1 200"):
                    return time.monotonic()
            pause(0.001)
        raise NotSeenError(self.contender.name, f"no answer: {self.output()}")

    def change_code(self) -> None:
        """Put version 2 in the place of version 1."""
        for compiled in (self.place.directory / "__pycache__").glob("version.*"):
            compiled.unlink()
        fresh = self.place.directory / "version.new"
        fresh.write_text("VERSION = 2\n")
        fresh.rename(self.place.directory / "version.py")

    def reload(self) -> float:
        """Ask for a reload as this contender wants to be asked; return when, in monotonic seconds."""
        how = self.contender.reload
        began = time.monotonic()
        if isinstance(how, signal.Signals):
            self._process.send_signal(how)
        elif how:
            subprocess.Popen(
                how(self.place),
                cwd=self.place.directory,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        return began

    def output(self) -> str:
        """Return the end of what the contender printed."""
        return (self.place.directory / "output").read_text(errors="replace")[-600:].strip()

    def close(self) -> None:
        """End every process of ours, first politely, and remove the directory."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        _wait_for_none(PATIENCE)
        while left := _below():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _wait_for_none(PATIENCE)
        self._process.wait()
        _reap()
        os.close(self._pipe)
        shutil.rmtree(self.place.directory, ignore_errors=True)


def import_alone(weight: Weight) -> float:
    """Return the seconds that one import of the app takes, with nothing else going on."""
    code = "import time; began = time.monotonic(); import shop; print(time.monotonic() - began)"
    variables = environ(weight, APPS) | {"BENCH_PIPE": "", "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [environment.BIN / "python", "-c", code]
    return float(subprocess.run(argv, cwd=APPS, env=variables, capture_output=True, check=True).stdout)


def _below() -> list[int]:
    """Return the living processes below this one: all were started here, and no orphan gets away."""
    return [pid for pid in procfs.tree(os.getpid()) if pid != os.getpid()]


def _wait_for_none(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _below() and time.monotonic() < deadline:
        pause(0.02)


def _reap() -> None:
    """Take the exit codes of adopted orphans."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
