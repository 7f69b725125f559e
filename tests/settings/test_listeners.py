"""Real sockets: made, adopted, refused and cleaned up."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import tempfile
from typing import TYPE_CHECKING

import pytest

from launcher import addresses
from launcher.errors import Exit, UnavailableError
from launcher.supervisor import listeners, unix_sockets
from launcher.supervisor.listeners import Inherited, activated, open_all, resolve, unlink_if_ours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from launcher.addresses import Address
    from launcher.handoff import Listener

NOBODY = 65534


def places(*texts: str) -> tuple[Address, ...]:
    """Read addresses as --bind does."""
    return addresses.name_all(tuple(map(addresses.parse, texts)))


@contextlib.contextmanager
def opened(*texts: str, inherited: tuple[Inherited, ...] = ()) -> Iterator[tuple[Listener, ...]]:
    """Open them, and close them in the end."""
    found = open_all(places(*texts), inherited)
    try:
        yield found
    finally:
        for listener in found:
            listeners.close(listener)


@contextlib.contextmanager
def plain_listener(address: str | tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[socket.socket]:
    """Listen as any other program would."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind(address)
        sock.listen()
        yield sock


def refusal(*texts: str, inherited: tuple[Inherited, ...] = ()) -> str:
    """Return the sentence with which they are refused."""
    with pytest.raises(UnavailableError) as caught:
        open_all(places(*texts), inherited)
    assert caught.value.exit_code == Exit.UNAVAILABLE
    return str(caught.value)


