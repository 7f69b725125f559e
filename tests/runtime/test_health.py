"""An app's health checks: their schedule, by a clock that the test holds."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from launcher import Worker
from launcher.checks import Wish
from launcher.link import Link
from launcher.runtime import health
from launcher.runtime.health import PERIOD, SOONER, Checks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 2.0
HOLD = 30.0  # seconds: the test is broken if it takes as long


class Scene:
    """Checks whose clock does not run by itself, and what they tell."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.told: list[dict[str, Any]] = []
        self.is_on_duty = True
        monkeypatch.setattr(health.time, "monotonic", lambda: self.now)
        link: Any = Link()
        link.say = lambda *_, **__: None
        link.mention = lambda _, **fields: self.told.append(fields)
        self.subject = Checks(link, lambda: self.is_on_duty)
        self.subject._clock = threading.Thread(target=lambda: None)

    def turn(self, after: float = 0.0) -> float:
        """Let time pass, and do what is due; the run that this begins, if any, comes to its end or blocks."""
        self.now += after
        return self.subject.turn(self.now)

    def run(self, name: str = "database") -> health.Run | None:
        """Return what is under way."""
        return self.subject._checks[name].present

    def end(self) -> None:
        """Wait for the run that is under way, and hear of it."""
        run = self.run()
        assert run
        run.join(HOLD)
        self.turn()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """One of one's own."""
    return Scene(monkeypatch)


@pytest.fixture
def gate() -> Iterator[threading.Lock]:
    """A lock that is held: who takes it waits."""
    lock = threading.Lock()
    lock.acquire()
    yield lock
    if lock.locked():
        lock.release()


def bad() -> None:
    """Fail."""
    raise ConnectionError(111, "no\nroute")


@pytest.mark.parametrize(
    ("function", "reason", "details"),
    [
        (lambda: None, "", ""),
        (lambda: 0, "", ""),
        (lambda: False, "it returned False", ""),
        (bad, "it raised", "ConnectionError: [Errno 111] no route"),
        (lambda: exec("raise SystemExit(3)"), "it raised", "SystemExit: 3"),  # noqa: S102
    ],
)
def test_how_a_check_ends_is_told(scene: Scene, function: Callable[[], object], reason: str, details: str) -> None:
    """What it raised is one line, whatever it is."""
    scene.subject.add(Wish("database", function, LIMIT, True))
    scene.turn()
    scene.end()

    (told,) = scene.told
    assert (told["is_good"], told["reason"], told["details"]) == (not reason, reason, details)


def test_a_good_one_comes_every_ten_seconds_a_bad_one_sooner(scene: Scene) -> None:
    """From one beginning to the next."""
    results = [True, False, True]
    scene.subject.add(Wish("database", lambda: results.pop(0), LIMIT, True))
    scene.turn()
    scene.end()
    scene.turn(PERIOD - 0.1)
    assert (len(scene.told), scene.run()) == (1, None)
    scene.turn(0.1)
    scene.end()
    scene.turn(SOONER - 0.1)
    assert scene.run() is None
    scene.turn(0.1)
    scene.end()

    assert [told["is_good"] for told in scene.told] == [True, False, True]


def test_one_that_hangs_is_told_at_its_limit_and_again_and_never_doubled(scene: Scene, gate: threading.Lock) -> None:
    """So its age stays young; when it has ended it begins anew, and its late result is nobody's."""
    runs: list[int] = []

    def hang() -> None:
        runs.append(1)
        gate.acquire(timeout=HOLD)

    scene.subject.add(Wish("database", hang, LIMIT, True))
    scene.turn()
    scene.turn(LIMIT - 0.1)
    assert scene.told == []
    scene.turn(0.1)
    scene.turn(SOONER)
    scene.turn(PERIOD)
    hanging = scene.run()
    assert [told["reason"] for told in scene.told] == [
        "timed out after 2s",
        "timed out after 2s, and still runs after 4s",
        "timed out after 2s, and still runs after 14s",
    ]
    assert (len(runs), threading.active_count() < 10) == (1, True)
    gate.release()
    scene.end()
    assert len(scene.told) == 3
    scene.turn(PERIOD)

    assert scene.run() is not hanging
    assert len(runs) == 2


