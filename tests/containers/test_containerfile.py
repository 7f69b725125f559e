"""The example's Containerfile: what can be known of it without a registry, and its entrypoint in a real container."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from launcher.runtime import servers
from tests.containers import containerfile, debian
from tests.processes.running import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.containers.conftest import Container

# Beside the directories that are mounted as they are.
MOUNTED = ("usr", "etc")
ASK = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8000/').read().decode())"


def test_each_instruction_is_one_and_each_source_is_there() -> None:
    """COPY takes what is in the build's context, or what an earlier stage has made."""
    names = [stage[0].rest.partition(" AS ")[2] for stage in containerfile.stages()]

    for number, stage in enumerate(containerfile.stages()):
        for one in stage:
            assert one.name in containerfile.INSTRUCTIONS
            *sources, _ = one.words if one.name == "COPY" else ("",)
            if one.rest.startswith("--from="):
                assert one.rest.split()[0].removeprefix("--from=") in names[:number]
            else:
                assert [name for name in sources if not (containerfile.CONTEXT / name).exists()] == []


def test_the_image_is_what_the_pages_say() -> None:
    """A number for a user (Kubernetes' runAsNonRoot wants that), no shell around prod-run, its port and its probe."""
    uid, _, gid = containerfile.final("USER").rest.partition(":")
    (port,) = containerfile.final("EXPOSE").words
    bind = dict(word.partition("=")[::2] for word in containerfile.final("ENV").words)["PROD_RUN_BIND"]
    bases = [stage[0].words[0] for stage in containerfile.stages()]

    assert int(uid) > 0
    assert int(gid) > 0
    assert containerfile.final("ENTRYPOINT").is_exec_form
    assert containerfile.final("ENTRYPOINT").words == ["prod-run"]
    assert containerfile.final("CMD").is_exec_form
    assert bind == f":{port}"
    assert servers.address({}).endswith(f":{port}"), "a web application's, without --bind"
    assert containerfile.final("HEALTHCHECK").is_exec_form
    assert containerfile.final("HEALTHCHECK").words == ["prod-ctl", "health"]
    assert containerfile.final("STOPSIGNAL").words == ["SIGTERM"]
    assert all(":" in base for base in bases), "a tag: `latest` is another image every day"


@pytest.mark.slow
def test_its_entrypoint_serves(container: Callable[..., Container], tmp_path: Path) -> None:
    """Its words, user, variables and directory, in a container of its own network, with a read-only root."""
    image = tmp_path / "image"
    root = debian.root()
    for entry in root.iterdir():  # /app is not to be made in what all tests share
        if entry.is_symlink():
            (image / entry.name).parent.mkdir(exist_ok=True)
            (image / entry.name).symlink_to(entry.readlink())
        else:
            (image / entry.name).mkdir(parents=True, exist_ok=True)
            (image / entry.name).chmod(entry.stat().st_mode & 0o7777)

    def as_the_image(bundle: dict[str, Any]) -> None:
        uid, _, gid = containerfile.final("USER").rest.partition(":")
        given = bundle["process"]["env"][1:]  # what an interpreter in an unusual place needs
        bundle["root"]["path"] = str(image)
        bundle["linux"]["namespaces"].append({"type": "network"})
        bundle["process"]["cwd"] = containerfile.final("WORKDIR").rest
        bundle["process"]["user"] = {"uid": int(uid), "gid": int(gid)}
        bundle["process"]["env"] = [*given, *containerfile.final("ENV").words]
        for mount in bundle["mounts"]:
            mount["destination"] = mount["destination"].replace("/srv", containerfile.final("COPY").words[-1])
        bundle["mounts"][:0] = [
            {"destination": f"/{name}", "type": "none", "source": str(root / name), "options": ["rbind", "ro"]}
            for name in MOUNTED
        ]

    words = (*containerfile.final("ENTRYPOINT").words, *containerfile.final("CMD").words)
    running = container(*words, writable=("/tmp",), change=as_the_image)
    probe = containerfile.final("HEALTHCHECK").words
    until(lambda: running.inside(*probe).returncode == 0, "the health check of the image")
    answer = running.inside("python", "-c", ASK)
    running.process.terminate()

    assert "hello from version 1" in answer.stdout, answer.stderr
    assert running.wait() == 0
    said = [json.loads(line["text"]) for line in running.lines]
    assert said[-1]["event"] == "stopped"
    assert not [line for line in said if line["level"] in {"warning", "error"}]


def test_prod_run_is_made_of_what_is_copied(tmp_path: Path) -> None:
    """The index has none yet: the wheel is built of the sources that the stage has by then."""
    pytest.importorskip("hatchling")
    build, _ = containerfile.stages()
    (install,) = (index for index, one in enumerate(build) if " install --no-cache-dir " in one.rest)
    for one in build[:install]:
        *sources, target = one.words if one.name == "COPY" else (".",)
        for source in sources:
            into = tmp_path / target.lstrip("/")
            path = containerfile.CONTEXT / source
            shutil.copytree(path, into) if path.is_dir() else shutil.copy(path, (into.mkdir(exist_ok=True), into)[1])

    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    built = subprocess.run(argv, cwd=tmp_path / "src", check=False, capture_output=True, text=True)

    made, installed, cleared = (" ".join(part.split()) for part in build[install].rest.split("&&"))
    assert (made, installed) == ("python3 -m venv /app/venv", "/app/venv/bin/pip install --no-cache-dir /src")
    assert cleared == "/app/venv/bin/pip uninstall --yes pip setuptools", "no pip in the image, says the page"
    assert built.returncode == 0, built.stderr
    assert list(tmp_path.glob("prod_run-*.whl"))
