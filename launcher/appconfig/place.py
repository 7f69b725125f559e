"""
Rendered files into their places: staged beside them, moved all together, put back if the generation is rejected.

Owns the temporary names, the order of the system calls, and the sentence for each refusal of a file system.
Must never leave a file half written or half owned under its own name, nor a temporary one after a failure.

`stage` → (the check) → `move` → `settle` or `put_back`; `discard` instead of `move`.  The process that staged
must live until then: its locks tell others that the temporary files are in use.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from typing import TYPE_CHECKING, NamedTuple

from launcher.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from launcher.appconfig.render import Rendered

_LONGEST_NAME = 200  # bytes of a name that go into a temporary one; NAME_MAX is 255
_TEMPORARY = re.compile(r"\..*\.prod-run-[0-9a-f]{8}", re.DOTALL)
_KEPT = "kept-"  # in the name of a former file, which is not swept: it may be the only way back
_RANDOM = re.compile(r"[0-9a-f]{8}")
_MODE_OF_NEW = 0o644
_NOTHING = -1  # no descriptor

_ALONE = ("is mounted by itself and cannot be replaced", "Mount its directory instead of the file")
_FULL = ("does not fit: no space is left there", "Free some, or name a DEST elsewhere")
_DENIED = ("cannot be written by this user", "Let it write to the directory, or name a DEST elsewhere")
_NOWHERE = ("is in a directory that does not exist", "Create the directory, or correct DEST")
_LINK = ("is a symbolic link, which would be replaced", "Name the file that it points to")
_NO_FILE = ("is there and is not a regular file", "Remove it, or correct DEST")
_REASONS = {
    errno.EBUSY: _ALONE,
    errno.EXDEV: _ALONE,
    errno.EROFS: ("is on a read-only file system", "Mount a writable directory there, or name a DEST elsewhere"),
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ENOENT: _NOWHERE,
    errno.ENOTDIR: _NOWHERE,
}


class Staged(NamedTuple):
    """A file beside its place; `temporary` is empty if what is there is the same already."""

    path: str
    temporary: str
    lock: int


class Placed(NamedTuple):
    """A file in its place, and the name of the former one; empty if there was none."""

    path: str
    kept: str
    lock: int


class _Refusal(Exception):  # noqa: N818 - of ours, not of the system
    """What is there cannot be replaced: `args` are reason and remedy."""


def stage(rendered: Sequence[Rendered]) -> tuple[list[Staged], list[Problem]]:
    """Write every file that differs, beside its place; if there are problems, nothing is left of any."""
    sweep({os.path.dirname(item.path) for item in rendered})
    staged: list[Staged] = []
    problems: list[Problem] = []
    try:
        for item in rendered:
            try:
                staged.append(_stage(item))
            except (OSError, _Refusal) as error:
                problems.append(_problem(item.path, error))
    except BaseException:
        discard(staged)
        raise
    if problems:
        discard(staged)
        return [], problems
    return staged, []


def move(staged: Sequence[Staged]) -> tuple[list[Placed], list[Problem]]:
    """Put every file into its place; if one cannot be, all are as they were."""
    placed: list[Placed] = []
    changed = [item for item in staged if item.temporary]
    path = ""
    try:
        for path, temporary, _ in changed:
            placed.append(_keep(path))
            os.rename(temporary, path)
        _sync(placed)
    except BaseException as error:
        problems = [_problem(path, error)] if isinstance(error, (OSError, _Refusal)) else []
        for former, (_, temporary, _) in zip(placed, changed, strict=False):
            # rename(2) did its work or it did not; a signal may have come after it.
            if os.path.lexists(temporary):
                settle([former])
            else:
                problems += put_back([former])
        discard(staged)
        if isinstance(error, (OSError, _Refusal)):
            return [], problems
        raise
    for item in changed:
        os.close(item.lock)
    return placed, []


def put_back(placed: Sequence[Placed]) -> list[Problem]:
    """Make everything as it was before `move`: bytes, owner and mode, or no file at all."""
    problems = []
    for item in reversed(placed):
        try:
            if item.kept:
                os.rename(item.kept, item.path)
            elif os.path.lexists(item.path):
                os.unlink(item.path)
        except OSError as error:
            _close(item.lock)
            reason, _ = _words(error)
            remedy = f"Its former content is in {item.kept}" if item.kept else "Remove it"
            problems.append(Problem(item.path, f"is not put back: it {reason}", remedy))
        else:
            settle([item])  # rename(2) of two names of one file leaves both
    try:
        _sync(placed)
    except OSError as error:
        problems.append(Problem(placed[-1].path, f"is put back, but not surely on the disk: {error.strerror}"))
    return problems


def settle(placed: Iterable[Placed]) -> None:
    """Drop the former files: there is no way back any more."""
    for item in placed:
        _remove(item.kept)
        _close(item.lock)


def discard(staged: Iterable[Staged]) -> None:
    """Drop what was staged and is not to be moved."""
    for item in staged:
        _remove(item.temporary)
        _close(item.lock)


def sweep(directories: Iterable[str]) -> None:
    """Remove the temporary files of processes that were killed; those in use are locked."""
    for directory in directories:
        try:
            names = os.listdir(directory)
        except OSError:
            continue  # `stage` will say so
        for name in filter(_TEMPORARY.fullmatch, names):
            _remove_if_left(os.path.join(directory, name))


def drop_abandoned(paths: Iterable[str]) -> None:
    """Remove the former files of these paths that a killed process kept: what is in place now is confirmed."""
    for path in paths:
        directory, beginning = os.path.split(_name(path, _KEPT))
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        for name in names:
            random = name.removeprefix(beginning)
            if random != name and _RANDOM.fullmatch(random):
                _remove_if_left(os.path.join(directory, name))


# ── one file ──


def _stage(item: Rendered) -> Staged:
    there = _status(item.path)
    mode = item.mode
    if mode is None:
        mode = _MODE_OF_NEW if there is None else stat.S_IMODE(there.st_mode) & 0o777
    if there and stat.S_IMODE(there.st_mode) == mode and _has(item.path, item.content):
        return Staged(item.path, "", _NOTHING)
    temporary, lock = _write(item.path, item.content, mode, there)
    return Staged(item.path, temporary, lock)


def _write(path: str, content: bytes, mode: int, owner: os.stat_result | None, kind: str = "") -> tuple[str, int]:
    """Write a temporary file that is complete in everything but its name; the descriptor holds its lock."""
    temporary, fd = _create(path, kind)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(fd, rest) :]
        if owner:
            _own(fd, owner)
        os.fchmod(fd, mode)  # after the owner: chown(2) may clear bits
        os.fsync(fd)
    except BaseException:
        _remove(temporary)
        os.close(fd)
        raise
    return temporary, fd


def _create(path: str, kind: str) -> tuple[str, int]:
    while True:
        temporary = _temporary(path, kind)
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
        except OSError:
            return temporary, fd  # a file system without locks: nobody can sweep it either
        if os.fstat(fd).st_nlink:
            return temporary, fd
        os.close(fd)  # swept between its creation and its lock


def _own(fd: int, owner: os.stat_result) -> None:
    mine = os.fstat(fd)
    if (mine.st_uid, mine.st_gid) == (owner.st_uid, owner.st_gid):
        return
    try:
        os.fchown(fd, owner.st_uid, owner.st_gid)
    except PermissionError as error:
        reason = f"belongs to user {owner.st_uid} and group {owner.st_gid}, to whom this user cannot give a file"
        raise _Refusal(reason, "Change its owner, remove it, or name another DEST") from error


def _keep(path: str) -> Placed:
    """Give the former file a second name, or make a copy where that cannot be."""
    there = _status(path)
    if there is None:
        return Placed(path, "", _NOTHING)
    kept, lock = _temporary(path, _KEPT), _NOTHING
    try:
        lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        # The lock is the file's, not its name's: the second name is locked from its first moment.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.link(path, kept)
    except OSError:
        # link(2): another mount (EXDEV), no hard links (EPERM), another's file (fs.protected_hardlinks, proc(5)).
        _close(lock)
    except BaseException:
        settle([Placed(path, kept, lock)])
        raise
    else:
        return Placed(path, kept, lock)
    with open(path, "rb", opener=_open_plain) as file:
        return Placed(path, *_write(path, file.read(), stat.S_IMODE(there.st_mode), there, _KEPT))


def _status(path: str) -> os.stat_result | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        raise _Refusal(*_LINK)
    if not stat.S_ISREG(status.st_mode):
        raise _Refusal(*_NO_FILE)
    return status


def _has(path: str, content: bytes) -> bool:
    try:
        with open(path, "rb", opener=_open_plain) as file:
            return file.read(len(content) + 1) == content
    except OSError:
        return False


def _open_plain(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _temporary(path: str, kind: str) -> str:
    return _name(path, kind) + os.urandom(4).hex()


def _name(path: str, kind: str) -> str:
    directory, name = os.path.split(path)
    beginning = os.fsdecode(os.fsencode(name)[:_LONGEST_NAME])
    return os.path.join(directory, f".{beginning}.prod-run-{kind}")


def _remove_if_left(path: str) -> None:
    try:
        fd = _open_plain(path, os.O_RDONLY)
    except OSError:
        return  # gone, or not ours to look at
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except OSError:
        pass  # in use
    finally:
        os.close(fd)


def _sync(placed: Iterable[Placed]) -> None:
    for directory in {os.path.dirname(item.path) for item in placed}:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # fsync(2): a file system that cannot
                raise
        finally:
            os.close(fd)


def _remove(path: str) -> None:
    try:
        if path:
            os.unlink(path)
    except OSError:
        pass  # gone already; if not, the next start sweeps it


def _close(fd: int) -> None:
    if fd != _NOTHING:
        os.close(fd)


# ── sentences ──


def _problem(path: str, error: OSError | _Refusal) -> Problem:
    reason, remedy = _words(error) if isinstance(error, OSError) else error.args
    return Problem(path, reason, remedy)


def _words(error: OSError) -> tuple[str, str]:
    unknown = (f"cannot be written: {error.strerror}", "")
    return _REASONS.get(error.errno or 0, unknown)
