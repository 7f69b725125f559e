"""
The reload that comes by itself (`--watch`).

Owns the process beside a zygote that looks at the files which its generation was loaded from.
Must never reload: it names what changed, and the supervisor does what it does on SIGHUP.
"""

from __future__ import annotations

import os

from launcher import libc
from launcher.appconfig import watch
from launcher.appconfig.secret_files import FileError, Files
from launcher.lean_posix import socket
from launcher.runtime import titles
from launcher.runtime.start import FIRST_LISTENER, Order, Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST = 64 * 1024


class Watched:
    """The zygote's end: what changed since the generation was loaded."""

    def __init__(self, channel: socket.socket, known: Mapping[str, bytes | None]) -> None:
        self._channel = channel
        self._known = known

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._channel.fileno()

    def read(self) -> tuple[str, ...] | None:
        """Return the files that changed; None if nobody looks any more."""
        try:
            word, *paths = self._channel.recv(LARGEST).split(b"\0")
        except ConnectionError:
            return None
        if word == b"watching":  # what happened between the load and now, nobody has seen
            return tuple(path for path, data in self._known.items() if _content(path) != data)
        return tuple(map(os.fsdecode, paths)) if word == b"changed" else None

    def close(self) -> None:
        """Let go of it; the process that looks ends by that."""
        self._channel.close()


def start(order: Order, paths: tuple[str, ...], known: Mapping[str, bytes | None]) -> Watched:
    """
    Start to look at files; `known` is the content that was loaded.

    Raises:
        OSError: no process or channel can be had.
    """
    zygote = os.getpid()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    Signals.is_our_fork = True
    try:
        pid = os.fork()
    finally:
        Signals.is_our_fork = False
    if pid == 0:
        try:
            titles.show(order.name, f"watch] generation {order.generation}")
            libc.kill_with_parent()
            # It must not keep the service's sockets open, nor its channel, by whose end the supervisor knows the end.
            for fd in range(FIRST_LISTENER, FIRST_LISTENER + len(order.listener_names)):
                os.close(fd)
            order.channel.close()
            ours.close()
            if os.getppid() == zygote:
                watch.run(paths, theirs)
        finally:
            os._exit(0)  # whatever happens, there must not be two zygotes
    theirs.close()
    return Watched(ours, known)


def _content(path: str) -> bytes | None:
    try:
        contents = Files().read(path)
    except FileError:
        return b""  # it was good when it was loaded
    return contents.data if contents else None
