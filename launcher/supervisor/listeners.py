"""
Listening sockets: made, adopted, and at exit cleaned up.

Owns every socket that clients connect to, from its first bind to the removal of its file.
Must never accept a connection, and never take an address that somebody else is serving.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from launcher.errors import Problem, UnavailableError
from launcher.handoff import Listener
from launcher.lean import NamedTuple
from launcher.lean_posix import socket
from launcher.supervisor import descriptor_store, unix_sockets
from launcher.supervisor.unix_sockets import BACKLOG, unlink_if_ours

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from launcher.addresses import Address
    from launcher.supervisor.descriptor_store import Store

    Acting = Callable[[str], AbstractContextManager[None]]
    Opening = Callable[[Address], Listener | None]

__all__ = ["Inherited", "activated", "adopt", "close", "open_all", "resolve", "stored", "unlink_if_ours"]

FIRST_FREE = 3  # 0 to 2 are stdin, stdout and stderr for whoever looks next
FIRST_ACTIVATED = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
MOST_ACTIVATED = 4096  # far beyond what a unit can hold (systemd's own limit for stored ones is 253 in a message)
_UNNAMED = frozenset(("", "unknown", "stored"))  # what sd_listen_fds(3) calls descriptors without a name


class Inherited(NamedTuple):
    """A descriptor that systemd passed."""

    name: str
    fd: int


def activated(environ: Mapping[str, str], pid: int) -> tuple[Inherited, ...]:
    """List the sockets that systemd passed to this very process by socket activation, sd_listen_fds(3)."""
    passed = [one for one in _passed(environ, pid) if not descriptor_store.is_ours(one.name)]
    names = [one.name for one in passed]
    # One unit with several ListenStream= lines gives all of them the unit's name.
    same = [names[:index].count(name) for index, name in enumerate(names)]
    return tuple(
        one._replace(name=f"{one.name}{count + 1}") if count else one for one, count in zip(passed, same, strict=True)
    )


def stored(environ: Mapping[str, str], pid: int) -> tuple[Listener, ...]:
    """List the sockets that an earlier prod-run of this unit had put into systemd's store."""
    passed = _passed(environ, pid)
    return tuple(descriptor_store.returned(one.name, one.fd) for one in passed if descriptor_store.is_ours(one.name))


def _passed(environ: Mapping[str, str], pid: int) -> tuple[Inherited, ...]:
    """
    List the descriptors that systemd passed to this very process, with their names as they are.

    Variables that were meant for another process are ignored: a parent forgot to unset them.
    """
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID", "") != str(pid) or not (count.isascii() and count.isdecimal()):
        return ()
    given = environ.get("LISTEN_FDNAMES", "").split(":")
    names: list[str] = []
    for index in range(min(int(count), MOST_ACTIVATED)):
        name = given[index] if index < len(given) else ""
        names.append("default" if name in _UNNAMED else "".join(c if c.isprintable() else "-" for c in name))
    return tuple(Inherited(name, FIRST_ACTIVATED + index) for index, name in enumerate(names))


def resolve(places: tuple[Address, ...]) -> tuple[Address, ...]:
    """
    Replace host names by numbers; may ask the network, and take as long as its resolver does.

    Of several addresses the first one of IPv4 is taken, since `:PORT` means IPv4 too.

    Raises:
        UnavailableError: some names are not known (all of them are listed).
    """
    resolved: list[Address] = []
    problems: list[Problem] = []
    for place in places:
        try:
            resolved.append(_resolved(place) if place.kind == "tcp" else place)
        except (OSError, UnicodeError) as error:
            reason = f"cannot resolve {place.host!r}: {getattr(error, 'strerror', '') or error}"
            problems.append(Problem(place.text, reason, "Check the host, or write its number"))
    if problems:
        raise UnavailableError(*problems)
    return tuple(resolved)


