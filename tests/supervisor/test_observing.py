"""When the observer is started, asked and given up, without a process: DESIGN §6."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from launcher.supervisor.observing import (
    AWAY_AFTER,
    BOOT_LIMIT,
    DOUBT_AFTER,
    FIRST_DELAY,
    GIVE_UP_AFTER,
    GROWTH,
    LONGEST_DELAY,
    LOOK,
    MANY_DEATHS,
    STABLE_AFTER,
    WITHIN,
    Observing,
)

PID = 42


def even() -> float:
    """Return a chance that changes no delay."""
    return 0.5


@pytest.fixture
def life() -> Observing:
    """Have one that nobody has started, at time 0."""
    return Observing(0.0, even)


def up(life: Observing, now: float) -> Observing:
    """Start one that watches at once."""
    life.started(PID, now)
    life.came_up()
    return life


def test_it_is_started_at_once(life: Observing) -> None:
    """And not a second time."""
    assert life.must_start(0.0)
    assert life.deadline(0.0, is_needed=False) == 0.0
    life.started(PID, 0.0)

    assert not life.must_start(99.0)


def test_one_that_says_nothing_at_its_start_is_given_up(life: Observing) -> None:
    """It is not asked before it watches; its time is generous."""
    life.started(PID, 0.0)

    assert not life.asked(1.0)
    assert not life.must_end(BOOT_LIMIT - 0.1)
    assert life.must_end(BOOT_LIMIT)
    assert life.deadline(0.0, is_needed=False) == BOOT_LIMIT


def test_one_that_watches_and_was_asked_nothing_is_left_alone(life: Observing) -> None:
    """Idle for a day: nothing is due."""
    up(life, 0.0)

    assert life.deadline(86400.0, is_needed=True) is None
    assert not life.is_away(86400.0)
    assert not life.must_end(86400.0)


def test_a_silent_one_is_doubted_then_given_up_once(life: Observing) -> None:
    """After two seconds the supervisor makes room; after five it ends it, and does not turn in circles."""
    up(life, 0.0)
    assert life.asked(10.0)
    assert not life.asked(11.0)
    times = [life.deadline(10.0, is_needed=True), life.deadline(10.0, is_needed=False)]
    doubt = [life.is_away(10.0 + DOUBT_AFTER - 0.1), life.is_away(10.0 + DOUBT_AFTER)]
    ends = [life.must_end(10.0 + GIVE_UP_AFTER - 0.1), life.must_end(10.0 + GIVE_UP_AFTER)]
    life.given_up()
    now = 10.0 + GIVE_UP_AFTER

    assert times == [10.0 + DOUBT_AFTER, 10.0 + GIVE_UP_AFTER]
    assert (doubt, ends) == ([False, True], [False, True])
    assert not life.must_end(now + 1)  # in an uninterruptible wait it may live on
    assert life.is_away(now)
    assert life.deadline(now, is_needed=True) == now + LOOK
    assert life.deadline(now, is_needed=False) is None


def test_one_that_answers_may_be_asked_again(life: Observing) -> None:
    """An answer ends all doubt."""
    up(life, 0.0)
    life.asked(10.0)
    life.answered()

    assert not life.is_away(99.0)
    assert life.deadline(99.0, is_needed=True) is None
    assert life.asked(99.0)


def test_the_next_one_starts_with_a_clean_slate(life: Observing) -> None:
    """No question of the dead one's is open, and it is not given up for the other's sake."""
    up(life, 0.0)
    life.asked(1.0)
    life.given_up()
    life.ended(6.0)
    up(life, 7.0)

    assert not life.must_end(99.0)
    assert life.asked(99.0)
    assert life.must_end(99.0 + GIVE_UP_AFTER)


def test_it_is_replaced_soon_and_later_each_time(life: Observing) -> None:
    """A tenth of a second, half as much more each time, at most half a minute; a life of some seconds forgives."""
    delays = []
    now = 0.0
    for _ in range(20):
        up(life, now)
        delays.append(life.ended(now))
        assert not life.must_start(now + delays[-1] - 0.01)
        assert life.must_start(now + delays[-1])
        now += delays[-1]
    up(life, now)
    forgiven = life.ended(now + STABLE_AFTER)

    assert delays[:3] == pytest.approx([FIRST_DELAY, FIRST_DELAY * GROWTH, FIRST_DELAY * GROWTH**2])
    assert delays[-1] == pytest.approx(LONGEST_DELAY)
    assert forgiven == pytest.approx(FIRST_DELAY)


def test_one_that_never_watched_forgives_nothing(life: Observing) -> None:
    """However long it took to fail."""
    life.started(PID, 0.0)
    first = life.ended(20.0)
    life.started(PID, 21.0)

    assert life.ended(41.0) > first


def test_pipes_have_no_reader_after_a_second_without_one(life: Observing) -> None:
    """From its death on, or from our start; one that only boots reads nothing."""
    at_the_start = [life.is_away(AWAY_AFTER - 0.1), life.is_away(AWAY_AFTER)]
    up(life, 2.0)
    life.ended(50.0)
    life.started(PID, 50.2)
    later = [life.is_away(50.0 + AWAY_AFTER - 0.1), life.is_away(50.0 + AWAY_AFTER)]
    times = [life.deadline(50.5, is_needed=True), life.deadline(52.0, is_needed=True)]
    life.came_up()

    assert at_the_start == later == [False, True]
    assert times == [50.0 + AWAY_AFTER, 52.0 + LOOK]
    assert not life.is_away(52.0)


def test_three_deaths_within_ten_seconds_are_too_many_to_wait(life: Observing) -> None:
    """Then there is room made at once, until one watches, or the deaths are history."""
    for number in range(MANY_DEATHS):
        up(life, float(number))
        life.ended(number + 0.5)
        assert life.is_away(number + 0.6) is (number == MANY_DEATHS - 1)
    up(life, 3.0)
    assert not life.is_away(3.0)
    life.ended(9.0 + WITHIN)

    assert not life.is_away(9.1 + WITHIN)


@given(st.floats(0, 1))
def test_chance_moves_a_delay_by_a_tenth(chance: float) -> None:
    """Not all of a machine's are started at the same moment."""
    life = Observing(0.0, lambda: chance)
    up(life, 0.0)

    assert 0.9 * FIRST_DELAY <= life.ended(0.0) <= 1.1 * FIRST_DELAY + 1e-9


