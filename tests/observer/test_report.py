"""What `/status` holds, from values alone."""

from __future__ import annotations

import pytest

from launcher import memory
from launcher.memory import Room
from launcher.observer import report
from launcher.observer.endpoints import About, Known
from launcher.observer.state import State


@pytest.mark.parametrize(("room", "shown"), [(None, None), (Room(512, 300), {"limit": 512, "use": 300})])
def test_the_memory_limit_is_shown(
    room: Room | None, shown: dict[str, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bytes, with what is used of it; nothing where none is known."""
    monkeypatch.setattr(memory, "room", lambda: room)
    known = Known(About(), State(), monotonic=10.0, time=1000.0, silent_for=0.0, version=None)

    assert report.status(known, is_private=False)["memory"] == shown
