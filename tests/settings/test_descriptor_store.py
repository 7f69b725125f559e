"""Which sockets from systemd's store are used again, and what systemd is told of them."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from launcher import addresses
from launcher.errors import UnavailableError
from launcher.supervisor import descriptor_store, listeners
from launcher.supervisor.descriptor_store import Store, name_of, returned
from launcher.supervisor.listeners import Inherited, activated, open_all, stored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from launcher.addresses import Address
    from launcher.handoff import Listener


class Systemd:
    """The manager's end of NOTIFY_SOCKET: what it was told, and copies of the sockets that it was given."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        self.socket.setblocking(False)
        self.kept: dict[str, int] = {}
        self.told: list[str] = []

    def read(self) -> list[str]:
        """Read all that came; keep and remove as systemd does."""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, 4096, 1)
            except BlockingIOError:
                return self.told
            order, _, name = data.decode().partition("\nFDNAME=")
            self.told.append(f"{order} {name}")
            if order == "FDSTORE=1":
                assert len(fds) == 1
                self.kept[name] = fds[0]
            elif name in self.kept:
                os.close(self.kept.pop(name))

    def store(self) -> Store:
        """Start the next prod-run: give it copies of all that is kept."""
        self.read()
        back = tuple(returned(name, os.dup(fd)) for name, fd in self.kept.items())
        return Store(self.address, back, is_open=True)

    def close(self) -> None:
        """Forget everything."""
        self.read()
        for fd in self.kept.values():
            os.close(fd)
        self.socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    """One that has nothing yet."""
    one = Systemd(tmp_path / "notify")
    yield one
    one.close()


def places(*texts: str) -> tuple[Address, ...]:
    """Read addresses as --bind does."""
    return addresses.name_all(tuple(map(addresses.parse, texts)))


def inode(listener: Listener) -> int:
    """Name the socket itself."""
    return os.fstat(listener.fd).st_ino


def die(opened: tuple[Listener, ...]) -> None:
    """Close descriptors as the death of a process does: no file is removed."""
    for listener in opened:
        os.close(listener.fd)


def refuses(address: tuple[str, int]) -> bool:
    """Say whether nobody listens there."""
    with socket.socket() as client:
        return client.connect_ex(address) != 0


def test_the_next_one_has_the_same_sockets(systemd: Systemd, tmp_path: Path) -> None:
    """By address, whatever their names are; a client that connected in between is in the queue."""
    first = open_all(places("web=127.0.0.1:0", f"api=unix:{tmp_path}/api.sock"), store=systemd.store())
    before = [inode(listener) for listener in first]
    die(first)
    port = first[0].address.rpartition(":")[2]
    with socket.create_connection(("127.0.0.1", int(port)), 5), socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/api.sock")
        second = open_all(places(f"x=unix:{tmp_path}/api.sock", f"web=127.0.0.1:{port}"), store=systemd.store())
        accepted = [socket.socket(fileno=os.dup(listener.fd)) for listener in second]
        ends = [sock.accept()[0] for sock in accepted]

    assert [inode(listener) for listener in second] == before[::-1]
    assert [listener.name for listener in second] == ["x", "web"]
    assert [listener.address for listener in second] == [f"unix:{tmp_path}/api.sock", f"127.0.0.1:{port}"]
    assert not any(os.get_blocking(listener.fd) or os.get_inheritable(listener.fd) for listener in second)
    assert systemd.read() == [f"FDSTORE=1 prod-run/127.0.0.1,{port}", systemd.told[1]]
    for sock in (*accepted, *ends):
        sock.close()
    die(second)


def test_the_file_of_a_kept_socket_is_not_removed(systemd: Systemd, tmp_path: Path) -> None:
    """Neither by who made it, nor by who took it over."""
    path = tmp_path / "web.sock"
    for _ in range(2):
        for listener in open_all(places(f"unix:{path}"), store=systemd.store()):
            listeners.close(listener)
        assert path.is_socket()


