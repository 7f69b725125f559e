"""In a real container: any user, a read-only root, no /dev/log, limits of memory and CPU."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher.errors import Exit
from tests.processes.asking import ANYWHERE, ask, codes, wait_until_served
from tests.processes.load import Load
from tests.processes.running import descendants, title, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.containers.conftest import Container

pytestmark = pytest.mark.slow

QUIET = ("--bind", "127.0.0.1:0", "--introspect", "off")
PROBED = ("--bind", "127.0.0.1:0", *ANYWHERE)
# runc gives a user without a home `/`; elsewhere there is none at all.
AS_PID_1 = ("env", "-u", "HOME", "prod-run")
UNDER_TINI = ("env", "-u", "HOME", "/usr/bin/tini", "--", "prod-run")

# Worker 0 wants more than there is, once; its successor is content.
GREEDY = """
import os
from launcher import Worker

def main(worker: Worker):
    worker.ready()
    if worker.slot == 0 and not os.path.exists("/tmp/was-here"):
        open("/tmp/was-here", "w").close()
        kept = []
        while True:
            kept.append(bytearray(os.urandom(1)) * 2**20)
    worker.stopping.wait()
"""

SECRETIVE = """
import environ, launcher

@environ.config(prefix="SHOP")
class Config:
    key = launcher.secret(help="a secret")

def main(worker: launcher.Worker[Config]):
    print("home", __import__("os").environ.get("HOME"), "letters", len(worker.config.key.reveal()), flush=True)
    worker.ready()
    worker.stopping.wait()
"""


@pytest.mark.parametrize("init", [AS_PID_1, UNDER_TINI], ids=["pid-1", "tini"])
def test_a_container_of_nobody_with_a_read_only_root(
    container: Callable[..., Container], init: tuple[str, ...]
) -> None:
    """A user that no file knows, no HOME, no /dev/log, only /tmp to write to: no warning; SIGTERM loses no request."""
    running = container(*init, *QUIET, "-w", 2, "--drain-delay", "2s", "hello:main", writable=("/tmp",))
    running.wait_for(event="committed")
    health = running.inside("prod-ctl", "health")
    pid = running.inside("cat", "/proc/1/cmdline").stdout.replace("\0", " ")
    load = Load(running.address())
    try:
        running.process.terminate()
        running.wait_for(event="stopping")
        load.settle()
        load.finish()
    finally:
        load.close()

    assert running.wait() == 0
    assert (health.returncode, health.stdout + health.stderr) == (0, health.stdout), running.text()
    assert pid.startswith("prod-run: hello [supervisor]" if init is AS_PID_1 else "/usr/bin/tini")
    assert [request for request in load.requests if request.fault] == []
    assert [line["text"] for line in running.lines if line.get("level") in {"warning", "error"}] == []
    assert [line["text"] for line in running.lines if not line.get("event")] == []


def test_nothing_at_all_can_be_written_to(container: Callable[..., Container]) -> None:
    """That costs the control socket, in one line, and nothing else."""
    running = container("prod-run", *QUIET, "hello:main")
    running.wait_for(event="committed")
    answer = running.ask()
    running.process.terminate()

    assert running.wait() == 0
    assert "hello from version 1" in answer
    assert [line["text"].partition(":")[0] for line in running.lines if not line.get("event")] == ["prod-run"]
    assert "no control socket" in running.text()


def test_no_syslog_socket(container: Callable[..., Container]) -> None:
    """`--log syslog` without /dev/log: it starts, says so, and the lines are not lost without a word."""
    running = container("prod-run", *QUIET, "--log", "syslog", "hello:main", writable=("/tmp",))
    running.wait_for("/dev/log")
    until_healthy(running)
    running.process.terminate()

    assert running.wait() == 0


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU: a limit to one changes nothing")
@pytest.mark.parametrize(("cpus", "workers"), [(0.5, 1), (1.0, 1), (1.5, 2)])
def test_workers_auto_is_what_the_limit_allows(container: Callable[..., Container], cpus: float, workers: int) -> None:
    """A cgroup's quota counts, not the machine's CPUs; a part of one counts as one."""
    running = container("prod-run", *QUIET, "-w", "auto", "hello:main", cpus=cpus, writable=("/tmp",))

    assert running.wait_for(event="committed")["workers"] == f"{workers}/{workers}"


def test_a_worker_killed_for_memory_is_explained_and_replaced(
    container: Callable[..., Container], folder: Path
) -> None:
    """The log says that it was for want of memory; the container lives on, with a new worker in that slot."""
    (folder / "greedy.py").write_text(GREEDY)
    running = container("prod-run", *QUIET, "-w", 2, "greedy:main", memory=128 << 20, writable=("/tmp",))
    running.wait_for(event="committed")
    death = running.wait_for(lambda line: "SIGKILL" in line["text"])
    until(lambda: "serving 2/2" in running.inside("prod-ctl", "status").stdout, "a new worker")
    running.process.terminate()

    assert "out of memory" in death["text"]
    assert "perhaps" not in death["text"]
    assert death["slot"] == "0"
    assert running.wait() == 0


def test_a_limit_of_processes(container: Callable[..., Container]) -> None:
    """Too low for the start, it ends that; too low for a second generation, the first one goes on."""
    refused = container("prod-run", *QUIET, "-w", 8, "hello:main", pids=7, writable=("/tmp",))
    reason = refused.wait_for(event="rejected")["reason"]
    running = container("prod-run", *QUIET, "-w", 2, "hello:main", pids=8, writable=("/tmp",))
    running.wait_for(event="committed")
    result = running.reload()
    # The server starts a thread for each connection, for which there is no room before the rejected ones are gone.
    until(lambda: len(of_the_second(running)) == 0, "the end of the second generation")
    answer = running.ask()
    running.process.terminate()

    assert "cannot fork" in reason
    assert refused.wait() == Exit.OS_ERROR
    assert result["event"] == "rejected"
    assert "Resource temporarily unavailable" in result["reason"]
    assert "generation 1" in answer
    assert running.wait() == 0


def of_the_second(running: Container) -> list[int]:
    """Return the processes that are not the first generation's, nor PID 1, nor the observer."""
    first = (" [supervisor]", " [observer]", " generation 1")
    return [pid for pid in descendants(running.pid) if not any(words in title(pid) for words in first)]


