"""
Whether the kernel killed somebody for want of memory.

Owns the count of such kills, of this control group where it can be read, else of the whole machine.
Must never fail or wait: a death without a reason is still a death.
"""

from __future__ import annotations

_V2 = "/sys/fs/cgroup{}/memory.events"
_V1 = "/sys/fs/cgroup/memory{}/memory.oom_control"
_MACHINE = "/proc/vmstat"


class MemoryKills:
    """The count at the last look."""

    __slots__ = ("_known", "_path")

    def __init__(self) -> None:
        self._known = -1
        for self._path in (*_of_control_group(), _MACHINE):
            self._known = _count(self._path)
            if self._known >= 0:
                break

    def explain(self) -> str:
        """Say in words whether there was one since the last look; empty if there was none."""
        count = _count(self._path)
        is_new = 0 <= self._known < count
        self._known = count
        if not is_new:
            return ""
        return "out of memory" if self._path != _MACHINE else "perhaps out of memory: the kernel killed somebody for it"


def _of_control_group() -> list[str]:
    """Return where the count may be, the nearest first (cgroups(7)); in a container the own group may be the root."""
    paths: list[str] = []
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            for line in file.read().splitlines():
                number, controllers, path = line.split(":", 2)
                if number == "0":
                    paths += [_V2.format(path.rstrip("/")), _V2.format("")]
                elif "memory" in controllers.split(","):
                    paths += [_V1.format(path.rstrip("/")), _V1.format("")]
    except (OSError, ValueError):
        pass
    return paths


def _count(path: str) -> int:
    """Read `oom_kill N` from a file of names and numbers; -1 if there is none."""
    try:
        with open(path, encoding="ascii") as file:
            for line in file.read().splitlines():
                name, _, number = line.partition(" ")
                if name == "oom_kill":
                    return int(number)
    except (OSError, ValueError):
        pass
    return -1