@pytest.mark.parametrize("query", ["?mode=0660", "?mode=0600", ""])
def test_a_kept_unix_socket_gets_the_mode_that_is_asked_for_now(systemd: Systemd, tmp_path: Path, query: str) -> None:
    """What is not asked for follows from the umask, as it does for a new one."""
    path = tmp_path / "web.sock"
    die(open_all(places(f"unix:{path}?mode=0644"), store=systemd.store()))
    mask = os.umask(0o027)
    try:
        die(open_all(places(f"unix:{path}{query}"), store=systemd.store()))
    finally:
        os.umask(mask)

    assert path.stat().st_mode & 0o777 == {"?mode=0660": 0o660, "?mode=0600": 0o600, "": 0o750}[query]


def test_who_calls_it_a_peer_sees_the_living(systemd: Systemd, tmp_path: Path) -> None:
    """SO_PEERCRED names who took it over, not who died."""
    pid = os.fork()
    if pid == 0:
        open_all(places(f"unix:{tmp_path}/web.sock"), store=systemd.store())
        os._exit(0)
    os.waitpid(pid, 0)
    opened = open_all(places(f"unix:{tmp_path}/web.sock"), store=systemd.store())
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/web.sock")
        peer = int.from_bytes(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)

    assert peer == os.getpid()
    die(opened)


def test_a_replaced_file_is_another_socket(systemd: Systemd, tmp_path: Path) -> None:
    """Clients do not come to the kept one any more: it is dropped, and a new one is made."""
    path = tmp_path / "web.sock"
    first = open_all(places(f"unix:{path}"), store=systemd.store())
    before = inode(first[0])
    die(first)
    path.unlink()
    second = open_all(places(f"unix:{path}"), store=systemd.store())
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))

    assert inode(second[0]) != before
    assert len(systemd.read()) == 3
    assert len(systemd.kept) == 1
    die(second)


def test_what_nobody_asked_for_is_ended_before_others_are_bound(systemd: Systemd) -> None:
    """Also where it overlaps with what is asked for now; in the store it is no more."""
    first = open_all(places("127.0.0.1:0"), store=systemd.store())
    die(first)
    port = int(first[0].address.rpartition(":")[2])
    store = systemd.store()
    second = open_all(places(f"0.0.0.0:{port}"), store=store)

    assert store.rest == []
    assert systemd.read()[1:] == [f"FDSTOREREMOVE=1 prod-run/127.0.0.1,{port}", f"FDSTORE=1 prod-run/0.0.0.0,{port}"]
    die(second)
    for fd in systemd.kept.values():
        os.close(fd)
    systemd.kept.clear()
    assert refuses(("127.0.0.1", port))


def test_of_two_for_one_address_one_is_kept(systemd: Systemd) -> None:
    """One socket may have come twice: dropping the copy must not end the one that is used."""
    first = open_all(places("127.0.0.1:0"), store=systemd.store())
    host, _, port = first[0].address.rpartition(":")
    die(first)
    store = systemd.store()
    store.rest.append(returned(store.rest[0].name, os.dup(store.rest[0].fd)))
    second = open_all(places(first[0].address), store=store)

    assert not refuses((host, int(port)))
    assert len(systemd.read()) == 1
    assert len(systemd.kept) == 1
    die(second)


def test_socket_activation_wins(systemd: Systemd) -> None:
    """A socket of systemd's own that has a place's name stands for it; the kept one is dropped."""
    first = open_all(places("web=127.0.0.1:0"), store=systemd.store())
    die(first)
    with socket.create_server(("127.0.0.1", 0)) as server:
        given = Inherited("web", os.dup(server.fileno()))
        (listener,) = open_all(places(f"web={first[0].address}"), (given,), store=systemd.store())

        assert inode(listener) == os.fstat(server.fileno()).st_ino
        assert [line.split()[0] for line in systemd.read()] == ["FDSTORE=1", "FDSTOREREMOVE=1"]
        die((listener,))


