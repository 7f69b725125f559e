"""A worker that the kernel killed for want of memory: said where the counts tell, never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.supervisor import memory_kills
from launcher.supervisor.memory_kills import MemoryKills


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a control group's memory.events, with one kill before our time."""
    path = tmp_path / "memory.events"
    path.write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n")
    monkeypatch.setattr(memory_kills, "_of_control_group", lambda: [str(tmp_path / "missing"), str(path)])
    return path


def test_one_more_kill_explains_one_death(events: Path) -> None:
    """Only what is new since the last look."""
    kills = MemoryKills()
    before = kills.explain()
    events.write_text(events.read_text().replace("oom_kill 1", "oom_kill 2"))

    assert (before, kills.explain(), kills.explain()) == ("", "out of memory", "")


def test_a_file_that_goes_away_explains_nothing(events: Path) -> None:
    """The group was removed, or /proc is not mounted: a death without a reason is still a death."""
    kills = MemoryKills()
    events.unlink()

    assert kills.explain() == ""


def test_the_machines_count_is_a_guess_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been somebody else's process."""
    path = tmp_path / "vmstat"
    path.write_text("nr_free_pages 1\noom_kill 7\n")
    monkeypatch.setattr(memory_kills, "_of_control_group", list)
    monkeypatch.setattr(memory_kills, "_MACHINE", str(path))
    kills = MemoryKills()
    path.write_text("nr_free_pages 1\noom_kill 8\n")

    assert kills.explain().startswith("perhaps out of memory")
