"""
What a process uses, as the kernel counts it.

Owns the reading of `/proc/PID`; it is read when somebody asks, and never otherwise.
"""

from __future__ import annotations

import os

from launcher.lean import NamedTuple


class Usage(NamedTuple):
    """Memory and time of one process."""

    rss: int  # bytes resident
    cpu: float  # seconds, user and system
    children: float = 0.0  # seconds of those that it has reaped


def of(pid: int) -> Usage | None:
    """Look at a process; None if it is gone, or where /proc cannot tell (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        own, children = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
        second = os.sysconf("SC_CLK_TCK")
        return Usage(int(fields[21]) * os.sysconf("SC_PAGESIZE"), own / second, children / second)
    except (OSError, ValueError, IndexError):
        return None
