"""
A test of the tests: bugs that are planted into the machine, each of which a promise must catch.

`python -m tests.supervisor.planted_bugs [PATTERN]` prints the table, of those bugs whose name matches.  A
bug is a patch of the shipped source, applied to a copy; it counts as caught only if a promise breaks, not if
something crashes, and a patch that does not fit any more fails the table.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tests.supervisor.bugs import BUGS, OF_THE_DESIGN, Bug

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BUGS", "OF_THE_DESIGN", "fits", "main"]

ROOT = Path(__file__).parents[2]
COPIED = ("launcher", "tests/__init__.py", "tests/supervisor")
TESTS = tuple(f"tests/supervisor/test_{name}.py" for name in ("silent_kernel", "machine_before", "machine_promises"))
LIMIT = 600.0  # seconds for one bug: generous, since these machines stall
CAUGHT = re.compile(r"BrokenPromiseError: PROMISE (.*?) \|")


def plant(bug: Bug, directory: Path) -> None:
    """
    Copy what is needed and put the bug in.

    Raises:
        ValueError: the patch does not fit exactly once.
    """
    for name in COPIED:
        source = ROOT / name
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    path = directory / "launcher" / "supervisor" / f"{bug.module}.py"
    text = path.read_text()
    if text.count(bug.old) != 1:
        message = f"the patch fits {text.count(bug.old)} times"
        raise ValueError(message)
    path.write_text(text.replace(bug.old, bug.new))


def hunt(bug: Bug) -> tuple[str, float]:
    """Return the promise that catches a bug, or why none does after `!`, and the seconds it took."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        try:
            plant(bug, directory)
        except ValueError as error:
            return f"! {error}", 0.0
        (directory / "pytest.ini").write_text("[pytest]\nmarkers = slow: takes seconds\n")
        # The first failure is nearly always a promise; only where it is not, the others are asked too.
        result = run_tests(directory, "-x")
        if result.startswith("! crashed"):
            result = run_tests(directory)
    return result, time.monotonic() - began


def run_tests(directory: Path, *words: str) -> str:
    """Return the promise that a copy of the tests found broken, or why there is none after `!`."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *words]
    command += ["--hypothesis-profile=planted", *TESTS]
    environ = {**os.environ, "PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=directory, env=environ, capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return "! hangs"
    found = CAUGHT.search(done.stdout)
    if found:
        return found[1]
    if done.returncode == 0:
        return "! survived"
    lines = [line for line in done.stdout.splitlines() if line.startswith("E  ")]
    return f"! crashed: {lines[0][1:].strip() if lines else done.stdout[-200:]}"


def fits(bug: Bug) -> bool:
    """Say whether a patch still has its place in the source."""
    return (ROOT / "launcher" / "supervisor" / f"{bug.module}.py").read_text().count(bug.old) == 1


def main(pattern: str = "", bugs: Sequence[Bug] = BUGS) -> int:
    """Print the table; return 1 if a bug was not caught by a promise."""
    bugs = [bug for bug in bugs if re.search(pattern, bug.name)]
    began = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = list(pool.map(hunt, bugs))
    width = max(len(bug.name) for bug in bugs)
    for bug, (result, seconds) in zip(bugs, results, strict=True):
        print(f"{bug.name:<{width}}  {seconds:5.1f} s  {result}")
    missed = [bug for bug, (result, _) in zip(bugs, results, strict=True) if result.startswith("!")]
    print(f"{len(bugs) - len(missed)} of {len(bugs)} caught in {time.monotonic() - began:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
