"""Whatever goes wrong beside the serving generation, no client notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import hostile_tree


@pytest.mark.slow
def test_no_client_notices_what_goes_wrong(tmp_path: Path) -> None:
    """Broken code, hanging imports, dead zygotes, storms of signals: no failure, and nobody sees a rejected generation."""
    verdict = hostile_tree.run(tmp_path / "tree")
    print(hostile_tree.table(verdict.rows))

    assert verdict.complaints == []
    assert all(row.failures == 0 for row in verdict.rows)
    assert all(row.requests > 0 for row in verdict.rows)
    assert all(row.of_killed <= hostile_tree.CLIENTS for row in verdict.rows if "two" not in row.phase)


@pytest.mark.slow
def test_the_clients_would_notice(tmp_path: Path) -> None:
    """When the supervisor is killed, every client sees a failure: a check that cannot fail is worth nothing."""
    verdict = hostile_tree.control(tmp_path / "control")

    assert verdict.rows[0].failures >= hostile_tree.CLIENTS
    assert verdict.complaints
