"""
The virtual environment that holds prod-run and the contenders.

Owns `.venv-bench` in the repository's root, which git ignores.  Must never touch the interpreter that the
benchmark itself runs in, nor fail because one contender cannot be had.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.contenders import Contender

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".venv-bench" / "bin"


def prepare(contenders: list[Contender]) -> list[Contender]:
    """Install what is missing; return who can be measured, and say in one line who cannot."""
    if not (BIN / "python").exists():
        _run(sys.executable, "-m", "venv", str(BIN.parent))
    # A copy, as users have it: compiled beforehand, and not changed by who edits the tree meanwhile.
    failure = _pip("--force-reinstall", "--no-deps", str(ROOT)) or _pip(str(ROOT))
    if failure:
        sys.exit(f"prod-run itself cannot be installed: {failure}")
    present = []
    for contender in contenders:
        reason = _install(contender)
        if reason:
            print(f"without {contender.name}: {reason}", flush=True)
        else:
            present.append(contender)
    return present


def versions(contenders: list[Contender]) -> list[str]:
    """Return the version of each contender, as its package says."""
    listed = _run(BIN / "python", "-m", "pip", "list", "--format", "freeze", "--disable-pip-version-check").stdout
    wanted = {package.partition("[")[0] for contender in contenders for package in contender.packages} | {"prod-run"}
    found = [line.replace("==", " ") for line in listed.splitlines() if line.partition("==")[0] in wanted]
    debian = {contender.debian for contender in contenders} - {""}
    found += [f"{name} {_run('dpkg-query', '-W', '-f', '${Version}', name).stdout} (Debian)" for name in sorted(debian)]
    revision = _run("git", "-C", str(ROOT), "describe", "--always", "--dirty").stdout.strip() or "unknown"
    return [f"Python {sys.version.split()[0]}", f"prod-run's revision {revision}", *found]


def _install(contender: Contender) -> str:
    """Install one contender; return why it cannot be had."""
    if _is_there(contender):
        return ""
    if not contender.debian:
        return _pip(*contender.packages)
    if os.getuid() != 0 or not shutil.which("apt-get"):
        return f"{contender.program} is not on PATH; install Debian's package {contender.debian}"
    installed = _run("apt-get", "install", "-y", "--no-install-recommends", contender.debian)
    return "" if _is_there(contender) else _last_line(installed)


def _is_there(contender: Contender) -> bool:
    if contender.debian:
        return bool(shutil.which(contender.program))
    return (BIN / contender.program).exists()


def _pip(*words: str) -> str:
    """Install; return why not."""
    done = _run(BIN / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words)
    return _last_line(done) if done.returncode else ""


def _run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    # RUNLEVEL: Debian's packages start nothing by themselves then.
    environ = {**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.run(argv, capture_output=True, text=True, env=environ, stdin=subprocess.DEVNULL)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").splitlines()[-1]
