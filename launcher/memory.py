"""
How much memory this service may use, and how much it uses.

Owns the reading of the control groups' memory files, and what a process has for itself.
Must never fail, and never wait for a process that hangs: what cannot be read is not known.
"""

from __future__ import annotations

import os

from launcher import cgroups
from launcher.lean import NamedTuple

MEBIBYTE = 1024 * 1024
NO_LIMIT = 2**60  # version 1 writes "none" as a number of pages below 2^63 bytes


class Room(NamedTuple):
    """A control group with a limit; in bytes."""

    limit: int
    use: int  # what the kernel could not take back: the working set, as the kubelet counts it


def room(root: str = "/") -> Room | None:
    """
    Return the limit that is nearest to being reached, of this process's group and all above it.

    Returns:
        None if there is none, or none that can be read.  `root` is where /proc and /sys are found.
    """
    rooms = [found for folder in cgroups.folders("memory", ("memory",), root) if (found := _of(folder))]
    return min(rooms, key=lambda found: found.limit - found.use, default=None)


def private(pid: int) -> int:
    """
    Return the bytes that a process shares with nobody, which one more of its kind would take; 0 if that is not known.

    The kernel walks the page tables for it: 2 to 3 ms of CPU for 100 MB, where `anonymous` takes 0.1 ms, but counts
    what a forked worker still shares with its zygote.
    """
    # The walk takes a lock of the process, which one that hangs in the kernel may hold (proc_pid_smaps(5)).
    if not _is_responsive(pid):
        return 0
    for line in cgroups.read(f"/proc/{pid}/smaps_rollup").splitlines():
        name, _, rest = line.partition(":")
        if name == "Private_Dirty":
            return int(rest.split()[0]) * 1024
    return 0


def _is_responsive(pid: int) -> bool:
    """Say whether it is there and none of its threads hangs in the kernel: any of them may hold the lock."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    states = [cgroups.read(f"/proc/{pid}/task/{thread}/stat").rpartition(")")[2].split()[:1] for thread in threads]
    return any(states) and ["D"] not in states  # one that is over has none


def anonymous(pid: int) -> int:
    """Return the bytes of a process that are no file's, shared with its forks or not; 0 if that is not known."""
    fields = cgroups.read(f"/proc/{pid}/statm").split()  # proc_pid_statm(5): size resident shared …
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGESIZE") if fields else 0


def written(size: int) -> str:
    """Write a size as the settings do: 512M."""
    return f"{size // MEBIBYTE}M"


def _of(folder: cgroups.Folder) -> Room | None:
    is_new = folder.version == 2  # noqa: PLR2004
    limit = folder.read("memory.max" if is_new else "memory.limit_in_bytes").strip()
    use = folder.read("memory.current" if is_new else "memory.usage_in_bytes").strip()
    if not limit.isdecimal() or not use.isdecimal() or int(limit) >= NO_LIMIT:
        return None  # "max" in version 2; the root has no such files there
    # Files that nobody used lately: the kernel drops them before it kills anybody.
    name = "inactive_file" if is_new else "total_inactive_file"
    rows = dict(line.split(" ", 1) for line in folder.read("memory.stat").splitlines() if " " in line)
    return Room(int(limit), max(0, int(use) - int(rows.get(name, 0))))
