"""`--daemon`: the caller returns when the service is ready, or with the reason why it is not."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import (
    LIMIT,
    PROD_RUN,
    children_of,
    descendants,
    descriptors,
    is_alive,
    processes,
    title,
    until,
)
from tests.processes.test_sd_notify import Recorder, recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["recorder"]

GOOD = "def main(worker: 'Worker'):\n    worker.ready()\n    worker.stopping.wait()\n"
WAITS = """
import os

def main(worker: 'Worker'):
    while not os.path.exists('go') and not worker.stopping.wait(0.05):
        pass
    worker.ready()
    worker.stopping.wait()
"""


class Daemons:
    """Starts daemons in a test's directory, and ends them."""

    def __init__(self, directory: Path) -> None:
        """Have a directory for all of them."""
        self.directory = directory
        self.pidfile = directory / "shop.pid"
        self.log = directory / "log"
        self.said = directory / "said"
        self.env = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(directory), "PROD_RUN_INTROSPECT": "off"}

    def call(self, *words: object, before: tuple[str, ...] = (), **options: object) -> subprocess.Popen[bytes]:
        """Start one; it goes to the background by itself.  Its output is in files: a pipe would be kept open."""
        argv = [*before, PROD_RUN, "--daemon", "--pidfile", self.pidfile, *words]
        with self.log.open("ab") as log, self.said.open("ab") as said:
            return subprocess.Popen(
                [str(word) for word in argv],
                **{"cwd": self.directory, "env": self.env, "stdout": log, "stderr": said, **options},
            )

    def code(self, *words: object, **options: object) -> int:
        """Start one and return the exit code of the start."""
        return self.call(*words, **options).wait(LIMIT)

    @property
    def pid(self) -> int:
        """The PID that the pidfile holds; 0: none."""
        try:
            return int(self.pidfile.read_text() or "0")
        except FileNotFoundError:
            return 0

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        pid = self.pid
        os.kill(pid, signal.SIGTERM)
        until(lambda: not is_alive(pid), "the daemon ends")

    def close(self) -> None:
        """End what is left."""
        for pid, _, _ in list(processes()):
            with contextlib.suppress(OSError):
                if "prod-run" in title(pid) and Path(f"/proc/{pid}/cwd").samefile(self.directory):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    """Start daemons; none is left after the test."""
    tmp_path.chmod(0o700)
    made = Daemons(tmp_path)
    yield made
    made.close()


def test_it_returns_when_ready_and_leaves_a_daemon(daemons: Daemons, app: Callable[..., Path]) -> None:
    """With nobody's session and no terminal, its PID in the pidfile, its log where it was sent, its directory kept."""
    app(GOOD)

    assert daemons.code("app:main", stdin=subprocess.DEVNULL) == 0

    pid = daemons.pid
    assert title(pid).startswith("prod-run: app [supervisor] generation 1 serving 1/1")
    _, parent, _, session, terminal = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:5]
    assert parent != str(os.getpid())
    assert session not in (str(pid), str(os.getsid(0))), "no leader of a session gets a terminal by opening one"
    assert terminal == "0"
    assert Path(f"/proc/{pid}/cwd").samefile(daemons.directory)
    assert descriptors(pid)[0] == "/dev/null"
    assert descriptors(pid)[1] == str(daemons.log)
    assert daemons.said.read_text() == ""
    daemons.stop()
    assert not daemons.pidfile.exists()
    assert "event=stopped" in daemons.log.read_text()


def test_it_does_not_return_before(daemons: Daemons, app: Callable[..., Path]) -> None:
    """A worker that is not ready is waited for."""
    app(WAITS)
    caller = daemons.call("app:main")
    until(lambda: "event=prepared" in daemons.log.read_text(), "the import is over")
    until(lambda: any("[worker 0]" in title(pid) for pid in children_of(daemons.pid)), "the worker runs")

    assert caller.poll() is None
    (daemons.directory / "go").touch()
    assert caller.wait(LIMIT) == 0
    daemons.stop()


@pytest.mark.parametrize(
    ("words", "source", "code", "sentence"),
    [
        (("app:main",), "import nothing_like_it", 70, "No module named 'nothing_like_it'"),
        (("app:main",), "def main(worker: 'Worker'):\n    raise SystemExit(3)\n", 70, "a worker ended: exit 3"),
        (("--env-file", "missing.env", "app:main"), GOOD, 78, "missing.env"),
        (("-b", "BUSY", "app:main"), GOOD, 69, "in use by"),
        (("--workers", "none", "app:main"), GOOD, 2, "'none' is not a whole number"),
        (("--chdir", "nowhere", "app:main"), GOOD, 69, "cannot enter"),
    ],
)
def test_a_start_that_fails_is_told_to_the_caller(
    daemons: Daemons, app: Callable[..., Path], words: tuple[str, ...], source: str, code: int, sentence: str
) -> None:
    """The exit code and the reason are those of a start in the foreground; nothing stays behind."""
    app(source)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        found = daemons.code(*(address if word == "BUSY" else word for word in words))

    assert (found, daemons.pid) == (code, 0)
    assert "prod-run: cannot " in daemons.said.read_text()
    assert sentence in daemons.said.read_text()


@pytest.mark.parametrize(
    ("words", "source", "code", "sentence"),
    [
        (("--", "no-such-command"), "", 127, "it has ended already, with exit code 127"),
        (("--restart", "never", "app:main"), "def main():\n    return 5\n", 5, "with exit code 5"),
        (("app:main",), "def main():\n    pass\n", 0, ""),
    ],
)
def test_work_that_is_over_at_once_is_told_by_its_code(
    daemons: Daemons, app: Callable[..., Path], words: tuple[str, ...], source: str, code: int, sentence: str
) -> None:
    """A command that cannot be run has not become ready; work that is done has."""
    app(source)

    assert daemons.code(*words) == code
    assert sentence in daemons.said.read_text()


