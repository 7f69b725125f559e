"""What the manager above hears when its queue is full."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from launcher.supervisor.upwards import Upwards

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def above(tmp_path: Path) -> Iterator[socket.socket]:
    """Be the manager: its socket, never waited for."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "notify"))
        one.setblocking(False)
        yield one


@pytest.fixture
def upwards(above: socket.socket) -> Iterator[Upwards]:
    """Have the way to it."""
    one = Upwards(above.getsockname(), 0.0)
    yield one
    assert one._socket
    one._socket.close()


def fill(above: socket.socket) -> None:
    """Send to it until there is no room."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"X=1", above.getsockname())


def read(above: socket.socket) -> list[dict[str, str]]:
    """Take all that is in the queue, without what filled it."""
    found = []
    while True:
        try:
            found.append(dict(line.split("=", 1) for line in above.recv(4096).decode().split("\n")))
        except BlockingIOError:
            return [fields for fields in found if "X" not in fields]


def test_ready_is_not_lost_when_the_queue_is_full(above: socket.socket, upwards: Upwards) -> None:
    """It is said once there is room, and until then there is a deadline; afterwards there is none."""
    fill(above)
    upwards.tell(("READY=1", "STATUS=serving"))
    upwards.watch()
    assert upwards.deadline() is not None
    assert read(above) == []

    upwards.watch()

    assert read(above) == [{"READY": "1", "STATUS": "serving"}]
    assert upwards.deadline() is None
    upwards.watch()
    assert read(above) == []


def test_the_last_word_of_each_kind_is_said_in_order(above: socket.socket, upwards: Upwards) -> None:
    """A reload that came and went meanwhile ends with READY, and its time is that of its beginning."""
    fill(above)
    upwards.tell(("READY=1", "STATUS=one"))
    upwards.tell(("RELOADING=1", "STATUS=preparing"))
    upwards.tell(("STATUS=looking",))
    upwards.tell(("READY=1", "STATUS=two"))
    read(above)

    upwards.tell(("STOPPING=1",))

    said = read(above)
    assert [next(iter(fields)) for fields in said] == ["RELOADING", "STATUS", "READY", "STOPPING"]
    assert said[0]["MONOTONIC_USEC"]
    assert said[2]["STATUS"] == "two"


def test_nobody_waits_for_a_manager_that_is_gone(above: socket.socket, upwards: Upwards) -> None:
    """What cannot be said to anybody is forgotten."""
    above.close()

    upwards.tell(("READY=1",))

    assert upwards.deadline() is None


def test_what_is_shown_is_said_once(above: socket.socket, upwards: Upwards) -> None:
    """Neither twice, nor if another word had it."""
    upwards.tell(("READY=1", "STATUS=serving 2/2, 1 draining"))
    for text in ("serving 2/2, 1 draining", "serving 2/2", "serving 2/2"):
        upwards.show(text)

    assert read(above) == [{"READY": "1", "STATUS": "serving 2/2, 1 draining"}, {"STATUS": "serving 2/2"}]