def as_nobody(action: Callable[[], str]) -> str:
    """Run it in a process without privileges, and return what it found."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writer, action().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        found = file.read()
    os.waitpid(pid, 0)
    return found


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


def test_a_listener_is_listening_non_blocking_without_delay_and_closed_on_exec() -> None:
    """All that belongs to the shared socket is set once, by whoever makes it."""
    with opened("127.0.0.1:0") as (listener,), socket.socket(fileno=os.dup(listener.fd)) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert not os.get_blocking(listener.fd)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        assert not os.get_inheritable(listener.fd)


def test_port_zero_is_shown_as_the_port_that_was_given() -> None:
    """Nobody could connect to port 0."""
    with opened("web=127.0.0.1:0") as (listener,):
        host, _, port = listener.address.rpartition(":")
        assert (listener.name, host) == ("web", "127.0.0.1")
        socket.create_connection((host, int(port)), timeout=5).close()


def test_ipv6_is_only_ipv6() -> None:
    """`:PORT` and `[::]:PORT` can stand side by side on one port."""
    try:
        first = opened("[::]:0")
        with first as (six,):
            port = six.address.rpartition(":")[2]
            with opened(f":{port}") as (four,):
                assert (six.address, four.address) == (f"[::]:{port}", f"0.0.0.0:{port}")
    except UnavailableError as error:
        pytest.skip(str(error))


def test_a_host_name_becomes_a_number_of_ipv4_first() -> None:
    """`localhost` means what `curl localhost` and `curl 127.0.0.1` both reach."""
    (place,) = resolve(places("localhost:0"))

    assert (place.host, place.is_ipv6) == ("127.0.0.1", False)


def test_unknown_hosts_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of them, at once."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(UnavailableError) as caught:
        resolve(places("a=one.example:80", "b=two.example:80", "c=unix:/x"))

    assert "cannot resolve 'one.example': Name or service not known" in str(caught.value)
    assert "cannot resolve 'two.example'" in str(caught.value)


def test_an_address_in_use_names_its_holder() -> None:
    """The process that has to be stopped is in the sentence."""
    with plain_listener() as sock:
        port = sock.getsockname()[1]
        text = refusal(f"127.0.0.1:{port}")

    assert f"127.0.0.1:{port}: in use by " in text
    assert f"(PID {os.getpid()})" in text


def test_a_port_of_another_address_is_not_in_use() -> None:
    """127.0.0.2 is not 127.0.0.1."""
    with plain_listener() as sock, opened(f"127.0.0.2:{sock.getsockname()[1]}") as found:
        assert len(found) == 1


def test_an_address_that_the_machine_does_not_have_is_named() -> None:
    """192.0.2.0/24 belongs to documentation, RFC 5737."""
    assert "this machine does not have the address 192.0.2.1" in refusal("192.0.2.1:0")


@needs_root
def test_a_privileged_port_says_what_to_do() -> None:
    """No permission is explained, with three ways out."""
    if not os.path.exists("/proc/sys/net/ipv4/ip_unprivileged_port_start"):
        pytest.skip("cannot tell which ports are privileged")
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
        if int(file.read()) == 0:
            pytest.skip("no port is privileged here")

    text = as_nobody(lambda: refusal("127.0.0.1:1"))

    assert "no permission for port 1: those below 1024 are privileged" in text
    assert "CAP_NET_BIND_SERVICE" in text


def test_one_failure_leaves_nothing_open_or_on_disk(tmp_path: Path) -> None:
    """All problems are listed, and what had worked is undone."""
    before = len(os.listdir("/proc/self/fd"))
    with plain_listener() as sock:
        text = refusal(f"unix:{tmp_path}/x.sock", f"127.0.0.1:{sock.getsockname()[1]}", "192.0.2.1:0")

    assert "2 problems" in text
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_unix_socket_appears_with_its_mode_and_nothing_beside_it(tmp_path: Path) -> None:
    """The temporary name is gone, clients can connect, and the mask of the process is as it was."""
    mask = os.umask(0o027)
    try:
        with opened(f"unix:{tmp_path}/x.sock?mode=0660", f"unix:{tmp_path}/y.sock") as (one, two):
            assert sorted(os.listdir(tmp_path)) == ["x.sock", "y.sock"]
            assert stat.S_IMODE(os.stat(one.path).st_mode) == 0o660
            assert stat.S_IMODE(os.stat(two.path).st_mode) == 0o750
            assert one.address == f"unix:{tmp_path}/x.sock"
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(one.path)
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(mask)
    assert os.listdir(tmp_path) == []


@needs_root
def test_a_unix_socket_gets_its_owner(tmp_path: Path) -> None:
    """By number or by name."""
    with opened(f"unix:{tmp_path}/x.sock?user=nobody&group={NOBODY}") as (listener,):
        found = os.stat(listener.path)
        assert (found.st_uid, found.st_gid) == (NOBODY, NOBODY)


@needs_root
def test_an_owner_that_cannot_be_given_is_explained() -> None:
    """Only root gives files away."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are below a directory that is root's alone
        os.chmod(folder, 0o777)

        assert "no permission to give the socket to that owner" in as_nobody(lambda: refusal(f"unix:{folder}/x?user=0"))
        assert os.listdir(folder) == []


@pytest.mark.parametrize(("query", "what"), [("user=no.such.user", "user"), ("group=no.such.group", "group")])
def test_an_unknown_owner_is_named(tmp_path: Path, query: str, what: str) -> None:
    """A name that this system does not know."""
    assert f"there is no {what} 'no.such.{what}' on this system" in refusal(f"unix:{tmp_path}/x?{query}")


def test_an_unknown_user_does_not_hide_an_unknown_group(tmp_path: Path) -> None:
    """Both are named at once."""
    text = refusal(f"unix:{tmp_path}/x?user=no.such.user&group=no.such.group")

    assert "there is no user 'no.such.user'" in text
    assert "there is no group 'no.such.group'" in text


