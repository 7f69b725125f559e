"""
A throw-away machine with a real systemd as PID 1.

Owns its boot and its end: systemd-nspawn over an overlay, so that nothing is left behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.containers import debian
from tests.processes.running import LIMIT, children_of, until

# In a mount namespace of its own: when its last process is gone, so is the overlay.
BOOT = """
set -e
mount -t tmpfs machine "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
shift 2
exec systemd-nspawn "$@"
"""
# mount, UTS, IPC, network, PID and cgroup namespaces, root and working directory (nsenter(1))
ENTER = ("-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w")
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


class Machine:
    """One that is up; commands run in it as root, files are written to it from here."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can boot a machine")
        for tool in ("systemd-nspawn", "nsenter", "unshare"):
            if not shutil.which(tool):
                pytest.skip(f"{tool} is not installed")
        lower = debian.root()
        binds = [f"--bind-ro={outside}:{inside}" for outside, inside in debian.MOUNTS]
        options = [
            "--quiet",
            f"--machine=prod-run-{os.getpid()}",
            "--register=no",
            "--keep-unit",
            f"--directory={folder}/root",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--console=read-only",
            *binds,
            "--boot",
            "systemd.show_status=no",
        ]
        self._console = folder.with_suffix(".console")
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "bash", "-c", BOOT, "-", folder, lower, *options],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                # Where controllers are mounted as version 1 the machine still tracks its units by version 2.
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        try:
            until(self._is_up, "a machine that is up")
        except AssertionError:
            self.down()
            pytest.skip(f"no machine can be booted here: {self._console.read_text(errors='replace')[-500:]}")

    def run(self, *words: object, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it and return what it said."""
        ended = subprocess.run(
            [*self.enter(), *(f"{name}={value}" for name, value in more.items()), *map(str, words)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT * 3,
        )
        assert not check or ended.returncode == 0, f"{words}: {ended.stdout}{ended.stderr}"
        return ended

    def enter(self) -> tuple[str, ...]:
        """Return the words that go before a command so that it runs in there."""
        variables = {**debian.ENVIRONMENT, "PATH": PATH, "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": "cat"}
        assignments = [f"{name}={value}" for name, value in variables.items()]
        return ("nsenter", "-t", str(self._leader()), *ENTER, "--", "env", "-i", *assignments)

    def path(self, inside: str) -> Path:
        """Return where a file of the machine is seen from here; absolute links of the machine lead astray."""
        return Path(f"/proc/{self._leader()}/root{inside}")

    def write(self, inside: str, text: str) -> None:
        """Write a file, with its folders."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def down(self) -> None:
        """End it: all of it dies with its PID 1."""
        with contextlib.suppress(IndexError, ProcessLookupError):
            os.kill(self._leader(), 9)
        self._process.kill()
        self._process.wait(LIMIT)

    def _leader(self) -> int:
        return children_of(self._process.pid)[0]

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self._console.read_text(errors="replace")
        time.sleep(0.1)  # noqa: TID251  systemctl costs more than this
        try:
            said = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        except IndexError:
            return False  # its PID 1 is not there yet, or only the one that prepares its place
        return said in {"running", "degraded"}
