"""
Reading one file that may hold a secret.

Owns the safe open (no kind of file makes it hang), the sentence for everything that can be wrong with a
file, the warnings about permissions, and `Files`, which reads a directory that Kubernetes swaps as one.
Must never put contents, or anything that tells their length, into a sentence.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_BYTES = 1024 * 1024  # of one secret; Kubernetes takes no more for all secrets of a volume's object
SWAPPED = "..data"  # Kubernetes replaces this symbolic link, and with it all files of a volume at once
_TRIES = 5  # a swap needs a second or more; five in one reading are a fault
_MOST_LINKS = 40  # path_resolution(7)

# Where the platform puts secrets, readable as it sees fit.
PLATFORM_DIRECTORIES = ("/run/secrets/", "/var/run/secrets/")

_NO_FILES = {
    stat.S_IFDIR: ("is a directory", "Name a file in it"),
    stat.S_IFIFO: ("is a named pipe", "Name a regular file"),
    stat.S_IFSOCK: ("is a socket", "Name a regular file"),
    stat.S_IFCHR: ("is a device", "Name a regular file"),
    stat.S_IFBLK: ("is a device", "Name a regular file"),
}
_STRICTER = "Make it 0400: `chmod 0400`, `defaultMode: 0400` in Kubernetes, or `LoadCredential=` in systemd"


class Contents(NamedTuple):
    """The bytes of a file, and what is to be said about its permissions."""

    data: bytes
    warning: str = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.warning!r})"


class FileError(Exception):
    """A file is there, but cannot be used; `reason` begins with its path."""

    def __init__(self, path: str, what: str, remedy: str = "") -> None:
        self.reason = f"{path} {what}"
        self.remedy = remedy
        super().__init__(self.reason)


class Step(NamedTuple):
    """A symbolic link on the way to a file, or the way's end; `rest` is what is left to go behind it."""

    path: str
    rest: str


class Files:
    """
    Files read at most once each, and those of one Kubernetes volume from one generation of it.

    One object serves one loading of the configuration: values that belong together stay together.
    """

    def __init__(self) -> None:
        self._read: dict[str, Contents | FileError | None] = {}
        self._snapshots: dict[str, dict[str, Contents | FileError]] = {}

    def read(self, path: str) -> Contents | None:
        """
        Return what is in a file; None if there is none of that name.

        Raises:
            FileError: it cannot be used.
        """
        if path not in self._read:
            self._read[path] = self._once(path)
        found = self._read[path]
        if isinstance(found, FileError):
            raise found
        return found

    def _once(self, path: str) -> Contents | FileError | None:
        try:
            swapped = next((step for step in trail(path) if os.path.basename(step.path) == SWAPPED), None)
            if swapped is None or not swapped.rest:
                return read(path)
            volume = os.path.dirname(swapped.path)
            if volume not in self._snapshots:
                self._snapshots[volume] = snapshot(volume)
            return self._snapshots[volume].get(os.path.normpath(swapped.rest))
        except FileError as error:
            return error


def read(path: str) -> Contents | None:
    """
    Return what is in a file now; None if there is none of that name.

    Raises:
        FileError: it cannot be used.
    """
    descriptor = open_regular(path)
    if descriptor is None:
        return None
    is_platforms = any(name.startswith(PLATFORM_DIRECTORIES) for name in (path, os.path.realpath(path)))
    return _take(descriptor, path, is_platforms=is_platforms, folders=_folders(path))


def open_regular(path: str, *, directory: int | None = None, shown: str = "") -> int | None:
    """
    Open a regular file for reading and return its descriptor; None if there is none of that name.

    Args:
        path: the file.
        directory: a descriptor that a relative path starts from.
        shown: how sentences name the file, if not by its path.

    Raises:
        FileError: it cannot be opened, or is no regular file.
    """
    shown = shown or path
    try:
        # Opening a device can set something in motion, and opening a socket fails with ENXIO: look first.
        _refuse_no_file(shown, os.stat(path, dir_fd=directory))
        # fifo(7): with O_NONBLOCK the open does not wait for a writer, should a pipe have taken the file's place.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        descriptor = os.open(path, flags, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        if directory is None and os.path.islink(path):
            raise FileError(shown, "is a symbolic link to nothing", "Point it to the file, or remove it") from None
        return None
    except ValueError:
        raise FileError(repr(shown), "is not a path", "Name a regular file") from None  # it contains a NUL
    except OSError as error:
        raise _explained(shown, error) from error
    try:
        _refuse_no_file(shown, os.fstat(descriptor))
    except FileError:
        os.close(descriptor)
        raise
    return descriptor


def text(path: str, data: bytes) -> str:
    r"""
    Turn the bytes of a file into a value: UTF-8, without one `\n` or `\r\n` at the end.

    Raises:
        FileError: it is empty, not UTF-8, or contains a NUL.
    """
    value = decoded(data)
    if value is None:
        raise FileError(path, "is not UTF-8 text", "Encode binary values, for example in base64")
    if "\0" in value:
        raise FileError(path, "contains a NUL byte", "Encode binary values, for example in base64")
    value = value.removesuffix("\n").removesuffix("\r") if value.endswith("\n") else value
    if not value:
        raise FileError(path, "is empty", "Write the value into it, or remove it")
    return value


