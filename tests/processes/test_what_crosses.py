"""What crosses each exec and fork, and what does not: DESIGN §2.1, cell by cell."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher.signals import STACKS
from tests.processes.running import (
    Running,
    children_of,
    descriptors,
    environ,
    is_alive,
    signals_in,
    status,
    title,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.processes.conftest import Strace

CANARY = "CANARY_SECRET=tweet-tweet"

# What may be in an environment at exec: footnote 1 of the table.
MINIMAL = re.compile(
    r"LD_\w*|GLIBC_TUNABLES|MALLOC_\w*|PYTHON\w*|PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|LANG|LANGUAGE|LC_\w*|TZ|SPT_NOENV"
)

LIBCS = {32, 33}  # glibc's own; its posix_spawn(3) leaves them ignored

HARMLESS = ("HUP", "INT", "QUIT", "USR1", "USR2", "TTIN", "TTOU", "WINCH")

# Writes what it finds to `facts.SLOT`, complete at once, and then serves nobody.
REPORTER = """
import ctypes, json, os, resource, signal, sys
from launcher import Worker

def death_signal():
    number = ctypes.c_int(-1)
    ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)  # PR_GET_PDEATHSIG
    return number.value

AT_IMPORT = death_signal()

def main(worker: Worker):
    facts = {
        "environ": {k.hex(): v.hex() for k, v in os.environb.items()},
        "argv": sys.argv,
        "pid": os.getpid(),
        "open files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "death signal": [AT_IMPORT, death_signal()],
        "sockets": {name: [s.fileno(), s.getsockname()[1], s.getblocking()] for name, s in worker.sockets.items()},
        "stdin": os.path.realpath("/proc/self/fd/0"),
        "inheritable": [fd for fd in range(3, 100) if os.path.exists(f"/proc/self/fd/{fd}") and os.get_inheritable(fd)],
    }
    with open(f"new.{worker.slot}", "w") as file:
        json.dump(facts, file)
    os.rename(f"new.{worker.slot}", f"facts.{worker.slot}")
    worker.ready()
    worker.stopping.wait()
"""

# Runs the words after it, in this same process, in the state that the first word brings about.
AS_A_CALLER_WHO = """
import os, resource, signal, sys
{}
os.execv(sys.argv[1], sys.argv[1:])
"""


def caller_who(deed: str) -> tuple[str, ...]:
    """Return the words that have prod-run called by somebody who did that."""
    return (sys.executable, "-c", AS_A_CALLER_WHO.format(deed))


def facts_of(tmp_path: Path, slot: int = 0) -> dict[str, object]:
    """Read what a worker found; it is there once the worker is ready."""
    found: dict[str, object] = json.loads((tmp_path / f"facts.{slot}").read_text())
    return found


def environment_seen(tmp_path: Path) -> dict[bytes, bytes]:
    """Return the `os.environb` that the app saw."""
    return {bytes.fromhex(k): bytes.fromhex(v) for k, v in facts_of(tmp_path)["environ"].items()}  # type: ignore[attr-defined]


# ── environment ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("preload", ["always", "never"])
def test_the_environment_at_exec_is_the_minimal_list(
    start: Callable[..., Running], app: Callable[..., Path], preload: str
) -> None:
    """`/proc/PID/environ` of supervisor, zygote and workers shows nothing but what ld.so, libc and CPython read."""
    app(REPORTER)
    env = dict([CANARY.split("=")], SPT_NOENV="1", LC_ALL="C.UTF-8", PYTHONHASHSEED="7", DATABASE_URL="x")
    running = start("-w", 2, "--preload", preload, "app:main", env=env)
    running.wait_for(event="committed")
    if preload == "always":
        running.spare()
    tree = [running.pid, *children_of(running.pid)]

    assert len(tree) == (6 if preload == "always" else 4)  # the observer among them
    for pid in tree:
        names = environ(pid).keys()
        assert {"PATH", "LC_ALL", "PYTHONHASHSEED", "SPT_NOENV"} <= names, title(pid)
        assert [name for name in names if not MINIMAL.fullmatch(name)] == [], title(pid)
    assert running.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("preload", ["always", "never"])
def test_no_exec_but_the_callers_own_sees_the_callers_secrets(
    start: Callable[..., Running], app: Callable[..., Path], strace: Strace, tmp_path: Path, preload: str
) -> None:
    """Over a whole run with a reload and a stop, a variable of the caller's is in no execve but the first."""
    app(REPORTER)
    before = strace("-e", "trace=execve", "-v", "-s", "9999")
    running = start("-w", 2, "--preload", preload, "app:main", env=dict([CANARY.split("=")]), before=before)
    running.wait_for(event="committed")
    assert running.reload()["event"] == "committed"
    assert running.stop() == 0
    execs = [line for line in strace.log() if "execve(" in line]

    assert len(execs) >= 4
    assert CANARY in execs[0]
    assert [line for line in execs[1:] if "CANARY" in line] == []
    assert environment_seen(tmp_path)[b"CANARY_SECRET"] == b"tweet-tweet"


