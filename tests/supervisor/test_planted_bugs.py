"""The harness is worth its name: planted bugs are caught by a promise."""

from __future__ import annotations

import pytest

from tests.supervisor import planted_bugs


@pytest.mark.slow
def test_the_bugs_of_the_design_are_caught_by_a_promise() -> None:
    """Not by a crash; all of them, which takes minutes, are hunted by `python -m tests.supervisor.planted_bugs`."""
    assert planted_bugs.main(bugs=planted_bugs.OF_THE_DESIGN) == 0


def test_every_patch_has_its_place_in_the_source() -> None:
    """A bug that cannot be planted any more shows nothing."""
    assert [bug.name for bug in planted_bugs.BUGS if not planted_bugs.fits(bug)] == []