class Life(RuleBasedStateMachine):
    """Whatever happens in whatever order: something is due as long as somebody has to act."""

    @initialize()
    def begin(self) -> None:
        """Begin."""
        self.now = 0.0
        self.life = Observing(0.0, even)
        self.is_up = False
        self.asked_at: float | None = None

    @rule(seconds=st.floats(0.0, 8.0))
    def pass_time(self, seconds: float) -> None:
        """Let time pass, but no further than to the deadline: the loop wakes up then and acts."""
        due = self.life.deadline(self.now, is_needed=True)
        self.now = self.now + seconds if due is None else max(self.now, min(self.now + seconds, due))
        if self.life.must_start(self.now):
            self.life.started(PID, self.now)
        if self.life.must_end(self.now):
            self.life.given_up()
            assert not self.life.must_end(self.now)

    @precondition(lambda self: self.life.pid and not self.is_up)
    @rule()
    def come_up(self) -> None:
        """It watches."""
        self.life.came_up()
        self.is_up = True

    @rule()
    def ask(self) -> None:
        """Ask, if that is to be."""
        is_asked = self.life.asked(self.now)
        assert is_asked is (self.is_up and self.asked_at is None)
        if is_asked:
            self.asked_at = self.now

    @precondition(lambda self: self.asked_at is not None)
    @rule()
    def answer(self) -> None:
        """It answers."""
        self.life.answered()
        self.asked_at = None

    @precondition(lambda self: self.life.pid)
    @rule()
    def die(self) -> None:
        """It dies."""
        self.life.ended(self.now)
        self.is_up, self.asked_at = False, None

    @invariant()
    def pipes_without_a_reader_are_looked_at(self) -> None:
        """While it is away, or may turn out to be, there is a time to look."""
        due = self.life.deadline(self.now, is_needed=True)
        if not self.is_up or self.asked_at is not None:
            assert due is not None
        else:
            assert due is None
        if self.life.is_away(self.now):
            assert due is not None
            assert due <= self.now + LOOK


TestLife = Life.TestCase
