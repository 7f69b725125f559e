"""
Real containers, of runc: PID 1, a user of their own, a root that is read-only, limits.

Owns their bundles and their end.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.containers import debian
from tests.processes.running import LIMIT, Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NUMBERS = itertools.count(1)
PATH = "/srv/venv/bin:/usr/local/bin:/usr/bin:/bin"
# Nobody: no entry in /etc/passwd, as OpenShift does it.
NOBODY = 54321
# 16 MiB where the image's root is read-only, as with an emptyDir in Kubernetes.
WRITABLE = ("nosuid", "nodev", "mode=1777", "size=16m")


class Container(Running):
    """One container under test; what it says, and how it ends, is its PID 1's."""

    name: str

    def inside(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as its user."""
        return subprocess.run(
            ["runc", "exec", self.name, *map(str, words)], capture_output=True, text=True, timeout=LIMIT
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make what is mounted as /srv: the virtual environment, and the example server; the app of a test goes there."""
    folder = tmp_path / "srv"
    folder.mkdir()
    debian.place(folder / "venv")
    shutil.copy(debian.REPOSITORY / "examples" / "hello.py", folder)
    tmp_path.chmod(0o755)
    return folder


@pytest.fixture
def container(tmp_path: Path, folder: Path) -> Iterator[Callable[..., Container]]:
    """Start one: `container("prod-run", "hello:main", memory=…, cpus=…, writable=("/tmp",))`."""
    if os.geteuid() != 0:
        pytest.skip("only root can run runc here")
    if not shutil.which("runc"):
        pytest.skip("runc is not installed")
    root = debian.root()
    started: list[Container] = []

    def start(*words: object, change: Callable[[dict[str, Any]], None] | None = None, **options: Any) -> Container:
        name = f"prod-run-{os.getpid()}-{next(NUMBERS)}"
        bundle = tmp_path / name
        bundle.mkdir()
        description = described(root, folder, tuple(map(str, words)), **options)
        if change:
            change(description)
        (bundle / "config.json").write_text(json.dumps(description))
        one = Container(["runc", "run", "--bundle", bundle, name], cwd=folder, env={"PATH": os.environ["PATH"]})
        one.name = name
        started.append(one)
        return one

    yield start
    for one in started:
        subprocess.run(["runc", "delete", "--force", one.name], capture_output=True, timeout=LIMIT)
        one.close()


def described(
    root: Path,
    folder: Path,
    words: tuple[str, ...],
    *,
    memory: int = 0,
    cpus: float = 0.0,
    pids: int = 0,
    writable: tuple[str, ...] = (),
    env: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return the bundle's description: runtime-spec 1.0.2."""
    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "nodev"]},
    ]
    mounts += [{"destination": to, "type": "tmpfs", "source": "tmpfs", "options": [*WRITABLE]} for to in writable]
    for source, destination in (*debian.MOUNTS, (str(folder), "/srv")):
        mounts.append({"destination": destination, "type": "none", "source": source, "options": ["rbind", "ro"]})
    resources: dict[str, Any] = {}
    if memory:
        resources["memory"] = {"limit": memory, "swap": memory}
    if cpus:
        resources["cpu"] = {"quota": int(cpus * 100_000), "period": 100_000}
    if pids:
        resources["pids"] = {"limit": pids}
    variables = [f"{name}={value}" for name, value in debian.ENVIRONMENT.items()]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": True},
        "hostname": "container",
        "mounts": mounts,
        "process": {
            "terminal": False,
            "cwd": "/srv",
            "args": words,
            "noNewPrivileges": True,
            "user": {"uid": NOBODY, "gid": 0},
            "env": [f"PATH={PATH}", *variables, *env],
        },
        "linux": {
            # The network is ours, so that a test can be the client.
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")],
            "resources": resources,
            "maskedPaths": ["/proc/kcore", "/proc/keys"],
            "readonlyPaths": ["/proc/sys"],
        },
    }
