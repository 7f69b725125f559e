"""
May this process be forked?

Owns the look at threads and connected sockets after the import, the list of loaded module files, and the
freeze.  Must never change anything but the garbage collector's generations.
"""

from __future__ import annotations

import binascii
import errno
import gc
import os
import stat
import sys

from launcher.lean_posix import socket

STDERR = 2


def obstacles() -> list[str]:
    """
    Name what would not survive a fork, or be shared by all workers: threads and connected stream sockets.

    Threads are looked for in /proc too: native ones (OpenBLAS, grpc) are unknown to Python.
    """
    return [*_threads(), *_connections(socket.SOCK_STREAM)]


def shared() -> list[str]:
    """Name what all workers will share, and may: connected datagram sockets, whose messages stay whole."""
    return _connections(socket.SOCK_DGRAM)


def freeze() -> None:
    """Collect, then move everything to the permanent generation: workers' collections touch no shared page."""
    gc.collect()
    gc.freeze()


def module_files() -> str:
    """Return a digest of all loaded module files: path, size and time of change."""
    lines = []
    for path in sorted(_paths()):
        try:
            facts = os.stat(path)
        except OSError:
            continue
        lines.append(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}")
    text = "\n".join(lines).encode("utf-8", "surrogateescape")
    # This guards against deploys, not against forgers; hashlib would load OpenSSL, 3 ms of every start.
    return f"{len(lines)}-{len(text)}-{binascii.crc32(text):08x}-{binascii.crc32(text[::-1]):08x}"


def _paths() -> set[str]:
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return {file for file in files if isinstance(file, str)}


def _threads() -> list[str]:
    threading = sys.modules.get("threading")  # not loaded: Python knows of none
    python = {thread.native_id: thread.name for thread in threading.enumerate()} if threading else {}
    try:
        tasks = [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:  # no /proc: at least those that Python knows
        tasks = [identity for identity in python if identity is not None]
    if len(tasks) == 1:
        return []  # whatever its number: /proc may be that of another PID namespace
    return [f"thread {python.get(task) or _native_name(task)!r}" for task in tasks if task != os.getpid()]


def _native_name(task: int) -> str:
    try:
        with open(f"/proc/self/task/{task}/comm") as file:
            return f"{file.read().strip()} (native)"
    except OSError:
        return "unknown (native)"


def _connections(kind: int) -> list[str]:
    try:
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return []
    # Without capture the outputs are prod-run's own: under systemd, connections to the journal.
    return [found for fd in descriptors if fd > STDERR and (found := _connection(fd, kind))]


def _connection(fd: int, kind: int) -> str:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return ""
        # dup, since a socket object closes its descriptor; it does not touch the blocking mode (socketmodule.c).
        sock = socket.socket(fileno=os.dup(fd))
        try:
            if sock.type != kind:
                return ""
            peer = sock.getpeername()
        finally:
            sock.close()
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.EBADF, errno.EINVAL) and kind == socket.SOCK_STREAM:
            return f"descriptor {fd}, a socket in an unknown state"
        return ""
    return f"connection to {_written(peer)}"


def _written(peer: object) -> str:
    if isinstance(peer, tuple):
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    name = peer.decode("utf-8", "backslashreplace").replace("\0", "@") if isinstance(peer, bytes) else str(peer)
    return f"unix:{name}" if name else "a unix socket pair"
