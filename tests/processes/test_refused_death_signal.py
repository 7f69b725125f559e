"""A sandbox that refuses prctl(PR_SET_PDEATHSIG) is said by name, and costs a plain command nothing."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

import pytest

from launcher.errors import Exit
from tests.processes.running import Running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NUMBERS = {"x86_64": 157, "aarch64": 167}  # of prctl(2)

# seccomp(2), in classic BPF: prctl(PR_SET_PDEATHSIG) is EPERM, all else is allowed.
FILTER = """
import ctypes, os, struct, sys
number = int(sys.argv[1])
program = b"".join(struct.pack("=HBBI", *line) for line in (
    (0x20, 0, 0, 0),            # load the number of the call
    (0x15, 0, 3, number),       # prctl?
    (0x20, 0, 0, 16),           # load the low half of its first argument
    (0x15, 0, 1, 1),            # PR_SET_PDEATHSIG?
    (0x06, 0, 0, 0x00050001),   # EPERM
    (0x06, 0, 0, 0x7fff0000),
))
buffer = ctypes.create_string_buffer(program)
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, struct.pack("@HP", 6, ctypes.addressof(buffer)), 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def refusing(tmp_path: Path) -> tuple[object, ...]:
    """Return the words to put before prod-run's."""
    number = NUMBERS.get(platform.machine())
    if number is None:
        pytest.skip(f"the number of prctl(2) on {platform.machine()} is not in the table")
    script = tmp_path / "refusing.py"
    script.write_text(FILTER)
    return (sys.executable, script, number)


@pytest.mark.parametrize("preload", ["always", "never"])
def test_a_service_does_not_start_without_it(
    start: Callable[..., Running], hello: Callable[..., Path], refusing: tuple[object, ...], preload: str
) -> None:
    """Exit 71 and what was refused, before anything is started."""
    hello()
    running = start("--preload", preload, "-b", "127.0.0.1:0", "hello:main", before=refusing)

    assert running.wait() == Exit.OS_ERROR
    assert "prctl(PR_SET_PDEATHSIG)" in running.text()
    assert "started" not in running.text()


def test_a_plain_command_runs_and_one_line_says_so(start: Callable[..., Running], refusing: tuple[object, ...]) -> None:
    """It is as transparent as it can be: its own exit code, its own output."""
    running = start("--", "sh", "-c", "echo here; exit 7", before=refusing)

    assert running.wait() == 7
    assert "here" in running.text()
    assert running.text().count("the system refused prctl(PR_SET_PDEATHSIG)") == 1
