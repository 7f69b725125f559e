"""When an app is imported once and forked, when it is not, and what depends on the disk: DESIGN §1.3 and §2."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import Running, title, until

if TYPE_CHECKING:
    from collections.abc import Callable

MAIN = """
import os
from launcher import Worker
IMPORTED_BY = os.getpid()
def main(worker: Worker):
    print("imported by", "itself" if IMPORTED_BY == os.getpid() else "a zygote", flush=True)
    worker.ready()
    worker.stopping.wait()
"""

UNFORKABLE = {
    "a Python thread": (
        "import threading, signal\nthreading.Thread(target=signal.pause, name='poller', daemon=True).start()",
        "thread 'poller'",
    ),
    "a native thread": (
        (
            "import ctypes\nlibc = ctypes.CDLL(None)\nidentity = ctypes.c_ulong()\n"
            "libc.pthread_create(ctypes.byref(identity), None, libc.sleep, ctypes.c_void_p(1000))"
        ),
        "(native)",
    ),
    "a connection": (
        (
            "import socket\nlistener = socket.create_server(('127.0.0.1', 0))\n"
            "connection = socket.create_connection(listener.getsockname())"
        ),
        "connection to 127.0.0.1:",
    ),
    "a unix connection": ("import socket\na, b = socket.socketpair()", "connection to a unix socket pair"),
    "an event loop": ("import asyncio\nloop = asyncio.new_event_loop()", "connection to a unix socket pair"),
}


def test_by_default_an_app_is_imported_once_and_forked(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """`--preload auto`: with nothing in the way workers come from a zygote that stays."""
    app(MAIN)
    running = start("-w", 2, "app:main")
    running.wait_for(event="committed")

    assert running.count("imported by a zygote", 2) == 2
    assert len(running.zygotes()) == 1
    assert "unsafe to fork" not in running.text()
    assert running.stop() == 0


def test_a_connected_datagram_socket_is_only_noted(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """A statsd client made at import: all workers share it, and its messages stay whole (DESIGN §2)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        host, port = statsd.getsockname()
        made = f"import socket\nudp = socket.socket(type=socket.SOCK_DGRAM)\nudp.connect(({host!r}, {port}))\n"
        app(made + MAIN)
        running = start("-w", 2, "app:main")
        running.wait_for(event="committed")

        noted = [line for line in running.lines if line.get("event") == "shared by all workers"]
        assert [(line["level"], line["found"]) for line in noted] == [("info", f"connection to {host}:{port}")]
        assert len(running.zygotes()) == 1
        assert running.stop() == 0


@pytest.mark.parametrize("what", UNFORKABLE)
def test_what_would_not_survive_a_fork_is_named_and_workers_import_for_themselves(
    start: Callable[..., Running], app: Callable[..., Path], what: str
) -> None:
    """Threads, native ones too, and connections made at import: one warning with all names, and no zygote."""
    source, named = UNFORKABLE[what]
    app(source + MAIN)
    running = start("-w", 2, "app:main")
    running.wait_for(event="committed")
    warnings = [line for line in running.lines if line.get("level") == "warning"]

    assert [line["event"] for line in warnings] == ["unsafe to fork: workers import for themselves"]
    assert named in warnings[0]["found"]
    assert running.count("imported by itself", 2) == 2
    until(lambda: not running.zygotes(), "the process that prepared the generation is gone")
    assert running.stop() == 0


