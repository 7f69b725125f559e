"""
Who the service runs as: `--user` and `--group`.

Owns the way from their names to numbers, acting as the service's user for a moment, and giving up root's rights for
good: groups, ids, and no_new_privs.
Must never leave a process half-way: what cannot be done ends the start.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys

from launcher.addresses import UNIX
from launcher.errors import Problem, SystemRefusedError, UnavailableError
from launcher.lean import NamedTuple

TYPE_CHECKING = False

if TYPE_CHECKING:
    import pwd
    from collections.abc import Iterator, MutableMapping
    from contextlib import AbstractContextManager

    from launcher.addresses import Address
    from launcher.settings import Settings

_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_CAP_SETGID, _CAP_SETUID = 6, 7  # linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522
_NOBODYS_HOME = "/"
_NO_SUCH = "Name one that exists, or its number"


class Account(NamedTuple):
    """Who to become; `variables` are what a login as this user would set, empty if it is no other user."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    called: str  # for people
    variables: tuple[tuple[str, str], ...]
    is_user_given: bool


def account(settings: Settings) -> Account | None:
    """
    Find who the service is to be; None: whoever started it.

    Raises:
        UnavailableError: there is no such user or group (both are looked for), or it cannot run this Python.
        SystemRefusedError: only root may become somebody else.
    """
    user, group = settings.service.user, settings.service.group
    if not (user or group):
        return None
    problems: list[Problem] = []
    entry = _entry(user, where(settings, "user"), problems)
    gid = _gid(group, where(settings, "group"), problems)
    if problems:
        raise UnavailableError(*problems)
    uid = entry.pw_uid if entry else int(user) if user else os.geteuid()
    if gid < 0:
        # Without an entry nobody knows its group; root's, which it would keep, is the worst guess.
        gid = entry.pw_gid if entry else uid
    name = entry.pw_name if entry else ""
    # getgrouplist(3) is initgroups(3) without the deed.
    groups = tuple(sorted({*(os.getgrouplist(name, gid) if name else ()), gid}))
    variables = _variables(entry) if uid != os.geteuid() else ()
    found = Account(uid, gid, groups, f"{name or uid}", variables, is_user_given=bool(user))
    if not (_is_already(found) or may_change()):
        setting = "user" if user else "group"
        reason = f"only root may become {'user' if user else 'group'} {user or group}"
        problem = Problem(where(settings, setting), reason, "Start prod-run as root, or leave this out")
        raise SystemRefusedError(problem)
    closed = _closed_to(found)
    if closed:
        reason = f"{found.called} may not read {closed}, which prod-run itself is made of"
        raise UnavailableError(Problem(where(settings, "user"), reason, "Install it where this user may read it"))
    return found


def where(settings: Settings, name: str) -> str:
    """Return the flag, or the variable, that a setting came from."""
    return next(row.origin.partition(" ")[2] or f"--{name}" for row in settings.rows if row.name == name)


def may_change() -> bool:
    """Say whether this process may become somebody else, capabilities(7); root of a container may not."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            mask = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return os.geteuid() == 0
    return bool(mask >> _CAP_SETGID & 1 and mask >> _CAP_SETUID & 1)


def acting_as(found: Account | None) -> AbstractContextManager[None]:
    """Be the service's user for a moment: where it could put a link, root must not write."""
    return contextlib.nullcontext() if found is None or _is_already(found) else _acting_as(found)


def acting_in(found: Account | None, path: str) -> AbstractContextManager[None]:
    """Be the service's user while something is made at `path`, unless only who starts it can change what is there."""
    try:
        folder = os.stat(os.path.dirname(path) or ".")
    except OSError:
        return contextlib.nullcontext()  # whoever makes something there will say it
    is_shared = folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not folder.st_mode & stat.S_ISVTX
    is_safe = folder.st_uid in (0, os.geteuid()) and not is_shared
    return acting_as(None if is_safe else found)


def owned(addresses: tuple[Address, ...], found: Account | None) -> tuple[Address, ...]:
    """Have unix sockets belong to the service's user, unless they are said to be somebody's."""
    if found is None:
        return addresses
    uid, gid = str(found.uid), str(found.gid)
    return tuple(
        place._replace(user=place.user or uid, group=place.group or gid) if place.kind == UNIX else place
        for place in addresses
    )


