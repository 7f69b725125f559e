"""The rows of the whole run hide nothing: a failure fails it, and what passed only alone is listed by name."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests import rows

FAILS_AT_FIRST = """
from pathlib import Path

def test_that_fails_at_first():
    here = Path(__file__).with_suffix(".seen")
    was_here = here.exists()
    here.touch()
    assert was_here

def test_that_passes():
    pass
"""
FAILS = "def test_that_fails():\n    assert False\n"
KNOWS_CTRL_C = """
import signal

def test_that_ctrl_c_arrives():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL
"""
PASSES = "def test_that_passes():\n    pass\n"
LINE = f"failed under load, passed alone: test_one.py::test_that_fails_at_first (Python {rows.OWN})"


@pytest.fixture(autouse=True)
def only_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its plugins take longer to load than these tests to run."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def row(folder: Path, source: str) -> rows.Row:
    """Return a row with one file of tests, in a folder that is not this repository's."""
    folder.mkdir()
    (folder / "test_one.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]\n")
    return rows.pytest("-c", str(folder / "pytest.ini"), str(folder))


def run(capfd: pytest.CaptureFixture[str], *several: rows.Row) -> tuple[list[int], list[str]]:
    """Run rows, and return their codes and the lines that they said."""
    codes = rows.run_at_once([*several])
    return codes, capfd.readouterr().out.splitlines()


def test_what_failed_at_first_is_named_before_the_closing_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """After all rows, whichever it was; the very last line is the last row's closing line."""
    codes, lines = run(capfd, row(tmp_path / "a", FAILS_AT_FIRST), row(tmp_path / "b", PASSES))

    assert codes == [0, 0]
    assert lines.count(LINE) == 1
    assert lines[-2] == LINE
    assert lines[-1].startswith("1 passed in")
    assert any("1 failed, 1 passed in" in line for line in lines)  # the first time is not hidden either


def test_what_fails_twice_fails_the_run_and_is_not_excused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Beside one that passes the second time, in the same row; here the last, whose second closing line is the last."""
    codes, lines = run(capfd, row(tmp_path / "a", FAILS_AT_FIRST + FAILS))

    assert codes == [1]
    assert [line for line in lines if "passed alone" in line] == [LINE] == [lines[-2]]
    assert "1 failed, 1 passed" in lines[-1]


def test_nothing_is_tried_again_where_nothing_failed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nor where a file cannot be imported: that is no load."""
    codes, lines = run(capfd, row(tmp_path / "a", "import nothing_of_this_name\n"), row(tmp_path / "b", PASSES))

    assert codes == [2, 0]
    assert not [line for line in lines if "once more" in line or "passed alone" in line]


def test_a_run_in_the_background_of_a_shell_knows_ctrl_c(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Such a shell ignores SIGINT and SIGQUIT for it, and what is ignored stays so over exec, signal(7)."""
    former = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        codes, _ = run(capfd, row(tmp_path / "a", KNOWS_CTRL_C))
    finally:
        for number, action in former.items():
            signal.signal(number, action)

    assert codes == [0]


def test_every_part_that_a_row_names_is_there() -> None:
    """A file that has another name now would be run by none, or by one more."""
    assert [path for path in (*rows.BETWEEN, *rows.OF_ANY_PYTHON) if not (rows.ROOT / path).exists()] == []


def test_this_python_runs_all_tests_and_is_shown_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow ones and the others are all there are; nothing is left out with it."""
    monkeypatch.setattr(rows, "other_versions", lambda: ["3.12", "3.13"])
    *_, slow, others = rows.all_rows([])

    assert (slow.words[2:], others.words[2:]) == (("-m", "slow"), ("-m", "not slow"))
    assert {slow.version, others.version} == {rows.OWN}
