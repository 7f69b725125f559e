"""
Which process holds an address that is in use.

Owns the reading of /proc for one error message, and is imported only when that is due.
Must never fail: what /proc does not tell is the empty text.
"""

from __future__ import annotations

import os
import sys

from launcher.lean_posix import socket

_LISTENING = "0A"  # TCP_LISTEN, include/net/tcp_states.h


def of_port(host: str, port: int) -> str:
    """Name the process that listens where `host` (a numeric address) and `port` would."""
    inodes = _inodes_listening(host, port)
    pids = sorted(pid for pid in _all_pids() if inodes and _holds(pid, inodes))
    # Workers share their master's socket: it is the eldest, and the one to stop.
    return describe(pids[0]) if pids else ""


def describe(pid: int) -> str:
    """Write a process as `nginx (PID 12)`."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            # Cut after 15 bytes (prctl(2)): of our own title the beginning of a role may be left, `prod-run: c [su`.
            return f"{file.read().strip().partition(' [')[0]} (PID {pid})"
    except OSError:
        return f"PID {pid}"


def _inodes_listening(host: str, port: int) -> frozenset[str]:
    ours = _packed(host)
    found = set()
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file][1:]
        except OSError:
            continue
        for row in rows:
            # proc(5): sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
            address, _, number = row[1].partition(":")
            if row[3] == _LISTENING and int(number, 16) == port and _overlap(ours, _bytes_of(address)):
                found.add(f"socket:[{row[9]}]")
    return frozenset(found)


def _overlap(one: bytes, other: bytes) -> bool:
    return not any(one) or not any(other) or one == other


def _packed(host: str) -> bytes:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
    return b""


def _bytes_of(hexadecimal: str) -> bytes:
    raw = bytes.fromhex(hexadecimal)
    if sys.byteorder == "little":
        # The kernel prints each 32-bit word as a number of its own byte order.
        raw = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    return raw.removeprefix(bytes(10) + b"\xff\xff")


def _all_pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return []


def _holds(pid: int, inodes: frozenset[str]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        return any(_link(f"{folder}/{fd}") in inodes for fd in os.listdir(folder))
    except OSError:
        return False  # gone, or another user's


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
