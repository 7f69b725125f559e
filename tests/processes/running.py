"""
A real prod-run, started by a test.

Owns one process tree: its output line by line, and its end.  It waits for facts, each with a generous outer
limit, and shows all output when a fact does not come.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LIMIT = 60.0  # seconds: generous, since these machines stall
GRACE = 1.0  # seconds for what ends by itself with the processes that were killed
PROD_RUN = Path(sys.executable).with_name("prod-run")


class NotSeenError(AssertionError):
    """A fact that a test waited for did not come."""


class Line(dict[str, str]):
    """
    One line of output: the fields of a logfmt line (`event`, `level`, …), and always `text`.

    The text of a line that a process of the app printed is what it printed.
    """

    @classmethod
    def parse(cls, text: str) -> Line:
        """Read a line; what did not come from prod-run's log has only `text`."""
        fields = {}
        if text.startswith("time="):
            with contextlib.suppress(ValueError):
                fields = dict(word.split("=", 1) for word in shlex.split(text) if "=" in word)
        _, separator, quoted = text.partition(' message="')
        if separator and fields.get("stream"):
            text = json.loads(f'"{quoted}')
        return cls(fields, text=text)


class Running:
    """One prod-run under test, and what it has said so far."""

    def __init__(self, argv: Sequence[str | Path], *, cwd: Path, env: dict[str, str], **options: object) -> None:
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [str(word) for word in argv],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **options,  # type: ignore[call-overload]
        )
        self.lines: list[Line] = []
        self._is_over = False  # nobody can say anything any more
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The supervisor's PID: the same from start to end."""
        return int(self.process.pid)

    def wait_for(self, what: str | Callable[[Line], bool] = "", *, since: int = 0, **fields: object) -> Line:
        """
        Wait for a line whose fields are these (`event="committed", generation=2`), or that holds a text.

        `since` is an index into `lines`: only later ones count.
        """
        expected = {name: str(value) for name, value in fields.items()}

        def is_it(line: Line) -> bool:
            if callable(what):
                return what(line)
            return what in line["text"] and expected.items() <= line.items()

        with self._news:
            found = self._news.wait_for(
                lambda: next((line for line in self.lines[since:] if is_it(line)), None) or self._is_over, LIMIT
            )
            line = next((line for line in self.lines[since:] if is_it(line)), None)
        if line is None:
            message = f"no line with {what or ''} {expected} {'before the end' if found else 'in time'}:\n{self.text()}"
            raise NotSeenError(message)
        return line

    def count(self, what: str, expected: int) -> int:
        """
        Wait until a text was said so often, and return how often it was.

        What an app prints comes by another way than prod-run's own events, so it may follow the event it caused.
        """
        with self._news:
            self._news.wait_for(lambda: self.text().count(what) >= expected or self._is_over, LIMIT)
        return self.text().count(what)

    def mark(self) -> int:
        """Return an index for `since`: what is said from here on."""
        return len(self.lines)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        self.process.send_signal(number)

    def reload(self) -> Line:
        """Ask for a reload and wait for its result."""
        since = self.mark()
        self.send(signal.SIGHUP)
        return self.wait_for(
            lambda line: line.get("event") in ("committed", "rejected", "rolled-back", "pre-empted"), since=since
        )

    def wait(self, limit: float = LIMIT) -> int:
        """Wait for the end and return the exit code."""
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            message = f"it did not end within {limit:g} s:\n{self.text()}"
            raise NotSeenError(message) from None
        self._reader.join(LIMIT)
        return code

    def stop(self) -> int:
        """Ask for the end with SIGTERM and wait for it."""
        self.send(signal.SIGTERM)
        return self.wait()

    def workers(self) -> dict[int, int]:
        """Return the living workers of all generations, as the titles say: pid → slot."""
        found = {}
        for pid in children_of(self.pid):
            role = title(pid).partition("[worker ")[2]
            if role:
                found[pid] = int(role.partition("]")[0])
        return found

    def spare(self) -> int:
        """Wait for the spare and return its PID: from then on nothing is being forked."""
        until(lambda: any("[spare]" in title(pid) for pid in children_of(self.pid)), "a spare")
        return next(pid for pid in children_of(self.pid) if "[spare]" in title(pid))

    def zygotes(self) -> list[int]:
        """Return the PIDs of the living zygotes."""
        return [pid for pid in children_of(self.pid) if "[zygote]" in title(pid)]

    def address(self, name: str = "default") -> tuple[str, int]:
        """Return host and port of a listening socket, from the line that says it."""
        host, _, port = self.wait_for(event="listening", name=name)["address"].rpartition(":")
        return host.strip("[]"), int(port)

    def ask(self, path: str = "/") -> str:
        """Make one HTTP request on a connection of its own and return the body."""
        with socket.create_connection(self.address(), LIMIT) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        return answer.partition(b"\r\n\r\n")[2].decode()

    def text(self) -> str:
        """Return all output so far."""
        return "\n".join(line["text"] for line in self.lines)

    def close(self) -> None:
        """End everything that is left, whatever the test did."""
        family = descendants(self.pid) if self.process.poll() is None else []
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()  # its whole tree goes with it (PDEATHSIG), but not what apps have forked
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(LIMIT)
        self._reader.join(GRACE)
        until(lambda: not self._reader.is_alive() or self._kill_who_could_speak(), "the end of the output")
        if self.process.stdout:
            self.process.stdout.close()

    def _kill_who_could_speak(self) -> None:
        """End those that have left the tree and kept the pipe: to close it here would wait for them, for ever."""
        assert self.process.stdout
        pipe = os.readlink(f"/proc/self/fd/{self.process.stdout.fileno()}")
        for pid, _, _ in processes():
            with contextlib.suppress(OSError):
                if pid != os.getpid() and pipe in descriptors(pid).values():
                    os.kill(pid, signal.SIGKILL)

    def _read(self) -> None:
        stream = self.process.stdout
        if stream is None:
            return
        try:
            for raw in stream:
                with self._news:
                    self.lines.append(Line.parse(raw.decode("utf-8", "backslashreplace").rstrip("\n")))
                    self._news.notify_all()
        finally:
            with self._news:
                # Not when the process is over: what it said last may not have been read by then.
                self._is_over = True
                self._news.notify_all()


def until(fact: Callable[[], object], what: str, limit: float = LIMIT) -> None:
    """Wait until something is true that nobody announces; say `what` if it does not become so."""
    deadline = time.monotonic() + limit
    while not fact():
        if time.monotonic() > deadline:
            message = f"not in {limit:g} s: {what}"
            raise NotSeenError(message)
        threading.Event().wait(0.01)  # noqa: TID251  no signal comes here


def children_of(pid: int) -> list[int]:
    """Return the PIDs of the living children of a process."""
    return [child for child, parent, state in processes() if parent == pid and state != "Z"]


def descendants(pid: int) -> list[int]:
    """Return the PIDs of the living children of a process, and of theirs."""
    alive = [(child, parent) for child, parent, state in processes() if state != "Z"]
    found = [pid]
    for known in found:
        found += [child for child, parent in alive if parent == known]
    return found[1:]


def processes() -> Iterator[tuple[int, int, str]]:
    """Yield pid, parent and state of every process."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError):
            state, parent = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            yield int(name), int(parent), state


def title(pid: int) -> str:
    """Return the command line of a process as `ps` shows it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    return any(child == pid and state != "Z" for child, _, state in processes())


def status(pid: int) -> dict[str, str]:
    """Return `/proc/PID/status`."""
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def signals_in(pid: int, field: str) -> set[int]:
    """Return the signals in a mask of `/proc/PID/status`: SigBlk, SigIgn or SigCgt."""
    mask = int(status(pid)[field], 16)
    return {number for number in range(1, 65) if mask & (1 << (number - 1))}


def environ(pid: int) -> dict[str, str]:
    """Return the environment that a process had at its exec (if setproctitle left it: SPT_NOENV=1)."""
    items = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {
        os.fsdecode(name): os.fsdecode(value) for name, _, value in (item.partition(b"=") for item in items if item)
    }


def descriptors(pid: int) -> dict[int, str]:
    """Return the open descriptors of a process and what they are: `pipe:[1234]`, `/dev/null`; none if it is over."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found
