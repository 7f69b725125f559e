"""`--before`: run once for each generation, and nothing of it is seen if it fails."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import PROD_RUN, Running, children_of, is_alive, title, until

if TYPE_CHECKING:
    from collections.abc import Callable

APP = """
import os
from launcher import Worker

def main(worker: Worker):
    print("worker after", open("done").read().count("run"), "runs", flush=True)
    worker.ready()
    worker.stopping.wait()
"""
# A thread, a module and a connection to be: what a fork server must never have.
TASK = """
import os, sys, threading

def migrate():
    import colorsys
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    with open("done", "a") as file:
        print("run", os.getpid(), file=file)
    print("migrating", "NOTIFY_SOCKET" in os.environ, "LISTEN_FDS" in os.environ, flush=True)
    return True

async def migrate_later():
    migrate()

def fails():
    print("last words", file=sys.stderr)
    raise RuntimeError("the column exists")

def half():
    migrate()
    return 3
"""


@pytest.fixture
def task(app: Callable[..., Path], tmp_path: Path) -> Callable[[str], Path]:
    """Write the app, and the module of its init task."""
    app(APP)
    (tmp_path / "done").write_text("")
    return app(TASK, "db")  # type: ignore[return-value]


def runs(folder: Path) -> int:
    """Count how often the task did its work."""
    return (folder / "done").read_text().count("run")


@pytest.mark.parametrize(
    ("preload", "before"),
    [
        ("auto", "db:migrate"),
        ("never", "db:migrate_later"),
        ("auto", "sh -c 'echo run $$ >> done; echo migrating'"),
    ],
)
def test_it_is_run_once_for_each_generation(
    start: Callable[..., Running], task: Path, tmp_path: Path, preload: str, before: str
) -> None:
    """Before the first worker, attributed in the log; not for a spare, a worker that is replaced or one more."""
    running = start("-w", 2, "-b", "127.0.0.1:0", "--preload", preload, "--before", before, "app:main")
    running.wait_for(event="committed", generation=1)
    running.wait_for("worker after 1 runs")
    began = running.wait_for(event="running --before", generation=1)
    said = running.wait_for("migrating", stream="stdout")
    assert (said["pid"], said["generation"], "slot" in said) == (began["pid"], "1", False)
    assert "True" not in said["text"], "neither the sockets nor a notify address"
    running.wait_for(event="finished --before", generation=1)

    os.kill(next(iter(running.workers())), signal.SIGKILL)
    running.wait_for(event="lost worker")
    running.send(signal.SIGTTIN)
    running.wait_for(event="scaled")
    until(lambda: len(running.workers()) == 3, "three workers")
    assert runs(tmp_path) == 1
    assert running.reload()["event"] == "committed"
    running.wait_for("worker after 2 runs", since=running.lines.index(began))
    assert runs(tmp_path) == 2
    assert running.stop() == 0


def test_nothing_of_it_is_left_in_the_zygote(start: Callable[..., Running], task: Path) -> None:
    """No thread, no module: workers are forked from what was imported, not from what migrated."""
    running = start("--before", "db:migrate", "app:main")
    running.wait_for(event="committed")
    zygote = running.zygotes()[0]

    assert os.listdir(f"/proc/{zygote}/task") == [str(zygote)]
    assert "colorsys" not in Path(f"/proc/{zygote}/maps").read_text()
    assert not any("before]" in title(pid) for pid in children_of(running.pid))
    assert running.stop() == 0


FAILURES = [
    ("db:fails", "--before db:fails: RuntimeError: the column exists", "raise RuntimeError"),
    ("db:half", "--before db:half: exit 3", ""),
    ("sh -c 'echo run; echo the column exists >&2; exit 4'", ": exit 4", "the column exists"),
    ("sh -c 'kill -SEGV $$'", ": SIGSEGV", ""),
    ("no-such-program up", "--before no-such-program up: cannot be run: No such file or directory", ""),
]


@pytest.mark.parametrize(("before", "reason", "detail"), FAILURES)
def test_a_failure_is_a_failed_start(
    start: Callable[..., Running], task: Path, before: str, reason: str, detail: str
) -> None:
    """Exit code 70, the reason and the last lines in the log, and no worker."""
    running = start("--before", before, "app:main")

    assert running.wait() == 70
    rejected = running.wait_for(event="rejected")
    assert reason in rejected["reason"]
    assert detail in rejected.get("detail", "")
    assert "worker after" not in running.text()


def test_a_failure_rejects_a_reload(start: Callable[..., Running], task: Path, app: Callable[..., Path]) -> None:
    """The old generation serves on, and whoever waits for the reload learns why, with the last lines."""
    (task.parent / "task").write_text("true\n")
    running = start("--max-surge", 0, "--name", "shop", "--before", "sh -c '. ./task'", "app:main")
    running.wait_for(event="committed")
    old = set(running.workers())
    (task.parent / "task").write_text("echo the column exists >&2; exit 4\n")
    control = task.parent / "run" / "prod-run" / "shop" / "control.sock"
    answer = subprocess.run(
        [PROD_RUN.with_name("prod-ctl"), "--socket", control, "reload", "--wait"], capture_output=True, text=True
    )

    assert answer.returncode == 1
    assert ": exit 4" in answer.stdout
    assert "the column exists" in answer.stdout
    assert set(running.workers()) == old
    (task.parent / "task").write_text("true\n")
    assert running.reload()["event"] == "committed"
    assert running.stop() == 0


SLEEPS = "sh -c 'sleep 1000 & echo $! > child; echo $$ > itself; echo asleep; wait'"


@pytest.mark.parametrize("how", ["limit", "stop", "second stop", "supervisor killed"])
def test_all_of_it_ends(start: Callable[..., Running], task: Path, how: str) -> None:
    """At the limit, when a stop pre-empts the start, with the supervisor: the command and what it has started."""
    limit = ("--boot-timeout", "2s") if how == "limit" else ()
    running = start(*limit, "--before", SLEEPS, "app:main")
    running.wait_for("asleep", stream="stdout")
    pids = [int((task.parent / name).read_text()) for name in ("itself", "child")]
    if how == "supervisor killed":
        running.send(signal.SIGKILL)
        until(lambda: not is_alive(pids[0]), "the command ends")
        os.kill(pids[1], signal.SIGKILL)  # nobody is left who could
        return
    if how != "limit":
        running.send(signal.SIGQUIT if how == "second stop" else signal.SIGTERM)

    assert running.wait() == (70 if how == "limit" else 0)
    assert not any(map(is_alive, pids))
    if how == "limit":
        assert "it did not end within --boot-timeout 2s" in running.wait_for(event="rejected")["reason"]


def test_somebody_who_terminates_it_has_not_finished_it(start: Callable[..., Running], task: Path) -> None:
    """SIGTERM from outside is a failure, whatever it does to a worker."""
    running = start("--before", SLEEPS, "app:main")
    running.wait_for("asleep", stream="stdout")
    pid = int(running.wait_for(event="running --before")["pid"])

    os.kill(pid, signal.SIGTERM)

    assert running.wait() == 70
    assert "exit 143" in running.wait_for(event="rejected")["reason"]


def test_a_function_may_take_the_configuration(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """The same that the target gets, secrets included; a failure's words do not tell them."""
    app(
        "import environ, launcher\n"
        "@environ.config(prefix='APP')\nclass Config:\n"
        "    dsn = launcher.secret()\n    table = environ.var()\n"
        "def migrate(config: Config):\n"
        "    print('migrates', config.table, len(config.dsn.reveal()), flush=True)\n"
        "def leak(config: Config):\n    raise RuntimeError(f'cannot reach {config.dsn.reveal()}')\n"
        "def main(worker: launcher.Worker[Config]):\n    worker.ready()\n    worker.stopping.wait()\n"
    )
    env = {"APP_DSN": "hunter2-hunter2", "APP_TABLE": "orders"}
    running = start("--before", "app:migrate", "app:main", env=env)
    running.wait_for("migrates orders 15")
    running.wait_for(event="committed")
    assert running.stop() == 0
    leaking = start("--before", "app:leak", "app:main", env=env)

    assert leaking.wait() == 70
    assert "cannot reach" in leaking.wait_for(event="rejected")["reason"]
    assert "hunter2" not in leaking.text()


