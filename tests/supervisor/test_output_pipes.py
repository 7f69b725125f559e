"""The pipes that workers write to: their size, and what is read in the observer's place."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.supervisor import output_pipes

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 256 * 1024


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Make a pipe of which both ends never block."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, SIZE)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def rest_of(reading: int) -> bytes:
    """Read what is there."""
    found = b""
    try:
        while piece := os.read(reading, 65536):
            found += piece
    except BlockingIOError:
        pass
    return found


@pytest.mark.parametrize("length", [1, 7, 100, 1000, 4000])
def test_what_is_discarded_ends_with_a_line(pipe: tuple[int, int], length: int) -> None:
    """The next observer begins with a whole line, and every line is either there or counted."""
    line = b"x" * (length - 1) + b"\n"
    reading, writing = pipe
    written = os.write(writing, line * (SIZE * 3 // 4 // length))
    discarded = output_pipes.make_room(reading)
    rest = rest_of(reading)

    assert SIZE // 8 < len(rest) <= SIZE // 2
    assert len(rest) % length == 0
    assert discarded == (written - len(rest)) // length


def test_a_line_without_an_end_is_not_read_for_ever(pipe: tuple[int, int]) -> None:
    """Its rest comes out torn; more is not read than the room needs."""
    reading, writing = pipe
    written = os.write(writing, b"x" * (SIZE * 3 // 4))

    assert output_pipes.make_room(reading) == 0
    assert len(rest_of(reading)) == written - 65536 - output_pipes._NEAR


def test_a_pipe_that_is_half_empty_is_let_alone(pipe: tuple[int, int]) -> None:
    """It is the observer's; also one that has an unfinished line, and one without a writer."""
    reading, writing = pipe
    os.write(writing, b"a\nb")

    assert output_pipes.make_room(reading) == 0
    assert rest_of(reading) == b"a\nb"


MEBIBYTE = 1024 * 1024
PROCESSES = st.integers(1, 40)


@settings(max_examples=40, deadline=None)
@given(workers=PROCESSES, steps=st.lists(st.integers(-8, 8), max_size=6))
def test_all_pipes_together_hold_at_most_sixteen_megabytes(workers: int, steps: list[int]) -> None:
    """Whoever lives, counts: a scale-up, a reload's second generation, zygotes and spares; 64 KiB is what all have."""
    pipes: list[tuple[int, int]] = []

    def bear() -> None:
        new = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
        output_pipes.share_out((new[0][0], new[1][0]), [reading for reading, _ in pipes], workers)
        pipes.extend(new)

    try:
        for step in (workers + 1, workers + 2, *steps):
            for _ in range(step):
                bear()
            for _ in range(min(-2 * step, len(pipes))):
                for fd in pipes.pop(0):
                    os.close(fd)
            sizes = [fcntl.fcntl(reading, fcntl.F_GETPIPE_SZ) for reading, _ in pipes]
            assert sum(sizes) <= 16 * MEBIBYTE or set(sizes) == {65536}
            assert all(size >= 65536 for size in sizes)
    finally:
        for fd in (fd for pair in pipes for fd in pair):
            os.close(fd)


def test_two_workers_have_the_largest_pipes_also_in_a_reload() -> None:
    """Both generations alike."""
    pipes: list[tuple[int, int]] = []
    for _ in range(6):
        pipes += [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
        output_pipes.share_out((pipes[-2][0], pipes[-1][0]), [reading for reading, _ in pipes[:-2]], 2)
    sizes = {fcntl.fcntl(reading, fcntl.F_GETPIPE_SZ) for reading, _ in pipes}
    for fd in (fd for pair in pipes for fd in pair):
        os.close(fd)

    assert sizes == {MEBIBYTE}