def test_the_app_sees_the_whole_environment_but_for_prod_runs_and_systemds(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Every byte of every variable arrives, except what is meant for prod-run itself."""
    app(REPORTER)
    odd = {"BYTES": os.fsdecode(b"\xff\xfe=\n\xc3"), "EMPTY": "", "a.b-c": "odd name", "LONG": "x" * 100_000}
    ours = {"PROD_RUN_WORKERS": "2", "WATCHDOG_PID": "1", "WATCHDOG_USEC": "9", "LISTEN_PID": "1", "LISTEN_FDS": "3"}
    ours["LISTEN_PIDFDID"] = "1"  # systemd 259: a stale one has sd_listen_fds(3) find nothing
    running = start("app:main", env={**odd, **ours, "PROD_RUN_TEMPLATE_X": "kept", "NOTIFY_SOCKET": "/nowhere"})
    running.wait_for(event="committed")
    seen = environment_seen(tmp_path)

    assert {name: seen[os.fsencode(name)] for name in odd} == {name: os.fsencode(text) for name, text in odd.items()}
    assert seen[b"PROD_RUN_TEMPLATE_X"] == b"kept"
    assert [name for name in seen if os.fsdecode(name) in ours] == []
    assert seen[b"NOTIFY_SOCKET"] != b"/nowhere"
    assert running.stop() == 0


def test_an_item_without_a_name_in_the_environment_is_passed_over(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """execve(2) lets `=x` pass, setenv(3) does not: it must not end the zygote."""
    app(REPORTER)
    exec_with_it = "import ctypes; a = [w.encode() for w in sys.argv[1:]] + [None]; e = [b'=x', *(b'%b=%b' % i for i in os.environb.items()), None]"
    exec_with_it += "; ctypes.CDLL(None).execve(a[0], (ctypes.c_char_p * len(a))(*a), (ctypes.c_char_p * len(e))(*e))"
    running = start("app:main", before=(sys.executable, "-c", f"import os, sys; {exec_with_it}"), env={"SENTINEL": "1"})
    running.wait_for(event="committed")

    assert environment_seen(tmp_path)[b"SENTINEL"] == b"1"
    assert running.stop() == 0


def test_arguments_after_the_target_are_sys_argv(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """What follows the target is the target's, options and empty words included."""
    app(REPORTER)
    running = start("app:main", "--workers", "", "a b", "--", "ü\n")
    running.wait_for(event="committed")

    assert facts_of(tmp_path)["argv"] == ["app:main", "--workers", "", "a b", "--", "ü\n"]
    assert running.stop() == 0


# ── what the supervisor and its workers say to each other ───────────────────────────────────────────


def test_a_workers_notify_socket_is_its_own(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """READY=1 from a short-lived child of a worker counts as that worker's, and STATUS= is seen as its own."""
    app("""
import os, subprocess, sys
from launcher import Worker

SAY = '''
import os, socket, sys
address = os.environ["NOTIFY_SOCKET"].replace("@", chr(0), 1)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(sys.argv[1].encode(), address)
'''

def main(worker: Worker):
    print("address", os.environ["NOTIFY_SOCKET"], flush=True)
    subprocess.run([sys.executable, "-c", SAY, f"READY=1\\nSTATUS=fine in {worker.slot}"], check=True)
    worker.stopping.wait()
""")
    running = start("-w", 2, "app:main")
    running.wait_for(event="committed", workers="2/2")
    assert running.count("address @", 2) == 2
    addresses = {line["text"] for line in running.lines if line["text"].startswith("address")}
    running.send(signal.SIGUSR1)

    assert len(addresses) == 2
    for slot in (0, 1):
        running.wait_for(f"fine in {slot}", slot=slot)
    assert running.stop() == 0


def test_workers_are_told_of_their_sockets_as_by_systemd(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID are right in each worker, the sockets at 3 and after, in order."""
    app(REPORTER)
    running = start("-w", 2, "-b", "web=127.0.0.1:0", "-b", "127.0.0.1:0", "-b", "admin=127.0.0.1:0", "app:main")
    running.wait_for(event="committed")

    for slot in (0, 1):
        found = facts_of(tmp_path, slot)
        seen = {bytes.fromhex(k): bytes.fromhex(v) for k, v in found["environ"].items()}  # type: ignore[attr-defined]
        assert seen[b"LISTEN_FDS"] == b"3"
        assert seen[b"LISTEN_FDNAMES"] == b"web:default:admin"
        assert seen[b"LISTEN_PID"] == str(found["pid"]).encode()
        assert found["sockets"] == {
            name: [fd, running.address(name)[1], False] for fd, name in enumerate(("web", "default", "admin"), 3)
        }
    assert running.stop() == 0


@pytest.mark.parametrize("preload", ["always", "never"])
def test_without_sockets_a_worker_hears_of_none(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path, preload: str
) -> None:
    """No LISTEN_* variable is there, so nobody takes the private channel for a socket to listen on."""
    app(REPORTER)
    running = start("--preload", preload, "app:main")
    running.wait_for(event="committed")

    assert [name for name in environment_seen(tmp_path) if name.startswith(b"LISTEN_")] == []
    assert running.stop() == 0


# ── descriptors ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("preload", ["always", "never"])
def test_each_process_has_its_own_descriptors_and_none_of_the_callers(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path, preload: str
) -> None:
    """A descriptor that the caller leaked is nowhere; workers have what the table says and nothing else."""
    app(REPORTER)
    leaked = tmp_path / "leaked"
    deed = f"fd = os.open({str(leaked)!r}, os.O_CREAT); os.dup2(fd, 77); os.dup2(fd, 7)"
    running = start(
        "-w", 2, "-b", "127.0.0.1:0", "--preload", preload, "app:main", before=caller_who(deed)
    )  # fmt: skip
    running.wait_for(event="committed")
    if preload == "always":
        running.spare()
    of = {pid: descriptors(pid) for pid in (running.pid, *children_of(running.pid))}
    assert all(str(leaked) not in open_ones.values() for open_ones in of.values())
    port = next(fd for fd in of[running.pid] if f"socket:[{inode_of(running.address()[1])}]" == of[running.pid][fd])
    listener = of[running.pid][port]

    for pid in running.workers():
        kinds = sorted(re.sub(r":\[\d+\]| \(deleted\)", "", what) for what in of[pid].values())
        assert kinds == sorted(
            [
                "/dev/null",
                "pipe",
                "pipe",
                "socket",
                "socket",
                "pipe",
                "/memfd:heartbeats",
                *["anon_inode:[eventfd]"] * 2,
            ]
        )
        assert (of[pid][0], of[pid][3]) == ("/dev/null", listener)
        assert of[pid][1] != of[pid][2]
    for pid in running.zygotes():
        kinds = sorted(what.partition(":")[0] for what in of[pid].values())
        assert kinds == ["/dev/null", "pipe", "pipe", "socket", "socket"]
        assert of[pid][3] == listener
    # No two processes have an output pipe or a channel in common but with the supervisor.
    own = [
        set(of[pid].values()) - {"/dev/null", listener, "/memfd:heartbeats (deleted)", "anon_inode:[eventfd]"}
        for pid in (*running.zygotes(), *running.workers())
    ]
    assert sum(map(len, own)) == len(set.union(*own))
    assert all(facts_of(tmp_path, slot)["inheritable"] == [] for slot in (0, 1))
    assert running.stop() == 0


def inode_of(port: int) -> str:
    """Return the inode of the TCP socket that listens at a port."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1].endswith(f":{port:04X}") and words[3] == "0A":
            return words[9]
    raise AssertionError(port)


def test_workers_have_the_callers_limit_of_open_files_and_the_supervisor_the_hard_one(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """The soft limit is raised for the supervisor alone: select(2) in an app breaks above 1,024."""
    app(REPORTER)
    before = caller_who("resource.setrlimit(resource.RLIMIT_NOFILE, (333, 4000))")
    running = start("app:main", before=before)
    running.wait_for(event="committed")
    (zygote,) = running.zygotes()

    assert resource.prlimit(running.pid, resource.RLIMIT_NOFILE) == (4000, 4000)
    assert resource.prlimit(zygote, resource.RLIMIT_NOFILE) == (333, 4000)
    assert facts_of(tmp_path)["open files"] == [333, 4000]
    assert running.stop() == 0


# ── signals, groups, death ──────────────────────────────────────────────────────────────────────────

A_ROUGH_CALLER = caller_who(
    "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65));"
    "[signal.signal(n, signal.SIG_IGN) for n in (*range(1, 9), *range(10, 17), *range(20, 32), *range(34, 65)) if n != 9]"
)


@pytest.mark.parametrize("preload", ["always", "never"])
def test_what_the_caller_blocked_or_ignored_does_not_reach_the_app(
    start: Callable[..., Running], app: Callable[..., Path], preload: str
) -> None:
    """In zygote and workers the mask is empty and every disposition that of an ordinary Python."""
    app(REPORTER)
    running = start("-w", 2, "--preload", preload, "app:main", before=A_ROUGH_CALLER)
    running.wait_for(event="committed")
    as_usual = {int(signal.SIGPIPE), int(signal.SIGXFSZ)}  # what CPython ignores at its start
    handled = {int(signal.Signals[f"SIG{name}"]) for name in (*HARMLESS, "TERM")}
    if preload == "always":
        running.spare()

    assert signals_in(running.pid, "SigBlk") == set()
    for pid in children_of(running.pid):
        assert signals_in(pid, "SigBlk") == set(), title(pid)
        assert signals_in(pid, "SigIgn") - LIBCS == as_usual, title(pid)
        assert signals_in(pid, "SigCgt") - {STACKS} == handled, title(pid)
    assert running.stop() == 0


def test_signals_that_an_operator_means_for_prod_run_do_nothing_to_a_worker(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """`pkill -HUP` at workers and zygote changes nothing; the app's own handlers, early or late, are called."""
    app("""
import os, signal
from launcher import Worker
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"usr1 of the import\\n"))

def main(worker: Worker):
    signal.signal(signal.SIGUSR2, lambda *_: os.write(1, b"usr2 of main\\n"))
    worker.ready()
    worker.stopping.wait()
""")
    running = start("app:main")
    running.wait_for(event="committed")
    running.spare()
    before = children_of(running.pid)
    (worker,) = running.workers()
    for pid in before:
        for name in HARMLESS:
            os.kill(pid, signal.Signals[f"SIG{name}"])
    running.wait_for("usr1 of the import")
    running.wait_for("usr2 of main")
    until(lambda: not signals_in(worker, "ShdPnd"), "the worker took its signals")

    assert children_of(running.pid) == before
    assert running.stop() == 0
    assert "lost" not in running.text()


def test_each_process_leads_a_group_of_its_own_and_reads_nothing(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Ctrl-C on a terminal reaches the supervisor alone, and nobody reads its keyboard."""
    app(REPORTER)
    running = start("-w", 2, "app:main", before=caller_who("os.setpgid(0, 0)"))
    running.wait_for(event="committed")

    running.spare()
    assert os.getpgid(running.pid) == running.pid
    assert [os.getpgid(pid) for pid in children_of(running.pid)] == children_of(running.pid)
    assert all(descriptors(pid)[0] == "/dev/null" for pid in children_of(running.pid))
    assert facts_of(tmp_path)["stdin"] == "/dev/null"
    assert running.stop() == 0


@pytest.mark.parametrize("preload", ["always", "never"])
def test_everybody_dies_with_the_supervisor(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path, preload: str
) -> None:
    """Zygote and workers asked the kernel for SIGKILL at their parent's death, and it comes."""
    app(REPORTER)
    running = start("-w", 2, "-b", "127.0.0.1:0", "--preload", preload, "app:main")
    running.wait_for(event="committed")
    tree = children_of(running.pid)
    address = running.address()

    assert facts_of(tmp_path)["death signal"] == [signal.SIGKILL, signal.SIGKILL]
    running.send(signal.SIGKILL)
    running.wait()
    until(lambda: not any(map(is_alive, tree)), "the whole tree is gone")
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(address)


CHILDREN = """
import multiprocessing, os, subprocess, signal
from launcher import Worker

def rest():
    signal.pause()

def begin(where):
    fork = multiprocessing.get_context("fork").Process(target=rest)
    fork.start()
    sleep = subprocess.Popen(["sleep", "1000"])
    print(f"in-{where} {fork.pid} {sleep.pid}", flush=True)
    return fork, sleep

AT_IMPORT = begin("import")

def main(worker: Worker):
    fork, sleep = begin("main")
    worker.ready()
    worker.stopping.wait()
    fork.terminate()
    sleep.terminate()
    fork.join()
    print("ends", fork.exitcode, sleep.wait(), flush=True)
"""


def test_the_apps_own_children_have_ordinary_signals(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Programs and forks that the app starts, at import or later, end by SIGTERM like anybody's."""
    app(CHILDREN)
    running = start("--preload", "always", "app:main")
    running.wait_for(event="committed")
    pids = [
        [int(word) for word in running.wait_for(f"in-{where} ")["text"].split()[1:]] for where in ("import", "main")
    ]  # fmt: skip
    for fork, program in pids:
        until(lambda pid=program: status(pid)["Name"] == "sleep", "the exec")  # type: ignore[misc]

        assert signals_in(fork, "SigCgt") == {int(signal.SIGINT)}
        assert signals_in(fork, "SigIgn") - LIBCS == {int(signal.SIGPIPE), int(signal.SIGXFSZ)}
        assert signals_in(program, "SigCgt") == signals_in(program, "SigIgn") - LIBCS == set()
        assert signals_in(fork, "SigBlk") == signals_in(program, "SigBlk") == set()
    running.send(signal.SIGTERM)
    running.wait_for("ends -15 -15")

    assert running.wait() == 0
    assert not any(is_alive(pid) for pair in pids for pid in pair)


# ── signals during the exec ─────────────────────────────────────────────────────────────────────────


def has_blocked(pid: int) -> bool:
    """Say whether the command line has begun: its first act is to block."""
    return signal.SIGTERM in signals_in(pid, "SigBlk")


def is_past_the_exec(pid: int) -> bool:
    """Say whether the supervisor's program runs."""
    return "launcher.supervisor.main" in title(pid) or "[supervisor]" in title(pid)


MOMENTS: dict[str, Callable[[int], object]] = {
    "blocked": has_blocked,
    "claimed": lambda pid: any("/lock" in what for what in descriptors(pid).values()),
    "handed over": lambda pid: any("prod-run-handoff" in what for what in descriptors(pid).values()),
    "exec": is_past_the_exec,
    "handlers": lambda pid: is_past_the_exec(pid) and signal.SIGTERM in signals_in(pid, "SigCgt"),
    "zygote": children_of,
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_during_the_start_is_neither_lost_nor_deadly(
    start: Callable[..., Running], app: Callable[..., Path], moment: str, name: str
) -> None:
    """From the command line's first line on, across the exec, SIGTERM ends prod-run with 0 and SIGHUP does no harm."""
    app("from launcher import Worker\ndef main(worker: Worker):\n    worker.ready()\n    worker.stopping.wait()\n")
    for _ in range(3):
        running = start("app:main")
        until(lambda pid=running.pid: MOMENTS[moment](pid), moment)  # type: ignore[misc]
        running.send(signal.Signals[name])
        if name == "SIGHUP":
            running.wait_for(event="committed", generation=2)
            running.send(signal.SIGTERM)

        assert running.wait() == 0
        assert "Traceback" not in running.text()
        assert running.wait_for(event="stopped", code=0)


def test_a_worker_started_outside_prod_run_serves(tmp_path: Path) -> None:
    """An app stays runnable without prod-run: `main(Worker())` is ready at once and never told to stop."""
    code = "from launcher import Worker; w = Worker(); w.ready(); w.heartbeat(); w.status('x'); print(w.stopping.wait(0.01))"
    found = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)

    assert (found.stdout, found.stderr) == ("False\n", "")
