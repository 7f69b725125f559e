"""A command at a terminal: it has the foreground, and a shell's ^Z, fg and bg work as without prod-run."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import LIMIT, PROD_RUN, NotSeenError, descendants, status, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Says what the terminal sends it, and echoes lines; ends with the file, or an interruption.  The trap itself exits:
# `read` is ended by a signal only if it has begun by then.
COMMAND = """
trap 'echo interrupted; exit 0' INT
echo group $(ps -o tpgid= -p $$) $$
while read line; do echo "read <$line>"; done
echo end of file
"""


class Terminal:
    """A program at a terminal of its own, and all that it has shown."""

    def __init__(self, argv: list[str], folder: Path) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                environ = {"PATH": os.environ["PATH"], "PS1": "$ ", "TERM": "dumb", "LC_ALL": "C", "HOME": str(folder)}
                os.chdir(folder)
                os.execvpe(argv[0], argv, environ)
            finally:
                os._exit(127)  # else it would go on as a second pytest
        self.shown = ""
        self.exit_code: int | None = None

    def type(self, text: str) -> None:
        """Type, as a person would: ^C is 3, ^D is 4, ^Z is 26."""
        os.write(self._fd, text.encode())

    def see(self, text: str, *, times: int = 1) -> None:
        """Wait until a text is shown, so often."""
        deadline = time.monotonic() + LIMIT
        while self.shown.count(text) < times:
            if not select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                message = f"{text!r} is not shown {times} times:\n{self.shown}"
                raise NotSeenError(message)
            try:
                piece = os.read(self._fd, 65536)
            except OSError:  # pty(7): EIO when nobody has the other end any more
                piece = b""
            if not piece:
                message = f"{text!r} was not shown {times} times before the end:\n{self.shown}"
                raise NotSeenError(message)
            self.shown += piece.decode(errors="replace").replace("\r", "")

    def wait(self) -> int:
        """Wait for the end of the program and return its exit code."""
        ended: list[int] = []

        def is_over() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            ended.extend([os.waitstatus_to_exitcode(status)] if pid else [])
            return bool(pid)

        until(is_over, f"the end:\n{self.shown}")
        self.exit_code = ended[0]
        return self.exit_code

    def close(self) -> None:
        """End whatever is left."""
        if self.exit_code is None:
            family = [self.pid, *descendants(self.pid)]
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)


@pytest.fixture
def at_terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Start a program at a terminal of its own."""
    terminals: list[Terminal] = []
    (tmp_path / "command").write_text(COMMAND)

    def start(*words: object) -> Terminal:
        terminals.append(Terminal([str(word) for word in words], tmp_path))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


@pytest.fixture(params=["", "--restart on-failure"], ids=["alone", "whole"])
def flags(request: pytest.FixtureRequest) -> str:
    """Run the command alone, and under the whole supervisor."""
    return str(request.param)


@pytest.fixture
def shell(at_terminal: Callable[..., Terminal], flags: str) -> Terminal:
    """An interactive shell with job control."""
    if not shutil.which("bash"):
        pytest.skip("bash is not installed")
    terminal = at_terminal("bash", "--norc", "--noprofile", "--noediting", "-i")
    terminal.type(f"alias run='{PROD_RUN} {flags} --'; echo set\\ up\n")
    terminal.see("set up")
    return terminal


def test_the_command_has_the_foreground(at_terminal: Callable[..., Terminal], flags: str) -> None:
    """As in a container with a terminal: it reads, and ^C is its own."""
    terminal = at_terminal(PROD_RUN, *flags.split(), "--", "sh", "command")
    terminal.see("group ")
    terminal.type("one\n")
    terminal.see("read <one>")
    group, pid = terminal.shown.partition("group ")[2].split()[:2]
    assert group == pid
    terminal.type("\x03")
    terminal.see("interrupted")

    assert terminal.wait() == 0


