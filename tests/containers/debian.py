"""
A small Debian: what boots as a machine, and what containers run in.

Owns a root file system, made once by mmdebstrap and kept in the user's cache, and what is mounted into it: this
interpreter, its packages and this repository.  Must never be written to: users of it put an overlay on top.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zlib
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[2]
SUITE = "trixie"
# systemd 257, tini, and the libraries that an interpreter built elsewhere may be linked with.
INCLUDED = (
    "systemd,systemd-sysv,dbus,tini,ca-certificates,libexpat1,libffi8,libssl3t64,libsqlite3-0,libuuid1,liblzma5,"
    "libbz2-1.0,zlib1g,libncursesw6"
)
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
# Nothing runs there but what a test starts.
MASKED = (
    "console-getty.service",
    "getty@.service",
    "systemd-logind.service",
    "systemd-firstboot.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "systemd-tmpfiles-clean.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
)
# Not at their own paths: they may be below /root or /home, which a hardened unit does not see.
PYTHON = "/opt/python"
PACKAGES = "/opt/packages"
SOURCE = "/opt/prod-run"
MOUNTS = ((sys.base_prefix, PYTHON), (sysconfig.get_path("platlib"), PACKAGES), (str(REPOSITORY), SOURCE))
# For an interpreter that was built with a shared library of its own.
ENVIRONMENT = {"LD_LIBRARY_PATH": f"{PYTHON}/lib", "LC_ALL": "C.UTF-8"}


class Venv(NamedTuple):
    """A virtual environment in the other root, as a release directory has one."""

    files: dict[str, str]
    links: dict[str, str]


def venv() -> Venv:
    """Describe one with prod-run in it; paths are relative to it."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    files = {
        "pyvenv.cfg": f"home = {PYTHON}/bin\ninclude-system-site-packages = false\n",
        f"lib/python{version}/site-packages/mounted.pth": f"{SOURCE}\n{PACKAGES}\n",
    }
    for name, module in (("prod-run", "cli"), ("prod-ctl", "ctl")):
        # No /bin/env and no absolute path of its own: a release directory may be anywhere.
        start = "#!/bin/sh\n'''exec' \"$(dirname \"$0\")/python\" \"$0\" \"$@\"\n' '''\n"
        files[f"bin/{name}"] = f"{start}from launcher.{module} import main\nmain()\n"
    return Venv(files, {"bin/python": f"{PYTHON}/bin/python{version}"})


def place(folder: Path) -> None:
    """Write the virtual environment into a folder."""
    made = venv()
    for name, text in made.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    for name, target in made.links.items():
        (folder / name).symlink_to(target)


def root() -> Path:
    """Return the root file system; skip the test, with the reason, where it cannot be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prod-run-tests"
    made = cache / f"{SUITE}-{zlib.crc32(repr((INCLUDED, LEFT_OUT, MASKED)).encode()):08x}"
    if made.exists():
        return made
    if os.geteuid() != 0:
        pytest.skip("only root can make a Debian root file system and boot it")
    for tool in ("mmdebstrap", "apt-get"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    temporary = cache / f"{SUITE}.{os.getpid()}"
    cache.mkdir(parents=True, exist_ok=True)
    try:
        _make(temporary)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        pytest.skip(f"mmdebstrap could not make a Debian: {error.stderr[-300:]}")
    temporary.rename(made)
    return made


def _make(target: Path) -> None:
    # The archive that this machine's apt uses; mmdebstrap needs only the keyring, which signs every suite.
    listing = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    mirror = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()[0]
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={INCLUDED}", *excluded, SUITE, str(target), mirror]
    subprocess.run(command, capture_output=True, text=True, check=True)
    units = target / "etc/systemd/system"
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    (target / "etc/machine-id").write_text("")
    for _, mounted in MOUNTS:
        (target / mounted.removeprefix("/")).mkdir(parents=True, exist_ok=True)
