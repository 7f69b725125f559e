"""
The first lines of every fresh interpreter of an app: a zygote, or a worker without preload.

Owns what happens before the first import of the app: the order from the supervisor, the signals, the
environment, the directory, the place of the listening sockets.  Must never import the app itself.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import socket
import sys
from typing import NamedTuple, NoReturn

from launcher import protocol
from launcher.runtime import titles
from launcher.signals import HARMLESS_TO_WORKERS

FIRST_LISTENER = 3  # sd_listen_fds(3)
CHANNEL = 3  # where the supervisor puts it before the exec
MOST_DESCRIPTORS = 253  # unix(7): SCM_MAX_FD
PR_SET_PDEATHSIG = 1  # prctl(2)

_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class Order(NamedTuple):
    """What a fresh interpreter is told first."""

    channel: socket.socket
    supervisor: int
    name: str
    target: str
    generation: int
    is_worker: bool
    listener_names: tuple[str, ...]  # in the order of their descriptors, from FIRST_LISTENER


def main() -> NoReturn:
    """Take the first order and become what it says."""
    for number in (*HARMLESS_TO_WORKERS, signal.SIGTERM):
        signal.signal(number, ignore)
    # Before the environment changes: setproctitle finds the title's place by it.
    titles.show("?", "starting]")
    channel = socket.socket(fileno=CHANNEL)
    message, descriptors = receive(channel)
    if message is None:
        os._exit(0)
    die_with(message.number("supervisor"))
    order = _settle(channel, message, descriptors)
    if order.is_worker:
        from launcher.runtime import worker  # noqa: PLC0415  each role loads its own

        worker.run_anew(order)
    from launcher.runtime import zygote  # noqa: PLC0415

    zygote.run(order)


def ignore(number: int, frame: object) -> None:
    """Do nothing on a signal: unlike SIG_IGN, this is not inherited by the app's own children."""


def receive(channel: socket.socket) -> tuple[protocol.Message | None, list[int]]:
    """Wait for one message with its descriptors; None if the supervisor is gone."""
    try:
        # socket.recv_fds() ignores its flags on 3.11, so the descriptors would be inheritable.
        data, ancillary, _, _ = channel.recvmsg(
            protocol.LARGEST, socket.CMSG_SPACE(4 * MOST_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionError:
        return None, []
    descriptors: list[int] = []
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors += [int.from_bytes(payload[i : i + 4], sys.byteorder) for i in range(0, len(payload) - 3, 4)]
    return (protocol.decode(data) if data else None), descriptors


def die_with(supervisor: int) -> None:
    """Have the kernel kill this process when the supervisor dies."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    # It may have died before that line: prctl(2) says nothing then.
    if os.getppid() != supervisor:
        os._exit(0)


def _settle(channel: socket.socket, message: protocol.Message, descriptors: list[int]) -> Order:
    spoken = message.number("protocol")
    if spoken != protocol.VERSION:
        reason = f"this release of prod-run speaks protocol {protocol.VERSION}, the running one {spoken}: restart it"
        refuse(channel, 70, reason)
    environ_fd, *listeners = descriptors
    channel = _place(channel, listeners)
    _take_environment(environ_fd)
    soft, (_, hard) = message.number("open_files"), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard) if hard >= 0 else soft, hard))
    if message.number("umask") >= 0:
        os.umask(message.number("umask"))
    directory = message.text("directory")
    try:
        os.chdir(directory)
    except OSError as error:
        refuse(channel, 69, f"{directory}: cannot enter the directory: {error.strerror}")
    sys.path.insert(0, directory)
    sys.argv[:] = [message.text("target"), *message.texts("arguments")]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return Order(
        channel,
        message.number("supervisor"),
        message.text("name"),
        message.text("target"),
        message.number("generation"),
        message.flag("is_worker"),
        message.texts("listeners"),
    )


def refuse(channel: socket.socket, code: int, reason: str, detail: str = "") -> NoReturn:
    """Tell the supervisor why this generation cannot be had, and end."""
    sys.stdout.flush()
    sys.stderr.flush()
    channel.send(protocol.encode("refused", code=code, reason=protocol.shorten(reason), detail=protocol.shorten(detail)))
    os._exit(0)


def _place(channel: socket.socket, listeners: list[int]) -> socket.socket:
    """Put the listening sockets where sd_listen_fds(3) says, and the channel behind them."""
    free = FIRST_LISTENER + len(listeners)
    away = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, free) for fd in (channel.fileno(), *listeners)]
    channel.close()
    for fd in listeners:
        os.close(fd)
    for index, fd in enumerate(away[1:]):
        os.dup2(fd, FIRST_LISTENER + index, inheritable=False)
        os.close(fd)
    return socket.socket(fileno=away[0])


def _take_environment(fd: int) -> None:
    """Read the whole environment, less what is prod-run's and systemd's own, into os.environ."""
    # pread: the file offset of a memfd is shared by everybody who has it.
    block = os.pread(fd, os.fstat(fd).st_size, 0)
    os.close(fd)
    os.environ.clear()
    for item in block.split(b"\0"):
        name, separator, value = item.partition(b"=")
        if separator and not _is_ours(name):
            os.environb[name] = value


def _is_ours(name: bytes) -> bool:
    if name.startswith(b"PROD_RUN_"):
        return not name.startswith(b"PROD_RUN_TEMPLATE_")
    return name.decode("ascii", "replace") in _SYSTEMD