def test_a_live_unix_socket_is_never_stolen(tmp_path: Path) -> None:
    """Its holder is named, and goes on serving."""
    path = str(tmp_path / "x.sock")
    with plain_listener(path) as sock:
        text = refusal(f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        assert sock.getsockname() == path

    assert f"unix:{path}: in use by " in text
    assert f"(PID {os.getpid()})" in text


def test_a_live_unix_socket_whose_queue_is_full_is_never_stolen(tmp_path: Path) -> None:
    """Being busy is not being dead."""
    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as sock, contextlib.ExitStack() as clients:
        sock.bind(path)
        sock.listen(0)
        problem = 0
        while problem == 0:
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            problem = client.connect_ex(path)
        assert problem == errno.EAGAIN

        assert "in use" in refusal(f"unix:{path}")


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    """A crash leaves its file behind; the next start goes on."""
    path = str(tmp_path / "x.sock")
    with plain_listener(path):
        pass

    with opened(f"unix:{path}"), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_what_a_crash_left_under_the_temporary_name_is_no_obstacle(tmp_path: Path) -> None:
    """In a container every prod-run has the same PID."""
    with plain_listener(str(tmp_path / f".{os.getpid()}~")):
        pass

    with opened(f"unix:{tmp_path}/x.sock"):
        assert os.listdir(tmp_path) == ["x.sock"]


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_never_overwritten(tmp_path: Path, kind: str) -> None:
    """A mistyped path does not cost a file."""
    path = tmp_path / "x"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "y")
    before = os.lstat(path)

    assert "a file is there that is not a socket" in refusal(f"unix:{path}")
    assert os.lstat(path).st_ino == before.st_ino


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """And how to have systemd make it."""
    assert f"there is no directory {tmp_path}/no" in refusal(f"unix:{tmp_path}/no/x.sock")


def test_a_path_that_only_the_temporary_name_makes_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's limit is explained, not met as EINVAL."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ("d" * (105 - len(str(tmp_path))))
    folder.mkdir()
    monkeypatch.chdir(folder)

    assert "the path is too long: the kernel takes 107 bytes" in refusal("unix:x")


def test_a_relative_path_is_found_from_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And kept absolute, since the supervisor removes it at exit."""
    monkeypatch.chdir(tmp_path)

    with opened("unix:x.sock") as (listener,):
        assert listener.path == str(tmp_path / "x.sock")


def test_only_our_own_file_is_removed_at_exit(tmp_path: Path) -> None:
    """Whoever has replaced it keeps what is his."""
    path = tmp_path / "x.sock"
    (ours,) = open_all(places(f"unix:{path}"))
    path.rename(tmp_path / "elsewhere")
    with plain_listener(str(path)):
        assert not unlink_if_ours(ours)
        assert path.exists()
    (tmp_path / "elsewhere").rename(path)

    assert unlink_if_ours(ours)
    assert not path.exists()
    assert not unlink_if_ours(ours)
    os.close(ours.fd)


def test_nobody_can_delay_the_end_by_holding_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may read it can lock it; the supervisor never waits, and the file goes all the same."""
    path = tmp_path / "x.sock"
    (ours,) = open_all(places(f"unix:{path}"))
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    waits: list[object] = []
    monkeypatch.setattr("launcher.supervisor.unix_sockets.select.select", lambda *how: waits.append(how))

    assert unlink_if_ours(ours)
    assert not path.exists()
    assert not waits
    os.close(ours.fd)
    os.close(held)


def test_a_descriptor_that_listens_is_adopted() -> None:
    """fd:N, made ready like one of our own."""
    with plain_listener() as sock:
        fd = os.dup(sock.fileno())
        with opened(f"web=fd:{fd}") as (listener,):
            assert (listener.name, listener.fd) == ("web", fd)
            assert listener.address == f"127.0.0.1:{sock.getsockname()[1]}"
            assert not os.get_blocking(fd)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_descriptor_that_does_not_listen_is_refused(tmp_path: Path) -> None:
    """Each kind has its sentence."""
    (tmp_path / "x").write_text("")
    with (
        open(tmp_path / "x", encoding="ascii") as file,
        socket.socket() as idle,
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
    ):
        assert f"fd:{file.fileno()}: is not a socket" in refusal(f"fd:{file.fileno()}")
        assert "is a stream socket, but not listening" in refusal(f"fd:{idle.fileno()}")
        assert "is not a stream socket" in refusal(f"fd:{datagrams.fileno()}")
        assert idle.fileno() >= 0
    assert "cannot be used: Bad file descriptor" in refusal("fd:987654")


