"""What memory there is and what a process takes of it, as the kernel's files say."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import pytest

from launcher import cgroups, memory
from launcher.memory import Room, anonymous, private, room

if TYPE_CHECKING:
    from pathlib import Path

V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/memory"
MEBIBYTE = 1024 * 1024


def v2(path: str, limit: str, use: int, inactive: int = 0) -> dict[str, str]:
    """Write the files of a group of version 2."""
    return {
        f"{V2}{path}/memory.max": f"{limit}\n",
        f"{V2}{path}/memory.current": f"{use}\n",
        f"{V2}{path}/memory.stat": f"anon 7\nfile 9\ninactive_file {inactive}\nactive_file 3\n",
    }


def v1(path: str, limit: int, use: int, inactive: int = 0) -> dict[str, str]:
    """Write the files of a group of version 1."""
    return {
        f"{V1}{path}/memory.limit_in_bytes": f"{limit}\n",
        f"{V1}{path}/memory.usage_in_bytes": f"{use}\n",
        f"{V1}{path}/memory.stat": f"cache 9\ninactive_file 1\ntotal_inactive_file {inactive}\n",
    }


IN_V2 = {"proc/self/cgroup": "0::/a/b\n"}
IN_V1 = {"proc/self/cgroup": "5:cpu:/\n4:memory:/a/b\n0::/other\n"}
NONE_IN_V1 = 9223372036854771712


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (IN_V2, None),
        (IN_V2 | v2("/a/b", "max", 50), None),
        (IN_V2 | v2("/a/b", "100", 50), Room(100, 50)),
        (IN_V2 | v2("/a/b", "100", 50, inactive=20), Room(100, 30)),
        (IN_V2 | v2("/a/b", "100", 50, inactive=60), Room(100, 0)),
        # A limit holds for all below it, and what counts is which is nearest.
        (IN_V2 | v2("/a/b", "max", 50) | v2("/a", "200", 180), Room(200, 180)),
        (IN_V2 | v2("/a/b", "100", 50) | v2("/a", "200", 180), Room(200, 180)),
        (IN_V2 | v2("/a/b", "100", 90) | v2("/a", "200", 180), Room(100, 90)),
        # A container that sees no other group than its own.
        (IN_V2 | v2("", "100", 50), Room(100, 50)),
        (IN_V1 | v1("/a/b", NONE_IN_V1, 50), None),
        (IN_V1 | v1("/a/b", 100, 50, inactive=20), Room(100, 30)),
        (IN_V1 | v1("/a/b", NONE_IN_V1, 50) | v1("", 200, 180), Room(200, 180)),
        (IN_V2 | {f"{V2}/a/b/memory.max": "100\n"}, None),
    ],
)
def test_the_nearest_limit(tmp_path: Path, files: dict[str, str], expected: Room | None) -> None:
    """Of version 1 or 2, the own group's or one above; use is without files that the kernel would drop first."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    assert room(str(tmp_path)) == expected


def test_a_forked_worker_has_for_itself_what_it_wrote() -> None:
    """What it shares with its zygote is counted by RSS, and would not be taken again."""
    shared = mmap.mmap(-1, 48 * MEBIBYTE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for start in range(0, len(shared), mmap.PAGESIZE):
        shared[start] = 1
    reader, writer = os.pipe()
    hold, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(release)
        for start in range(0, 16 * MEBIBYTE, mmap.PAGESIZE):
            shared[start] = 2
        os.write(writer, b".")
        os.read(hold, 1)
        os._exit(0)
    os.read(reader, 1)
    own, all_of_it = private(pid), anonymous(pid)
    os.close(release)
    os.waitpid(pid, 0)
    for fd in (reader, writer, hold):
        os.close(fd)

    assert all_of_it >= 48 * MEBIBYTE
    assert 16 * MEBIBYTE <= own < 40 * MEBIBYTE


def test_who_is_gone_takes_nothing() -> None:
    """The worker may die in the same moment."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

    assert (private(pid), anonymous(pid)) == (0, 0)


def test_nobody_waits_for_a_process_that_hangs_in_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold the lock that the look needs: it is not looked at."""
    asked: set[str] = set()

    def read(path: str) -> str:
        asked.add(path)
        return f"7 (a (strange) name) {'D' if '/8/' in path else 'S'} 1 7 7 0"

    monkeypatch.setattr(cgroups, "read", read)
    monkeypatch.setattr(os, "listdir", lambda _: ["7", "8"])  # its threads, of which one hangs

    assert private(7) == 0
    assert asked == {"/proc/7/task/7/stat", "/proc/7/task/8/stat"}


def test_sizes_are_written_as_settings_are() -> None:
    """In MiB."""
    assert memory.written(512 * MEBIBYTE) == "512M"
