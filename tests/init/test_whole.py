"""The rows of prod-run again, with the whole supervisor around the command: what it costs is on the page, no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.init import table
from tests.init.world import world

if TYPE_CHECKING:
    from pathlib import Path

    from tests.init.row import Row

# What brings it: a socket for prod-ctl.
SETTING = "prod-run --control control.sock "
# By row: what is seen instead.  Said in words at the top of the page.
DIFFERS: dict[str, object] = {
    "environment": False,  # NOTIFY_SOCKET
    "descriptors": False,
    "closed-standard-files": (0, "open: 012\n"),
    "directory": False,
}
# What the whole supervisor does in its own way, and what differs; the others are with the slow tests.
QUICK = {*DIFFERS, "in-order", "none-lost-in-a-storm", "a-handler-for-suspension", "rest-is-given-time"}


def _marks(row: Row) -> tuple[pytest.MarkDecorator, ...]:
    return () if row.key in QUICK else (pytest.mark.slow,)


CASES = [
    pytest.param(row, spelled.replace("prod-run ", SETTING), id=f"{row.key}-{number}", marks=_marks(row))
    for row in table.ROWS
    for number, spelled in enumerate(row.spelled("prod-run"))
]


@pytest.mark.parametrize(("row", "spelled"), CASES)
def test_one_command_with_the_whole_supervisor(row: Row, spelled: str, tmp_path: Path) -> None:
    """It is as transparent as without, but for what the page says."""
    with world(spelled, tmp_path) as one:
        assert row.scenario(one) == DIFFERS.get(row.key, row.expected("prod-run"))
