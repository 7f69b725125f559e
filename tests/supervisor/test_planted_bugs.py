"""The harness is worth its name: every planted bug is caught by a promise."""

from __future__ import annotations

import pytest

from tests.supervisor import planted_bugs


@pytest.mark.slow
def test_every_planted_bug_is_caught_by_a_promise() -> None:
    """Not by a crash, and no patch has lost its place in the source."""
    assert planted_bugs.main() == 0
