"""
An init under test, started as its row of the table spells it, with a command below it.

Owns what was started, and its end.  It waits for facts, never for time, and knows nothing of what a row expects.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.processes.running import LIMIT, PROD_RUN, NotSeenError, children_of, descendants, processes, until

if TYPE_CHECKING:
    from collections.abc import Iterator

INSIDE = Path(__file__).with_name("inside.py")
NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)
# A signal that every init forwards, and that sigwait(3) takes last: what was sent before it has gone before it.
FENCE = signal.SIGRTMAX


class World:
    """One init with one command below it; a scenario starts it, does something to it, and returns what it saw."""

    def __init__(self, spelled: str, folder: Path) -> None:
        words = shlex.split(spelled)
        given = list(itertools.takewhile(lambda word: "=" in word, words))
        self.folder = folder
        self.words = [str(PROD_RUN) if word == "prod-run" else word for word in words[len(given) :]]
        self.environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "XDG_RUNTIME_DIR": str(folder)}
        self.environment.update((name, value) for name, _, value in (word.partition("=") for word in given))
        self.process: subprocess.Popen[bytes]
        self.open = contextlib.ExitStack()
        self.heard: list[tuple[str, Any]] = []
        self.pids: dict[str, int] = {}  # of what runs below, as each says itself
        self._fifo = folder / "reports"
        os.mkfifo(self._fifo)
        self._reports = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK)
        self.open.callback(os.close, self._reports)
        self._unread = b""
        self._is_in_namespace = False

    @property
    def pid(self) -> int:
        """The PID of the init, seen from here."""
        return children_of(self.process.pid)[0] if self._is_in_namespace else self.process.pid

    def start(self, *command: object, before: tuple[object, ...] = (), **options: Any) -> World:
        """Start the init with a command; `before` is what starts it, and ends by exec of what follows."""
        if options.pop("as_pid_1", False):
            if subprocess.run((*NAMESPACE, "true"), capture_output=True).returncode:
                pytest.skip("no PID namespace can be had here")
            self._is_in_namespace = True
            before = (*NAMESPACE, *before)
        words = [word if isinstance(word, bytes) else str(word) for word in (*before, *self.words, *command)]
        settings: dict[str, Any] = {
            "cwd": self.folder,
            "env": self.environment,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        self.process = subprocess.Popen(words, **{**settings, **options})
        self.open.callback(_forget, self.process)
        return self

    def python(self, code: str, **options: Any) -> World:
        """Start it with a Python that runs code with the words of inside.py."""
        return self.start(*self.inside(code), **options)

    def inside(self, code: str) -> tuple[object, ...]:
        """Return the words of a command that runs code with the words of inside.py."""
        return (sys.executable, "-I", "-S", INSIDE, self._fifo, code)

    @property
    def command(self) -> int:
        """The PID of the command, which has said that it is ready."""
        return self.pids["command"]

    def ready(self, *names: str) -> World:
        """Wait until the command has said that it is ready, and others of these names."""
        while not {"command", *names} <= self.pids.keys():
            name, pid = self.hear("ready")
            self.pids[name] = pid
        return self

    def let_go(self) -> None:
        """End the command that reads its standard input to the end."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.stdin = None  # else communicate() would flush it

    def hear(self, what: str) -> tuple[Any, int]:
        """Wait for the next report of this kind; return its value, and the PID of who said it."""
        deadline = time.monotonic() + LIMIT
        while True:
            line, found, rest = self._unread.partition(b"\n")
            if found:
                self._unread = rest
                kind, value, pid = json.loads(line)
                self.heard.append((kind, value))
                if kind == what:
                    return value, pid
            elif not select.select([self._reports], [], [], max(0.0, deadline - time.monotonic()))[0]:
                message = f"nobody said {what!r}; heard: {self.heard}"
                raise NotSeenError(message)
            else:
                self._unread += os.read(self._reports, 65536)

    def said(self, *kinds: str) -> list[tuple[str, Any]]:
        """Return all reports of these kinds so far."""
        while select.select([self._reports], [], [], 0)[0]:
            self._unread += os.read(self._reports, 65536)
        lines = self._unread.decode().splitlines()
        self._unread = b""
        self.heard += [tuple(json.loads(line)[:2]) for line in lines]
        return [(kind, value) for kind, value in self.heard if kind in kinds]

    def send(self, *numbers: int) -> None:
        """Send signals to the init."""
        for number in numbers:
            os.kill(self.pid, number)

    def passes(self, *numbers: int) -> list[int]:
        """Send signals to the init, and return those that a recording command has got when the last has."""
        before = len(self.said("command"))
        self.send(*numbers, FENCE)
        while self.hear("command")[0] != FENCE:
            pass
        return [number for _, number in self.said("command")[before:] if number != FENCE]

    def received(self, name: str) -> list[int]:
        """Return all signals that a recording process has ever got; it gets one from us to know the end, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pids[name], FENCE)
        fence = (name, FENCE)
        until(lambda: state_of(self.pids[name]) in {"", "Z"} or fence in self.said(name), "it has got all, or is over")
        return [number for _, number in self.said(name) if number != FENCE]

    def end(self) -> int:
        """Wait for the end; return the exit code as a shell has it, or minus the signal that killed the init."""
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            tree = [state_of(pid) for pid in (self.process.pid, *descendants(self.process.pid))]
            message = f"no end of {self.words}; processes are {tree}; heard: {self.heard}"
            raise NotSeenError(message) from None

    def output(self) -> tuple[int, bytes, bytes]:
        """Wait for the end; return exit code, standard output and standard error."""
        out, err = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, out, err

    def adopted(self) -> list[int]:
        """Return the PIDs of the init's children but the command, zombies too."""
        return [pid for pid, parent, _ in processes() if parent == self.pid and pid != self.command]

    def close(self, others: set[int]) -> None:
        """End everything that the test started; `others` were there before."""
        self.open.close()
        until(lambda: not _kill_all(others), "the end of all that was started")


