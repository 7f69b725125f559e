"""One command without any other setting: as if prod-run were not there, but for what an init is there for."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import (
    Running,
    children_of,
    descriptors,
    is_alive,
    status,
    title,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
PYTHON = (sys.executable, "-I", "-S", "-c")
# Says every signal it gets, and that it is there.
RECORD = """
import _signal as signal, os
numbers = signal.valid_signals()
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
os.write(1, b"there\\n")
while True:
    os.write(1, b"got %d\\n" % signal.sigwait(numbers))
"""
FAULTS = {signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 1", 1), ("exit 255", 255), ("kill -KILL $$", 137), ("kill -SEGV $$", 139)],
)
def test_its_exit_code_is_the_commands(start: Callable[..., Running], script: str, code: int) -> None:
    """0 to 255 as it is, 128 + N for a signal; nothing is said."""
    running = start("--", "sh", "-c", script)

    assert running.wait() == code
    assert running.lines == []


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["no-such-command"], 127, "cannot run no-such-command: not found in PATH"),
        (["./nothing"], 127, "cannot run ./nothing: there is no such file"),
        (["./dangling"], 127, "cannot run ./dangling: the interpreter that it names is missing"),
        (["./plain"], 126, "cannot run ./plain: Permission denied"),
        (["plain"], 126, "cannot run plain: DIRECTORY/plain: Permission denied"),
        (["."], 126, "cannot run .: "),
        ([""], 127, "cannot run : "),
    ],
)
def test_a_command_that_cannot_be_run(
    start: Callable[..., Running], tmp_path: Path, words: list[str], code: int, sentence: str
) -> None:
    """127 if it is not there, 126 if it is no program, and one line that names it."""
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    (tmp_path / "dangling").write_text("#!/no/such/interpreter\n")
    (tmp_path / "dangling").chmod(0o755)
    running = start("--", *words, env={"PATH": f"/nowhere:{tmp_path}"})

    assert running.wait() == code
    assert len(running.lines) == 1
    assert running.text().startswith(f"prod-run: {sentence.replace('DIRECTORY', str(tmp_path))}")


def test_a_script_without_a_first_line_is_a_shells(start: Callable[..., Running], tmp_path: Path) -> None:
    """As execvp(3) does it."""
    (tmp_path / "script").write_text("echo $0 $1; exit 7\n")
    (tmp_path / "script").chmod(0o755)
    running = start("--", "./script", "word")

    assert running.wait() == 7
    assert running.text() == "./script word"


def test_the_environment_is_the_callers_to_the_byte(start: Callable[..., Running], tmp_path: Path) -> None:
    """Order, doubles and bytes that are no text included, less prod-run's own; no LC_CTYPE that CPython added."""
    given = [b"Z=1", b"TWICE=a", b"TWICE=b", b"BYTES=\xff\xfe", b"EMPTY=", b"LINE=a\nb", b"PATH=/usr/bin:/bin"]
    ours = [b"PROD_RUN_DRAIN_TIMEOUT=9s", b"WATCHDOG_PID=1", b"LISTEN_PID=1", b"LISTEN_FDS=1", b"LISTEN_FDNAMES=x"]
    code = """
import ctypes, sys
words = [word.encode("utf-8", "surrogateescape") for word in sys.argv[1:]]
items = [item for item in open("environment", "rb").read().split(b"\\0") if item]
array = lambda items: (ctypes.c_char_p * (len(items) + 1))(*items, None)
ctypes.CDLL(None).execve(words[0], array(words), array(items))
"""
    (tmp_path / "environment").write_bytes(b"\0".join([*given[:3], *ours, *given[3:]]))
    report = tmp_path / "report"
    running = start("--", "sh", "-c", f"cat /proc/self/environ > {report}", before=(sys.executable, "-c", code))

    assert running.wait() == 0, running.text()
    items = report.read_bytes().rstrip(b"\0").split(b"\0")
    # dash adds PWD and keeps the last of two with the same name; what it was given shows in its own environ.
    assert [item for item in items if not item.startswith((b"PWD=", b"OLDPWD=", b"_="))] != []

    exact = start("--", "cat", "/proc/self/environ", before=(sys.executable, "-c", code))
    assert exact.wait() == 0
    assert (
        exact.text().encode("utf-8", "surrogateescape").replace(b"\\xff\\xfe", b"\xff\xfe").split(b"\0")[:-1] == given
    )


