"""`--watch`: a template, and a file that a template reads, are inputs like secrets and env files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.processes.running import Running, children_of, processes, title, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

APP = """
import launcher

def main(worker: launcher.Worker):
    print("made of", open(worker.templates["web.conf"]).read(), flush=True)
    worker.ready()
    worker.stopping.wait()
"""


@pytest.fixture
def running(start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path) -> Running:
    """One that watches a template, which is filled with a file's text."""
    pytest.importorskip("jinja2")
    app(APP)
    (tmp_path / "motd").write_text("first")
    (tmp_path / "web.conf.j2").write_text("one {{ file('motd') }}")
    one = start("--watch", "--template", "web.conf.j2:web.conf", "app:main")
    one.wait_for(event="committed", generation=1)
    until(lambda: is_watched(one.pid), "a process that watches")
    return one


def is_watched(pid: int) -> bool:
    """Say whether a process looks at the files."""
    below = children_of(pid)
    return any("[watch]" in title(one) for one, parent, _ in processes() if parent in below)


def test_a_changed_template_and_a_changed_input_are_followed(running: Running, tmp_path: Path) -> None:
    """Each by a reload that says which file it was; what is written again as it was is no change."""
    (tmp_path / "motd").write_text("second")
    running.wait_for("made of one second")
    running.wait_for(event="committed", generation=2)
    (tmp_path / "web.conf.j2").write_text("two {{ file('motd') }}")
    running.wait_for("made of two second")

    origins = [line["origin"] for line in running.lines if line.get("event") == "preparing"]
    assert "motd" in origins[1]
    assert "web.conf.j2" in origins[2]
    assert running.stop() == 0


def test_a_template_with_a_mistake_leaves_the_former_file(running: Running, tmp_path: Path) -> None:
    """The reload is rejected with its place, and the next change is taken."""
    (tmp_path / "web.conf.j2").write_text("two\n{{ file('nowhere') }}")
    rejected = running.wait_for(event="rejected", generation=2)
    assert "web.conf.j2:2" in rejected["reason"]
    assert (tmp_path / "web.conf").read_text() == "one first"

    (tmp_path / "web.conf.j2").write_text("three {{ file('motd') }}")
    running.wait_for("made of three first")
    running.wait_for(event="committed", generation=3)
    assert (tmp_path / "web.conf").read_text() == "three first"
    assert running.stop() == 0