class Terminal:
    """A terminal with an init on it, as `docker run -it` gives one; the test is who types."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._master, self._slave = pty.openpty()
        self._numbers: tuple[int, ...] = (self._master, self._slave)
        world.open.callback(self.hang_up)
        self._shown = b""

    def start(self, *command: object, before: tuple[object, ...] = ()) -> World:
        """Start the init as the leader of a session that has this terminal; or `before`, and the init by typing."""
        stdio = dict.fromkeys(("stdin", "stdout", "stderr"), self._slave)
        return self._world.start(*command, before=("setsid", "--ctty", *before), **stdio)

    def shell(self) -> None:
        """Start an interactive shell instead, as a person has it; the init is for typing."""
        words, self._world.words = self._world.words, []
        self.start(*SHELL)
        self._world.words = words
        self.see("$ ")

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def see(self, text: str) -> str:
        """Wait until a text stands there; return what stood before it, and forget both."""
        deadline = time.monotonic() + LIMIT
        while text.encode() not in self._shown:
            if not select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))[0]:
                message = f"{text!r} is not there, but {self._shown.decode(errors='replace')!r}"
                raise NotSeenError(message)
            try:
                self._shown += os.read(self._master, 65536)
            except OSError:  # nobody has it open any more
                message = f"the terminal was left without {text!r}: {self._shown.decode(errors='replace')!r}"
                raise NotSeenError(message) from None
        before, _, self._shown = self._shown.partition(text.encode())
        return before.decode(errors="replace")

    def foreground(self) -> int:
        """Return the process group that is in the foreground."""
        return os.tcgetpgrp(self._master)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size."""
        termios.tcsetwinsize(self._master, (rows, columns))

    def hang_up(self) -> None:
        """Close the window."""
        numbers, self._numbers = self._numbers, ()
        for number in numbers:
            os.close(number)


# No files of the user's, and a prompt that is easily found.
SHELL = ("env", "-u", "PROMPT_COMMAND", "PS1=$ ", "bash", "--norc", "--noprofile", "--noediting", "-i")


def state_of(pid: int) -> str:
    """Return the state letter of a process, T for a stopped one; empty if it is gone."""
    return next((state for one, _, state in processes() if one == pid), "")


def is_pending(pid: int, number: int) -> bool:
    """Say whether a signal waits for a process."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith(("SigPnd", "ShdPnd")) and int(line.split()[1], 16) & (1 << (number - 1)):
                return True
    return False


@contextlib.contextmanager
def world(spelled: str, folder: Path) -> Iterator[World]:
    """Give a scenario its world; orphans come to this process and are gone afterwards."""
    if not shutil.which(shlex.split(spelled)[-1]) and (missing := _missing(spelled)):
        pytest.skip(f"{missing} is not installed")
    libc = ctypes.CDLL(None)
    others = set(descendants(os.getpid()))
    libc.prctl(SUBREAPER, 1, 0, 0, 0)
    one = World(spelled, folder)
    try:
        yield one
    finally:
        one.close(others)
        libc.prctl(SUBREAPER, 0, 0, 0, 0)


def _forget(process: subprocess.Popen[bytes]) -> None:
    """End a process, whatever it is doing, and close what leads to it."""
    process.kill()
    process.wait()
    for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
        stream.close()


def _missing(spelled: str) -> str:
    names = ("tini", "tini-static", "dumb-init")
    return next((word for word in shlex.split(spelled) if word in names and not shutil.which(word)), "")


def _kill_all(others: set[int]) -> set[int]:
    """Kill our descendants and reap our children; return who was still there."""
    alive = {pid for pid in descendants(os.getpid()) if pid not in others}
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid, parent, state in processes():
        if parent == os.getpid() and state == "Z" and pid not in others:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
    return alive