def test_the_kernels_spelling_of_an_address_is_the_same_address(systemd: Systemd) -> None:
    """[0::1] is [::1], and not 127.0.0.1."""
    try:
        first = open_all(places("[::1]:0"), store=systemd.store())
    except UnavailableError as error:
        pytest.skip(str(error))
    port = first[0].address.rpartition(":")[2]
    before = inode(first[0])
    die(first)
    second = open_all(places(f"127.0.0.1:{port}", f"[0::1]:{port}"), store=systemd.store())

    assert [inode(listener) == before for listener in second] == [False, True]
    die(second)


@pytest.mark.parametrize("kind", ["a pipe", "a datagram socket", "a socket that does not listen"])
def test_what_is_no_listening_socket_stands_for_nothing(systemd: Systemd, kind: str) -> None:
    """Whatever got our name: it is thrown out, and the address is bound as ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
    odd = socket.socket(type=socket.SOCK_DGRAM if kind == "a datagram socket" else socket.SOCK_STREAM)
    odd.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    odd.bind((host, port))
    reader, writer = os.pipe()
    systemd.kept[f"prod-run/{host},{port}"] = reader if kind == "a pipe" else os.dup(odd.fileno())
    odd.close()
    opened = open_all(places(f"{host}:{port}"), store=systemd.store())

    assert not refuses((host, port))
    assert [line.split()[0] for line in systemd.read()] == ["FDSTOREREMOVE=1", "FDSTORE=1"]
    die(opened)
    os.close(writer)


def test_a_systemd_that_cannot_be_told_stops_no_start(tmp_path: Path) -> None:
    """The socket is open, its file is ours, and the reason is there to be said."""
    store = Store(str(tmp_path / "nobody"), is_open=True)
    (listener,) = open_all(places(f"unix:{tmp_path}/web.sock"), store=store)

    assert store.problem == "No such file or directory"
    assert listener.path
    listeners.close(listener)


def test_without_a_store_nothing_is_sent(systemd: Systemd) -> None:
    """It would be a warning for each socket that systemd has no place for."""
    die(open_all(places("127.0.0.1:0"), store=Store(systemd.address, is_open=False)))

    assert systemd.read() == []


def test_names_tell_the_stored_from_the_activated() -> None:
    """Also where a unit is called after prod-run; stored ones come last, in any order."""
    names = ("prod-run@shop.socket", "prod-run-shop.socket", "web", "web", "prod-run/127.0.0.1,80", "prod-run/unix,1,2")
    environ = {"LISTEN_PID": "7", "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}

    assert [one.name for one in activated(environ, 7)] == [*names[:3], "web2"]
    assert activated(environ, 8) == ()
    assert stored({**environ, "LISTEN_FDNAMES": ""}, 7) == ()


def test_a_name_fits_into_what_systemd_takes() -> None:
    """FDNAME: ASCII without colon and control characters, at most 255 of them (sd_notify(3))."""
    path = "/" + "é:" * 30
    for address, where in (("[fe80::1%eth0]:65535", ""), (f"unix:{path}", path)):
        name = name_of(listeners.Listener("web", address, 3, where, 2**64 - 1, 2**64 - 1))
        assert name.isascii()
        assert name.isprintable()
        assert ":" not in name
        assert len(name) <= 255
        assert descriptor_store.is_ours(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_an_owner_that_cannot_be_given_is_explained(systemd: Systemd) -> None:
    """The start fails with the sentence of a new socket; the kept one stays where it is."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        path = f"{folder}/web.sock"
        die(open_all(places(f"unix:{path}?user=65534"), store=systemd.store()))
        with pytest.raises(UnavailableError, match="there is no user"):
            open_all(places(f"unix:{path}?user=no.such.user"), store=systemd.store())

        assert os.stat(path).st_uid == 65534
        assert len(systemd.read()) == 1