def test_a_directory_that_is_gone_is_no_hindrance(start: Callable[..., Running]) -> None:
    """The command is started where it would have been without prod-run."""
    gone = ("sh", "-c", 'mkdir gone; cd gone; rmdir ../gone; exec "$@"', "sh")
    running = start("--success-exit-status", "7", "--", "false", before=gone)

    assert running.wait() == 1
    assert running.lines == []


def test_directory_mask_limits_and_descriptors_are_the_callers(start: Callable[..., Running], tmp_path: Path) -> None:
    """The command has what it would have without prod-run; the supervisor itself keeps nothing of it."""
    reading, writing = os.pipe()
    code = (
        "import os, resource; mask = os.umask(0); "
        "print(os.getcwd(), oct(mask), resource.getrlimit(resource.RLIMIT_NOFILE)[0], os.getpgrp() == os.getpid());"
        f"os.write({writing}, b'through'); open('wait').read()"
    )
    os.mkfifo(tmp_path / "wait")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = os.umask(0o027)
    resource.setrlimit(resource.RLIMIT_NOFILE, (333, limit[1]))
    try:
        running = start("--", sys.executable, "-u", "-c", code, pass_fds=(writing,))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        os.umask(before)
    os.close(writing)

    assert os.read(reading, 100) == b"through"
    running.wait_for(f"{tmp_path} 0o27 333 True")
    until(lambda: "[supervisor]" in title(running.pid), "the supervisor's program")
    assert set(descriptors(running.pid)) == {0, 1, 2}
    assert os.readlink(f"/proc/{running.pid}/cwd") == "/"
    (command,) = children_of(running.pid)
    os.kill(command, signal.SIGKILL)
    assert running.wait() == 137
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_the_signal_mask_and_dispositions_are_the_callers(start: Callable[..., Running]) -> None:
    """What was blocked or ignored still is, SIGCHLD included; nothing else is, Python's SIGPIPE least of all."""
    ignored, blocked = {signal.SIGHUP, signal.SIGCHLD}, {signal.SIGUSR1, signal.SIGRTMIN + 2}

    def prepare() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    running = start("--", "cat", "/proc/self/status", preexec_fn=prepare)  # a shell changes its own

    assert running.wait() == 0
    fields = dict(line["text"].split(":\t", 1) for line in running.lines if ":\t" in line["text"])
    mask = {name: int(fields[name], 16) for name in ("SigBlk", "SigIgn")}
    assert mask["SigIgn"] == sum(1 << (number - 1) for number in ignored)
    assert mask["SigBlk"] == sum(1 << (number - 1) for number in blocked)


