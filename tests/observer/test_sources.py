"""Every pipe has its turn, every line its writer, and what the dead leave is read: no more, no less."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from launcher import protocol
from launcher.logs.batch import Batch, Form
from launcher.observer.sources import Sources

PIECE = 64 * 1024


class World:
    """Sources in the plainest form, and the writing ends of the pipes that they read."""

    def __init__(self) -> None:
        self.taken = 0
        self.sources = Sources("shop", Form("logfmt"), self._took)
        self.writing: dict[tuple[int, str], int] = {}

    def add(self, ticket: int, *streams: str, **facts: protocol.Field) -> None:
        """Have a process's pipes read."""
        given = []
        for stream in streams:
            reading, writing = os.pipe()
            os.set_blocking(reading, False)
            os.set_blocking(writing, False)
            given.append(reading)
            self.writing[ticket, stream] = writing
        fields = {"generation": 1, "pid": 100 + ticket, "mark": "", **facts}
        message = protocol.encode("capture", ticket=ticket, streams=streams, **fields)
        self.sources.add(protocol.decode(message), given)

    def say(self, ticket: int, data: bytes, stream: str = "stdout") -> int:
        """Write as that process would."""
        return os.write(self.writing[ticket, stream], data)

    def end(self, ticket: int, stream: str = "stdout") -> None:
        """Close a writing end."""
        os.close(self.writing.pop((ticket, stream)))

    def know(self, ticket: int, **facts: protocol.Field) -> None:
        """Tell more of a process."""
        self.sources.know(protocol.decode(protocol.encode("know", ticket=ticket, **facts)))

    def _took(self, lines: int) -> None:
        self.taken += lines


def test_pipes_for_which_there_is_no_descriptor_are_an_error_of_the_systems() -> None:
    """The kernel throws them away, and the message comes all the same: the loop ends with a sentence, no traceback."""
    message = protocol.encode("capture", ticket=1, streams=("stdout", "stderr"), generation=1, pid=7, mark="")

    with pytest.raises(OSError, match="no descriptors left"):
        World().sources.add(protocol.decode(message), [])


@pytest.fixture
def world() -> Iterator[World]:
    """Have one, and leave nothing open."""
    before = set(os.listdir("/proc/self/fd"))
    made = World()
    yield made
    for fd in made.writing.values():
        os.close(fd)
    for name in set(os.listdir("/proc/self/fd")) - before:
        try:
            os.close(int(name))
        except OSError:
            pass  # the descriptor of that listing itself


def text(batches: list[Batch]) -> str:
    """Return what was written."""
    return b"".join(batch.lines for batch in batches).decode()


def test_whoever_stops_half_way_goes_on_with_the_others(world: World) -> None:
    """A sink that takes little at a time must not starve those whose turn never comes."""
    for ticket in range(1, 5):
        world.add(ticket, "stdout")
    heard = []
    for _ in range(8):
        for ticket in range(1, 5):
            world.say(ticket, b"line\n")
        heard += [batch.source.pid for batch in next(world.sources.read())]

    assert sorted(heard[:4]) == sorted(heard[4:]) == [101, 102, 103, 104]


def test_one_reading_is_one_piece_of_each(world: World) -> None:
    """A chatty process does not hold up the others."""
    for ticket in (1, 2):
        world.add(ticket, "stdout")
        world.say(ticket, b"x" * 99 + b"\n")
    world.say(1, (b"y" * 99 + b"\n") * 600)

    assert sorted(batches[0].source.pid for batches in world.sources.read()) == [101, 102]


def test_what_is_known_later_stands_in_later_lines(world: World) -> None:
    """Slot, version and PID, each when it is told; of a stranger nothing."""
    world.add(1, "stdout", pid=0)
    world.say(1, b"one\n")
    first = text(next(world.sources.read()))
    world.know(1, pid=7, slot=3, version="2.0")
    world.know(9, pid=8)
    world.say(1, b"two\n")
    second = text(next(world.sources.read()))

    assert "pid=" not in first
    assert "version=2.0 slot=3 generation=1 pid=7 " in second


