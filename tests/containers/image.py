"""
The example's image, really built and run: `python -m tests.containers.image`, as root, with buildah, runc, mmdebstrap.

Owns stand-ins of the two base images, made of Debian's packages and named as the real ones, so that no registry is
asked; Debian's archive and the Python index are.  Minutes, so it is no test: for whoever changed the Containerfile.
Must never touch images that are here already, which may have these names: it has a storage of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from tests.containers import containerfile

NAME = "prod-run-example"
CONTAINER = f"{NAME}-{os.getpid()}"
SUITE = "bookworm"
# What gcr.io/distroless/python3-debian12 is made of, as far as Python goes: packages unpacked, none of them set up.
DISTROLESS = (
    "base-files,ca-certificates,libc6,libssl3,zlib1g,libbz2-1.0,libcrypt1,libexpat1,libffi8,liblzma5,libncursesw6,"
    "libreadline8,libsqlite3-0,libuuid1,python3-minimal,libpython3.11-stdlib"
)
NOBODY = "54321"
LIMIT = 60.0  # seconds
ASK = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8000/').read().decode())"


def main() -> None:
    """Make the bases, build, run, and take all of it away."""
    build, final = (stage[0].words[0] for stage in containerfile.stages())
    with tempfile.TemporaryDirectory(prefix=NAME) as place:
        folder = Path(place)
        buildah = ("buildah", f"--root={folder}/storage", f"--runroot={folder}/run")
        try:
            base(buildah, f"docker.io/library/{build}", folder, "--variant=minbase")
            base(buildah, final, folder, "--variant=extract", f"--include={DISTROLESS}")
            do(*buildah, "build", "--isolation=chroot", "--pull-never", "--format=docker", f"--tag={NAME}",
               f"--file={containerfile.PATH}", containerfile.CONTEXT)  # fmt: skip
            check(buildah, folder)
        finally:
            do("runc", "delete", "--force", CONTAINER, check=False)
            do(*buildah, "rm", "--all", check=False)


def do(*words: str | Path, check: bool = True) -> str:
    """Run a program and return what it printed."""
    print("+", *words, flush=True)
    return subprocess.run([str(word) for word in words], check=check, stdout=subprocess.PIPE, text=True).stdout.strip()


def base(buildah: tuple[str, ...], image: str, folder: Path, *how: str) -> None:
    """Make a base image of Debian's packages; pip in it trusts the authorities that pip trusts here."""
    archive = folder / "root.tar"
    do("mmdebstrap", "--quiet", *how, SUITE, archive)
    container = do(*buildah, "from", "scratch")
    do(*buildah, "add", "--quiet", container, archive, "/")
    archive.unlink()
    authorities = os.environ.get("PIP_CERT", "")
    if authorities:
        (folder / "pip.conf").write_text("[global]\ncert = /etc/authorities.pem\n")
        do(*buildah, "copy", "--quiet", container, folder / "pip.conf", "/etc/pip.conf")
        do(*buildah, "copy", "--quiet", container, authorities, "/etc/authorities.pem")
    do(*buildah, "commit", "--quiet", "--rm", container, image)


def check(buildah: tuple[str, ...], folder: Path) -> None:
    """Run the image as its page says: nobody's user, a read-only root, PID 1; ask it, reload it, stop it."""
    do(*buildah, "from", "--pull-never", f"--name={CONTAINER}", f"localhost/{NAME}")
    root = Path(do(*buildah, "mount", CONTAINER))
    assert not any(path.name.startswith("pip") for path in (root / "app/venv").glob("**/*")), "there is a pip"
    assert not (root / "bin/sh").exists(), "there is a shell"
    image = json.loads(do(*buildah, "inspect", "--type=image", f"localhost/{NAME}"))["Docker"]["config"]
    assert image["Healthcheck"]["Test"] == ["CMD", *containerfile.final("HEALTHCHECK").words]
    (folder / "config.json").write_text(json.dumps(described(root, image)))
    running = subprocess.Popen(["runc", "run", "--bundle", folder, CONTAINER])
    probe = ["runc", "exec", CONTAINER, *image["Healthcheck"]["Test"][1:]]
    end = time.monotonic() + LIMIT
    while subprocess.run(probe, check=False, capture_output=True).returncode:
        assert time.monotonic() < end, "it does not become healthy"
        assert running.poll() is None, "it ended"
    assert "hello from version 1" in do("runc", "exec", CONTAINER, "python", "-c", ASK)
    assert "committed" in do("runc", "exec", CONTAINER, "prod-ctl", "reload", "--wait")
    do("runc", "kill", CONTAINER, image["StopSignal"])
    assert running.wait(LIMIT) == 0
    print("built, served, reloaded, stopped with exit code 0")


def described(root: Path, image: dict[str, list[str]]) -> dict[str, object]:
    """Return the bundle's description: runtime-spec 1.0.2."""
    dev = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]}
    temporary = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777", "size=16m"]}
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": True},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, dev, temporary],
        "process": {
            "cwd": image["WorkingDir"],
            "args": image["Entrypoint"] + image["Cmd"],
            "env": image["Env"],
            "user": {"uid": int(NOBODY), "gid": int(NOBODY)},
            "noNewPrivileges": True,
        },
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
    }


if __name__ == "__main__":
    main()
