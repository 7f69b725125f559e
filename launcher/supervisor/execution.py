"""
From the supervisor to a plain command: the fork, and all that stands between it and the exec.

Owns what a command begins with: its process group, the foreground, directory, descriptors, signals and environment
(DESIGN §2.1), the search of PATH, and the sentence with exit code 126 or 127 when it cannot be run.
Must never wait, and never run anything of Python's after the exec has failed.
"""

from __future__ import annotations

import errno
import os

from launcher.lean import NamedTuple
from launcher.lean_posix import signal
from launcher.prctl import SET_PDEATHSIG, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

CANNOT_RUN = 126
NOT_FOUND = 127
_SHELL = b"/bin/sh"  # of a script without #!, as execvp(3) does it
_DEFAULT_PATH = b"/bin:/usr/bin"  # confstr(3): _CS_PATH, which execvp(3) takes where there is no PATH
# execvp(3): the search goes on after these.
_ELSEWHERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ESTALE, errno.ENODEV, errno.ETIMEDOUT)


class Caller(NamedTuple):
    """How our caller had its signals, and which of 0 to 2 it had closed; the command is to find the same."""

    mask: tuple[int, ...]
    ignored: tuple[int, ...]
    closed: tuple[int, ...] = ()


class Environment:
    """Pairs for execve(2), in their order; a name that stands there twice stays there twice, unlike in a dict."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs

    def keys(self) -> list[bytes]:
        """Return the names."""
        return [name for name, _ in self._pairs]

    def values(self) -> list[bytes]:
        """Return the values, in the same order."""
        return [value for _, value in self._pairs]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, name: bytes) -> bytes:
        return self.get(name, b"")

    def get(self, name: bytes, default: bytes) -> bytes:
        """Return the first, as getenv(3) does."""
        return next((value for key, value in self._pairs if key == name), default)


def read_environment(data: bytes) -> list[tuple[bytes, bytes]]:
    """Take NUL-separated NAME=value apart; what is no pair cannot be handed on."""
    pairs = (item.partition(b"=") for item in data.split(b"\0"))
    return [(name, value) for name, equals, value in pairs if name and equals]


def fork(become: Callable[[], NoReturn]) -> int:
    """
    Start a process in a group of its own, which calls `become` with all signals blocked; return its PID.

    Raises:
        OSError: it cannot be had.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            try:
                os.setpgid(0, 0)
                become()
            except BaseException as error:  # noqa: BLE001  there must not be two of us, whatever happened
                os.write(2, os.fsencode(f"prod-run: cannot start the command: {error!r}\n"))
            finally:
                os._exit(CANNOT_RUN)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        os.setpgid(pid, pid)  # both sides do it: a signal may come before either
    except OSError:
        pass  # it has called exec by then, or is over
    return pid


def die_with(supervisor: int) -> None:
    """Have the kernel kill this process when the supervisor dies; a setuid command clears it (prctl(2))."""
    if not prctl(SET_PDEATHSIG, signal.SIGKILL):
        text = b"the system refused prctl(PR_SET_PDEATHSIG): the command goes on if prod-run is killed with SIGKILL"
        os.write(2, b"prod-run: " + text + b"\n")
    if os.getppid() != supervisor:
        os._exit(CANNOT_RUN)  # it died before that line


def restore_signals(caller: Caller) -> None:
    """Give back the dispositions and the mask; Python ignores SIGPIPE and SIGXFSZ, so these are the default's."""
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_IGN if number in caller.ignored else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, caller.mask)


def run(argv: tuple[bytes, ...], environ: Environment, say: Callable[[str], None]) -> NoReturn:
    """Become the command, or say why not and end with 126 or 127."""
    try:
        _search(argv, environ)
    except OSError as error:
        is_missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        say(f"cannot run {os.fsdecode(argv[0])}: {_reason(argv[0], error)}")
        os._exit(NOT_FOUND if is_missing else CANNOT_RUN)


def _search(argv: tuple[bytes, ...], environ: Environment) -> NoReturn:
    """Do as execvp(3) does; raises the OSError that is worth telling."""
    command = argv[0]
    if not command:
        raise FileNotFoundError(errno.ENOENT, "it has no name")
    if b"/" in command:
        _execute(command, argv, environ)
    denied: OSError | None = None
    for folder in environ.get(b"PATH", _DEFAULT_PATH).split(b":"):
        try:
            _execute(folder + b"/" + command if folder else command, argv, environ)
        except OSError as error:
            if error.errno not in _ELSEWHERE:
                raise
            denied = denied or (error if error.errno == errno.EACCES else None)
    raise denied or FileNotFoundError(errno.ENOENT, "not found in PATH")


def _execute(path: bytes, argv: tuple[bytes, ...], environ: Environment) -> NoReturn:
    pairs: Mapping[bytes, bytes] = environ  # type: ignore[assignment]  # of one, it asks for the size and both lists
    try:
        os.execve(path, argv, pairs)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise OSError(error.errno, error.strerror, path) from None
        os.execve(_SHELL, (_SHELL, path, *argv[1:]), pairs)


def _reason(command: bytes, error: OSError) -> str:
    text = error.strerror or str(error)
    if error.errno == errno.ENOENT and b"/" in command:
        return "the interpreter that it names is missing" if os.path.exists(command) else "there is no such file"
    return f"{os.fsdecode(error.filename)}: {text}" if error.filename and b"/" not in command else text
