"""
How many CPUs this process may use.

Owns `count`: the smaller of the affinity mask and the cgroup's quota (versions 1 and 2).
Must never fail: what cannot be read does not limit.
"""

from __future__ import annotations

import os

_V1_FOLDERS = ("cpu,cpuacct", "cpu")


def count(root: str = "/") -> int:
    """
    Count them; at least 1.

    A quota of 1.5 CPUs counts as 2: one worker could not use it up.  `root` is where /proc and /sys are found.
    """
    allowed = len(os.sched_getaffinity(0))
    quotas = [-(-quota // period) for quota, period in _quotas(root) if quota > 0 and period > 0]
    return max(1, min([allowed, *quotas]))


def _quotas(root: str) -> list[tuple[int, int]]:
    """List (quota, period) in microseconds of this process's cgroup and of all above it."""
    found = []
    for line in _read(f"{root}/proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            # cgroups(7): version 2 is the line with neither number nor controllers.
            found += [_numbers(_read(f"{folder}/cpu.max")) for folder in _upwards(f"{root}/sys/fs/cgroup", path)]
        elif "cpu" in controllers.split(","):
            for mount in _V1_FOLDERS:
                found += [
                    _numbers(_read(f"{folder}/cpu.cfs_quota_us") + _read(f"{folder}/cpu.cfs_period_us"))
                    for folder in _upwards(f"{root}/sys/fs/cgroup/{mount}", path)
                ]
    return found


def _upwards(mount: str, path: str) -> list[str]:
    # In a container without a cgroup namespace the path is the host's, and only the mount's root exists here.
    parts = [part for part in path.split("/") if part not in {"", ".."}]
    return ["/".join([mount, *parts[:length]]) for length in range(len(parts), -1, -1)]


def _numbers(text: str) -> tuple[int, int]:
    quota, _, period = " ".join(text.split()).partition(" ")
    # "max 100000" in version 2, "-1" in version 1: no quota.
    return (int(quota), int(period)) if quota.isdecimal() and period.isdecimal() else (0, 0)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
