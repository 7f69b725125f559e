"""
The one test command: format, lint, types, and the tests on every Python that is installed.

`python -m tests` runs all of it; `python -m tests --fast` leaves out slow tests and other Pythons.
Other words go to pytest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

Step = list[str | Path]

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
AT_ONCE = 2
FAILED = 1  # pytest's exit code
NO_TESTS = 5  # pytest's exit code where no test has the mark
# What runs with a Python that is neither the oldest nor the newest.
BETWEEN = (
    *(
        f"tests/{part}"
        for part in ("appconfig", "logs", "observer", "proxy", "settings", "supervisor", "test_house.py")
    ),
    *(f"tests/processes/test_{part}.py" for part in ("first_run", "targets", "drain", "sockets", "preload", "spare")),
    "tests/web/test_web_targets.py",
)
CHECKED = ("launcher", "tests", "examples")


def main() -> int:
    """Run everything, and show this interpreter's tests last; return the first exit code that is not 0."""
    words = [word for word in sys.argv[1:] if word != "--fast"]
    is_fast = "--fast" in sys.argv
    steps = [
        [sys.executable, "-m", "ruff", "format", "--check", *CHECKED],
        [sys.executable, "-m", "ruff", "check", *CHECKED],
        [sys.executable, "-m", "mypy"],
    ]
    codes = [run(step) for step in steps]
    if is_fast:
        codes.append(run(pytest(sys.executable, "-m", "not slow", *words)))
    else:
        codes += run_at_once(rows(words))
    return next((code for code in codes if code), 0)


def rows(words: list[str]) -> list[Step]:
    """
    Return what is run, some at once, the longest first.

    The slow tests are about the kernel and the clock, not about the interpreter.  All others run with the oldest and
    the newest Python; for those between, what does not start real processes, and the ordinary life of some that do.
    """
    others = other_pythons()
    between = () if words else BETWEEN
    return [
        pytest(sys.executable, "-m", "slow", *words),
        *(pytest(python, "-m", "not slow", *words) for python in (*others[-1:], sys.executable)),
        *(pytest(python, "-m", "not slow", *words, *between) for python in others[:-1]),
    ]


def run_at_once(steps: list[Step]) -> list[int]:
    """Run steps, some at once, since most tests wait for other processes; print what each said in their order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [pool.submit(run_quietly, step) for step in steps]
        minutes = 0
        while wait(running, 60).not_done:
            minutes += 1
            print(f"── the tests are running: {minutes} min", flush=True)
        finished = [each.result() for each in running]
    codes = []
    for step, code, said in finished:
        announce(step)
        sys.stdout.write(said)
        codes.append(code if code != NO_TESTS else 0)
    sys.stdout.flush()
    return codes


def pytest(python: str | Path, *words: str) -> Step:
    """Return the step that runs the tests with one interpreter."""
    return [python, "-m", "pytest", "-q", *words]


def other_pythons() -> list[Path]:
    """Return an interpreter with prod-run installed for each other version of Python on this machine."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = []
    for version in VERSIONS:
        interpreter = None if version == own else find(version)
        if interpreter:
            found.append(environment(version, interpreter))
        elif version != own:
            print(f"── Python {version}: not on this machine", flush=True)
    return found


def find(version: str) -> Path | None:
    """Return an interpreter of this version that works: on PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    on_path = shutil.which(f"python{version}")
    candidates = [Path(on_path)] if on_path else []
    candidates += sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)
    for candidate in candidates:
        # pyenv's shims stand on PATH for versions that are not switched on, and fail.
        check = [candidate, "-c", "import ensurepip, ssl, sys; print(sys.version_info[:2])"]
        if subprocess.run(check, capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def environment(version: str, interpreter: Path) -> Path:
    """Make a virtual environment with this version, or take the one that is there."""
    python = ROOT / f".venv-test-{version}" / "bin" / "python"
    if not python.exists():
        subprocess.run([interpreter, "-m", "venv", python.parents[1]], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[test]"], check=True)
    return python


def announce(step: Step) -> None:
    """Say what is run, without where the interpreter is."""
    print("──", *(Path(word).name if os.sep in str(word) else word for word in step), flush=True)


def run(step: Step) -> int:
    """Run one step and say which."""
    announce(step)
    return subprocess.run(list(map(str, step)), cwd=ROOT, check=False).returncode


def run_quietly(step: Step) -> tuple[Step, int, str]:
    """Run one step; return it with its exit code and what it said."""
    words = list(map(str, step))
    with tempfile.TemporaryDirectory() as memory:
        words += ["-o", f"cache_dir={memory}"]
        code, said = _output_of(words)
        if code == FAILED:
            # Rows at once are a load that some facts are not waited for long enough under: alone they must hold.
            code, again = _output_of([*words, "--last-failed"])
            said += f"── what failed, once more:\n{again}"
    return step, code, said


def _output_of(words: list[str]) -> tuple[int, str]:
    result = subprocess.run(words, cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return result.returncode, result.stdout


if __name__ == "__main__":
    sys.exit(main())
