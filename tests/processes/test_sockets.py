"""Every kind of address that `--bind` takes, and sockets that somebody else opened: DESIGN §3.1."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.ports import free_port
from tests.processes.running import LIMIT, children_of, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.processes.running import Running

# Greets on every socket with the socket's name.
GREETER = """
import select
from launcher import Worker
def main(worker: Worker):
    by_fd = {sock.fileno(): (name, sock) for name, sock in worker.sockets.items()}
    poll = select.poll()
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    worker.ready()
    while not worker.stopping.is_set():
        for fd, _ in poll.poll(50):
            name, sock = by_fd[fd]
            try:
                connection, _ = sock.accept()
            except BlockingIOError:
                continue
            connection.sendall(f"{name} {worker.slot} {worker.generation}".encode())
            connection.close()
"""


def has_ipv6() -> bool:
    """Say whether ::1 can be listened at."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away or become another user")


def greeting(address: str | tuple[str, int]) -> str:
    """Connect and return what the app says: NAME SLOT GENERATION."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(LIMIT)
        sock.connect(address)
        return sock.recv(100).decode()


@pytest.mark.parametrize(
    ("written", "shown", "reached"),
    [
        ("127.0.0.1:0", "127.0.0.1", "127.0.0.1"),
        ("localhost:0", "127.0.0.1", "127.0.0.1"),
        (":0", "0.0.0.0", "127.0.0.1"),
        pytest.param("[::1]:0", "::1", "::1", marks=needs_ipv6),
        pytest.param("[::]:0", "::", "::1", marks=needs_ipv6),
    ],
)
def test_a_tcp_address_is_served_and_its_port_shown(
    start: Callable[..., Running], app: Callable[..., Path], written: str, shown: str, reached: str
) -> None:
    """Port 0 is a port of the kernel's choice, and the log says which."""
    app(GREETER)
    running = start("-b", written, "app:main")
    running.wait_for(event="committed")
    host, port = running.address()

    assert (host, port > 0) == (shown, True)
    assert greeting((reached, port)) == "default 0 1"
    assert running.stop() == 0
    with pytest.raises(ConnectionRefusedError):
        greeting((reached, port))


