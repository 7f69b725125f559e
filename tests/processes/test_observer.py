"""The observer in a service that is well: it starts first, ends last, costs little, and loses no last word."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher import protocol
from launcher.errors import Exit
from launcher.logs import counters
from launcher.supervisor import interpreter, journal
from tests.processes import loud
from tests.processes.running import LIMIT, Running, descendants, descriptors, title, until
from tests.processes.test_output import into

MEMORY = 12_000  # kB of PSS

QUIET = """
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    worker.stopping.wait()
    for number in range(3):
        print("at the end", worker.slot, number)
"""

DIES = """
import os, resource, signal, sys
from launcher import Worker
def main(worker: Worker):
    if os.path.exists("died"):
        worker.ready()
        worker.stopping.wait()
        return
    open("died", "w").close()
    for number in range(60):
        print("last", number, file=sys.stderr)
    os.write(2, b"unfinished")
    HOW
"""

# A chained traceback of 200 frames, each exception's text is said.
FAILS = """
def deep(n):
    if n == 0:
        raise KeyError("the first cause")
    if n % 2:
        return deep(n - 1)
    return [deep(m) for m in (n - 1,)]
try:
    deep(60)
except KeyError as error:
    raise RuntimeError("the last consequence") from error
"""


def pss(pid: int) -> int:
    """Return the proportional set size in kB (proc_pid_smaps(5))."""
    return int(Path(f"/proc/{pid}/smaps_rollup").read_text().partition("\nPss:")[2].split()[0])


def test_it_ends_last_and_nothing_is_missing(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """What workers print at their very end stands before prod-run's own last line."""
    app(QUIET)
    running = start("-w", 2, "app:main")
    running.wait_for(event="committed")

    assert next(line["event"] for line in running.lines if "event" in line) == "started"
    assert running.stop() == 0
    texts = [line["text"] for line in running.lines]
    for slot in (0, 1):
        numbers = [texts.index(f"at the end {slot} {number}") for number in range(3)]
        ended = next(
            n
            for n, line in enumerate(running.lines)
            if line.get("event") == "ended worker" and line["slot"] == str(slot)
        )
        assert numbers == sorted(numbers)
        assert numbers[-1] < ended
    assert running.lines[-1]["event"] == "stopped"


def test_it_is_small(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """At most 12 MB when nothing was logged but a start, in the form that needs most."""
    app(QUIET)
    running = start("-w", 2, "--log-format", "json", "app:main")
    running.wait_for("committed")
    running.spare()
    size = pss(loud.observers(running)[0])
    print(f"PSS {size} kB")

    assert size <= MEMORY
    assert running.stop() == 0


def test_idle_it_makes_no_system_call(start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path) -> None:
    """While nothing is logged neither the observer nor the supervisor wakes up."""
    app(QUIET)
    running = start("-w", 2, "app:main")
    running.wait_for(event="committed")
    running.spare()
    idle = [running.pid, *loud.observers(running), *running.workers()]
    log = tmp_path / "strace.log"
    words = [word for pid in idle for word in ("-p", str(pid))]
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 1, "the start is over")
    with subprocess.Popen(["strace", "-f", "-o", log, *words], stderr=subprocess.PIPE, text=True) as tracer:
        seen: list[str] = []
        while tracer.stderr and len(seen) < len(idle):
            line = tracer.stderr.readline()
            assert line, "strace is over"
            seen += re.findall(r"Process (\d+) attached", line)
        began = time.monotonic()
        until(lambda: time.monotonic() > began + 3, "three seconds")
        tracer.send_signal(signal.SIGINT)
        tracer.wait(LIMIT)
    calls = [line for line in log.read_text().splitlines() if "detached" not in line]

    # Each was in the one call that waits; strace shows its beginning when it attaches.
    assert len(calls) <= len(idle), calls
    assert {re.split(r"\W", line.split(maxsplit=1)[1])[0] for line in calls} <= {
        "epoll_wait",
        "poll",
        "restart_syscall",
        "futex",
    }
    assert running.stop() == 0


def taken_apart(text: str) -> list[str]:
    """Return the lines of a log line's traceback; the local syslog form has #012 for a newline."""
    return text.replace("\\n", "\n").replace("#012", "\n").splitlines()