def test_suspend_and_resume_from_a_shell(shell: Terminal) -> None:
    """^Z brings the shell back, fg the command; and so a second time."""
    shell.type("run sh command\n")
    shell.see("group ")
    for turn in (1, 2):
        shell.type("\x1a")
        shell.see("Stopped", times=turn)
        shell.type(f"echo the shell is back $(({turn}+0))\n")
        shell.see(f"the shell is back {turn}")
        shell.type("fg\n")
        shell.type(f"again {turn}\n")
        shell.see(f"read <again {turn}>")
    shell.type("\x04")
    shell.see("end of file")
    shell.type("echo code $?; exit\n")
    shell.see("code 0")

    assert shell.wait() == 0


def test_a_command_in_the_background_stops_when_it_reads(shell: Terminal) -> None:
    """It does not take the terminal from the shell; fg gives it what it waits for."""
    shell.type("run sh command &\n")
    shell.see("group ")
    shell.type("echo\n")
    shell.type("wait %1; jobs\n")
    shell.see("Stopped")
    shell.type("fg\n")
    shell.type("hello\n")
    shell.see("read <hello>")
    shell.type("\x04")
    shell.see("end of file")


def test_bg_goes_on_in_the_background(shell: Terminal) -> None:
    """What needs no terminal goes on; the shell keeps it."""
    shell.type("run sh -c 'echo there; read line; echo never' \n")
    shell.see("there\n")
    shell.type("\x1a")
    shell.see("Stopped")
    shell.type("bg\n")
    shell.type("echo mine $((1+1))\n")
    shell.see("mine 2")
    shell.type("kill %1; wait; echo gone $((1+1))\n")
    shell.see("gone 2")


def test_a_script_without_job_control_gets_the_terminal_back(
    at_terminal: Callable[..., Terminal], tmp_path: Path, flags: str
) -> None:
    """It reads from the terminal after prod-run has ended."""
    (tmp_path / "script").write_text(
        f"{PROD_RUN} {flags} -- sh -c 'read line; echo first $line'\nread line\necho second $line\n"
    )
    terminal = at_terminal("sh", "script")
    terminal.type("a\n")
    terminal.see("first a")
    terminal.type("b\n")
    terminal.see("second b")

    assert terminal.wait() == 0


def test_suspension_is_dropped_where_nobody_could_resume(at_terminal: Callable[..., Terminal], flags: str) -> None:
    """As the kernel does it in an orphaned process group (setpgid(2)): in a container, say."""
    terminal = at_terminal(PROD_RUN, *flags.split(), "--", "sh", "command")
    terminal.see("group ")
    terminal.type("\x1a")
    terminal.see("^Z")
    terminal.type("still\n")
    terminal.see("read <still>")
    terminal.type("\x04")

    assert terminal.wait() == 0


@pytest.mark.parametrize("before", [(), ("sh", "-c", '"$@"; true', "sh")], ids=["leader", "script"])
def test_the_next_copy_gets_the_terminal(at_terminal: Callable[..., Terminal], before: tuple[str, ...]) -> None:
    """Where the foreground is that of the copy before, which is over."""
    command = ("sh", "-c", "read line; echo read $line; test $line = last")
    terminal = at_terminal(*before, PROD_RUN, "--restart", "on-failure", "--log-level", "info", "--", *command)
    terminal.see("committed")
    for line in ("one", "two", "last"):
        terminal.type(f"{line}\n")
        terminal.see(f"read {line}")

    assert terminal.wait() == 0


def test_who_is_suspended_by_a_signal_is_resumed_at_once(shell: Terminal) -> None:
    """One `fg` is enough: the command's stop, which was ours, is not followed by another one."""
    shell.type("run sh command\n")
    shell.see("group ")
    supervisor, command = descendants(shell.pid)
    os.kill(supervisor, signal.SIGTSTP)
    shell.see("Stopped")
    # Until it has got the signal, a reader of the terminal takes what is typed, though it is in no foreground any more.
    until(lambda: status(command)["State"].startswith("T"), "the command stops")
    shell.type("fg\n")
    shell.type("hello\n")
    shell.see("read <hello>")
    shell.type("\x04")
    shell.see("end of file")
    shell.type("echo code $?; exit\n")
    shell.see("code 0")

    assert shell.shown.count("Stopped") == 1
