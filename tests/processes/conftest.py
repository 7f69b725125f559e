"""What every test with real processes uses."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import PROD_RUN, Running

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
    (tmp_path / "run").mkdir(mode=0o700)

    def start_one(*words: object, env: dict[str, str] | None = None, before: tuple[object, ...] = (), **options: object) -> Running:
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
