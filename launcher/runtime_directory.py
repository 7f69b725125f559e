"""
The runtime directory, and the lock that makes an instance's name its own.

Owns the order in which places are tried, and the file `lock` in the one that is taken.
Must never use a directory that another user could write to.
"""

from __future__ import annotations

import fcntl
import os
import stat

from launcher import privileges
from launcher.errors import Problem, UnavailableError
from launcher.lean import NamedTuple
from launcher.quantities import LONGEST_NAME

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.privileges import Account

LOCK = "lock"
SHARED = "/run/prod-run"  # root's; what is in it belongs to each instance's user


class Claim(NamedTuple):
    """What an instance got; `directory` is empty and `lock_fd` -1 if nothing could be had."""

    name: str
    directory: str
    lock_fd: int
    note: str = ""  # one line for people


class Candidate(NamedTuple):
    """A place to try: `base` is there already, `made` are the directories to make below it."""

    base: str
    made: tuple[str, ...]


class _HeldError(Exception):
    """A live instance has the lock; its PID and its name as text, empty if it did not say."""

    def __init__(self, pid: str, name: str) -> None:
        super().__init__()
        self.pid = pid
        self.name = name


def candidates(
    name: str, environ: Mapping[str, str], uid: int, account: Account | None = None
) -> tuple[Candidate, ...]:
    """List the places for an instance's runtime directory, the best one first; `account` is who it will be."""
    found = []
    # systemd.exec(5): several RuntimeDirectory= are joined by colons.
    given = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if given:
        found.append(Candidate(given, ()))
    if environ.get("XDG_RUNTIME_DIR") and (account is None or account.uid == uid):
        found.append(Candidate(environ["XDG_RUNTIME_DIR"], ("prod-run", name)))
    if uid == 0:
        found.append(Candidate("/run", ("prod-run", name)))
    whose = account.uid if account else uid
    found.append(Candidate("/tmp", (f"prod-run-{whose}", name)))  # noqa: S108 - made 0700, and its owner is checked
    return tuple(found)


def claim(
    name: str, places: tuple[Candidate, ...], uid: int, *, is_explicit: bool, account: Account | None = None
) -> Claim:
    """
    Take the first place that can be had, and lock it for as long as the descriptor lives.

    A default name that is held becomes NAME-PID; without any place there is no lock and no directory.
    What is made belongs to `uid`, or to the account that root will become.

    Raises:
        UnavailableError: an explicit name is held by a live instance.
    """
    reasons = []
    for place in places:
        try:
            try:
                return _claimed(name, place, uid, account)
            except _HeldError as held:
                return _claim_beside(name, place, uid, held.pid, is_explicit=is_explicit, account=account)
        except OSError as error:
            path = os.path.join(place.base, *place.made)
            reasons.append(f"{error.filename or path}: {error.strerror}")
    return Claim(
        name,
        "",
        -1,
        f"there is no runtime directory, so no control socket and no metrics of the app ({'; '.join(reasons)})",
    )


def release(taken: Claim) -> None:
    """Give a claim back, when the start fails after it."""
    if taken.lock_fd >= 0:
        os.close(taken.lock_fd)


def _claimed(name: str, place: Candidate, uid: int, account: Account | None) -> Claim:
    try:
        return Claim(name, *_taken(place, name, uid, account))
    except _HeldError as held:
        if place.made or held.name in ("", name):
            raise
    # $RUNTIME_DIRECTORY is whoever came first's: one that runs in another's service has a place in it.
    return Claim(name, *_taken(place._replace(made=(name,)), name, uid, account))


def _claim_beside(
    name: str, place: Candidate, uid: int, pid: str, *, is_explicit: bool, account: Account | None
) -> Claim:
    holder = f"PID {pid}" if pid else "another process"
    if is_explicit:
        reason = f"a running prod-run already has this name: {holder}"
        raise UnavailableError(Problem(name, reason, "Stop it, or choose another --name"))
    suffix = f"-{os.getpid()}"
    other = name[: LONGEST_NAME - len(suffix)] + suffix
    try:
        directory, lock_fd = _taken(Candidate(place.base, (*place.made[:-1], other)), other, uid, account)
    except _HeldError:
        raise OSError(0, "locked by another process", os.path.join(place.base, other)) from None
    return Claim(other, directory, lock_fd, f"the name {name} is taken by {holder}: this instance is called {other}")


def _taken(place: Candidate, name: str, uid: int, account: Account | None) -> tuple[str, int]:
    """Make the directory and lock it; for another account this is done as that user wherever links could lie."""
    if account is None or account.uid == uid:
        directory = _made(place, uid)
        return directory, _locked(directory, name)
    is_roots_place = place.base == "/run" or not place.made
    directory = _handed_over(place, uid, account) if is_roots_place else ""
    with privileges.acting_as(account):
        directory = directory or _made(place, account.uid)
        return directory, _locked(directory, name)


def _handed_over(place: Candidate, uid: int, account: Account) -> str:
    """Make the directory as root, in a place where only root can make one, and give it to the account."""
    *outer, last = (place.base, *place.made)
    path = _made(Candidate(outer[0], tuple(outer[1:])), uid) if outer else ""
    path = os.path.join(path, last)
    if outer:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
    found = os.lstat(path)
    if stat.S_ISDIR(found.st_mode) and found.st_uid == uid:
        # Just made, or root's own until today, whose instance may still run.  Nobody else could enter.
        _check(found, path, uid, 0o022)
        os.close(_locked(path, last))
        os.chown(f"{path}/{LOCK}", account.uid, account.gid, follow_symlinks=False)
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    else:
        _check(found, path, account.uid, 0o022)
    return path


def _made(place: Candidate, uid: int) -> str:
    """Make and check the directories; OSError if one of them could be somebody else's."""
    path = place.base
    if not os.path.isabs(path):
        raise OSError(0, "not an absolute path", path)
    if path not in {"/run", "/tmp"}:  # noqa: S108 - these two are everybody's, and so is no runtime directory
        _check(os.stat(path), path, uid, 0o022)
    for name in place.made:
        path = f"{path}/{name}"
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        else:
            os.chmod(path, 0o700)  # whatever the umask took away
        # lstat: a link that somebody else put into /tmp is not a directory of ours.
        _check(os.lstat(path), path, uid, 0o022 if path == SHARED else 0o077)
        if path == SHARED:
            os.chmod(path, 0o755)  # each instance's user must get to its own
    return path


def _check(found: os.stat_result, path: str, uid: int, forbidden: int) -> None:
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(0, "not a directory", path)
    if found.st_uid != uid:
        raise OSError(0, "belongs to another user", path)
    if found.st_mode & forbidden:
        raise OSError(0, "open to other users", path)


def _locked(directory: str, name: str) -> int:
    # flock(2): the lock belongs to the open file description, so it lives on over the exec.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock_fd = os.open(f"{directory}/{LOCK}", flags, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock_fd, 0)
        os.write(lock_fd, b"%d\n%b\n" % (os.getpid(), name.encode()))
    except BlockingIOError:
        pid, _, holder = os.read(lock_fd, 128).decode("ascii", "replace").strip().partition("\n")
        os.close(lock_fd)
        raise _HeldError(pid, holder) from None
    except OSError:
        os.close(lock_fd)
        raise
    return lock_fd
