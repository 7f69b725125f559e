"""
The pidfile: a file with the supervisor's PID, locked for as long as it runs.

Owns its opening, its content, the lock that makes it never stale, and its end.
Must never follow a link, write over what is no pidfile, or use a place where somebody else could put another file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from launcher.errors import Problem, UnavailableError

MODE = 0o644
_LONGEST = 64  # bytes of a pidfile
_TRIES = 10
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # O_NONBLOCK: it may be a FIFO
_OTHER = "Choose another path, such as one in /run or in a directory of the service's own"


def take(path: str, called: str, trusted: tuple[int, ...]) -> int:
    """
    Open, lock and write the pidfile; one that nobody holds is stale, whatever stands in it.

    Args:
        path: absolute.
        called: the flag or variable, for errors.
        trusted: the users whose files and directories may be used.

    Returns:
        The descriptor that holds the lock, which lives on over an exec (flock(2)); whoever has it may `let_go`.

    Raises:
        UnavailableError: it is held, or the place is not safe.
    """
    _check_directory(path, called, trusted)
    fd = _locked(path, called, trusted, os.O_CREAT)
    try:
        os.fchmod(fd, MODE)  # whatever the umask: a pidfile is there to be read
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)  # a reader sees all of it or an empty file
    except OSError as error:
        os.close(fd)
        raise _explained(path, called, error) from None
    return fd


def examine(path: str, called: str, trusted: tuple[int, ...]) -> None:
    """
    Look whether `take` would work, and change nothing.

    Raises:
        UnavailableError: it would not.
    """
    _check_directory(path, called, trusted)
    try:
        os.lstat(path)
    except FileNotFoundError:
        if not os.access(os.path.dirname(path), os.W_OK | os.X_OK, effective_ids=True):
            refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            raise _explained(path, called, refused) from None
        return
    os.close(_locked(path, called, trusted, 0))


def let_go(path: str, fd: int) -> None:
    """Remove it if it is still ours; where that is not allowed any more, at least empty it."""
    try:
        if _is_at(fd, path):
            os.unlink(path)
    except OSError:
        try:
            os.ftruncate(fd, 0)  # was allowed when it was opened, and that is what counts
        except OSError:
            pass  # the disk is gone, say; the lock ends with us all the same


def _check_directory(path: str, called: str, trusted: tuple[int, ...]) -> None:
    folder = os.path.dirname(path)
    try:
        found = os.stat(folder)
    except OSError as error:
        raise _explained(path, called, error) from None
    if found.st_uid not in trusted:
        raise _refused(path, called, f"its directory belongs to another user (uid {found.st_uid})")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
        raise _refused(path, called, "others may write to its directory")


def _locked(path: str, called: str, trusted: tuple[int, ...], flags: int) -> int:
    for _ in range(_TRIES):
        try:
            fd = os.open(path, _FLAGS | flags, MODE)
        except OSError as error:
            raise _explained(path, called, error) from None
        try:
            _check_file(fd, path, called, trusted)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):  # or somebody ended between our open and our lock, and took the file along
                _check_content(fd, path, called)
                return fd
        except BlockingIOError:
            pid = os.pread(fd, _LONGEST, 0).decode("ascii", "replace").strip()
            os.close(fd)
            by = f"in use by a running prod-run (PID {pid})" if pid else "in use by a running prod-run"
            raise UnavailableError(Problem(called, f"{by}: {path}", "Stop it, or choose another path")) from None
        except OSError as error:
            os.close(fd)
            raise _explained(path, called, error) from None
        except UnavailableError:
            os.close(fd)
            raise
        os.close(fd)
    raise _refused(path, called, "it is replaced again and again")


def _check_file(fd: int, path: str, called: str, trusted: tuple[int, ...]) -> None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise _refused(path, called, "a file is there that is not a regular one")
    if found.st_uid not in trusted:
        raise _refused(path, called, f"a file is there that belongs to another user (uid {found.st_uid})")
    if found.st_nlink > 1:
        raise _refused(path, called, "the file that is there has a second name (a hard link)")


def _check_content(fd: int, path: str, called: str) -> None:
    content = os.pread(fd, _LONGEST, 0).strip()
    if content and not content.isdigit():
        raise _refused(path, called, "a file is there that holds something else than a PID")


def _is_at(fd: int, path: str) -> bool:
    ours = os.fstat(fd)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (found.st_dev, found.st_ino)


def _explained(path: str, called: str, error: OSError) -> UnavailableError:
    if error.errno == errno.ELOOP:
        return _refused(path, called, "a symbolic link is there")
    if error.errno == errno.ENOENT:
        return _refused(path, called, "there is no such directory")
    return _refused(path, called, error.strerror or str(error))


def _refused(path: str, called: str, reason: str) -> UnavailableError:
    return UnavailableError(Problem(called, f"{path}: {reason}", _OTHER))