def test_a_command_has_the_apps_environment(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """With what env files hold, without declared secrets and prod-run's own variables."""
    path = app(
        "import environ, launcher\n"
        "@environ.config(prefix='APP')\nclass Config:\n    dsn = launcher.secret()\n    table = environ.var()\n"
        "def main(worker: launcher.Worker[Config]):\n    worker.ready()\n    worker.stopping.wait()\n"
    )
    (path.parent / "app.env").write_text("APP_TABLE=orders\n")
    running = start("--env-file", "app.env", "--before", "env", "app:main", env={"APP_DSN": "hunter2-hunter2"})
    running.wait_for("APP_TABLE=orders")
    running.wait_for(event="committed")
    assert running.stop() == 0

    assert not any(line["text"].startswith("APP_DSN") for line in running.lines)
    assert not any(line["text"].startswith(("PROD_RUN_", "NOTIFY_", "LISTEN_")) for line in running.lines)


@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        ("no-such-program up", "there is no program 'no-such-program'"),
        ("db:missing", "there is no 'missing' in"),
        ("app:main", "gets no Worker"),
        ("sh -c 'open", "cannot be split into words"),
        ("db:migrate", ""),
        ("true", ""),
    ],
)
def test_the_check_looks_at_it_and_runs_nothing(
    start: Callable[..., Running], task: Path, tmp_path: Path, before: str, sentence: str
) -> None:
    """What can be found without running it is found."""
    running = start("--check-config", "--before", before, "app:main")

    assert running.wait() == (78 if sentence else 0)
    assert sentence in running.text()
    assert runs(tmp_path) == 0
