"""
The kernel refuses: fork, exec, descriptors, messages.

Every N-th call of one kind fails in every process of the tree (`strace -e inject=`).  Whatever N is: a sentence and the
right exit code, or a service that runs; never a hang, never a traceback of prod-run's own.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import LIMIT, NotSeenError, Running, children_of, is_alive, status, title, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.processes.conftest import Strace

pytestmark = pytest.mark.slow

# What fails, and how it fails in real life.
FAULTS = {
    "clone,clone3,fork,vfork": "EAGAIN",  # RLIMIT_NPROC, pids.max
    "execve": "ENOMEM",
    "memfd_create": "EMFILE",
    "socketpair": "EMFILE",
    "pipe2": "EMFILE",
    "sendmsg": "ENOBUFS",
    "sendto": "ENOBUFS",
    "recvmsg": "ENOMEM",
    "wait4": "EINTR",
    "epoll_wait": "EINTR",
    "pidfd_open": "ENFILE",
    "prctl": "EPERM",
    "setpgid": "EACCES",
    "prlimit64": "EPERM",
}
# In these it matters whether a zygote or the supervisor starts the workers.
OF_BIRTHS = ("clone,clone3,fork,vfork", "execve", "memfd_create", "socketpair", "pipe2", "sendmsg")
CASES = [(call, "always") for call in FAULTS] + [(call, "never") for call in OF_BIRTHS]
NOT_IN_A_RELOAD = ("memfd_create", "pidfd_open")  # never, or only in a race
FAILED_TO_START = (70, 71)
OWN_FILES = re.compile(r'File \\?"[^"]*/launcher/')

APP = """
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    worker.stopping.wait()
"""


def injection(call: str, number: int) -> tuple[str, str]:
    """Return the words that make the N-th call of one kind fail in each process."""
    return ("--seccomp-bpf", "-e", f"trace={call}", "-e", f"inject={call}:error={FAULTS[call]}:when={number}")


def whereabouts(pid: int) -> str:
    """Say where each process of a tree stands, for the report of a hang."""
    lines = []
    for each in (pid, *children_of(pid)):
        try:
            facts = [
                title(each),
                status(each)["State"],
                Path(f"/proc/{each}/wchan").read_text(),
                Path(f"/proc/{each}/syscall").read_text(),
            ]
        except OSError as error:
            facts = [str(error)]
        lines.append(f"{each}: {' | '.join(facts)}")
    return "\n".join(lines)


def came_to(running: Running) -> int | None:
    """
    Wait until it serves (None) or has ended (the exit code).

    An observer whose every life ends with the same refused call writes nothing: the title says it then.
    """

    def serves() -> bool:
        return any(line.get("event") == "committed" for line in running.lines) or "serving 2/2" in title(running.pid)

    try:
        until(lambda: serves() or running.process.poll() is not None, "it serves or is over")
    except NotSeenError:
        message = f"{whereabouts(running.pid)}\n{running.text()}"
        raise NotSeenError(message) from None
    return None if running.process.poll() is None else running.wait()


@pytest.mark.parametrize(("call", "preload"), CASES)
def test_a_start_under_a_fault_ends_in_a_sentence_or_in_a_service(
    start: Callable[..., Running], app: Callable[..., Path], strace: Strace, call: str, preload: str
) -> None:
    """With the N-th call refused, N = 1, 2, … until no call is left, the first generation is had or explained."""
    app(APP)
    codes = []
    for number in range(1, 40):
        words = ("-w", 2, "--boot-timeout", "5s", "--preload", preload, "-b", "127.0.0.1:0", "app:main")
        running = start(*words, before=strace(*injection(call, number)), env={"SPT_NOENV": "1"})
        code = came_to(running)
        if code is None:
            tree = children_of(running.pid)
            running.send(signal.SIGTERM)
            codes.append(0)
            try:
                assert running.wait() == 0, f"N = {number}:\n{running.text()}"
            except NotSeenError:
                raise NotSeenError(whereabouts(running.pid)) from None
            until(lambda: not any(map(is_alive, tree)), "everybody is gone")  # noqa: B023
        else:
            codes.append(code)
        log = strace.log()
        if not any("(INJECTED)" in line for line in log):
            break

        assert not OWN_FILES.search(running.text()), f"N = {number}:\n{running.text()}"
        assert codes[-1] in (0, *FAILED_TO_START), f"N = {number}:\n{running.text()}"
        if call in OF_BIRTHS:
            assert "within --boot-timeout" not in running.text(), "a refusal is answered, not waited for"
        if codes[-1]:
            assert re.search(r"level=error|prod-run: ", running.text()), f"N = {number}:\n{running.text()}"
    else:
        pytest.fail("there was no end of calls")
    assert len(codes) > 1, "no call was made to fail"
    assert codes[-1] == 0
    print(f"{call} {preload}: {codes}")


def test_a_death_that_cannot_be_reaped_costs_time_but_not_the_stop(
    start: Callable[..., Running], app: Callable[..., Path], strace: Strace
) -> None:
    """wait4(2) that says "no child" although one is over: each limit passes, it is called unkillable, exit 0."""
    app(APP)
    before = strace("--seccomp-bpf", "-e", "trace=wait4", "-e", "inject=wait4:error=ECHILD:when=1+")
    running = start("--drain-timeout", "1s", "--preload", "never", "app:main", before=before)
    running.wait_for(event="committed")
    running.send(signal.SIGTERM)

    assert running.wait() == 0
    assert running.wait_for(event="unkillable: survived SIGKILL")


@pytest.fixture
def attached(tmp_path: Path) -> Iterator[Callable[..., Callable[[], list[str]]]]:
    """
    Have a strace join a running tree.

    `end = attached(pid, *options)`; `end()` has it leave and returns its log.
    """
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    tracers: list[subprocess.Popen[bytes]] = []

    def attach(pid: int, *options: str) -> Callable[[], list[str]]:
        log = tmp_path / f"reload-{len(tracers)}.log"
        tracer = subprocess.Popen(["strace", "-f", "-o", log, *options[1:], "-p", str(pid)], stderr=subprocess.DEVNULL)
        tracers.append(tracer)
        until(lambda: status(pid)["TracerPid"] == str(tracer.pid) or tracer.poll() is not None, "strace is there")

        def end() -> list[str]:
            tracer.terminate()
            tracer.wait(LIMIT)
            return log.read_text(errors="replace").splitlines()

        return end

    yield attach
    for tracer in tracers:
        if tracer.poll() is None:
            tracer.kill()
            tracer.wait(LIMIT)


@pytest.mark.parametrize(("call", "preload"), [case for case in CASES if case[0] not in NOT_IN_A_RELOAD])
def test_a_reload_under_a_fault_is_rejected_or_committed_and_the_service_goes_on(
    start: Callable[..., Running],
    hello: Callable[..., Path],
    attached: Callable[..., Callable[[], list[str]]],
    call: str,
    preload: str,
) -> None:
    """Neither supervisor nor old workers are harmed by what the kernel refuses to a reload; a later one succeeds."""
    hello()
    running = start("-w", 2, "--boot-timeout", "5s", "--preload", preload, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")
    results = []
    for number in range(1, 40):
        since = running.mark()
        end = attached(running.pid, *injection(call, number))
        running.send(signal.SIGHUP)
        try:
            result = running.wait_for(lambda line: line.get("event") in ("committed", "rejected"), since=since)
        except NotSeenError:
            message = f"N = {number}\n{whereabouts(running.pid)}\n{running.text()}"
            raise NotSeenError(message) from None
        log = end()
        results.append(result["event"])

        assert "hello from version 1" in running.ask()
        assert not OWN_FILES.search(running.text()), f"N = {number}:\n{running.text()}"
        if not any("(INJECTED)" in line for line in log):
            break
        if call in OF_BIRTHS:
            assert "within --boot-timeout" not in running.text(), "a refusal is answered, not waited for"
    else:
        pytest.fail("there was no end of calls")
    assert len(results) > 1, "no call was made to fail"
    assert results[-1] == "committed"
    until(lambda: len(running.workers()) == 2, "as many workers as before")

    assert running.stop() == 0
    print(f"{call} {preload}: {results}")
