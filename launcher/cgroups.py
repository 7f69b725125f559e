"""
The control groups of this process, as files.

Owns where they are: the own one and all above it, of version 1 and 2 (cgroups(7)); limits hold at every level.
Must never fail: what cannot be read is not there.
"""

from __future__ import annotations

from launcher.lean import NamedTuple


class Folder(NamedTuple):
    """One control group's files; the versions call them differently."""

    version: int
    path: str

    def read(self, name: str) -> str:
        """Return what a file of it holds; empty if there is none."""
        return read(f"{self.path}/{name}")


def folders(controller: str, mounts: tuple[str, ...], root: str = "/") -> list[Folder]:
    """
    List the groups that limit this process, the nearest first.

    `mounts` are the names below /sys/fs/cgroup of version 1's hierarchy with the controller; `root` is where /proc
    and /sys are found.
    """
    found = []
    for line in read(f"{root}/proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            # cgroups(7): version 2 is the line with neither number nor controllers.
            found += [Folder(2, folder) for folder in _upwards(f"{root}/sys/fs/cgroup", path)]
        elif controller in controllers.split(","):
            for mount in mounts:
                found += [Folder(1, folder) for folder in _upwards(f"{root}/sys/fs/cgroup/{mount}", path)]
    return found


def read(path: str) -> str:
    """Return what a file holds; empty if it cannot be read."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _upwards(mount: str, path: str) -> list[str]:
    # In a container without a cgroup namespace the path is the host's, and only the mount's root exists here.
    parts = [part for part in path.split("/") if part not in {"", ".."}]
    return ["/".join([mount, *parts[:length]]) for length in range(len(parts), -1, -1)]