def open_all(
    places: tuple[Address, ...],
    inherited: tuple[Inherited, ...] = (),
    acting_in: Acting | None = None,
    store: Store | None = None,
) -> tuple[Listener, ...]:
    """
    Bind and listen at every place (with numeric hosts), and adopt what was inherited.

    An inherited socket that has a place's name, descriptor or address stands for that place, and keeps its own
    address; else one from the store that has its address does.  What is bound here is put into the store.
    No descriptor outlives an exec yet.  What is made at a path is made within `acting_in(path)`.

    Raises:
        UnavailableError: some cannot be had (all of them are listed); then nothing is left open or on disk.
    """
    problems: list[Problem] = []
    waiting = _adopt_all(inherited, problems)
    found: dict[Address, Listener] = {}
    fresh: list[Address] = []
    for place in places:
        standing = next((listener for listener in waiting if _stands_for(listener, place)), None)
        if standing:
            waiting.remove(standing)
            is_named = not place.name.startswith("default")
            found[place] = standing._replace(name=place.name if is_named else standing.name)
        elif not store or not _try(place, _within(acting_in, store.claim), found, problems):
            fresh.append(place)
    if store and places:
        store.drop_rest()
    for place in fresh:
        _try(place, _within(acting_in, lambda place: _open(place, found.values())), found, problems)
    if problems:
        for listener in (*found.values(), *waiting):
            close(listener)
        raise UnavailableError(*problems)
    if store:
        found |= {place: store.put(found[place]) for place in fresh if place.kind != "fd"}
    return (*(found[place] for place in places), *waiting)


def _adopt_all(inherited: tuple[Inherited, ...], problems: list[Problem]) -> list[Listener]:
    adopted = []
    for one in inherited:
        try:
            adopted.append(adopt(one.name, one.fd, f"descriptor {one.fd} ({one.name}) from systemd"))
        except UnavailableError as error:
            problems += error.problems
    return adopted


def _within(acting_in: Acting | None, opening: Opening) -> Opening:
    """Have a place that is a path opened by whom the path belongs to."""

    def open_there(place: Address) -> Listener | None:
        if place.kind != "unix" or acting_in is None:
            return opening(place)
        with acting_in(place.path):
            return opening(place)

    return open_there


def _try(place: Address, opening: Opening, found: dict[Address, Listener], problems: list[Problem]) -> bool:
    """Have one place opened in some way and add what came of it; False: nothing."""
    try:
        listener = opening(place)
    except UnavailableError as error:
        problems += error.problems
    except OSError as error:
        problems.append(_explained(place, error))
    else:
        if listener is None:
            return False
        found[place] = listener
    return True


def adopt(name: str, fd: int, called: str) -> Listener:
    """
    Take over a listening stream socket that somebody else made; `called` names it in errors.

    Raises:
        UnavailableError: it is something else.
    """
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise _not_usable(called, "is not a socket")
        kept = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE) if fd < FIRST_FREE else fd
        sock = socket.socket(fileno=kept)
    except OSError as error:
        raise _not_usable(called, f"cannot be used: {error.strerror}") from None
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        kind = "is a stream socket, but not listening" if sock.type == socket.SOCK_STREAM else "is not a stream socket"
        sock.detach()
        raise _not_usable(called, kind)
    return _prepared(name, sock)


def close(listener: Listener) -> None:
    """Close a listener, and remove its file if it has one."""
    unlink_if_ours(listener)
    os.close(listener.fd)


