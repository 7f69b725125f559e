"""`prod-ctl` against a real prod-run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from launcher import protocol
from launcher.errors import Exit
from tests.processes.running import LIMIT, PROD_RUN, Running, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CTL = PROD_RUN.with_name("prod-ctl")


@pytest.fixture
def running(start: Callable[..., Running], hello: Callable[..., Path], tmp_path: Path) -> Running:
    """Two workers of the example, with a control socket of their own."""
    hello()
    one = start("-w", 2, "-b", "127.0.0.1:0", "--control", tmp_path / "ctl.sock", "hello:main")
    one.wait_for(event="committed")
    return one


@pytest.fixture
def ctl(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run prod-ctl against that socket."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [str(CTL), "--socket", str(tmp_path / "ctl.sock"), *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT)

    return run


def connect(tmp_path: Path) -> socket.socket:
    """Connect as a client that does not follow the rules."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect(str(tmp_path / "ctl.sock"))
    return client


def test_status_tells_workers_to_people_and_programs(
    running: Running, ctl: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """`status` has a line for each worker, `--json` the same as JSON lines."""
    text = ctl("status")
    rows = [json.loads(line) for line in ctl("status", "--json").stdout.splitlines()]

    assert (text.returncode, "serving 2/2" in text.stdout) == (0, True)
    assert {int(row["pid"]) for row in rows if row["event"] == "status of worker"} == set(running.workers())


def test_the_socket_is_for_this_user_only(running: Running, tmp_path: Path) -> None:
    """The control socket has mode 0600."""
    assert (tmp_path / "ctl.sock").stat().st_mode & 0o777 == 0o600


def test_reload_waits_for_its_result(
    running: Running, ctl: Callable[..., subprocess.CompletedProcess[str]], hello: Callable[..., Path]
) -> None:
    """`reload --wait` is 0 when committed, and 1 with the reason when rejected."""
    hello(2)
    good = ctl("reload", "--wait")
    hello(3, "raise ValueError('half deployed')")
    bad = ctl("reload", "--wait")

    assert (good.returncode, good.stdout.split()[0]) == (0, "committed")
    assert (bad.returncode, "half deployed" in bad.stdout) == (1, True)
    assert "version 2" in running.ask()


RAISES = """
from launcher import Worker
import os

def connect():
    raise ConnectionError("no database")

def main(worker: Worker):
    if os.path.exists("bad"):
        connect()
    worker.ready()
    worker.stopping.wait()
"""


@pytest.mark.parametrize("words", [(), ("--max-surge", "1"), ("--preload", "never")])
def test_a_reload_says_what_a_new_worker_raised(
    start: Callable[..., Running],
    app: Callable[..., Path],
    tmp_path: Path,
    ctl: Callable[..., subprocess.CompletedProcess[str]],
    words: tuple[str, ...],
) -> None:
    """To who waits, in one record of the log, and to who asks later; in the app's own frames."""
    app(RAISES)
    one = start("-w", 2, "--control", "ctl.sock", *words, "app:main")
    one.wait_for(event="committed")
    (tmp_path / "bad").touch()
    told = ctl("reload", "--wait")

    assert told.returncode == 1
    assert "a worker ended: exit 1: ConnectionError: no database" in told.stdout
    assert "in connect\n" in told.stdout
    assert "/launcher/" not in told.stdout
    assert "ConnectionError: no database" in one.wait_for(event="rejected")["reason"]


ROLLING = """
from launcher import Worker
import os, time

def main(worker: Worker):
    while worker.generation > 1 and worker.slot == 1 and not os.path.exists("go"):
        time.sleep(0.01)
    if worker.generation == 3 and worker.slot == 2:
        raise ConnectionError("no database")
    worker.ready()
    worker.stopping.wait()
"""


def test_a_rolling_reload_is_answered_when_it_cannot_fail_any_more(
    start: Callable[..., Running],
    app: Callable[..., Path],
    tmp_path: Path,
    ctl: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Not at `committed`, which is said of the first workers: a pipeline must not be green on the old code."""
    app(ROLLING)
    one = start("-w", 3, "--max-surge", 1, "--control", "ctl.sock", "app:main")
    assert "rolling" not in one.wait_for(event="committed", generation=1)
    waiting = subprocess.Popen(
        [str(CTL), "--socket", str(tmp_path / "ctl.sock"), "reload", "--wait"], stdout=subprocess.PIPE, text=True
    )
    assert one.wait_for(event="committed", generation=2)["rolling"] == "yes"
    assert ctl("status").returncode == 0  # it was written after the record
    assert waiting.poll() is None, "it waits for the other two"
    (tmp_path / "go").touch()
    good = waiting.communicate(timeout=LIMIT)[0]
    bad = ctl("reload", "--wait")

    assert (waiting.returncode, good.split("  ")[0].strip()) == (0, "rolled out")
    assert "workers 3/3" in good
    assert (bad.returncode, bad.stdout.split()[0]) == (1, "rolled-back")
    assert "ConnectionError: no database" in bad.stdout


def test_a_reload_that_is_pre_empted_or_takes_too_long_is_told(
    running: Running, ctl: Callable[..., subprocess.CompletedProcess[str]], hello: Callable[..., Path], tmp_path: Path
) -> None:
    """75 when the time is up, and when a stop came first."""
    hello(2, "import signal; signal.pause()")
    late = ctl("reload", "--wait", "--timeout", "0.3")
    assert late.returncode == 75
    waiting = subprocess.Popen(
        [str(CTL), "--socket", str(tmp_path / "ctl.sock"), "reload", "--wait"], stdout=subprocess.PIPE
    )
    running.wait_for("remembered reload")
    running.send(signal.SIGTERM)

    assert waiting.wait(LIMIT) == 75
    waiting.communicate()
    assert running.wait() == 0


def test_scale_and_stop(running: Running, ctl: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """`scale` changes the number of workers, `stop` ends prod-run and waits for that."""
    assert ctl("scale", "4").returncode == 0
    until(lambda: len(running.workers()) == 4, "four workers")
    assert ctl("scale", "-3").returncode == 0
    until(lambda: len(running.workers()) == 1, "one worker")
    assert ctl("scale", "many").returncode == 2
    assert ctl("scale", "0").returncode == 2

    assert ctl("stop").returncode == 0
    assert running.wait() == 0


def test_stacks_of_a_slot_that_nobody_has_are_refused(
    running: Running, ctl: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Nothing would be in the log: the known slots are named instead."""
    assert len(running.workers()) == 2
    done = ctl("stacks", "99")

    assert done.returncode == Exit.USAGE
    assert "the slots are 0, 1" in done.stdout + done.stderr


def test_stacks_show_where_a_worker_is(running: Running, ctl: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """`stacks` writes the Python stacks of the workers to the log; a stopped one is said to be stopped."""
    assert ctl("stacks", "0").returncode == 0
    assert "hello.py" in running.wait_for(event="stacks", slot=0)["detail"]
    pid = next(pid for pid, slot in running.workers().items() if slot == 1)
    os.kill(pid, signal.SIGSTOP)
    assert ctl("stacks", "1").returncode == 0

    assert running.wait_for(event="no stacks", slot=1)["process"] == "stopped by a signal"
    os.kill(pid, signal.SIGCONT)


def test_events_are_remembered_and_followed(
    running: Running, ctl: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """`events` begins with what was, and goes on with what happens, as JSON lines."""
    past = [json.loads(line)["event"] for line in ctl("events", "--past").stdout.splitlines()]
    assert past[-1] == "committed"
    argv = [str(CTL), "--socket", str(tmp_path / "ctl.sock"), "events"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout
        while json.loads(following.stdout.readline())["event"] != "committed":
            pass
        running.send(signal.SIGTTIN)
        assert json.loads(following.stdout.readline())["event"] == "scaled"
        following.terminate()


def test_health_is_ready_or_not(
    start: Callable[..., Running],
    app: Callable[..., Path],
    ctl: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """`health` is 1 until the first commit, 0 after it, and 69 when nobody is there."""
    app(
        "import os, launcher\ndef main(worker: launcher.Worker):\n os.read(os.open('go', os.O_RDONLY), 1)\n worker.ready()\n worker.stopping.wait()"
    )
    os.mkfifo(tmp_path / "go")
    assert ctl("health").returncode == 69
    running = start("--control", tmp_path / "ctl.sock", "app:main")
    until(lambda: ctl("health").returncode == 1, "it listens")
    with (tmp_path / "go").open("w") as file:
        file.write("x")
    running.wait_for(event="committed")

    assert ctl("health").returncode == 0


def test_unbuilt_verbs_and_nonsense_are_refused(
    running: Running, ctl: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Verbs of later versions, unknown ones and garbage get a sentence, and prod-run does not mind."""
    assert "not in this version" in ctl("upgrade").stderr
    assert "Did you mean" in ctl("relaod").stderr
    with connect(tmp_path) as client:
        client.send(b"\xff\xfe garbage \0\n===")
        assert protocol.decode(client.recv(4096)).verb == "end"
    with connect(tmp_path) as client:
        client.send(b"reload")
        assert protocol.decode(client.recv(4096)).number("code") == 2

    assert ctl("health").returncode == 0


def test_stuck_clients_hold_nothing_up(
    running: Running, ctl: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """A hundred clients that ask nothing, or never read, do not keep another one from its answer."""
    stuck = [connect(tmp_path) for _ in range(100)]
    for client in stuck[-20:]:
        client.setblocking(False)
        try:
            for _ in range(1000):
                client.send(protocol.encode("events", follow=True))
        except OSError:
            pass  # cut off, or full: both are allowed

    assert ctl("status").returncode == 0
    assert "hello" in running.ask()
    for client in stuck:
        client.close()


def test_a_place_that_cannot_be_written_costs_the_socket_only(
    start: Callable[..., Running], hello: Callable[..., Path]
) -> None:
    """No control socket is one clear line; the service runs."""
    hello()
    running = start("-b", "127.0.0.1:0", "--control", "/proc/nowhere/ctl.sock", "hello:main")
    running.wait_for(event="committed")

    assert running.wait_for(event="no control socket")["path"] == "/proc/nowhere/ctl.sock"
    assert "hello" in running.ask()