@pytest.mark.parametrize("where", ["pipe", "terminal", "syslog"])
def test_the_traceback_of_a_failed_boot_is_complete(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path, where: str
) -> None:
    """Both exceptions and all that is between, wherever the log goes."""
    app(FAILS)
    texts: list[str] = []
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(tmp_path / "log"))
    ours, theirs = pty.openpty()
    words: dict[str, tuple[str, ...]] = {"syslog": ("--log", f"syslog:unix:{tmp_path}/log")}
    options = {"before": into(theirs), "pass_fds": [theirs]} if where == "terminal" else {}
    running = start(*words.get(where, ()), "app:main", **options)
    os.close(theirs)
    if where == "terminal":
        texts.append(_read_terminal(ours))
    assert running.wait() == Exit.SOFTWARE
    if where == "syslog":
        receiver.setblocking(False)
        texts += _datagrams(receiver)
    os.close(ours)
    receiver.close()
    text = "\n".join(texts) or running.text()
    lines = [line.strip() for line in taken_apart(text.replace("\r", ""))]

    assert any("KeyError: 'the first cause'" in line for line in lines)
    assert any("RuntimeError: the last consequence" in line for line in lines)
    assert any("The above exception was the direct cause" in line for line in lines)
    assert sum("in deep" in line for line in lines) >= 61


@pytest.mark.parametrize("form", ["logfmt", "json"])
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("os._exit(3)", "exit 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("os.abort()", "SIGABRT"),
    ],
)
def test_the_record_of_a_death_has_its_last_words(
    start: Callable[..., Running], app: Callable[..., Path], form: str, how: str, words: str
) -> None:
    """The last 50 lines of its stderr, the unfinished one included; and how it ended."""
    app(DIES.replace("HOW", how))
    running = start("-w", 1, "--log-format", form, "app:main")
    running.wait()
    text = next(line["text"] for line in running.lines if "lost worker" in line["text"])
    if form == "json":
        fields = json.loads(text)
        stderr, how_it_was = fields["stderr"], fields["how"]
    else:
        stderr = json.loads('"' + text.partition(' stderr="')[2].partition('"')[0] + '"')
        how_it_was = text.partition("how=")[2].partition(" after=")[0]

    assert stderr.split("\n") == [*(f"last {number}" for number in range(11, 60)), "unfinished"]
    assert words in how_it_was