def test_who_is_not_on_duty_does_nothing_and_begins_at_once_when_it_is(scene: Scene, gate: threading.Lock) -> None:
    """What it had begun before is no news then."""
    scene.subject.add(Wish("database", lambda: gate.acquire(timeout=HOLD), LIMIT, True))
    scene.is_on_duty = False
    scene.turn()
    scene.turn(PERIOD)
    assert scene.run() is None
    scene.is_on_duty = True
    scene.turn()
    run = scene.run()
    assert run
    scene.is_on_duty = False
    scene.turn()
    gate.release()
    run.join(HOLD)
    scene.turn(100.0)
    scene.is_on_duty = True
    scene.turn()

    assert scene.told == []
    assert scene.run() not in {None, run}


def test_a_run_that_a_former_turn_began_is_no_news(scene: Scene, gate: threading.Lock) -> None:
    """Nobody knows how long ago it looked at what it tells now."""
    scene.subject.add(Wish("database", lambda: gate.acquire(timeout=HOLD), LIMIT, True))
    scene.turn()
    for scene.is_on_duty in (False, True):
        scene.turn(0.1)
    gate.release()
    scene.end()

    assert scene.told == []


def test_an_async_one_outside_of_an_event_loop_says_how_it_is_to_be(scene: Scene) -> None:
    """And leaves no coroutine that was never awaited."""

    async def check() -> None:
        pass

    scene.subject.add(Wish("database", check, LIMIT, False))
    scene.turn()
    scene.end()

    assert scene.told[0]["reason"] == "it is async: call worker.check() within the event loop"


@pytest.mark.parametrize(
    ("name", "timeout"),
    [
        ("", 1.0),
        ("a b", 1.0),
        ("a/b", 1.0),
        ("x" * 41, 1.0),
        ("workers", 1.0),
        ("a", 0.0),
        ("a", -1.0),
        ("a", float("inf")),
    ],
)
def test_a_name_or_limit_that_is_none_is_refused_also_without_prod_run(name: str, timeout: float) -> None:
    """An app's test finds it."""
    with pytest.raises(ValueError, match="check"):
        Worker().check(name, lambda: None, timeout)


def test_without_prod_run_nothing_is_run() -> None:
    """An app stays runnable alone, and gets no threads by that."""
    before = threading.active_count()
    worker: Worker[None] = Worker()
    worker.check("database", lambda: None, required=True)

    assert threading.active_count() == before
    with pytest.raises(TypeError, match="cannot be called"):
        worker.check("mail", 3)  # type: ignore[arg-type]


def test_a_name_is_taken_once() -> None:
    """Two results could not be told apart."""
    worker: Worker[None] = Worker()
    worker.check("database", lambda: None)
    with pytest.raises(ValueError, match="there is a check 'database' already"):
        worker.check("database", lambda: None)


def test_there_may_be_32_checks() -> None:
    """One more would be forgotten: it is refused where it is asked for."""
    worker: Worker[None] = Worker()
    for number in range(32):
        worker.check(f"check-{number}", lambda: None)
    with pytest.raises(ValueError, match="'another' would be one check too many: there are 32"):
        worker.check("another", lambda: None)


def test_what_is_asked_for_is_told_as_what_it_means() -> None:
    """A setting that is None, a number of another kind: the supervisor only knows numbers and flags."""
    worker: Worker[None] = Worker()
    worker.check("database", lambda: None, Decimal("0.5"), None)  # type: ignore[arg-type]

    (wish,) = worker._wishes
    assert (wish.timeout, wish.is_required) == (0.5, False)
    assert isinstance(wish.timeout, float)