def _open(place: Address, listeners: Iterable[Listener]) -> Listener:
    if place.kind == "unix":
        return unix_sockets.bind(place)
    if place.kind == "fd":
        if any(listener.fd == place.fd for listener in listeners):
            raise _not_usable(place.text, "is named twice")
        return adopt(place.name, place.fd, place.text)
    sock = socket.socket(socket.AF_INET6 if place.is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        # socket(7): without it a restart fails while old connections are in TIME_WAIT.  Never SO_REUSEPORT:
        # it would let a second prod-run take half of the connections, and a retiring worker's queue would be lost.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        numeric = socket.AI_NUMERICHOST | socket.AI_PASSIVE
        sock.bind(socket.getaddrinfo(place.host.encode(), place.port, sock.family, sock.type, flags=numeric)[0][4])
        # At once: two sockets with SO_REUSEADDR may be bound to one address until the first of them listens.
        sock.listen(BACKLOG)
        return _prepared(place.name, sock)._replace(is_our_own=True)
    finally:
        sock.close()


def _prepared(name: str, sock: socket.socket) -> Listener:
    """Set what belongs to the open socket itself, and so to all processes that share it."""
    sock.setblocking(False)
    if sock.family in {socket.AF_INET, socket.AF_INET6}:
        # tcp(7): accepted sockets inherit it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    address = _written(sock)
    os.set_inheritable(sock.fileno(), False)
    return Listener(name, address, sock.detach())


def _written(sock: socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == socket.AF_INET:
        return f"{name[0]}:{name[1]}"
    if sock.family == socket.AF_INET6:
        return f"[{name[0]}]:{name[1]}"
    if sock.family == socket.AF_UNIX:
        # An abstract name is bytes that begin with a NUL, unix(7).
        return f"unix:{name}" if isinstance(name, str) else f"unix:@{os.fsdecode(name[1:])}"
    return f"fd:{sock.fileno()}"


def _stands_for(listener: Listener, place: Address) -> bool:
    if listener.name == place.name or (place.kind == "fd" and listener.fd == place.fd):
        return True
    if place.kind == "unix":
        return listener.address == f"unix:{os.path.join(os.getcwd(), place.path)}"
    host = f"[{place.host}]" if place.is_ipv6 else place.host
    return place.kind == "tcp" and listener.address == f"{host}:{place.port}"


def _resolved(place: Address) -> Address:
    kind, passive = socket.SOCK_STREAM, socket.AI_PASSIVE
    family = socket.AF_INET6 if place.is_ipv6 else socket.AF_UNSPEC
    # As bytes: for a text 2 ms go into loading the codec for international names.
    found = socket.getaddrinfo(place.host.encode(), place.port, family, kind, flags=passive)
    family, *_, numbers = min(found, key=lambda info: info[0] != socket.AF_INET)
    if place.is_ipv6:
        return place  # as written: a link-local address is only complete with its %scope
    return place._replace(host=str(numbers[0]), is_ipv6=family == socket.AF_INET6)


def _explained(place: Address, error: OSError) -> Problem:
    if place.kind == "unix":
        return _explained_path(place, error)
    if error.errno == errno.EADDRINUSE:
        from launcher.supervisor import address_holder  # noqa: PLC0415 - only a failure needs it

        holder = address_holder.of_port(place.host, place.port)
        by = f" by {holder}" if holder else ""
        return Problem(place.text, f"in use{by}", "Stop that program, or choose another port")
    if error.errno == errno.EACCES:
        # capabilities(7), and net.ipv4.ip_unprivileged_port_start in ip(7)
        return Problem(
            place.text,
            f"no permission for port {place.port}: those below 1024 are privileged",
            "Choose a higher port, have systemd pass the socket, or give the service CAP_NET_BIND_SERVICE",
        )
    reason = {
        errno.EADDRNOTAVAIL: f"this machine does not have the address {place.host}",
        errno.EAFNOSUPPORT: "this machine does not speak this kind of address",
    }.get(error.errno or 0, f"cannot listen: {error.strerror}")
    return Problem(place.text, reason, "Check the address")


def _explained_path(place: Address, error: OSError) -> Problem:
    directory = os.path.dirname(place.path) or os.getcwd()
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return Problem(place.text, f"there is no directory {directory}", "Create it (systemd: RuntimeDirectory=)")
    if error.errno in {errno.EACCES, errno.EROFS}:
        return Problem(place.text, f"no permission to create a socket in {directory}", "Choose a directory of your own")
    if error.errno == errno.EPERM:
        return Problem(
            place.text, "no permission to give the socket to that owner", "Name yourself, or a group of yours"
        )
    return Problem(place.text, f"cannot listen: {error.strerror}", "Choose another path")


def _not_usable(called: str, reason: str) -> UnavailableError:
    return UnavailableError(Problem(called, reason, "A listening stream socket is needed"))