def test_one_descriptor_cannot_be_two_listeners() -> None:
    """A mistake in numbering is found."""
    with plain_listener() as sock:
        fd = os.dup(sock.fileno())
        assert "is named twice" in refusal(f"a=fd:{fd}", f"b=fd:{fd}")


def test_descriptors_for_another_process_are_ignored() -> None:
    """LISTEN_PID is checked, sd_listen_fds(3)."""
    assert activated({"LISTEN_PID": "1", "LISTEN_FDS": "2"}, 2) == ()
    assert activated({"LISTEN_FDS": "2"}, 2) == ()
    assert activated({"LISTEN_PID": "2", "LISTEN_FDS": "x"}, 2) == ()


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("web:admin", ["web", "admin", "default"]),
        ("web:web:web", ["web", "web2", "web3"]),
        ("shop1:shop1:shop", ["shop1", "shop12", "shop"]),
        ("unknown:stored:a\tb", ["default", "default2", "a-b"]),
        ("", ["default", "default2", "default3"]),
    ],
)
def test_descriptors_of_systemd_keep_their_names(given: str, names: list[str]) -> None:
    """Those of one unit share its name, and are numbered."""
    found = activated({"LISTEN_PID": "2", "LISTEN_FDS": "3", "LISTEN_FDNAMES": given}, 2)

    assert [one.name for one in found] == names
    assert [one.fd for one in found] == [3, 4, 5]


@pytest.mark.parametrize(
    ("written", "name"), [("web=127.0.0.1:0", "web"), ("127.0.0.1:{port}", "web"), ("api=127.0.0.1:{port}", "api"),
                          ("api=fd:{fd}", "api")]
)  # fmt: skip
def test_a_socket_of_systemd_stands_for_the_address_of_its_name(written: str, name: str) -> None:
    """By name, by address or by number; nothing is bound a second time, and systemd's address is kept."""
    with plain_listener() as sock:
        port, fd = sock.getsockname()[1], os.dup(sock.fileno())
        with opened(written.format(port=port, fd=fd), inherited=(Inherited("web", fd),)) as found:
            assert [(one.name, one.address, one.fd) for one in found] == [(name, f"127.0.0.1:{port}", fd)]


def test_sockets_of_systemd_come_in_addition() -> None:
    """What nobody named is passed to the workers all the same."""
    with plain_listener() as sock:
        fd = os.dup(sock.fileno())
        with opened("web=127.0.0.1:0", inherited=(Inherited("shop.socket", fd),)) as found:
            assert [one.name for one in found] == ["web", "shop.socket"]


def test_a_datagram_socket_of_systemd_is_refused() -> None:
    """The unit's mistake is explained, instead of a worker that cannot accept."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        text = refusal(inherited=(Inherited("dns", sock.fileno()),))

        assert f"descriptor {sock.fileno()} (dns) from systemd: is not a stream socket" in text


def test_an_adopted_unix_socket_keeps_its_file(tmp_path: Path) -> None:
    """The file belongs to systemd."""
    path = tmp_path / "x.sock"
    with plain_listener(str(path)) as sock:
        with opened(inherited=(Inherited("web", os.dup(sock.fileno())),)) as (listener,):
            assert listener.address == f"unix:{path}"
        assert path.exists()


def test_a_link_in_the_place_of_a_socket_is_not_followed(tmp_path: Path) -> None:
    """Else whoever may write there has root change the mode of any file."""
    victim = tmp_path / "victim"
    victim.touch(mode=0o600)
    (tmp_path / "app.sock").symlink_to(victim)
    (place,) = places(f"unix:{tmp_path}/app.sock?mode=0666")

    with pytest.raises(OSError, match=os.strerror(errno.ENOTSOCK)):
        unix_sockets.give_away(f"{tmp_path}/app.sock", place)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
