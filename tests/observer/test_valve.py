"""Reading pauses for a sink that is behind, but never for long: no worker may wait for a log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from launcher.observer.valve import FULL, PATIENCE, Valve


def test_it_is_open_while_the_sink_keeps_up() -> None:
    """Anything less than full is read on, and nothing is due."""
    valve = Valve()
    for now in range(10):
        valve.adjust(FULL - 1, float(now))

        assert valve.is_open
        assert valve.deadline() is None


def test_it_closes_for_a_moment_and_opens_when_the_sink_has_room() -> None:
    """Half of it is gone: read on."""
    valve = Valve()
    valve.adjust(FULL, 1.0)
    closed = (valve.is_open, valve.deadline())
    valve.adjust(FULL // 2, 1.1)
    still = valve.is_open
    valve.adjust(FULL // 2 - 1, 1.2)

    assert closed == (False, 1.0 + PATIENCE)
    assert not still
    assert valve.is_open


def test_a_sink_that_is_stuck_is_waited_for_half_of_the_time() -> None:
    """Reading goes on, and the sink drops; after as long as it was waited for it gets another moment."""
    valve = Valve()
    valve.adjust(FULL, 1.0)
    opened = 1.0 + PATIENCE
    valve.adjust(8 * FULL, opened)
    first = (valve.is_open, valve.deadline())
    valve.adjust(8 * FULL, opened + 0.9 * PATIENCE)
    still = valve.is_open
    valve.adjust(8 * FULL, opened + 1.1 * PATIENCE)

    assert first == (True, None)
    assert still
    assert not valve.is_open


def test_a_sink_that_has_caught_up_is_waited_for_anew() -> None:
    """What was forced is forgotten."""
    valve = Valve()
    valve.adjust(FULL, 1.0)
    valve.adjust(FULL, 1.0 + PATIENCE)
    valve.adjust(0, 1.1 + PATIENCE)
    valve.adjust(FULL, 1.2 + PATIENCE)

    assert not valve.is_open


@given(st.lists(st.tuples(st.integers(0, 9 * FULL), st.floats(0, 0.2))))
def test_it_is_never_closed_for_longer_than_its_patience(steps: list[tuple[int, float]]) -> None:
    """Whatever the sink does: at its deadline it opens, if it is asked then."""
    valve, now, closed_since = Valve(), 0.0, None
    for backlog, pause in steps:
        now += pause
        due = valve.deadline()
        if due is not None and now >= due:
            now = due
        valve.adjust(backlog, now)
        if valve.is_open:
            closed_since = None
        elif closed_since is None:
            closed_since = now
        assert closed_since is None or now < closed_since + PATIENCE
        assert (valve.deadline() is None) is valve.is_open
