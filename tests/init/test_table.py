"""Each row of the table, with each program: what is seen is what the row says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.init import table
from tests.init.row import PROGRAMS, Row
from tests.init.world import world

if TYPE_CHECKING:
    from pathlib import Path

# The originals are the same whatever Python looks at them: with the slow tests, which one Python runs.
ORACLE = pytest.mark.slow
CASES = [
    pytest.param(
        *(row, program, spelled),
        id=f"{program}-{row.key}-{number}" if number else f"{program}-{row.key}",
        marks=() if program == "prod-run" and not row.is_slow else ORACLE,
    )
    for row in table.ROWS
    for program in PROGRAMS
    for number, spelled in enumerate(row.spelled(program))
]


@pytest.mark.parametrize(("row", "program", "spelled"), CASES)
def test_what_the_table_says_is_so(row: Row, program: str, spelled: str, tmp_path: Path) -> None:
    """The oracle: tini and dumb-init themselves are held to the same rows, and their differences too."""
    with world(spelled, tmp_path) as one:
        assert row.scenario(one) == row.expected(program)


def test_no_row_is_without_a_word_for_each_program() -> None:
    """A row says how each program spells it, or why there is none."""
    for row in table.ROWS:
        for program in PROGRAMS:
            assert row.spelled(program) or row.differs[program].why


def test_every_row_is_one_of_its_own() -> None:
    """Two rows of one name would be one test."""
    keys = [row.key for row in table.ROWS]

    assert len(keys) == len(set(keys))
