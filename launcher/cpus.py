"""
How many CPUs this process may use.

Owns `count`: the smaller of the affinity mask and the cgroup's quota (versions 1 and 2).
Must never fail: what cannot be read does not limit.
"""

from __future__ import annotations

import os

from launcher import cgroups

_V1_MOUNTS = ("cpu,cpuacct", "cpu")


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
    return [
        _numbers(
            folder.read("cpu.max")
            if folder.version == 2  # noqa: PLR2004
            else folder.read("cpu.cfs_quota_us") + folder.read("cpu.cfs_period_us")
        )
        for folder in cgroups.folders("cpu", _V1_MOUNTS, root)
    ]


def _numbers(text: str) -> tuple[int, int]:
    quota, _, period = " ".join(text.split()).partition(" ")
    # "max 100000" in version 2, "-1" in version 1: no quota.
    return (int(quota), int(period)) if quota.isdecimal() and period.isdecimal() else (0, 0)
