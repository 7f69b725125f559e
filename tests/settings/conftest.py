"""What the tests of the command line share."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import launcher

DEADLINE = 20.0  # seconds; only a broken program needs it

# Stands where the supervisor would start, and tells what reached it.
_SUPERVISOR = """
import ctypes, json, os, resource, signal, sys
from launcher import handoff

def _flags():
    value = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(37, ctypes.byref(value), 0, 0, 0)  # PR_GET_CHILD_SUBREAPER
    return value.value

def _open():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return found

def main(fd):
    told = handoff.decode(os.pread(fd, 1 << 20, 0))
    listeners = [listener._asdict() for listener in told.listeners]
    environ = os.pread(told.environ_fd, 1 << 20, 0).split(bytes(1))
    print(json.dumps({
        **told._asdict(),
        "listeners": listeners,
        "caller": dict(item.decode("utf-8", "surrogateescape").split("=", 1) for item in environ),
        "environ": dict(os.environ),
        "open": _open(),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "pending": sorted(signal.sigpending()),
        "subreaper": _flags(),
        "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "cwd": os.getcwd(),
        "pid": os.getpid(),
        "path": sys.path,
        "executable": sys.executable,
        "modules": sorted(sys.modules),
        "seals": __import__("fcntl").fcntl(told.environ_fd, 1034),
    }), flush=True)
    if told.arguments[:1] == ("hold",):
        sys.stdin.read()
    os._exit(0)
"""


class Program:
    """prod-run with a supervisor that only tells what reached it."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        """Run from `folder`, which holds the package; the runtime directories go into `runtime`."""
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(folder),
            "XDG_RUNTIME_DIR": str(runtime),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PROD_RUN_INTROSPECT": "off",  # the default port is one for the whole machine
        }

    def start(self, *words: str, **named: object) -> subprocess.Popen[str]:
        """Start it, or a piece of Python in its surroundings; the caller waits."""
        extra: dict[str, str] = named.pop("environ", {})  # type: ignore[assignment]
        code = named.pop("code", None)
        program = ["-c", str(code)] if code else ["-m", "launcher"]
        return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
            [sys.executable, "-P", *program, *words],
            **{
                "env": {**self.environ, **extra},
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                **named,
            },
        )

    def run(self, *words: str, **named: object) -> Answer:
        """Run it to its end."""
        return self.end(self.start(*words, **named))

    @staticmethod
    def end(process: subprocess.Popen[str]) -> Answer:
        """Wait for its end."""
        out, err = process.communicate(timeout=DEADLINE)
        return Answer(process.returncode, out, err)


class Answer(NamedTuple):
    """What a program left behind."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> dict:
        """What the pretended supervisor told."""
        assert self.code == 0, self.err
        return json.loads(self.out)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the package, with the pretended supervisor in it."""
    folder = tmp_path_factory.mktemp("package")
    source = Path(launcher.__file__).parent
    shutil.copytree(source, folder / "launcher", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "launcher" / "supervisor" / "main.py").write_text(_SUPERVISOR)
    compileall.compile_dir(folder, quiet=1)  # else each start compiles all it imports: it may not write there
    return folder


@pytest.fixture
def program(package: Path, tmp_path: Path) -> Program:
    """prod-run, with a runtime directory of its own."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    return Program(package, runtime)
