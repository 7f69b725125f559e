"""
The rows of the whole test run: which tests run with which Python, three rows at once.

Owns the order, what the rows say, and which failures are tried again.  Must never hide a failure: what passed only
alone is listed by name.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
AT_ONCE = 3
FAILED = 1  # pytest's exit code
NO_TESTS = 5  # pytest's exit code where no test has the mark
NOT_SLOW = ("-m", "not slow")
# What runs with a Python that is neither this one nor the newest: quick tests, and the ordinary life of processes.
BETWEEN = (
    *(
        f"tests/{part}"
        for part in ("appconfig", "logs", "observer", "proxy", "settings", "supervisor", "test_house.py")
    ),
    *(f"tests/processes/test_{part}.py" for part in ("first_run", "targets", "drain", "sockets", "preload", "spare")),
    "tests/web/test_web_targets.py",
)
# What the newest Python leaves out, since it is about the kernel, about other programs, and about what becomes of
# processes whatever they run; its own are fork, imports, signals, typing, logging, asyncio, the servers' internals.
OF_ANY_PYTHON = (
    *(f"tests/{part}" for part in ("containers", "init", "systemd", "test_manifests.py", "test_rows.py")),
    *(f"tests/appconfig/test_envsubst_{part}.py" for part in ("gnu", "sh")),
    *(f"tests/observer/test_syslog{part}.py" for part in ("", "_network", "_rsyslog")),
    *("tests/proxy/test_haproxy.py", "tests/web/test_balancers.py", "tests/web/test_behind_proxies.py"),
    *(
        f"tests/processes/test_{part}.py"
        for part in (
            *("bad_input", "command_alone", "command_configured", "command_copies", "command_terminal"),
            *("control_under_load", "crash_loops", "daemon", "kubelet", "metrics_room", "no_secret_anywhere"),
            *("observer_killed", "pid_1", "privileges", "sd_notify", "sd_notify_sequence", "secrets_nowhere"),
            *("sink_faults", "supervisor_killed", "surge", "templates_live", "top", "uninterruptible"),
            *("watch", "watch_swaps", "watch_templates"),
        )
    ),
)


class Row(NamedTuple):
    """One process of the run: which Python, and its words; tests have a memory of what failed."""

    version: str
    words: tuple[str, ...]

    def argv(self, python: str | Path) -> list[str]:
        """Return what is run, with this interpreter."""
        return [str(python), "-m", *self.words]

    @property
    def is_tests(self) -> bool:
        """Whether it is pytest's."""
        return self.words[0] == "pytest"


class Ended(NamedTuple):
    """A row that was run: its exit code, what it said, and the tests that failed with others and passed alone."""

    row: Row
    code: int
    said: str
    passed_alone: tuple[str, ...] = ()


def pytest(*words: str, version: str = OWN) -> Row:
    """Return the row of some tests."""
    return Row(version, ("pytest", "-q", *words))


MYPY = Row(OWN, ("mypy",))


def all_rows(words: list[str]) -> list[Row]:
    """
    Return what is run, in the order in which it is shown, this interpreter's tests last: the other way round it begins.

    All tests run with this interpreter.
    """
    versions = other_versions()
    parts = () if words else BETWEEN
    left_out = () if words else tuple(f"--ignore={path}" for path in OF_ANY_PYTHON)
    return [
        MYPY,
        *(pytest(*NOT_SLOW, *words, *parts, version=version) for version in versions[:-1]),
        *(pytest(*NOT_SLOW, *words, *left_out, version=version) for version in versions[-1:]),
        pytest("-m", "slow", *words),
        pytest(*NOT_SLOW, *words),
    ]


def run_at_once(rows: list[Row]) -> list[int]:
    """
    Run rows, some at once, since most tests wait for other processes, and return their exit codes.

    They begin with the last, which is the longest.  What failed is tried again when nothing else runs: rows at once are
    a load that some facts are not waited for long enough under.
    """
    # Ignored where a shell began this in the background, and so in all that is tested: no Ctrl-C would ever arrive.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    with tempfile.TemporaryDirectory() as memory, ThreadPoolExecutor(AT_ONCE) as pool:
        memories = [Path(memory) / str(number) for number in range(len(rows))]
        running = [pool.submit(run_quietly, row, place) for row, place in reversed([*zip(rows, memories, strict=True)])]
        minutes = 0
        while wait(running, 60).not_done:
            minutes += 1
            print(f"── the tests are running: {minutes} min", flush=True)
        ended = [each.result() for each in reversed(running)]
        ended = [try_again(one, place) for one, place in zip(ended, memories, strict=True)]
    show(ended)
    return [one.code if one.code != NO_TESTS else 0 for one in ended]


def run_quietly(row: Row, memory: Path) -> Ended:
    """Run one row; `memory` is where pytest keeps which tests failed."""
    return Ended(row, *_output_of(row, memory))


def try_again(ended: Ended, memory: Path) -> Ended:
    """Run what failed in a row once more, and say which tests that were and which of them passed now."""
    if not ended.row.is_tests or ended.code != FAILED:
        return ended
    failed = _failures(memory)
    if not failed:  # pytest would run them all
        return ended
    code, said = _output_of(ended.row, memory, "--last-failed")
    passed = tuple(name for name in failed if name not in _failures(memory))
    return Ended(ended.row, code, f"{ended.said}── what failed, once more:\n{said}", passed)


def show(rows: Sequence[Ended]) -> None:
    """Print what all rows said; the very last line is the last row's, and what failed at first stands before it."""
    text = "".join(f"{_name(one.row.argv(f'python{one.row.version}'))}\n{one.said}" for one in rows)
    before, _, closing = text.rstrip("\n").rpartition("\n")
    print(before)
    for one in rows:
        for name in one.passed_alone:
            print(f"failed under load, passed alone: {name} (Python {one.row.version})")
    print(closing, flush=True)


def announce(argv: Iterable[str]) -> None:
    """Say what is run."""
    print(_name(argv), flush=True)


def other_versions() -> list[str]:
    """Return the other versions of Python on this machine, the oldest first."""
    found = {version: find(version) for version in VERSIONS if version != OWN}
    for version, interpreter in found.items():
        if not interpreter:
            print(f"── Python {version}: not on this machine", flush=True)
    return [version for version, interpreter in found.items() if interpreter]


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


@functools.cache
def environment(version: str) -> Path:
    """Return the interpreter that has prod-run installed: this one, or one of an environment that is made here."""
    if version == OWN:
        return Path(sys.executable)
    python = ROOT / f".venv-test-{version}" / "bin" / "python"
    if not python.exists():
        subprocess.run([str(find(version)), "-m", "venv", python.parents[1]], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[test]"], check=True)
    return python


def _output_of(row: Row, memory: Path, *words: str) -> tuple[int, str]:
    argv = row.argv(environment(row.version))
    if row.is_tests:
        argv += ["-o", f"cache_dir={memory}", *words]
    result = subprocess.run(argv, cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return result.returncode, result.stdout


def _failures(memory: Path) -> list[str]:
    """Return the tests that failed, as pytest remembers them for --last-failed."""
    remembered = memory / "v" / "cache" / "lastfailed"
    return list(json.loads(remembered.read_text())) if remembered.exists() else []


def _name(argv: Iterable[str]) -> str:
    """Return a line that says what is run, without where the interpreter is."""
    return " ".join(("──", *(Path(word).name if word.startswith(os.sep) else word for word in argv)))
