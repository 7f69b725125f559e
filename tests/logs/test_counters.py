"""The page of counters outlives an observer: what is missing in it was lost with the one that was killed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.logs import counters
from launcher.logs.counters import DROPPED, LOST, PASSED, SIZE, TAKEN, Counters

LIVES = st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=5), max_size=5)


@pytest.fixture
def page() -> Iterator[int]:
    """Have an empty page."""
    fd = counters.page()
    yield fd
    os.close(fd)


def test_a_page_is_empty_and_closed_on_exec(page: int) -> None:
    """Nobody but an observer gets it."""
    assert os.pread(page, SIZE + 1, 0) == bytes(SIZE)
    assert not os.get_inheritable(page)


def test_what_one_held_is_lost_for_the_next(page: int) -> None:
    """Neither passed nor dropped: it is written off, once."""
    first = Counters(page)
    first.add(TAKEN, 10)
    first.keep(5, 2)
    second = Counters(page)

    assert second.held == 3
    assert second.lose_what_was_held() == 3
    assert (second.held, second.lose_what_was_held()) == (0, 0)
    assert [second[place] for place in (TAKEN, PASSED, DROPPED, LOST)] == [10, 5, 2, 3]


def test_one_that_named_too_much_hides_nothing(page: int) -> None:
    """A kill between the write and the count: nothing negative is ever lost."""
    first = Counters(page)
    first.add(TAKEN, 1)
    first.keep(2, 0)

    assert Counters(page).lose_what_was_held() == 0


@given(LIVES)
def test_the_sum_is_right_over_any_number_of_lives(lives: list[list[tuple[int, int, int]]]) -> None:
    """What was taken is passed, dropped, lost or held, and each sink counts from nothing."""
    fd = counters.page()
    try:
        taken = 0
        for steps in lives:
            one, passed, dropped = Counters(fd), 0, 0
            one.lose_what_was_held()
            for more, sent, given_up in steps:
                taken += more
                one.add(TAKEN, more)
                passed += min(sent, one.held)
                one.keep(passed, dropped)
                dropped += min(given_up, one.held)
                one.keep(passed, dropped)
            assert one[TAKEN] == taken == one[PASSED] + one[DROPPED] + one[LOST] + one.held
            assert one.held >= 0
    finally:
        os.close(fd)