def test_every_signal_reaches_the_whole_group(start: Callable[..., Running]) -> None:
    """But SIGCHLD, the faults, and those that stop."""
    running = start("--", *PYTHON, f"import os\nif os.fork(): pass\n{RECORD}")
    running.wait_for("there")
    until(lambda: sum("there" in line["text"] for line in running.lines) == 2, "both")
    # CPython ignores SIGPIPE and SIGXFSZ as it starts, which drops what is pending of them (sigaction(2)).
    until(lambda: "[supervisor]" in title(running.pid), "the supervisor's program")
    numbers = signal.valid_signals() - FAULTS - {9, 19, 17, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
    for number in sorted(numbers):
        os.kill(running.pid, number)
    expected = sorted([f"got {number:d}" for number in numbers] * 2)

    until(lambda: sorted(line["text"] for line in running.lines if "got" in line["text"]) == expected, "each, twice")


def test_nothing_but_the_supervisor_is_beside_it(start: Callable[..., Running], tmp_path: Path) -> None:
    """No observer, no zygote, no directory, no socket; and the supervisor waits without any system call."""
    running = start("--", "sleep", "1000")
    until(
        lambda: "[supervisor]" in title(running.pid) and [title(p) for p in children_of(running.pid)] == ["sleep 1000"],
        "both",
    )
    before = status(running.pid)["voluntary_ctxt_switches"]

    assert list((tmp_path / "run").iterdir()) == []
    assert status(running.pid)["voluntary_ctxt_switches"] == before
    running.send(signal.SIGTERM)
    assert running.wait() == 143
    assert running.lines == []


def test_a_command_that_ignores_sigterm_is_killed_at_the_limit(start: Callable[..., Running]) -> None:
    """With its whole group, and with a sentence."""
    running = start("--drain-timeout", "200ms", "--", *PYTHON, f"import os\nos.fork()\n{RECORD}")
    until(lambda: sum("there" in line["text"] for line in running.lines) == 2, "both")
    running.send(signal.SIGTERM)

    assert running.wait() == 137
    running.wait_for("prod-run: killed the command: it did not end within --drain-timeout 0.2s")
    assert sum(line["text"] == "got 15" for line in running.lines) == 2


@pytest.mark.slow
def test_time_in_which_it_was_suspended_does_not_count(start: Callable[..., Running]) -> None:
    """A container that was frozen while its command ended itself gets the time back that it had left."""
    running = start("--drain-timeout", "3s", "--", *PYTHON, RECORD)
    running.wait_for("there")
    running.send(signal.SIGTERM)
    running.wait_for("got 15")
    until(lambda: status(running.pid)["State"][0] == "S", "it waits, and the time runs")
    running.send(signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 5.5, "more than the limit, and two seconds")
    running.send(signal.SIGCONT)
    running.wait_for("prod-run: woke up late")
    running.wait_for("got 18")
    running.send(signal.SIGUSR1)
    running.wait_for("got 10")

    running.send(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL


def test_what_it_leaves_behind_is_given_time(start: Callable[..., Running]) -> None:
    """Its group, and those that left it: SIGTERM, and time to say a last word."""
    last = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit('last word')); print('there', flush=True); time.sleep(1000)"
    code = (
        "import subprocess, sys\n"
        f"words = [sys.executable, '-c', {last!r}]\n"
        "for detached in (False, True):\n"
        "    child = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=detached)\n"
        "    child.stdout.readline()\n"
        "sys.exit(3)"
    )
    running = start("--", sys.executable, "-c", code)

    assert running.wait() == 3
    assert running.text().count("last word") == 2


def test_what_will_not_end_is_killed(start: Callable[..., Running], tmp_path: Path) -> None:
    """After 5 s; the exit code stays the command's."""
    os.mkfifo(tmp_path / "end")
    running = start("--", *PYTHON, f"import os\nif os.fork():\n    open('end').read(); os._exit(4)\n{RECORD}")
    running.wait_for("there")
    (orphan,) = [pid for child in children_of(running.pid) for pid in children_of(child)]
    (tmp_path / "end").write_text("\n")

    assert running.wait() == 4
    assert not is_alive(orphan)
    assert "got 15" in running.text()


def test_the_command_dies_with_a_killed_supervisor(start: Callable[..., Running]) -> None:
    """PR_SET_PDEATHSIG, from its first moment."""
    running = start("--", "sleep", "1000")
    until(lambda: children_of(running.pid), "the command")
    (command,) = children_of(running.pid)
    running.send(signal.SIGKILL)

    until(lambda: not is_alive(command), "the command is gone")


def test_a_signal_that_came_before_the_command_reaches_it(start: Callable[..., Running]) -> None:
    """Sent to prod-run's own first line."""
    send = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [15]); os.kill(os.getpid(), 15); os.execv(sys.argv[1], sys.argv[1:])"
    running = start("--", *PYTHON, RECORD, before=(sys.executable, "-c", send))

    running.wait_for("got 15")


