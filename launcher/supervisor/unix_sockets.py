"""
Unix sockets and their files.

Owns how a socket's file comes into place and goes away again.
Must never overwrite what is not a dead socket, and never remove what is not ours.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import sys

from launcher.errors import Problem, UnavailableError
from launcher.handoff import Listener
from launcher.lean_posix import socket

TYPE_CHECKING = False

if TYPE_CHECKING:
    from launcher.addresses import Address

BACKLOG = 2048
_LONGEST_PATH = 107  # bytes; unix(7): sun_path has 108, the last one is a NUL
_LONGEST_TURN = 1.0  # seconds that the command line waits for it
_TRIES = 20


def bind(place: Address) -> Listener:
    """
    Make a listening socket and put its file into place, complete with mode and owner.

    Raises:
        UnavailableError: a live socket or another file is there, or the owner is not known.
        OSError: the system refused.
    """
    path = os.path.join(os.getcwd(), place.path)
    directory = os.path.dirname(path)
    temporary = f"{directory}/.{os.getpid()}~"
    if len(os.fsencode(temporary)) > _LONGEST_PATH or len(os.fsencode(path)) > _LONGEST_PATH:
        raise UnavailableError(
            Problem(place.text, f"the path is too long: the kernel takes {_LONGEST_PATH} bytes", "Choose a shorter one")
        )
    owner = _owner(place)
    turn = _take_turn(directory)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _refuse_if_taken(place, path)
        _bind_privately(sock, temporary, place.mode)
        try:
            if owner != (-1, -1):
                os.chown(temporary, *owner, follow_symlinks=False)
            # Listening before anybody can find it: a client that comes early must not be refused.
            sock.listen(BACKLOG)
            sock.setblocking(False)
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        found = os.stat(path)
        return Listener(place.name, f"unix:{path}", sock.detach(), path, found.st_dev, found.st_ino)
    finally:
        sock.close()
        if turn >= 0:
            os.close(turn)


def give_away(path: str, place: Address) -> None:
    """
    Give a socket's file that is there already the mode and owner that are asked for.

    Raises:
        UnavailableError: the owner is not known.
        OSError: the system refused.
    """
    found = os.lstat(path)
    mask = os.umask(0o177)
    os.umask(mask)
    _change_mode(path, place.mode if place.mode >= 0 else 0o777 & ~mask)
    owner = _owner(place)
    if any(wanted not in (-1, former) for wanted, former in zip(owner, (found.st_uid, found.st_gid), strict=True)):
        os.chown(path, *owner, follow_symlinks=False)


def unlink_if_ours(listener: Listener) -> bool:
    """
    Remove the file of a unix socket if it is still the one that was made; say whether it was.

    Never waits, for the supervisor must not: whoever may read the directory could keep the turn.
    """
    if not listener.path:
        return False
    turn = _take_turn(os.path.dirname(listener.path), tries=1)
    try:
        found = os.lstat(listener.path)
        if (found.st_dev, found.st_ino) != (listener.device, listener.inode):
            return False
        os.unlink(listener.path)
    except OSError:
        return False  # somebody removed it, or the directory is read-only by now: nothing of ours is in the way
    finally:
        if turn >= 0:
            os.close(turn)
    return True


def _bind_privately(sock: socket.socket, temporary: str, mode: int) -> None:
    """Bind so that nobody else can connect before mode and owner are what was asked for: nobody listens yet."""
    try:
        os.unlink(temporary)  # left by a crash; in a container every prod-run has PID 1
    except FileNotFoundError:
        pass
    mask = os.umask(0o177)
    mode = mode if mode >= 0 else 0o777 & ~mask
    os.umask(0o777 & ~mode)
    try:
        sock.bind(temporary)
    finally:
        os.umask(mask)
    _change_mode(temporary, mode)  # a default ACL of the directory stands for the umask (umask(2))


def _change_mode(path: str, mode: int) -> None:
    """Change the mode of a socket's file where it differs; chmod(2) would follow a link that somebody laid there."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd).st_mode
        if not stat.S_ISSOCK(found):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), path)
        if stat.S_IMODE(found) != mode:
            os.chmod(f"/proc/self/fd/{fd}", mode)  # fchmod(2) refuses a descriptor of O_PATH (open(2))
    finally:
        os.close(fd)


def _refuse_if_taken(place: Address, path: str) -> None:
    """Pass if the path is free or a dead socket's."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise UnavailableError(
            Problem(place.text, "a file is there that is not a socket", "Remove it, or choose another path")
        )
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.setblocking(False)
        problem = probe.connect_ex(path)
        if problem in {errno.ECONNREFUSED, errno.ENOENT}:
            return
        if problem == errno.EACCES:
            raise UnavailableError(
                Problem(
                    place.text,
                    "a socket is there, and whether it is in use cannot be found out without write permission for it",
                    "Remove it, or choose another path",
                )
            )
        holder = _peer(probe) if problem == 0 else ""
    finally:
        probe.close()
    by = f" by {holder}" if holder else ""
    raise UnavailableError(Problem(place.text, f"in use{by}", "Stop that program, or choose another path"))


def _peer(connected: socket.socket) -> str:
    # unix(7): SO_PEERCRED tells who called listen(2), even over a later exec.
    pid = int.from_bytes(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
    from launcher.supervisor.address_holder import describe  # noqa: PLC0415 - only a failure needs it

    return describe(pid) if pid else ""


def _take_turn(directory: str, tries: int = _TRIES) -> int:
    """
    Keep other prod-runs from looking at the same directory between our look and our rename.

    Returns:
        A descriptor that ends the turn when closed; -1 without one.  Whoever may read the directory could keep
        it for ever, so waiting has a limit, and file systems without flock(2) do without.
    """
    try:
        turn = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1  # may be searched and written, but not read; or is not there, which bind(2) will say
    for left in reversed(range(tries)):
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if left:
                select.select((), (), (), _LONGEST_TURN / _TRIES)
        except OSError:
            break
        else:
            break
    return turn


def _owner(place: Address) -> tuple[int, int]:
    """
    Return the numbers of user and group; -1 for one that was not asked for.

    Raises:
        UnavailableError: this system does not know a name; with both if it knows neither.
    """
    numbers, problems = [], []
    for kind, name in (("user", place.user), ("group", place.group)):
        try:
            numbers.append(int(name or -1) if not name or name.isdecimal() else _number(kind, name))
        except KeyError:
            reason = f"there is no {kind} {name!r} on this system"
            problems.append(Problem(place.text, reason, "Name one, or its number"))
    if problems:
        raise UnavailableError(*problems)
    user, group = numbers
    return user, group


def _number(kind: str, name: str) -> int:
    if kind == "user":
        import pwd  # noqa: PLC0415 - loads the name service, which few need

        return pwd.getpwnam(name).pw_uid
    import grp  # noqa: PLC0415

    return grp.getgrnam(name).gr_gid
