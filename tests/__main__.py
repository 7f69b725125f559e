"""
The one test command: format, lint, types, and the tests on every Python that is installed.

`python -m tests` runs all of it; `python -m tests --fast` leaves out slow tests and other Pythons.
Other words go to pytest.
"""

from __future__ import annotations

import subprocess
import sys

from tests import rows

CHECKED = ("launcher", "tests", "examples")


def main() -> int:
    """Run everything, and show this interpreter's tests last; return the first exit code that is not 0."""
    words = [word for word in sys.argv[1:] if word != "--fast"]
    python = sys.executable
    codes = [
        run([python, "-m", "ruff", "format", "--check", *CHECKED]),
        run([python, "-m", "ruff", "check", *CHECKED]),
    ]
    if "--fast" in sys.argv:
        codes.append(run(rows.MYPY.argv(python)))
        codes.append(run(rows.pytest("-m", "not slow", *words).argv(python)))
    else:
        codes += rows.run_at_once(rows.all_rows(words))
    return next((code for code in codes if code), 0)


def run(argv: list[str]) -> int:
    """Run one step and say which."""
    rows.announce(argv)
    return subprocess.run(argv, cwd=rows.ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
