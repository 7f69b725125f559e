"""What every test with real processes uses."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes.commands import Ctl, make_ctl
from tests.processes.running import LIMIT, PROD_RUN, Running, processes, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HELLO = Path(__file__).parents[2] / "examples" / "hello.py"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """
    Start prod-run in the test's own directory: `start("--workers", 2, "app:main")`.

    Everything that was started is gone after the test.
    """
    started: list[Running] = []
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "HOME", "LANG", "TMPDIR") or name.startswith("LC_")
    }
    environment["XDG_RUNTIME_DIR"] = str(tmp_path / "run")
    environment["PROD_RUN_INTROSPECT"] = "off"  # the default port is one for the whole machine
    (tmp_path / "run").mkdir(mode=0o700)

    def start_one(
        *words: object, env: dict[str, str] | None = None, before: tuple[object, ...] = (), **options: object
    ) -> Running:
        argv = [str(word) for word in (*before, PROD_RUN, *words)]
        running = Running(argv, cwd=tmp_path, env={**environment, **(env or {})}, **options)
        started.append(running)
        return running

    yield start_one
    for running in started:
        running.close()


@pytest.fixture
def app(tmp_path: Path) -> Callable[..., Path]:
    """Write a module into the test's directory: `app("def main(): ...")`, as `app.py` unless named."""

    def write(source: str, name: str = "app") -> Path:
        path = tmp_path / f"{name}.py"
        fresh = path.with_suffix(".new")
        fresh.write_text(source)
        fresh.rename(path)  # a module that is half-written is a fault of its own
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        return path

    return write


@pytest.fixture
def hello(app: Callable[..., Path]) -> Callable[..., Path]:
    """Write the example server as `hello.py`, as version `version`, with more code below the docstring."""

    def write(version: object = 1, extra: str = "") -> Path:
        source = HELLO.read_text()
        changed = source.replace('VERSION = "1"', f"VERSION = {str(version)!r}\n{extra}")
        assert changed != source or (version == 1 and not extra)
        return app(changed, "hello")

    return write


@pytest.fixture
def ctl(tmp_path: Path) -> Ctl:
    """Talk to the one prod-run of this test: `ctl("reload", "--wait")`."""
    return make_ctl(tmp_path)


class Strace:
    """Traces a prod-run with all its children: `start(..., before=strace("-e", "trace=execve"))`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, *options: str) -> tuple[str, ...]:
        """Return the words to put before prod-run's."""
        # -D: prod-run is our child, and strace is nobody's.
        return ("strace", "-D", "-f", "-o", str(self._path), *options, "--")

    def log(self) -> list[str]:
        """Return all that was traced, once it is over."""
        until(lambda: not _tracers(), "strace ends with the last process that it traces", LIMIT)
        return self._path.read_text(errors="replace").splitlines() if self._path.exists() else []


@pytest.fixture
def strace(tmp_path: Path) -> Iterator[Strace]:
    """Have a strace; it is reaped here, since the machine's own PID 1 may not reap orphans."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    libc = ctypes.CDLL(None)
    libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    tracing = Strace(tmp_path / "strace.log")
    yield tracing
    tracing.log()
    libc.prctl(36, 0, 0, 0, 0)


def _tracers() -> list[int]:
    """Return the living strace processes that came to us; reap the others."""
    alive = []
    for pid, parent, state in processes():
        if parent == os.getpid() and Path(f"/proc/{pid}/comm").read_text().strip() == "strace":
            if state == "Z":
                os.waitpid(pid, 0)
            else:
                alive.append(pid)
    return alive