def test_a_core_dump_is_told(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """What waitpid(2) says of it."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    if pattern.startswith("|") or "/" in pattern:
        pytest.skip("cores go elsewhere on this machine")
    app(DIES.replace("HOW", "resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30)); os.abort()"))
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard != resource.RLIM_INFINITY:
        pytest.skip("no core may be written here")
    running = start("-w", 1, "app:main")
    running.wait()

    assert "core dumped" in next(line["text"] for line in running.lines if "lost worker" in line["text"])


def test_without_capture_workers_have_the_real_outputs(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """--no-log-capture: the same file, nothing is copied; prod-run's own lines still go to the sink."""
    app(QUIET)
    out, err = tmp_path / "out", tmp_path / "err"
    out.touch()
    running = start("-w", 2, "--no-log-capture", "app:main", before=("sh", "-c", f'exec "$@" >{out} 2>{err}', "sh"))
    until(lambda: "committed" in out.read_text() and len(running.workers()) == 2, "two workers")
    links = [descriptors(pid) for pid in (*running.workers(), *running.zygotes())]
    observer = loud.observers(running)[0]

    assert len(links) == 3
    assert {(link[1], link[2]) for link in links} == {(str(out), str(err))}
    assert not [link for link in descriptors(observer).values() if link.startswith("pipe:")]
    assert running.stop() == 0
    texts = out.read_text().splitlines()
    assert "at the end 1 2" in texts
    assert "event=stopped" in texts[-1]


def test_a_child_that_keeps_the_output_is_heard_to_its_end(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """After the worker's death too; then nothing of the two is kept any more."""
    app("""
import os, signal
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    if not os.path.exists("left"):
        open("left", "w").close()
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
            os.write(1, b"child %d\\n" % os.getpid())
            signal.sigwait([signal.SIGUSR1])
            os.write(1, b"child ends\\n")
            os._exit(0)
    worker.stopping.wait()
""")
    running = start("-w", 1, "app:main")
    child = int(running.wait_for("child ")["text"].split()[1])
    running.wait_for(event="committed")
    worker = next(iter(running.workers()))
    os.kill(worker, signal.SIGKILL)
    running.wait_for(event="lost worker")
    until(lambda: running.workers() and "serving 1/1" in title(running.pid), "another worker")
    os.kill(child, signal.SIGUSR1)
    line = running.wait_for("child ends")

    assert line["pid"] == str(worker)
    assert running.stop() == 0


def _held(running: Running) -> tuple[int, int]:
    return tuple(  # type: ignore[return-value]
        sum(link.startswith("pipe:") for link in descriptors(pid).values())
        for pid in (running.pid, loud.observers(running)[0])
    )


def test_nothing_of_the_dead_is_kept(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """After 30 deaths, some reloads and a new observer, both hold as many pipes as before."""
    app(QUIET)
    running = start("-w", 10, "app:main")
    running.wait_for(event="committed")
    running.spare()
    until(lambda: len(descendants(running.pid)) == 13, "ten workers, a spare, a zygote, an observer")
    before = _held(running)
    for _ in range(3):
        old = running.workers()
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        until(
            lambda o=old: len(running.workers()) == 10 and not o.keys() & running.workers().keys(),  # type: ignore[misc]
            "ten new ones",
        )
        until(lambda: "serving 10/10" in title(running.pid), "all serving")
    for _ in range(2):
        assert running.reload()["event"] == "committed"
    os.kill(loud.observers(running)[0], signal.SIGKILL)
    running.wait_for(event="lost the observer")
    running.spare()
    until(lambda: len(descendants(running.pid)) == 13, "only one generation")
    until(lambda: _held(running) == before, f"as many pipes as before: {before}, now {_held(running)}", 10)

    assert running.stop() == 0


def test_a_supervisor_that_hears_nothing_for_a_while_misses_nothing() -> None:
    """Its channel is full: each end of a stream is told later, or its descriptor would be kept for ever."""
    page = counters.page()
    pid, channel = _alone(page)
    try:
        for ticket in range(600):
            os.close(_captured(channel, ticket))
        channel.send(protocol.encode("ping"))
        until(lambda: len(os.listdir(f"/proc/{pid}/fd")) < 20, "it has read all pipes to their end")
        heard = [protocol.decode(channel.recv(protocol.LARGEST)) for _ in range(602)]
    finally:
        channel.close()
        os.close(page)
        os.waitpid(pid, 0)

    assert {message.number("ticket") for message in heard if message.verb == "finished"} == set(range(600))
    assert [message.verb for message in heard if message.verb != "finished"] == ["watching", "pong"]


def test_the_last_order_may_come_with_more_than_the_sink_takes() -> None:
    """Both are there when it looks, output first: what is left to read waits for the sink, and nothing is lost."""
    page = counters.page()
    reading, writing = os.pipe()
    pid, channel = _alone(page, writing)
    os.close(writing)
    try:
        pipes = [_captured(channel, ticket) for ticket in range(9)]
        line = b"x" * 999 + b"\n"
        rest = memoryview(800 * line)  # less than the valve closes at, and more than the next pipe takes
        while rest:
            rest = rest[os.write(pipes[0], rest) :]
        until(lambda: struct.unpack("q", os.pread(page, 8, 0)) == (800,), "it has read all of it")
        os.kill(pid, signal.SIGSTOP)
        until(lambda: "(stopped)" in Path(f"/proc/{pid}/status").read_text(), "it is stopped")
        for pipe in pipes[1:]:
            os.write(pipe, 60 * line)
        channel.send(journal.encode("info", "stopped", (("code", 0),)))
        channel.send(protocol.encode("end"))
        os.kill(pid, signal.SIGCONT)
        with os.fdopen(reading, "rb") as file:
            lines = file.readlines()
    finally:
        channel.close()
        os.close(page)
        status = os.waitpid(pid, 0)[1]
    for pipe in pipes:
        os.close(pipe)

    assert os.waitstatus_to_exitcode(status) == 0
    assert len(lines) == 800 + 8 * 60 + 1
    assert all(b"x" * 999 in each for each in lines[:-1])
    assert b"event=stopped" in lines[-1]


def _alone(page: int, stdout: int = 1) -> tuple[int, socket.socket]:
    """Start an observer that has us as its supervisor; return its PID and our end of its channel."""
    handoff = SimpleNamespace(
        name="shop", log="stdout", log_kind="logfmt", log_colour=False, log_priority=False, introspect=()
    )
    own = os.dup(1)
    os.dup2(stdout, 1)
    try:
        pid, fd = interpreter.start_observer(handoff, page)  # type: ignore[arg-type]
    finally:
        os.dup2(own, 1)
        os.close(own)
    channel = socket.socket(fileno=fd)
    channel.settimeout(LIMIT)
    return pid, channel


def _captured(channel: socket.socket, ticket: int) -> int:
    """Have a pipe read as a process's stdout; return the end to write to."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    facts = {"ticket": ticket, "streams": ("stdout",), "generation": 1, "pid": 1, "mark": ""}
    socket.send_fds(channel, [protocol.encode("capture", **facts)], [reading])
    os.close(reading)
    return writing


def _read_terminal(fd: int) -> str:
    """Read a terminal until its other side is closed by all (pty(7): EIO)."""
    text = b""
    while True:
        try:
            text += os.read(fd, 65536)
        except OSError:
            return text.decode(errors="replace")


def _datagrams(receiver: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(receiver.recv(1 << 17).decode(errors="replace"))
        except BlockingIOError:
            return found
