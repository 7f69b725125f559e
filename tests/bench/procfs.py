"""
What the kernel says about processes: trees, memory, processor time.

Owns the reading of /proc.  Must never signal a process; one that has just ended counts as nothing.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from tests.processes.running import processes


class Memory(NamedTuple):
    """Bytes of one process or of several."""

    pss: int = 0
    private_dirty: int = 0


def tree(root: int) -> list[int]:
    """Return a process and all its descendants that still live."""
    found = [(pid, parent) for pid, parent, state in processes() if state != "Z"]
    members = {root}
    while grown := {pid for pid, parent in found if parent in members} - members:
        members |= grown
    alive = {pid for pid, _ in found}
    return sorted(members & alive)


def memory(pids: list[int]) -> Memory:
    """Return what these processes use together."""
    sums = {"Pss": 0, "Private_Dirty": 0}
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
                name, _, rest = line.partition(":")
                if name in sums:
                    sums[name] += int(rest.split()[0]) * 1024
    return Memory(sums["Pss"], sums["Private_Dirty"])


def cpu_seconds(pids: list[int]) -> float:
    """Return the processor time of all threads of these processes, to the nanosecond where the kernel tells it."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += sum(
                int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0]) / 1e9
                for thread in threads(pid)
            )
    return total


def threads(pid: int) -> list[int]:
    """Return the threads of a process."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []
