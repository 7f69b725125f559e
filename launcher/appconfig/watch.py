"""
Noticing that the content of files has changed.

Owns fingerprints, the choice of directories to listen at, and the debounce.  Runs in a process of its own,
without threads.  Must never read meaning into an event: events say when to look, content says what changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from launcher.appconfig.secret_files import FileError, open_regular, trail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Fingerprint = Mapping[str, bytes]

SETTLE = 2.0  # seconds of quiet before a look; a deployment writes its files one after the other
LONGEST = 10.0  # seconds after which constant change does not postpone a look any more
LOOK_AGAIN = 5.0  # seconds; network and FUSE file systems, and some kernels, tell nothing

# So that a fingerprint that gets out is no help to guess a secret.
_KEY = os.urandom(32)
_MISSING = b"missing"

# fcntl(2): dnotify tells of directories what inotify does, without ctypes and without the limit on inotify
# instances that all containers of a user share; kernels without it answer EINVAL.
_EVENTS = fcntl.DN_MODIFY | fcntl.DN_CREATE | fcntl.DN_DELETE | fcntl.DN_RENAME | fcntl.DN_ATTRIB | fcntl.DN_MULTISHOT


class Pending(NamedTuple):
    """Something stirred: when it began, and when it was heard last."""

    since: float
    last: float


class Step(NamedTuple):
    """What to do next: look at the files or not, and how long to listen, in seconds."""

    pending: Pending | None
    look: bool
    wait: float


def fingerprint(paths: tuple[str, ...]) -> Fingerprint:
    """Return for each file a keyed hash of its content; that it is missing, or unusable and why, is a value too."""
    return {path: _hash(path) for path in paths}


def changed(before: Fingerprint, after: Fingerprint) -> tuple[str, ...]:
    """Name the files whose content differs, sorted."""
    return tuple(sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path)))


def directories(paths: tuple[str, ...]) -> tuple[str, ...]:
    """
    Name the directories in which a change can change one of the files, sorted.

    These are the file's own, and that of every symbolic link on the way to it (Kubernetes replaces the link
    `..data`); for one that does not exist the nearest that does.
    """
    return tuple(sorted({_existing(os.path.dirname(step.path)) for path in paths for step in trail(path)}))


def next_step(pending: Pending | None, now: float, *, stirred: bool, settle: float, longest: float) -> Step:
    """
    Decide whether it is time to look.

    Args:
        pending: of the step before.
        now: monotonic seconds.
        stirred: something was heard since then.
        settle: how long it must be quiet.
        longest: after how long it need not be quiet any more.
    """
    if stirred:
        pending = Pending(pending.since if pending else now, now)
    if pending is None:
        return Step(None, look=False, wait=LOOK_AGAIN)
    due = min(pending.last + settle, pending.since + longest)
    return Step(None, look=True, wait=LOOK_AGAIN) if now >= due else Step(pending, look=False, wait=due - now)


class Listening:
    """
    Hears of changes in directories: the kernel sends SIGIO.

    The signal must be blocked in every thread, since its default is to end the process.
    """

    def __init__(self) -> None:
        self._descriptors: tuple[int, ...] = ()

    def listen(self, folders: tuple[str, ...]) -> None:
        """Listen at these directories instead of those before; one that tells nothing is passed over."""
        before = self._descriptors
        self._descriptors = tuple(fd for fd in map(_listen, folders) if fd is not None)
        # Closed last: in between nothing is missed.
        for descriptor in before:
            os.close(descriptor)

    @staticmethod
    def wait(seconds: float) -> bool:
        """Wait until something was heard, or time is up."""
        return signal.sigtimedwait({signal.SIGIO}, seconds) is not None


class Watch:
    """Compares the files when it is time to; `clock` gives monotonic seconds, as are `settle` and `longest`."""

    def __init__(
        self,
        paths: tuple[str, ...],
        listening: Listening,
        clock: Callable[[], float],
        settle: float = SETTLE,
        longest: float = LONGEST,
    ) -> None:
        self._paths = paths
        self._listening = listening
        self._clock = clock
        self._settle = settle
        self._longest = longest
        self._pending: Pending | None = None
        self._known = self._look()

    def step(self, *, stirred: bool) -> tuple[tuple[str, ...], float]:
        """
        Go on after something was heard, or time was up.

        Returns:
            The files that changed, and how long to listen now, in seconds.
        """
        is_idle = self._pending is None and not stirred  # nothing was told for LOOK_AGAIN
        now = self._clock()
        step = next_step(self._pending, now, stirred=stirred, settle=self._settle, longest=self._longest)
        self._pending = step.pending
        if not (step.look or is_idle):
            return (), step.wait
        before, self._known = self._known, self._look()
        return changed(before, self._known), step.wait

    def _look(self) -> Fingerprint:
        # First listen, then look: what happens in between is heard.  Directories come and go, so each time anew.
        self._listening.listen(directories(self._paths))
        return fingerprint(self._paths)


def run(paths: tuple[str, ...], channel: socket.socket, *, settle: float = SETTLE, longest: float = LONGEST) -> None:
    r"""
    Watch files until the other end of the channel is closed.

    One datagram says `watching`, once it has been quiet: no change after it is missed.  For each change one says
    `changed`, and each path behind a NUL.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
    _tell_when_closed(channel)
    listening = Listening()
    listening.listen(directories(paths))
    try:
        _await_quiet(channel, settle, longest)
        watch = Watch(paths, listening, time.monotonic, settle, longest)
        wait = LOOK_AGAIN
        channel.send(b"watching")
        while not _is_closed(channel):
            found, wait = watch.step(stirred=Listening.wait(wait))
            if found:
                channel.send(b"\0".join((b"changed", *map(os.fsencode, found))))
    except (BrokenPipeError, ConnectionResetError):
        return


def _await_quiet(channel: socket.socket, settle: float, longest: float) -> None:
    # What was loaded may be of the middle of a deployment: looked at now, each reload would be followed by another.
    pending: Pending | None = Pending(*[time.monotonic()] * 2)
    wait = settle
    while pending and not _is_closed(channel):
        stirred = Listening.wait(wait)
        pending, _, wait = next_step(pending, time.monotonic(), stirred=stirred, settle=settle, longest=longest)


def _hash(path: str) -> bytes:
    try:
        descriptor = open_regular(path)
        if descriptor is None:
            return _MISSING
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(key=_KEY)).digest()
    except FileError as error:
        return error.reason.encode(errors="surrogateescape")
    except OSError as error:
        return os.strerror(error.errno or 0).encode()


def _existing(folder: str) -> str:
    while not os.path.isdir(folder) and folder != "/":
        folder = os.path.dirname(folder)
    return folder


def _listen(folder: str) -> int | None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.fcntl(descriptor, fcntl.F_NOTIFY, _EVENTS)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _tell_when_closed(channel: socket.socket) -> None:
    # fcntl(2), O_ASYNC: the end of the channel is then heard like a change.
    fcntl.fcntl(channel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(channel, fcntl.F_SETFL, fcntl.fcntl(channel, fcntl.F_GETFL) | os.O_ASYNC)


def _is_closed(channel: socket.socket) -> bool:
    try:
        return channel.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
