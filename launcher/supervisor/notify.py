"""
sd_notify downwards: the address at which one worker may speak.

Owns a datagram socket for each worker, whose address alone tells the worker: a `systemd-notify` in a shell
is gone when its datagram is read.  Must never trust more than the uid of the sender.
"""

from __future__ import annotations

import os

from launcher.lean_posix import socket
from launcher.supervisor import events as on

_AT_ONCE = 64  # datagrams of one worker: the others must not wait for one that never stops talking
_LARGEST = 4096
_MOST_DIGITS = 15  # of microseconds: 31 years
_CREDENTIALS = 12  # struct ucred: pid, uid, gid (unix(7))


def open_address() -> tuple[socket.socket, str]:
    """Return a socket to listen on and the value for NOTIFY_SOCKET, an abstract address of the kernel's choice."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    sock.bind("")  # unix(7): autobind
    return sock, "@" + sock.getsockname()[1:].decode("ascii")


def read(sock: socket.socket, ticket: int) -> list[on.Event]:
    """Return what was said since the last time, so much for one turn, as events of this worker."""
    events: list[on.Event] = []
    for _ in range(_AT_ONCE):
        try:
            data, ancillary, _, _ = sock.recvmsg(
                _LARGEST, socket.CMSG_SPACE(_CREDENTIALS) + socket.CMSG_SPACE(64), socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            break
        if _is_from_our_uid(ancillary):
            events += _translate(data, ticket)
    return events


def _is_from_our_uid(ancillary: list[tuple[int, int, bytes]]) -> bool:
    uid = -1
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            # BARRIER=1 and FDSTORE=1 bring descriptors: closing them is the answer to the first (sd_notify(3)).
            for start in range(0, len(payload) - 3, 4):
                os.close(int.from_bytes(payload[start : start + 4], "little"))
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            uid = int.from_bytes(payload[4:8], "little")
    return uid in (os.geteuid(), 0)


def _translate(data: bytes, ticket: int) -> list[on.Event]:
    events: list[on.Event] = []
    for line in data.decode("utf-8", "replace").split("\n"):
        key, _, value = line.partition("=")
        match key, value:
            case "READY", "1":
                events.append(on.BecameReady(ticket))
            case "STOPPING", "1":
                events.append(on.StoppedAccepting(ticket))
            case "WATCHDOG", "1":
                events.append(on.Lived(ticket))
            case "EXTEND_TIMEOUT_USEC", number if number.isdecimal() and len(number) <= _MOST_DIGITS:
                events.append(on.Extended(ticket, int(number) / 1e6))
            case "STATUS", text:
                events.append(on.StatusGiven(ticket, text[:200]))
    return events
