"""A worker's output reaches the log as whole lines, whatever pieces the pipe makes of it."""

from __future__ import annotations

import fcntl
import os
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.supervisor.forward import CUT, LONGEST, Lines

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 64 * 1024


class Pipe:
    """A worker's pipe: `say` is the worker, `lines` the supervisor."""

    def __init__(self) -> None:
        reading, self.writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(self.writing, False)
        self.lines = Lines(reading, remember=True)

    def say(self, data: bytes) -> None:
        """Write as the worker would, all of it."""
        assert os.write(self.writing, data) == len(data)

    def heard(self, data: bytes) -> bytes:
        """Let the worker say something and read all that comes of it."""
        out = b""
        while data:
            self.say(data[:PIECE])
            data = data[PIECE:]
            out += self.lines.read()
        return out

    def hang_up(self) -> None:
        """End the worker."""
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def close(self) -> None:
        """Close both ends."""
        self.hang_up()
        os.close(self.lines.fileno())


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Give a pipe with room, and take both ends back."""
    made = Pipe()
    yield made
    made.close()


@given(data=st.binary(max_size=300).map(lambda text: text.replace(b"\x07", b"\n")), cuts=st.lists(st.integers(0, 300)))
def test_lines_are_whole_wherever_the_pieces_end(data: bytes, cuts: list[int]) -> None:
    """However the output is cut into writes, what comes out are whole lines, and together the same text."""
    pipe = Pipe()
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    try:
        parts = [pipe.heard(data[start:end]) for start, end in pairwise(edges)]
        pipe.hang_up()
        parts.append(pipe.lines.read())
    finally:
        pipe.close()

    assert all(not part or part.endswith(b"\n") for part in parts)
    assert b"".join(parts) == data + (b"\n" if data and not data.endswith(b"\n") else b"")


def test_a_silent_worker_costs_nothing(pipe: Pipe) -> None:
    """Nothing to read is no lines, no end and no waiting."""
    assert pipe.lines.read() == b""
    assert not pipe.lines.ended


def test_half_a_line_waits_for_its_end_or_the_worker(pipe: Pipe) -> None:
    """A partial line is held back until it is whole, and given a newline if its writer ends."""
    assert pipe.heard(b"hal") == b""
    assert pipe.heard(b"f\nlast") == b"half\n"
    pipe.hang_up()
    assert not pipe.lines.ended
    assert pipe.lines.read() == b"last\n"
    assert pipe.lines.ended
    assert pipe.lines.read() == b""


def test_one_call_reads_one_piece(pipe: Pipe) -> None:
    """A chatty worker holds the loop for 64 KiB at most, then others have their turn."""
    fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, 4 * PIECE)
    line = b"x" * 1023 + b"\n"
    pipe.say(line * 128)

    assert [len(pipe.lines.read()) for _ in range(3)] == [PIECE, PIECE, 0]


@pytest.mark.parametrize("more", [1, PIECE, 5 * PIECE])
def test_an_endless_line_is_cut_once_and_marked(pipe: Pipe, more: int) -> None:
    """A line over 64 KiB loses its end, says so, and costs the next line nothing."""
    out = pipe.heard(b"x" * (LONGEST + more) + b"\nnext\n")

    assert out == b"x" * LONGEST + CUT + b"next\n"


def test_a_line_of_just_the_limit_is_whole(pipe: Pipe) -> None:
    """64 KiB are allowed."""
    line = b"x" * LONGEST + b"\n"

    assert pipe.heard(b"first\n") + pipe.heard(line) == b"first\n" + line


def test_a_cut_never_splits_a_character(pipe: Pipe) -> None:
    """What remains of a cut line is still text."""
    out = pipe.heard(("x" + "é" * LONGEST + "\n").encode())

    assert out.decode() == "x" + "é" * (LONGEST // 2 - 1) + CUT.decode()


def test_a_cut_line_that_never_ends_is_told_once(pipe: Pipe) -> None:
    """A worker that dies in an endless line leaves one cut line, and no empty one."""
    out = pipe.heard(b"x" * 3 * PIECE)
    pipe.hang_up()

    assert out + pipe.lines.read() == b"x" * LONGEST + CUT


def test_the_last_words_are_the_last_fifty_lines(pipe: Pipe) -> None:
    """A death record can show what the worker said last, the unfinished line included."""
    pipe.heard(b"".join(b"line %d\n" % number for number in range(100)) + b"half")

    assert pipe.lines.last_words().split("\n") == [*(f"line {number}" for number in range(51, 100)), "half"]


def test_the_last_words_are_bounded(pipe: Pipe) -> None:
    """Long lines count by size: at most 16 KiB, from the first whole line on."""
    for number in range(40):
        pipe.heard(b"%d " % number + b"x" * 1000 + b"\n")
    words = pipe.lines.last_words()

    assert len(words) <= 16 * 1024
    assert words.startswith("24 xxx")
    assert words.endswith("x")


def test_one_huge_last_word_keeps_its_end(pipe: Pipe) -> None:
    """A single line over the bound is shown by its end, not left out."""
    pipe.heard(b"x" * 20_000 + b" the reason\n")

    assert pipe.lines.last_words().endswith("x the reason")
    assert len(pipe.lines.last_words()) <= 16 * 1024


def test_words_that_are_not_text_are_shown_escaped(pipe: Pipe) -> None:
    """Bytes that are no UTF-8 cannot break the record that carries them."""
    pipe.heard(b"caf\xe9\n")

    assert pipe.lines.last_words() == "caf\\xe9"


def test_closing_gives_up_the_unfinished_line() -> None:
    """When a grandchild holds the pipe open, the worker's half line is not lost with the reading end."""
    pipe = Pipe()
    try:
        assert pipe.heard(b"whole\nhalf") == b"whole\n"
        assert pipe.lines.close() == b"half\n"
        assert pipe.lines.ended
    finally:
        pipe.hang_up()