def test_the_memory_limit_is_seen(container: Callable[..., Container]) -> None:
    """By who asks prod-ctl, and by who asks over HTTP."""
    running = container("prod-run", *PROBED, "hello:main", memory=256 << 20, writable=("/tmp",))
    wait_until_served(running)
    said = running.inside("prod-ctl", "status", "--json").stdout
    asked = ask(running, "/status").json["memory"]
    running.process.terminate()

    rows = [json.loads(line) for line in said.splitlines()]
    assert [row["limit"] for row in rows if row["event"] == "status of memory"] == ["256M"]
    assert asked["limit"] == 256 << 20
    assert 1 << 20 < asked["use"] < asked["limit"]
    assert running.wait() == 0


def test_probes_of_a_container_that_is_told_to_stop(container: Callable[..., Container]) -> None:
    """As the kubelet asks them: ready, then live and not ready while it drains."""
    running = container("prod-run", *PROBED, "--drain-delay", "60s", "hello:main", writable=("/tmp",))
    wait_until_served(running)
    before = codes(running)
    running.process.terminate()
    until(lambda: ask(running, "/readyz").code == 503, "not ready while it drains")
    while_draining = codes(running)
    # A second signal skips the drain delay, if it does not come within the same second.
    until(lambda: running.process.poll() is not None or running.process.terminate(), "the end")

    assert before == (200, 200, 200)
    assert while_draining == (200, 503, 200)
    assert running.wait() == 0


def test_secrets_and_no_home(container: Callable[..., Container], folder: Path) -> None:
    """A file of a mounted directory, named by --secrets-dir."""
    (folder / "secretive.py").write_text(SECRETIVE)
    (folder / "secrets").mkdir()
    (folder / "secrets" / "shop_key").write_text("0123456789\n")
    (folder / "secrets" / "shop_key").chmod(0o440)
    running = container(*AS_PID_1, *QUIET, "--secrets-dir", "secrets", "secretive:main", writable=("/tmp",))
    running.wait_for("home None letters 10")
    running.process.terminate()

    assert running.wait() == 0


def test_a_plain_command_as_pid_1(container: Callable[..., Container]) -> None:
    """Nobody's user, nothing to write to: only the command is heard, TERM ends it, and its code is the container's."""
    running = container("prod-run", "--", "sh", "-c", "trap 'echo told; exit 9' TERM; echo begun $$; sleep 60 & wait")
    begun = running.wait_for("begun")["text"]
    # The command runs before its supervisor's program does.
    said = "prod-run: sh [supervisor]"
    until(lambda: running.inside("cat", "/proc/1/cmdline").stdout.startswith(said), "the title of PID 1")
    running.process.terminate()

    assert running.wait() == 9
    assert [line["text"] for line in running.lines] == [begun, "told"]


def until_healthy(running: Container) -> None:
    """Wait until `prod-ctl health`, as a probe runs it, says yes."""
    until(lambda: running.inside("prod-ctl", "health").returncode == 0, "health")


# What a worker has for itself is most of what it has.
LARGE = """
from launcher import Worker

def main(worker: Worker):
    held = bytearray(100 << 20)
    for start in range(0, len(held), 4096):
        held[start] = 1
    worker.ready()
    worker.stopping.wait()
"""


@pytest.mark.parametrize("surge", [0, 1])
def test_a_reload_that_would_not_fit_is_rejected(container: Callable[..., Container], folder: Path, surge: int) -> None:
    """Two generations of two do not fit into the limit; with --max-surge 1 they do.  Nobody is killed for it."""
    (folder / "large.py").write_text(LARGE)
    options = ("--max-surge", 1) if surge else ()
    running = container("prod-run", *QUIET, "-w", 2, *options, "large:main", memory=400 << 20, writable=("/tmp",))
    running.wait_for(event="committed")
    status = running.inside("prod-ctl", "status").stdout
    reload = running.inside("prod-ctl", "reload", "--wait")
    running.process.terminate()

    assert "status of memory" in status
    assert "limit 400M" in status
    assert running.wait() == 0
    assert [line["text"] for line in running.lines if "SIGKILL" in line["text"]] == []
    if surge:
        assert (reload.returncode, "rolled out" in reload.stdout) == (0, True), reload.stdout
        return
    assert reload.returncode == 1
    assert "with a limit of 400M" in reload.stdout
    assert "with --max-surge 1 it would need" in reload.stdout
