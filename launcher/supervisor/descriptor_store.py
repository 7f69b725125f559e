"""
systemd's file descriptor store: listening sockets that outlive prod-run.

Owns their names there, which of them stands for an address, and the messages that put them in and take them out
(sd_notify(3): FDSTORE, FDSTOREREMOVE).  systemd hears the main process alone: the command line, and the supervisor
that it becomes.
Must never pass on a socket whose address was not asked for: clients would wait in its queue for nobody.
"""

from __future__ import annotations

import os
import sys

from launcher.handoff import Listener
from launcher.lean_posix import socket
from launcher.supervisor import unix_sockets

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterable

    from launcher.addresses import Address

# Begins their names.  A socket unit's are called after the unit, and no unit's name can hold a slash.
MARK = "prod-run/"
_UNIX = f"{MARK}unix,"
PATIENCE = 1.0  # seconds for a systemd that is busy with others


class Store:
    """What came back from the store at a start, and the way to it."""

    __slots__ = ("_address", "_claimed", "_patience", "is_open", "problem", "rest")

    def __init__(
        self, address: str, rest: Iterable[Listener] = (), *, is_open: bool, patience: float = PATIENCE
    ) -> None:
        """`address` is $NOTIFY_SOCKET; `rest` are the sockets that came back; not open: nothing can be put in."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._patience = patience
        self._claimed: list[Listener] = []
        self.is_open = is_open and bool(address)
        self.rest = list(rest)
        self.problem = ""  # why something could not be put in

    def claim(self, place: Address) -> Listener | None:
        """
        Take the socket that listens at a place (with a numeric host), if there is one.

        Raises:
            UnavailableError, OSError: a unix socket cannot be given the mode or owner that is asked for.
        """
        kept = next((kept for kept in self.rest if _stands_for(kept, place)), None)
        if kept is None:
            return None
        self.rest.remove(kept)
        self._claimed.append(kept)
        sock = socket.socket(fileno=kept.fd)
        try:
            # unix(7): clients see by SO_PEERCRED who called this last; before, that is somebody dead.
            sock.listen(unix_sockets.BACKLOG)
            sock.setblocking(False)
        finally:
            sock.detach()
        if not kept.path:
            return kept._replace(name=place.name)
        path = os.path.join(os.getcwd(), place.path)
        unix_sockets.give_away(path, place)
        # Without path, since its file is not to be removed at the exit.
        return Listener(place.name, f"unix:{path}", kept.fd)

    def drop_rest(self) -> None:
        """Take out and close what nobody asked for; before others are bound, since it may be in their way."""
        alive = {_identity(kept.fd) for kept in self._claimed}
        names = {kept.name for kept in self._claimed}
        for kept in self.rest:
            if _identity(kept.fd) not in alive:
                # Closing would not free the address: systemd has a copy until it has read its message.
                _end(kept.fd)
            if kept.name not in names:
                try:
                    self._tell(f"FDSTOREREMOVE=1\nFDNAME={kept.name}")
                except OSError:
                    pass  # systemd throws it away when it sees that nobody listens any more
            os.close(kept.fd)
        self.rest = []

    def put(self, fresh: Listener) -> Listener:
        """Have systemd keep a socket that was bound here; from then on its file belongs to nobody here."""
        if not self.is_open:
            return fresh
        try:
            self._tell(f"FDSTORE=1\nFDNAME={name_of(fresh)}", fresh.fd)
        except OSError as error:
            self.problem = error.strerror or str(error)
            return fresh
        return fresh._replace(path="", device=0, inode=0, is_our_own=False)

    def _tell(self, text: str, fd: int = -1) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))] if fd >= 0 else []
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            sock.settimeout(self._patience)
            sock.sendmsg([text.encode()], rights, 0, self._address)
        finally:
            sock.close()


def is_ours(name: str) -> bool:
    """Say whether a descriptor that systemd passed is one that prod-run had put into the store."""
    return name.startswith(MARK)


def name_of(listener: Listener) -> str:
    """Return the name of a socket in the store: its address, so that none has two (no colon may be in it)."""
    if listener.path:
        # The socket holds its file, so the number is nobody else's for as long as the socket lives, whatever the
        # path leads to by then.  What getsockname(2) says is the name before the rename.
        return f"{_UNIX}{listener.device:x},{listener.inode:x}"
    return MARK + listener.address.replace(":", ",")


def returned(name: str, fd: int) -> Listener:
    """Look at what came back under one of our names; what does not listen has an address that nobody asks for."""
    os.set_inheritable(fd, False)
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return Listener(name, "", fd)
    try:
        is_listening = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if not is_listening:
            return Listener(name, "", fd)
        if sock.family == socket.AF_UNIX:
            device, inode = _numbers(name)
            return Listener(name, "unix", fd, "unix", device, inode)
        return Listener(name, _written(sock.family, sock.getsockname()), fd)
    finally:
        sock.detach()


def _stands_for(kept: Listener, place: Address) -> bool:
    if place.kind == "unix":
        try:
            found = os.lstat(os.path.join(os.getcwd(), place.path))
        except OSError:
            return False
        return bool(kept.path) and (found.st_dev, found.st_ino) == (kept.device, kept.inode)
    if place.kind != "tcp" or kept.path or not kept.address:
        return False
    family = socket.AF_INET6 if place.is_ipv6 else socket.AF_INET
    # The kernel's spelling: [0::1] is [::1].
    numeric = socket.getaddrinfo(place.host.encode(), place.port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    return kept.address == _written(family, numeric[0][4])


def _written(family: int, name: tuple[object, ...]) -> str:
    host = f"[{name[0]}]" if family == socket.AF_INET6 else name[0]
    return f"{host}:{name[1]}"


def _numbers(name: str) -> tuple[int, int]:
    device, _, inode = name.removeprefix(_UNIX).partition(",")
    try:
        return int(device, 16), int(inode, 16)
    except ValueError:
        return 0, 0


def _identity(fd: int) -> tuple[int, int]:
    """Name the socket behind a descriptor: several may have come for one."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _end(fd: int) -> None:
    """Stop listening, for all who have a copy; systemd then throws its own away (EPOLLHUP, sd_notify(3): FDPOLL)."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return  # not a socket
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it did not listen
    finally:
        sock.detach()
