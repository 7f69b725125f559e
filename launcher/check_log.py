"""
Whether somebody takes the lines of `--log`.

Owns one look at the receiver, for --check-config.  What is wrong is a note, never a problem: no receiver is waited for
at a start, and lines are kept for one that comes later.
"""

from __future__ import annotations

import socket

from launcher.errors import Problem
from launcher.logs import syslog_address

PATIENCE = 2.0  # seconds for a connection

_LATER = "A start does not wait for it: lines are kept, at most 8 MiB, and sent as soon as it is there"


def doubts(log: str) -> list[Problem]:
    """Say what stands between this machine and the receiver of log lines, if anything does."""
    if log == "stdout":
        return []
    address = syslog_address.parse(log)
    try:
        if address.transport == syslog_address.UNIX:
            _connect(socket.AF_UNIX, socket.SOCK_DGRAM, address.path)
        else:
            kind = socket.SOCK_STREAM if address.transport == syslog_address.TCP else socket.SOCK_DGRAM
            family, _, _, _, place = socket.getaddrinfo(address.host, address.port, type=kind)[0]
            _connect(family, kind, place)
    except OSError as error:
        reason = f"syslog at {address.text} cannot be reached: {error.strerror or error}"
        return [Problem("--log", reason, _LATER)]
    return []


def _connect(family: int, kind: int, place: object) -> None:
    with socket.socket(family, kind) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect(place)  # type: ignore[arg-type]
        except TimeoutError:
            raise OSError(None, f"no answer within {PATIENCE:g} s") from None
