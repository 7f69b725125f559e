"""
A prod-run that root starts, for a user of its own.

Owns the user (in a passwd and a group file that are mounted over the machine's, in a mount namespace) and a way for that
user to this very interpreter, which may lie in root's home.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import PROD_RUN, status

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
USER, UID, GID = "prodruntest", 48123, 48124
EXTRA = 48125  # a supplementary group


class Service:
    """A directory that the service's user owns, and the words before prod-run's that make the user known."""

    def __init__(self, directory: Path) -> None:
        """Write the files that are mounted."""
        self.directory = directory
        self.home = directory / "home"
        self.home.mkdir()
        os.chown(self.home, UID, GID)
        mounts = directory / "mounts"
        mounts.mkdir()
        script = []
        line = f"{USER}:x:{UID}:{GID}::{self.home}:/bin/false\n"
        groups = f"{USER}:x:{GID}:\n{USER}extra:x:{EXTRA}:{USER}\n"
        for name, added in (("passwd", line), ("group", groups)):
            (mounts / name).write_text(Path(f"/etc/{name}").read_text() + added)
            script.append(f"mount --bind {mounts / name} /etc/{name}")
        for index, (closed, needed) in enumerate(_closed().items()):
            # What is needed below a closed directory appears in an open one, which is then laid over it.
            for path in needed:
                shadow = mounts / str(index) / path.relative_to(closed)
                shadow.mkdir(parents=True)
                script.append(f"mount --bind {path} {shadow}")
            script.append(f"mount --rbind {mounts / str(index)} {closed}")
        self.before = ("unshare", "--mount", "sh", "-ec", "; ".join([*script, 'exec "$@"']), "sh")

    def app(self, source: str, name: str = "app") -> str:
        """Write a module that the user may read; return the words that find it."""
        (self.directory / f"{name}.py").write_text(source)
        return f"--chdir={self.directory}"

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run prod-run to its end."""
        env = {"PATH": os.environ["PATH"], "PROD_RUN_INTROSPECT": "off", "HOME": "/root"}
        argv = [str(word) for word in (*self.before, *words)]
        return subprocess.run(argv, capture_output=True, text=True, cwd=self.directory, env=env, timeout=60)


def _closed() -> dict[Path, set[Path]]:
    """Return the directories that others may not enter, and what in them this Python is made of."""
    found: dict[Path, set[Path]] = {}
    for path in {Path(sys.prefix), Path(sys.base_prefix), ROOT}:
        above = [folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001]
        if above:
            found.setdefault(above[0], set()).add(path)
    return found


@pytest.fixture
def service() -> Iterator[Service]:
    """Have a user that only the test's own prod-run knows."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode
    ):
        pytest.skip("no mount namespace can be had here")
    directory = Path(tempfile.mkdtemp(prefix="prod-run-test-", dir="/tmp"))  # not tmp_path, which is closed to others
    directory.chmod(0o755)
    yield Service(directory)
    shutil.rmtree(directory, ignore_errors=True)
    for left in Path("/run/prod-run").glob(f"{directory.name[-8:]}*"):
        shutil.rmtree(left, ignore_errors=True)


def name_of(service: Service) -> str:
    """Return an instance's name that is nobody else's."""
    return service.directory.name[-8:]


def ids(pid: int) -> tuple[set[int], set[int], set[int]]:
    """Return the user ids, group ids and supplementary groups of a process."""
    facts = status(pid)
    uid, gid, groups = (set(map(int, facts[name].split())) for name in ("Uid", "Gid", "Groups"))
    return uid, gid, groups


PROD_CTL = PROD_RUN.with_name("prod-ctl")