def trusted(found: Account | None) -> tuple[int, ...]:
    """Return the users who may own what a start writes: root, who starts it, and who the service is."""
    return (0, os.geteuid(), found.uid) if found else (0, os.geteuid())


@contextlib.contextmanager
def _acting_as(found: Account) -> Iterator[None]:
    uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    try:
        os.setgroups(found.groups)
        os.setegid(found.gid)
        os.seteuid(found.uid)
    except OSError as error:
        raise _refused(found, error) from None
    try:
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        os.setgroups(groups)


def drop(found: Account | None, environ: MutableMapping[str, str]) -> None:
    """
    Become the service's user for good, with its variables; from here on nothing of this process is root's.

    Raises:
        SystemRefusedError: the system would not.
    """
    if found is None:
        return
    try:
        if not _is_already(found):
            os.setgroups(found.groups)  # while we may
            os.setresgid(found.gid, found.gid, found.gid)
            os.setresuid(found.uid, found.uid, found.uid)
            if found.uid:
                _give_up_capabilities()
    except OSError as error:
        raise _refused(found, error) from None
    if found.is_user_given:
        _take_no_new_privileges()
    environ.update(found.variables)
    if found.variables:
        environ.pop("XDG_RUNTIME_DIR", None)  # of the caller's session, and closed to this user


def _refused(found: Account, error: OSError) -> SystemRefusedError:
    reason = f"the system refused: {error.strerror}"
    remedy = "A sandbox, or a user namespace without these ids, may forbid it"
    return SystemRefusedError(Problem(f"becoming {found.called}", reason, remedy))


def _give_up_capabilities() -> None:
    """
    Have none left, ambient ones included: the kernel takes them only from who was root before (capabilities(7)).

    Who was started with CAP_SETUID, as by AmbientCapabilities= of systemd, could become root again.
    """
    import ctypes  # noqa: PLC0415 - as in _take_no_new_privileges

    libc = ctypes.CDLL(None, use_errno=True)
    header = _CAPABILITY_VERSION_3.to_bytes(4, sys.byteorder) + bytes(4)  # capset(2): of this process
    if libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _closed_to(found: Account) -> str:
    """Name a file of this Python, or of prod-run, that the account may not read: they may lie in root's home."""
    with acting_as(found):
        needed = ((sys.executable, os.X_OK), (os.__file__, os.R_OK), (__file__, os.R_OK))
        return next((path for path, how in needed if not os.access(path, how, effective_ids=True)), "")


def _is_already(found: Account) -> bool:
    ids = (os.getresuid(), os.getresgid()) == ((found.uid,) * 3, (found.gid,) * 3)
    return ids and (set(os.getgroups()) | {found.gid} == set(found.groups) or not may_change())


def _entry(user: str, called: str, found: list[Problem]) -> pwd.struct_passwd | None:
    """Return the entry of a user; a number may have none."""
    import pwd  # noqa: PLC0415 - loads the name service, which few need

    try:
        if not user:
            return pwd.getpwuid(os.geteuid())
        return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        if user and not user.isdecimal():
            found.append(Problem(called, f"there is no user {user!r} on this system", _NO_SUCH))
        return None


def _gid(group: str, called: str, found: list[Problem]) -> int:
    if not group or group.isdecimal():
        return int(group or -1)
    import grp  # noqa: PLC0415

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        found.append(Problem(called, f"there is no group {group!r} on this system", _NO_SUCH))
        return -1


def _variables(entry: pwd.struct_passwd | None) -> tuple[tuple[str, str], ...]:
    """Return what the caller's environment would get wrong; systemd's User= sets the same."""
    if entry is None:
        return (("HOME", _NOBODYS_HOME),)
    name = entry.pw_name
    return (("HOME", entry.pw_dir or _NOBODYS_HOME), ("USER", name), ("LOGNAME", name), ("SHELL", entry.pw_shell))


def _take_no_new_privileges() -> None:
    """Have no execve give rights back: no setuid program, no file capabilities, prctl(2); children inherit it."""
    import ctypes  # noqa: PLC0415 - 4 ms that only --user pays

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        reason = f"the system refused: {os.strerror(ctypes.get_errno())}"
        raise SystemRefusedError(Problem("prctl(PR_SET_NO_NEW_PRIVS)", reason, "A seccomp filter may forbid it"))