def test_what_the_dead_left_is_read_before_their_end_is_told(world: World) -> None:
    """All that was in its pipes, the unfinished line too if nobody else holds the pipe."""
    world.add(1, "stdout", "stderr")
    size = sum(world.say(1, b"%05d\n" % number) for number in range(10_000))
    world.say(1, b"why\nwords", "stderr")
    world.end(1)
    world.end(1, "stderr")
    batches = [batch for some in world.sources.gone(1, lambda: True) for batch in some]

    assert size < PIECE
    assert text(batches).count("message=") == 10_002
    assert world.sources.take_finished() == [(1, "stdout"), (1, "stderr")]
    assert world.sources.last_words(1) == "why\nwords"
    assert world.sources.last_words(1) == ""
    assert list(world.sources.gone(1, lambda: True)) == []


def test_the_last_words_are_known_while_somebody_else_holds_the_pipe(world: World) -> None:
    """A child of the dead one's has its stderr open: the words are told all the same, the unfinished line too."""
    world.add(1, "stderr")
    world.say(1, b"why\nwords", "stderr")
    list(world.sources.gone(1, lambda: True))

    assert world.sources.last_words(1) == "why\nwords"


def test_a_flood_that_goes_on_after_a_death_is_not_read_to_its_end(world: World) -> None:
    """Only what was there: somebody else's `yes` must hold up nobody, and fill no memory."""
    world.add(1, "stdout")
    flood = b"y\n" * (PIECE // 2)
    world.say(1, flood)
    pieces = 0
    for _ in world.sources.gone(1, lambda: True):
        pieces += 1
        world.say(1, flood)  # as much as there is room

    assert pieces <= 3
    assert world.sources.take_finished() == []
    assert world.taken <= pieces * PIECE // 2


def test_a_childs_lines_come_after_its_parents_death(world: World) -> None:
    """Whoever holds the pipe is heard, under the dead one's name; then its end is told."""
    world.add(1, "stdout")
    assert [batch for some in world.sources.gone(1, lambda: True) for batch in some] == []
    world.say(1, b"late\n")
    late = text(next(world.sources.read()))
    world.end(1)
    list(world.sources.read())

    assert "pid=101" in late
    assert world.sources.take_finished() == [(1, "stdout")]


def test_an_unfinished_line_is_due_and_goes_out(world: World) -> None:
    """Nothing is due while nothing is held back."""
    world.add(1, "stdout")
    world.say(1, b"whole\n")
    list(world.sources.read())
    nothing = world.sources.deadline()
    world.say(1, b"half")
    list(world.sources.read())
    due = world.sources.deadline()
    assert due is not None
    early = world.sources.expire(due - 0.01)
    out = text(world.sources.expire(due))

    assert nothing is None
    assert early == []
    assert 'partial=true message="half"' in out
    assert world.sources.deadline() is None


def test_a_line_whose_end_is_in_the_pipe_is_not_given_out_by_half(world: World) -> None:
    """That it was not read yet, for the sink is behind or we had no turn, is no pause of the writer's."""
    world.add(1, "stdout", "stderr")
    world.say(1, b"ha")
    world.say(1, b"Traceback (most recent call last):\n", "stderr")
    list(world.sources.read())
    world.say(1, b"lf\n")
    world.say(1, b'  File "a.py", line 1, in <module>\n', "stderr")
    late = world.sources.expire(time.monotonic() + 60)
    rest = [batch for batches in world.sources.read() for batch in batches]

    assert late == []
    assert 'message="half"' in text(rest) or "message=half" in text(rest)
    assert "Traceback" in text(world.sources.expire(time.monotonic() + 60))


def test_at_the_end_everything_is_read(world: World) -> None:
    """Of processes that live as well."""
    for ticket in (1, 2):
        world.add(ticket, "stdout")
        world.say(ticket, b"one\ntwo")
    out = text([batch for some in world.sources.read_to_the_end() for batch in some])

    assert out.count('message="one"') == out.count('message="two"') == 2


def test_the_words_of_many_dead_are_forgotten_at_last(world: World) -> None:
    """The oldest first."""
    for ticket in range(1, 41):
        world.add(ticket, "stderr")
        world.say(ticket, b"words\n", "stderr")
        world.end(ticket, "stderr")
        list(world.sources.gone(ticket, lambda: True))

    assert [bool(world.sources.last_words(ticket)) for ticket in (1, 8, 9, 40)] == [False, False, True, True]
