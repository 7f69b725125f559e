"""
The directory in which the app's processes keep their metrics.

Owns its making, empty, at the start, and its removal at the end.
Must never follow a link out of it, and never keep prod-run from starting: an app without metrics is better than none.
"""

from __future__ import annotations

import os
import stat

from launcher.lean import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "metrics"
LOW = 8 * 1024 * 1024  # bytes of room, some 60,000 series: less is worth a warning
# An app that was given one of its own, by the variable's present or former name, keeps it.
VARIABLES = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


class Made(NamedTuple):
    """The directory, empty if there is none, and one line for people."""

    path: str = ""
    note: str = ""


def make(runtime_directory: str, environ: Mapping[str, str]) -> Made:
    """Make it anew in the runtime directory: what another life of this instance left does not count."""
    own = next((environ[name] for name in VARIABLES if name in environ), None)
    if own is not None:
        return Made(note=f"the app's metrics are not in prod-run's /metrics: {VARIABLES[0]} has them in {own or '.'}")
    if not runtime_directory:
        return Made()  # that there is none was said
    path = f"{runtime_directory}/{NAME}"
    try:
        remove(path)
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)  # whatever the umask took away
    except OSError as error:
        return Made(note=f"/metrics will have none of the app: {error.filename or path}: {error.strerror}")
    room = free_bytes(path)
    return Made(path, f"{path}: {low(room)}" if 0 <= room < LOW else "")


def remove(path: str) -> None:
    """
    Remove it with all that is in it, whatever that has become.

    Raises:
        OSError: that is impossible.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return
        for name in os.listdir(path):
            remove(f"{path}/{name}")
        os.rmdir(path)
    except FileNotFoundError:
        pass  # as good


def free_bytes(path: str) -> int:
    """Return how much room is left for new series; -1: nobody knows."""
    try:
        room = os.statvfs(path)
    except OSError:
        return -1
    # ramfs, and a tmpfs without a limit, say 0 of 0 blocks.
    return room.f_bavail * room.f_frsize if room.f_blocks else -1


def low(room: int) -> str:
    """Say what it means that there is little room."""
    return f"only {room // 1024} KiB are left for the app's metrics; without room new series are not counted"
