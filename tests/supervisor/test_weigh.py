"""The figures for a reload, as they are gathered: the longer look is taken only where the quick one does not suffice."""

from __future__ import annotations

import pytest

from launcher import memory
from launcher.memory import Room
from launcher.supervisor import actions as do
from launcher.supervisor import events as on
from launcher.supervisor.carry_out import Hands

SIZES = {1: 50, 11: 1000, 12: 20, 13: 30, 14: 0}


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have processes with known sizes, half of each shared; return the PIDs that were looked at for longer."""
    pids: list[int] = []

    def private(pid: int) -> int:
        pids.append(pid)
        return SIZES[pid] // 2

    monkeypatch.setattr(memory, "anonymous", lambda pid: SIZES[pid])
    monkeypatch.setattr(memory, "private", private)
    return pids


@pytest.mark.parametrize(
    ("room", "order", "expected", "longer"),
    [
        (None, do.Weigh(1, (11, 12, 13), 3), on.Weighed(0, 0, 0, 0), []),
        # The usual one is neither the largest nor the smallest.
        (Room(240, 100), do.Weigh(1, (11, 12, 13), 3), on.Weighed(240, 100, 50, 30), []),
        (Room(239, 100), do.Weigh(1, (11, 12, 13), 3), on.Weighed(239, 100, 50, 15), [13]),
        (Room(1000, 100), do.Weigh(0, (12,), 1), on.Weighed(1000, 100, 0, 20), []),
        (Room(100, 100), do.Weigh(1, (), 1), on.Weighed(100, 100, 50, 0), []),
    ],
)
def test_the_figures(
    room: Room | None,
    order: do.Weigh,
    expected: on.Weighed,
    longer: list[int],
    looked_at: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All that is known of it, and no look that is not needed."""
    monkeypatch.setattr(memory, "room", lambda: room)
    hands = Hands.__new__(Hands)

    assert Hands._weigh(hands, order) == [expected]
    assert looked_at == longer