def test_ctrl_c_while_it_waits_ends_both(daemons: Daemons, app: Callable[..., Path]) -> None:
    """The daemon has left the terminal and would not hear it."""
    app(WAITS)
    caller = daemons.call("app:main")
    until(lambda: any("[worker 0]" in title(pid) for pid in children_of(daemons.pid)), "the worker runs")
    pid = daemons.pid

    caller.send_signal(signal.SIGINT)

    assert caller.wait(LIMIT) == -signal.SIGINT
    until(lambda: not is_alive(pid), "the daemon ends")
    assert not daemons.pidfile.exists()
    assert "stopped by SIGTERM before it was ready" in daemons.said.read_text()


def test_a_daemon_that_is_killed_is_missed(daemons: Daemons, app: Callable[..., Path]) -> None:
    """No caller waits for ever."""
    app(WAITS)
    caller = daemons.call("app:main")
    until(lambda: any("[worker 0]" in title(pid) for pid in children_of(daemons.pid)), "the worker runs")
    os.kill(daemons.pid, signal.SIGKILL)

    assert caller.wait(LIMIT) == 70
    assert "the daemon was killed before it was ready" in daemons.said.read_text()


def test_a_terminal_is_left(daemons: Daemons, app: Callable[..., Path]) -> None:
    """Nobody holds it, and one line says where the log goes instead."""
    app(GOOD)
    ours, theirs = pty.openpty()
    name = os.ttyname(theirs)
    try:
        code = daemons.code("app:main", stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        said = os.read(ours, 65536).decode()
    finally:
        os.close(ours)

    assert code == 0
    assert said.count("\n") == 1
    assert "its log goes to /dev/null. Redirect stdout to a file, or give --log syslog" in said
    family = [daemons.pid, *descendants(daemons.pid)]
    assert [pid for pid in family if name in descriptors(pid).values()] == []
    assert descriptors(daemons.pid)[1] == descriptors(daemons.pid)[2] == "/dev/null"
    daemons.stop()


def test_with_syslog_all_three_are_closed(daemons: Daemons, app: Callable[..., Path]) -> None:
    """Nothing is written there any more; whoever reads a pipe of the caller is not kept waiting."""
    app(GOOD)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        target = f"syslog:udp://127.0.0.1:{sink.getsockname()[1]}"
        caller = daemons.call("--log", target, "app:main", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = caller.communicate(timeout=LIMIT)  # until both are closed by everybody

        assert (caller.returncode, out, err) == (0, b"", b"")
        assert {descriptors(daemons.pid)[fd] for fd in (0, 1, 2)} == {"/dev/null"}
        daemons.stop()


def test_the_umask_is_not_the_shells(daemons: Daemons, app: Callable[..., Path]) -> None:
    """A daemon started by hand makes the same files as one started at boot, unless --umask says what it wants."""
    app(GOOD)
    path = daemons.directory / "app.sock"
    for words, mode in (((), 0o755), (("--umask", "007"), 0o770)):
        assert daemons.code(*words, "-b", f"unix:{path}", "app:main", umask=0o077) == 0
        assert stat.S_IMODE(path.stat().st_mode) == mode
        daemons.stop()


def test_a_second_one_is_refused(daemons: Daemons, app: Callable[..., Path]) -> None:
    """The pidfile is the first one's, and stays as it is."""
    app(GOOD)
    assert daemons.code("app:main") == 0
    pid = daemons.pid

    assert daemons.code("app:main") == 69
    assert f"--pidfile: in use by a running prod-run (PID {pid})" in daemons.said.read_text()
    assert daemons.pid == pid
    daemons.stop()


def test_sockets_that_a_manager_passed_are_the_daemons(daemons: Daemons, app: Callable[..., Path]) -> None:
    """LISTEN_PID names the caller; the daemon answers for it."""
    app(
        "def main(worker: 'Worker'):\n    print('has', *worker.sockets, flush=True)\n"
        "    worker.ready()\n    worker.stopping.wait()\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as sock:
        os.set_inheritable(sock.fileno(), True)
        move = f'exec 3<&{sock.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec "$@"'
        before = ("bash", "-c", move, "bash")
        assert daemons.code("app:main", before=before, close_fds=False) == 0
    until(lambda: "has web" in daemons.log.read_text(), "the socket's name")
    daemons.stop()


def test_the_watchdog_of_the_caller_is_fed_by_the_daemon(
    daemons: Daemons, app: Callable[..., Path], recorder: Recorder
) -> None:
    """WATCHDOG_PID names the process that systemd started, which is the caller."""
    app(GOOD)
    daemons.env |= {"NOTIFY_SOCKET": recorder.socket.getsockname(), "WATCHDOG_USEC": "100000"}
    before = ("sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh")
    assert daemons.code("app:main", before=before) == 0

    recorder.wait_for("WATCHDOG")
    daemons.stop()


def test_pid_1_has_no_background(daemons: Daemons, app: Callable[..., Path]) -> None:
    """Its end would be the container's."""
    if subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode:
        pytest.skip("no PID namespace can be had here")
    app(GOOD)

    assert daemons.code("app:main", before=("unshare", "--pid", "--fork", "--mount-proc")) == 2
    assert "--daemon: this is PID 1, and its end is the container's end" in daemons.said.read_text()