@needs_ipv6
def test_an_ipv6_wildcard_leaves_ipv4_alone(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """`[::]:PORT` is IPv6 only, so that both can be given side by side with one port."""
    app(GREETER)
    port = free_port("::")
    running = start("-b", f"six=[::]:{port}", "-b", f"four=:{port}", "app:main")
    running.wait_for(event="committed")

    assert greeting(("::1", port)) == "six 0 1"
    assert greeting(("127.0.0.1", port)) == "four 0 1"
    assert running.stop() == 0


def test_several_sockets_have_their_names_and_unnamed_ones_are_counted(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Five sockets of three kinds: each is where it was asked for, before and after a reload."""
    app(GREETER)
    words = ("127.0.0.1:0", "web=127.0.0.1:0", "127.0.0.1:0", f"unix:{tmp_path}/c", f"admin=unix:{tmp_path}/a")
    running = start(*(word for place in words for word in ("-b", place)), "app:main")
    running.wait_for(event="committed")
    places = {
        "default": running.address(),
        "web": running.address("web"),
        "default2": running.address("default2"),
        "default3": f"{tmp_path}/c",
        "admin": f"{tmp_path}/a",
    }

    assert {name: greeting(place) for name, place in places.items()} == {name: f"{name} 0 1" for name in places}
    assert running.reload()["event"] == "committed"
    until(lambda: len(running.workers()) == 1, "the old worker is gone")
    assert {name: greeting(place) for name, place in places.items()} == {name: f"{name} 0 2" for name in places}
    assert running.stop() == 0


@needs_root
def test_a_unix_socket_has_the_mode_and_owner_that_were_asked_for(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """By name; and at exit its file is gone."""
    user, group = pwd.getpwuid(1).pw_name, grp.getgrgid(2).gr_name
    path = tmp_path / "s.sock"
    app(GREETER)
    running = start("-b", f"unix:{path}?mode=0620&user={user}&group={group}", "app:main")
    running.wait_for(event="committed")
    found = path.stat()

    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o620, 1, 2)
    assert greeting(str(path)) == "default 0 1"
    assert running.stop() == 0
    assert not path.exists()
    assert [each.name for each in tmp_path.iterdir() if each.is_socket() or each.name.startswith(".")] == []


def test_a_unix_socket_that_somebody_else_put_in_its_place_is_not_removed(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """At exit a path is only removed if it is still the socket that was made."""
    path = tmp_path / "s.sock"
    app(GREETER)
    running = start("-b", f"unix:{path}", "app:main")
    running.wait_for(event="committed")
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as successor:
        successor.bind(str(path))

        assert running.stop() == 0
        assert path.is_socket()


def test_a_dead_unix_socket_is_taken_over_and_a_live_one_is_not(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """What a killed prod-run left behind is in nobody's way; a second instance is exit 69 naming the first."""
    path = tmp_path / "s.sock"
    app(GREETER)
    killed = start("-b", f"unix:{path}", "app:main")
    killed.wait_for(event="committed")
    killed.send(signal.SIGKILL)
    killed.wait()
    assert path.is_socket()
    running = start("-b", f"unix:{path}", "app:main")
    running.wait_for(event="committed")
    second = start("-b", f"unix:{path}", "app:main")

    assert second.wait() == 69
    assert f"{path}" in second.text()
    assert "in use by" in second.text()
    assert str(running.pid) in second.text()
    assert greeting(str(path)) == "default 0 1"
    assert running.stop() == 0


def test_a_descriptor_of_the_callers_is_served(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """`fd:N`: a listening socket that was inherited; it outlives prod-run."""
    app(GREETER)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        running = start("-b", f"web=fd:{number}", "app:main", pass_fds=[number])
        running.wait_for(event="committed")

        assert running.address("web") == listener.getsockname()
        assert greeting(listener.getsockname()) == "web 0 1"
        assert running.stop() == 0
        with socket.create_connection(listener.getsockname()):
            pass  # still queued


@pytest.mark.parametrize("what", ["a pipe", "closed", "not listening", "a datagram socket"])
def test_a_descriptor_that_is_no_listening_socket_is_exit_69(
    start: Callable[..., Running], app: Callable[..., Path], what: str
) -> None:
    """The sentence says what it is, and what is needed."""
    app(GREETER)
    reading, writing = os.pipe()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
    ):
        fd = {
            "a pipe": reading,
            "closed": 499,
            "not listening": stream.fileno(),
            "a datagram socket": datagram.fileno(),
        }[what]
        running = start("-b", f"fd:{fd}", "app:main", pass_fds=[] if what == "closed" else [fd])

        assert running.wait() == 69
        assert f"fd:{fd}" in running.text()
        assert "A listening stream socket is needed" in running.text()
    os.close(reading)
    os.close(writing)


# ── systemd ─────────────────────────────────────────────────────────────────────────────────────────

# What systemd does: sockets at 3 and after, and LISTEN_PID of the process that is exec'd.
ACTIVATE = """
import os, socket, sys
names = sys.argv[1].split(":")
opened = [socket.create_server(("127.0.0.1", 0)) for _ in names]
away = [os.dup2(sock.fileno(), 100 + i) for i, sock in enumerate(opened)]
for i, fd in enumerate(away):
    os.dup2(fd, 3 + i)
print("ports", *(sock.getsockname()[1] for sock in opened), flush=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(names)), LISTEN_FDNAMES=":".join(names))
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_sockets_from_systemd_are_adopted_by_their_names(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """Without any --bind: names as systemd gives them, equal ones are counted; the app's LISTEN_* are its own."""
    app(GREETER + "\n    print('gone')\n")
    running = start("app:main", before=(sys.executable, "-c", ACTIVATE, "web:admin:web"))
    ports = [int(word) for word in running.wait_for("ports ")["text"].split()[1:]]
    running.wait_for(event="committed")

    assert [greeting(("127.0.0.1", port)) for port in ports] == ["web 0 1", "admin 0 1", "web2 0 1"]
    assert running.stop() == 0


def test_a_bind_of_the_same_name_stands_for_systemds_socket(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """`--bind web=…` does not open a second socket when systemd passed one of that name; others are opened."""
    app(GREETER)
    port = free_port()
    before = (sys.executable, "-c", ACTIVATE, "web")
    running = start("-b", f"web=127.0.0.1:{port}", "-b", "more=127.0.0.1:0", "app:main", before=before)
    given = int(running.wait_for("ports ")["text"].split()[1])
    running.wait_for(event="committed")

    assert greeting(("127.0.0.1", given)) == "web 0 1"
    assert greeting(running.address("more")) == "more 0 1"
    with pytest.raises(ConnectionRefusedError):
        greeting(("127.0.0.1", port))
    assert running.stop() == 0


def test_sockets_meant_for_another_process_are_left_alone(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """A LISTEN_PID of somebody else's: a parent forgot to unset it."""
    app(GREETER)
    running = start(
        "-b", "127.0.0.1:0", "app:main", env={"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}
    )
    running.wait_for(event="committed")

    assert [line["name"] for line in running.lines if line.get("event") == "listening"] == ["default"]
    assert running.stop() == 0


@pytest.fixture
def activated(tmp_path: Path, app: Callable[..., Path]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the greeter under systemd-socket-activate; its PID is prod-run's after the first connection."""
    tool = shutil.which("systemd-socket-activate")
    if not tool:
        pytest.skip("systemd-socket-activate is not installed")
    app(GREETER)
    port = free_port()
    words = [tool, "--listen", f"127.0.0.1:{port}", "--fdname", "web", "-E", f"XDG_RUNTIME_DIR={tmp_path}/run"]
    prod_run = os.path.join(os.path.dirname(sys.executable), "prod-run")
    process = subprocess.Popen(
        [*words, prod_run, "app:main"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    yield process, port
    process.kill()
    process.wait(LIMIT)


def test_systemds_own_activation_tool_is_understood(activated: tuple[subprocess.Popen[bytes], int]) -> None:
    """The connection that made systemd start prod-run is answered by it."""
    process, port = activated
    answers: list[str] = []

    def answered() -> bool:
        try:
            answers.append(greeting(("127.0.0.1", port)))
        except ConnectionRefusedError:
            return False  # the tool does not listen yet
        return True

    until(answered, "the tool listens")

    assert answers == ["web 0 1"]
    process.terminate()
    assert process.wait(LIMIT) == 0
    assert children_of(process.pid) == []


# ── what cannot be had ──────────────────────────────────────────────────────────────────────────────


def test_a_port_in_use_is_exit_69_naming_who_holds_it(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """All addresses that cannot be had are listed, and nothing that could be is left behind."""
    app(GREETER)
    first = start("-b", "127.0.0.1:0", "app:main")
    first.wait_for(event="committed")
    host, port = first.address()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        second = start("-b", f"{host}:{port}", "-b", "unix:left.sock", "-b", f"127.0.0.1:{taken}", "app:main")

        assert second.wait() == 69
        assert f"127.0.0.1:{port}" in second.text()
        assert f"127.0.0.1:{taken}" in second.text()
        assert second.text().count("in use by") == 2
        assert str(first.pid) in second.text()
        assert str(os.getpid()) in second.text()
        assert "Traceback" not in second.text()
    assert not (tmp_path / "left.sock").exists()
    assert first.stop() == 0


@needs_root
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
def test_a_privileged_port_without_permission_is_exit_69_with_a_sentence(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """It says that ports below 1024 are privileged and what can be done."""
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        if int(file.read()) <= 80:
            pytest.skip("on this machine anybody may bind port 80")
    app(GREETER)
    before = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")
    if subprocess.run([*before, sys.executable, "-c", ""], capture_output=True).returncode:
        pytest.skip("an unprivileged user cannot run this interpreter")
    running = start("-b", "127.0.0.1:80", "app:main", before=before)

    assert running.wait() == 69
    assert "127.0.0.1:80: no permission for port 80: those below 1024 are privileged" in running.text()
    assert "Traceback" not in running.text()


def test_an_address_that_is_not_this_machines_is_exit_69(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """The sentence names the address."""
    app(GREETER)
    running = start("-b", "192.0.2.1:0", "app:main")

    assert running.wait() == 69
    assert "192.0.2.1" in running.text()


def test_the_supervisor_closes_its_sockets_at_a_stop_so_that_clients_are_refused(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """While a worker takes its time to stop, nobody is let into a queue that no one will read."""
    app("""
import os, time
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    worker.stopping.wait()
    worker.sockets["default"].close()
    worker.stopped_accepting()
    while not os.path.exists("done"):
        time.sleep(0.01)
""")
    running = start("-b", "127.0.0.1:0", "app:main")
    running.wait_for(event="committed")
    address = running.address()
    running.send(signal.SIGTERM)

    def refused() -> bool:
        try:
            socket.create_connection(address, LIMIT).close()
        except ConnectionError:
            return True
        return False

    until(refused, "the port is closed")
    assert running.process.poll() is None
    (tmp_path / "done").touch()
    assert running.wait() == 0