def snapshot(volume: str) -> dict[str, Contents | FileError]:
    """
    Read all files of a directory that Kubernetes swaps, declared or not, from one generation.

    Returns:
        For each path below the volume what came of reading it.

    Raises:
        FileError: the directory cannot be read, or never stands still.
    """
    link = os.path.join(volume, SWAPPED)
    what, remedy = "is swapped faster than it can be read", "Try again"
    for _ in range(_TRIES):
        try:
            generation = os.readlink(link)
            found = _read_all(volume, os.path.join(volume, generation))
            # The old generation is removed file by file after the swap: a listing made then lacks some of them.
            if os.readlink(link) == generation:
                return found
        except FileNotFoundError:
            if os.path.islink(link) and not os.path.isdir(link):
                what, remedy = f"has a {SWAPPED} that leads to nothing", "Mount the volume again"
        except OSError as error:
            raise _explained(volume, error) from error
    raise FileError(volume, what, remedy)


def trail(path: str) -> Iterator[Step]:
    """
    Follow a path as the kernel does: yield every symbolic link that is met, and at last the end.

    The end need not exist. Behind the fortieth link nothing more is yielded.
    """
    at = "/"
    left = os.path.join(os.getcwd(), path).split("/")[::-1]
    links = 0
    while left and links <= _MOST_LINKS:
        part = left.pop()
        if part in {"", "."}:
            continue
        at = os.path.dirname(at) if part == ".." else os.path.join(at, part)
        try:
            target = os.readlink(at)
        except OSError:
            continue
        links += 1
        yield Step(at, "/".join(reversed(left)))
        left += target.split("/")[::-1]
        at = "/" if target.startswith("/") else os.path.dirname(at)
    if links <= _MOST_LINKS:
        yield Step(at, "")


def _read_all(volume: str, generation: str) -> dict[str, Contents | FileError]:
    found: dict[str, Contents | FileError] = {}
    top = os.open(generation, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder, _, names, descriptor in os.fwalk(".", dir_fd=top, onerror=_raise):
            for name in names:
                below = os.path.normpath(os.path.join(folder, name))
                contents = _attempt(name, descriptor, os.path.join(volume, below))
                if contents is not None:
                    found[below] = contents
    finally:
        os.close(top)
    return found


def _attempt(name: str, directory: int, shown: str) -> Contents | FileError | None:
    try:
        descriptor = open_regular(name, directory=directory, shown=shown)
        return None if descriptor is None else _take(descriptor, shown, is_platforms=True, folders=())
    except FileError as error:
        return error  # of a file that perhaps nobody asks for


def _take(descriptor: int, shown: str, *, is_platforms: bool, folders: tuple[str, ...]) -> Contents:
    try:
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(MOST_BYTES + 1)
            status = os.fstat(descriptor)
    except OSError as error:
        raise _explained(shown, error) from error
    if len(data) > MOST_BYTES:
        raise FileError(shown, "is larger than 1 MiB", "Name a file that holds one value")
    warnings = (_about_file(shown, status, is_platforms=is_platforms), *map(_about_folder, folders))
    return Contents(data, "; ".join(filter(None, warnings)))


def _about_file(shown: str, status: os.stat_result, *, is_platforms: bool) -> str:
    if status.st_mode & stat.S_IWOTH:
        return f"{shown} can be written by every user. {_STRICTER}"
    if not status.st_mode & (stat.S_IROTH | stat.S_IWGRP) or is_platforms or _is_in_memory(status.st_dev):
        return ""
    deed = "read by every user" if status.st_mode & stat.S_IROTH else "written by its group"
    return f"{shown} can be {deed}. {_STRICTER}"


def _about_folder(folder: str) -> str:
    try:
        mode = os.stat(folder).st_mode
    except OSError:
        return ""
    # inode(7): with the sticky bit only an owner can replace a file; Kubernetes' volumes are 1777.
    if not mode & stat.S_IWOTH or mode & stat.S_ISVTX:
        return ""
    return f"every user can replace files in {folder}. Make it 0755: `chmod o-w`"


def _folders(path: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(os.path.dirname(step.path) for step in trail(path)))


def _is_in_memory(device: int) -> bool:
    """Ask whether a device is a tmpfs or ramfs; without /proc nothing is known, and the answer is no."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            lines = mounts.readlines()
    except OSError:
        return False
    # proc_pid_mountinfo(5): the third word is the device, the first behind " - " the type.
    return any(
        line.split(" ", 3)[2] == wanted and line.partition(" - ")[2].startswith(("tmpfs ", "ramfs ")) for line in lines
    )


def _refuse_no_file(shown: str, status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise FileError(shown, *_NO_FILES.get(kind, ("is not a file", "Name a regular file")))


def _explained(shown: str, error: OSError) -> FileError:
    if error.errno in {errno.EACCES, errno.EPERM}:
        remedy = f"Let user {os.geteuid()} read it and enter its directories"
        return FileError(shown, "cannot be read: permission denied", remedy)
    if error.errno == errno.ELOOP:
        return FileError(shown, "is a symbolic link that leads back to itself", "Point it to the file")
    return FileError(shown, f"cannot be read: {os.strerror(error.errno or 0)}")


def decoded(data: bytes) -> str | None:
    """Decode UTF-8; None if it is something else."""
    # The exception holds the bytes: it must be gone before an error is made that somebody prints.
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _raise(error: OSError) -> None:
    raise error