def test_datagram_sockets_and_listeners_of_the_app_do_not_prevent_a_fork(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """A connected datagram socket (statsd, syslog) or a listening one can be shared."""
    app(
        "import socket\nstatsd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nstatsd.connect(('127.0.0.1', 8125))\n"
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\nlistener = socket.create_server(('127.0.0.1', 0))"
        + MAIN
    )
    running = start("-b", "127.0.0.1:0", "app:main")
    running.wait_for(event="committed")

    running.wait_for("imported by a zygote")
    assert "warning" not in running.text()
    assert running.stop() == 0


def test_always_forks_in_spite_of_threads_and_says_so(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """`--preload always` is the user's decision: the same warning, and workers are forked."""
    app(UNFORKABLE["a Python thread"][0] + MAIN)
    running = start("--preload", "always", "app:main")
    running.wait_for(event="committed")

    assert running.wait_for(level="warning")["event"] == "unsafe to fork: forking all the same"
    running.wait_for("imported by a zygote")
    assert "DeprecationWarning" not in running.text()
    assert running.stop() == 0


def test_never_leaves_no_zygote(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """`--preload never`: each worker is an interpreter of its own, nothing is warned about."""
    app(UNFORKABLE["a Python thread"][0] + MAIN)
    running = start("-w", 2, "--preload", "never", "app:main")
    running.wait_for(event="committed")

    assert running.count("imported by itself", 2) == 2
    until(lambda: not running.zygotes(), "the process that prepared the generation is gone")
    assert "warning" not in running.text()
    assert running.stop() == 0


THREADED = UNFORKABLE["a Python thread"][0]


@pytest.mark.parametrize("preload", ["never", "auto"])
def test_without_preload_a_rejected_reload_never_serves(
    start: Callable[..., Running], hello: Callable[..., Path], preload: str
) -> None:
    """A worker that dies after it is not replaced by what lies on disk, as part of the generation that was kept."""
    path = hello(1, THREADED)
    first, right = path.read_text(), path.stat()
    running = start("-w", 2, "--preload", preload, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")
    hello(2, THREADED)
    good = path.read_text() + "# of another size: a file of bytecode knows whole seconds and the size\n"
    path.write_text(good.replace("worker.ready()", "worker.generation == 1 or 1 / 0; worker.ready()"))
    assert running.reload()["event"] == "rejected"
    before = running.workers()
    killed = next(pid for pid, slot in before.items() if slot == 0)
    since = running.mark()
    os.kill(killed, signal.SIGKILL)
    lost = running.wait_for(
        lambda line: line.get("event") == "lost worker" and line.get("pid") != str(killed), since=since
    )

    assert (lost["slot"], lost["how"]) == ("0", "exit 1")
    running.wait_for("code on disk differs from what generation 1 runs: reload", since=since)
    assert "version 1" in running.ask()
    # At once with its old time: a file of bytecode knows whole seconds only, and `good` is as long.
    beside = path.with_suffix(".new")
    beside.write_text(first)
    os.utime(beside, ns=(right.st_atime_ns, right.st_mtime_ns))
    beside.replace(path)
    until(lambda: sorted(running.workers().values()) == [0, 1], "both slots")
    path.write_text(good)
    assert running.reload()["event"] == "committed"
    assert "version 2" in running.ask()
    assert running.stop() == 0


def test_without_preload_a_failed_respawn_backs_that_slot_off_and_touches_nothing_else(
    start: Callable[..., Running], hello: Callable[..., Path]
) -> None:
    """Broken code on disk and a killed worker: its slot tries again and again, the other serves; good code heals it."""
    path = hello()
    running = start("-w", 2, "--preload", "never", "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")
    before = running.workers()
    killed = next(pid for pid, slot in before.items() if slot == 0)
    (other,) = before.keys() - {killed}
    right = path.stat()
    path.write_text("raise ValueError('half deployed')")
    os.kill(killed, signal.SIGKILL)
    first = running.wait_for(event="delayed respawn", slot=0)
    running.wait_for(event="delayed respawn", slot=0, since=running.lines.index(first) + 1)
    running.wait_for("half deployed")

    assert f"pid {other}" in running.ask()
    assert not any(
        line.get("slot") == "1" for line in running.lines if line.get("event") in ("lost worker", "delayed respawn")
    )
    hello()
    os.utime(path, ns=(right.st_atime_ns, right.st_mtime_ns))  # a release that is there again, not a new one
    until(lambda: sorted(running.workers().values()) == [0, 1] and running.workers().keys() >= {other}, "both slots")
    assert running.stop() == 0
    assert not [
        line
        for line in running.lines
        if line.get("event") in ("rejected", "cannot respawn: reload when the code is right")
    ]


def test_a_killed_zygote_is_replaced_if_the_modules_are_the_same(
    start: Callable[..., Running], hello: Callable[..., Path]
) -> None:
    """Its workers stay; the new one is adopted, and a worker that dies afterwards comes from it."""
    hello()
    running = start("-w", 2, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")
    before = running.workers()
    (zygote,) = running.zygotes()
    os.kill(zygote, signal.SIGKILL)
    running.wait_for(event="replaced zygote", generation=1)

    assert running.workers() == before
    os.kill(next(iter(before)), signal.SIGKILL)
    until(lambda: len(running.workers().keys() - before.keys()) == 1, "a worker from the new zygote")
    assert "version 1 generation 1" in running.ask()
    assert running.stop() == 0


@pytest.mark.parametrize("change", ["other", "broken", "missing"])
def test_a_killed_zygote_of_code_that_changed_is_not_replaced_until_a_reload(
    start: Callable[..., Running], hello: Callable[..., Path], change: str
) -> None:
    """Other code must not slip into a generation: one error line, the workers serve on, and a good reload heals it."""
    path = hello()
    running = start("-w", 2, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")
    before = running.workers()
    (zygote,) = running.zygotes()
    if change == "other":
        hello(2)
    elif change == "broken":
        path.write_text("this is not Python")
    else:
        path.unlink()
    os.kill(zygote, signal.SIGKILL)
    running.wait_for(event="cannot respawn: reload when the code is right", level="error", generation=1)

    assert running.workers() == before
    assert "version 1" in running.ask()
    hello(3)
    assert running.reload()["event"] == "committed"
    running.wait_for(event="retired", generation=1)
    assert "version 3 generation 2" in running.ask()
    os.kill(next(iter(running.workers())), signal.SIGKILL)
    running.wait_for(event="lost worker", generation=2)
    until(lambda: len(running.workers()) == 2, "a worker from the zygote of generation 2")
    assert running.stop() == 0


def make_release(folder: Path, version: str) -> None:
    """Make a release directory with a virtual environment of its own, and its app and its library in it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    paths = [Path(__file__).parents[2], Path(sysconfig.get_path("purelib"))]
    site = folder / "venv" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "prod_run_under_test.pth").write_text("\n".join(map(str, paths)))
    (site / "library.py").write_text(f"VERSION = {version!r}\n")
    (site / "lazy.py").write_text(f"VERSION = {version!r}\n")
    script = folder / "venv" / "bin" / "prod-run"
    script.write_text(f"#!{python}\nfrom launcher.cli import main\nmain()\n")
    script.chmod(0o755)
    (folder / "late.py").write_text(f"VERSION = {version!r}\n")
    (folder / "app.py").write_text(f"""
import os, sys, library
from launcher import Worker
VERSION = {version!r}

def show(what):
    import late, lazy
    print(what, late.VERSION, library.VERSION, lazy.VERSION, os.path.realpath(sys.prefix), os.getcwd(), flush=True)

def main(worker: Worker):
    worker.ready()
    print("release", VERSION, library.VERSION, os.path.realpath(sys.prefix), os.getcwd(), flush=True)
    while not worker.stopping.wait(0.02):
        if os.path.exists("import-late"):
            os.remove("import-late")
            show("lazily")
""")


@pytest.mark.slow
def test_a_reload_after_current_moved_runs_the_new_releases_interpreter_and_directory(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    """
    `current` leads from one release directory to another, each with its own virtual environment.

    prod-run was called as current/venv/bin/prod-run in current: the new generation is wholly of the new release, and
    what an old worker imports late is of its own.
    """
    releases = {version: (tmp_path / "releases" / version).resolve() for version in ("1", "2")}
    for version, folder in releases.items():
        make_release(folder, version)
    current = tmp_path / "current"
    current.symlink_to("releases/1")
    environment = {"PATH": os.environ["PATH"], "PWD": str(current), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    running = Running([current / "venv" / "bin" / "prod-run", "app:main"], cwd=current, env=environment)
    try:
        running.wait_for(event="committed")
        running.wait_for(f"release 1 1 {releases['1']}/venv {releases['1']}")
        (old,) = running.workers()
        (tmp_path / "new").symlink_to("releases/2")
        (tmp_path / "new").rename(current)
        (releases["1"] / "import-late").touch()
        running.wait_for(f"lazily 1 1 1 {releases['1']}/venv {releases['1']}")

        assert running.reload()["event"] == "committed"
        running.wait_for(f"release 2 2 {releases['2']}/venv {releases['2']}")
        # The old release can be removed while the new one runs.
        until(lambda: old not in running.workers(), "the old worker is gone")
        shutil.rmtree(releases["1"])
        os.kill(next(iter(running.workers())), signal.SIGKILL)
        running.wait_for(event="lost worker")
        until(running.workers, "a new worker")
        assert running.reload()["event"] == "committed", running.text()
        assert running.stop() == 0
    finally:
        running.close()


def test_titles_name_role_generation_and_slot(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """`ps` tells supervisor, zygote and workers apart."""
    app(MAIN)
    running = start("--name", "shop", "app:main")
    running.wait_for(event="committed")
    running.spare()
    (zygote,), (worker,) = running.zygotes(), running.workers()

    assert title(zygote) == "prod-run: shop [zygote] generation 1"
    assert title(worker) == "prod-run: shop [worker 0] generation 1 serving"
    assert title(running.spare()) == "prod-run: shop [spare] generation 1"
    assert title(running.pid).startswith("prod-run: shop [supervisor]")
    assert running.stop() == 0