def test_its_parents_death_is_told(start: Callable[..., Running], tmp_path: Path) -> None:
    """--parent-death-signal comes to prod-run, which passes it on as any other."""
    os.mkfifo(tmp_path / "end")
    parent = ("sh", "-c", '"$@" & read line < end', "sh")
    running = start("--parent-death-signal", "USR1", "--", *PYTHON, RECORD, before=parent)
    running.wait_for("there")
    (supervisor,) = [pid for pid in children_of(running.pid) if children_of(pid)]
    (tmp_path / "end").write_text("\n")

    until(lambda: "got 10" in running.text(), "SIGUSR1")
    os.kill(supervisor, signal.SIGKILL)


@pytest.mark.parametrize(
    ("codes", "script", "code"),
    [
        (["143"], "kill $$", 0),
        (["TERM,3"], "exit 3", 0),
        (["SIGTERM", "3"], "kill $$", 0),
        (["3"], "exit 4", 4),
    ],
)
def test_some_exit_codes_count_as_success(
    start: Callable[..., Running], codes: list[str], script: str, code: int
) -> None:
    """As tini's -e and systemd's SuccessExitStatus have it."""
    flags = [word for text in codes for word in ("--success-exit-status", text)]

    assert start(*flags, "--", "sh", "-c", script).wait() == code


def test_signals_are_rewritten_and_dropped(start: Callable[..., Running]) -> None:
    """TERM becomes QUIT, HUP is dropped, the rest comes as it is."""
    running = start("--rewrite", "TERM:QUIT", "--rewrite", "SIGHUP:0", "--", *PYTHON, RECORD)
    running.wait_for("there")
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
        running.send(number)
        if number != signal.SIGHUP:
            running.wait_for(f"got {signal.SIGQUIT if number == signal.SIGTERM else number:d}")

    assert [line["text"] for line in running.lines] == ["there", "got 3", "got 10"]


def test_it_is_suspended_with_its_command(start: Callable[..., Running]) -> None:
    """SIGTSTP stops both, SIGCONT wakes both."""
    running = start("--", "sleep", "1000")
    until(lambda: [title(p) for p in children_of(running.pid)] == ["sleep 1000"], "the command")
    (command,) = children_of(running.pid)

    for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        running.send(number)
        until(lambda: {status(pid)["State"][0] for pid in (running.pid, command)} == {"T"}, "both are stopped")
        running.send(signal.SIGCONT)
        until(lambda: "T" not in {status(pid)["State"][0] for pid in (running.pid, command)}, "both go on")

    running.send(signal.SIGTERM)
    assert running.wait() == 143


# The exec of the supervisor fails once the command runs.
REFUSED = """
import errno, os, sys
from launcher import cli, command

def refuse(wishes, pid):
    with open("running") as file:
        os.write(1, f"{file.read().strip()} {pid}\\n".encode())
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

command._become_supervisor = refuse
sys.argv[:] = ["prod-run", "--", "sh", "-c", "echo runs > running; read line < running"]
cli.main()
"""


def test_a_command_without_a_supervisor_is_ended_and_not_started_again(tmp_path: Path) -> None:
    """A system that refuses the second half of the start is one sentence, and nothing is left."""
    os.mkfifo(tmp_path / "running")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [sys.executable, "-c", REFUSED], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )

    assert answer.returncode == 71
    assert answer.stdout.count("runs") == 1
    assert not is_alive(int(answer.stdout.split()[1]))
    assert "the system refused: Cannot allocate memory" in answer.stderr
    assert "Traceback" not in answer.stderr
