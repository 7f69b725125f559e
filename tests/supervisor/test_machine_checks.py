"""The app's health checks: scripts for the machine alone."""

from __future__ import annotations

from typing import Any

from launcher.checks import MOST
from launcher.signals import Ask
from launcher.supervisor import actions as do
from launcher.supervisor import events as on
from launcher.supervisor import status
from launcher.supervisor.checking import PATIENCE
from tests.supervisor.world import World, booted

LIMIT = PATIENCE + 2.0


def checked(**changes: Any) -> World:
    """A world that serves, whose workers have a check."""
    world = World(**changes)
    world.kernel.has_checks = True
    world.catch_up()
    return world


def tell(world: World, *, is_good: bool) -> None:
    """Let the worker on duty look."""
    world.kernel.check(is_good=is_good)
    world.deliver_all()


def on_duty(world: World) -> tuple[int, int]:
    """Return generation and slot of who is on duty."""
    (proc,) = [p for p in world.workers() if p.pid == world.kernel.on_duty]
    return proc.generation, proc.slot


def test_an_app_without_checks_costs_nothing() -> None:
    """No order, no deadline."""
    world = booted()

    assert not [order for order in world.orders if isinstance(order, do.Entrust)]
    assert world.machine.next_deadline() is None


def test_readiness_waits_for_the_first_result_and_follows_the_last() -> None:
    """Of what is required; and the sentence says what is wrong."""
    world = checked()
    assert not status.is_ready(world.machine)
    tell(world, is_good=True)
    assert status.is_ready(world.machine)
    tell(world, is_good=False)
    assert not status.is_ready(world.machine)
    assert status.sentence(world.machine).endswith(", not ready: database")
    tell(world, is_good=True)

    assert status.is_ready(world.machine)
    assert [fields["name"] for fields in world.said("check failed")] == ["database"]
    assert len(world.said("check is good again")) == 1


def test_what_is_not_required_changes_nothing_but_what_is_said() -> None:
    """A line when it begins to fail, none while it does."""
    world = booted()
    ticket = world.workers()[0].ticket
    world.turn(on.CheckMade(ticket, "mail", False, 2.0))
    for _ in range(3):
        world.turn(on.Checked(ticket, "mail", False, "timed out after 2s", "", 2.0))

    assert status.is_ready(world.machine)
    assert len(world.said("check failed")) == 1


def test_the_schedule_moves_on_with_the_lowest_slot() -> None:
    """Its death, its successor, a reload; the last result stays until the next one."""
    world = checked(workers=2)
    tell(world, is_good=True)
    assert on_duty(world) == (1, 0)
    world.lose_spare()
    world.kernel.die(world.workers()[0], 1)
    world.deliver_all()
    assert on_duty(world) == (1, 1)
    assert status.is_ready(world.machine)
    world.catch_up()
    assert on_duty(world) == (1, 0)
    world.ask(Ask.RELOAD)
    world.catch_up()
    assert on_duty(world) == (2, 0)
    assert status.is_ready(world.machine)
    world.kernel.has_checks = False
    world.ask(Ask.RELOAD)
    world.catch_up()

    assert (world.kernel.on_duty, world.machine.checking.results) == (0, {})


def test_who_tells_nothing_is_relieved_and_what_nobody_can_tell_is_forgotten() -> None:
    """A worker that holds the GIL must not keep a result alive; if all do, nothing is known any more."""
    world = checked(workers=2)
    tell(world, is_good=True)
    world.wait(LIMIT)
    assert on_duty(world) == (1, 1)
    assert status.is_ready(world.machine)
    world.wait(LIMIT)
    assert on_duty(world) == (1, 0)
    assert not status.is_ready(world.machine)
    assert len(world.said("lost sight of the checks")) == 1
    world.wait(LIMIT)
    assert on_duty(world) == (1, 1)
    tell(world, is_good=True)

    assert status.is_ready(world.machine)


def test_who_was_just_asked_comes_last() -> None:
    """All were silent, the lowest one most recently: its turn is over."""
    world = checked(workers=3)
    tell(world, is_good=True)
    world.wait(LIMIT)
    world.wait(LIMIT)
    assert on_duty(world) == (1, 2)
    world.kernel.die(world.workers()[0], 1)
    world.catch_up()
    assert on_duty(world) == (1, 0)
    world.turn(on.ScaleAsked(2, "operator"))
    world.catch_up()
    world.wait(LIMIT)

    assert on_duty(world) == (1, 1)


def test_who_is_left_runs_them_though_it_was_silent() -> None:
    """Nobody else can, and the last result stays for as long as usual."""
    world = checked(workers=2)
    tell(world, is_good=True)
    world.wait(LIMIT)
    tell(world, is_good=True)
    assert on_duty(world) == (1, 1)
    world.turn(on.ScaleAsked(1, "operator"))

    assert on_duty(world) == (1, 0)
    assert status.is_ready(world.machine)


def test_late_news_of_the_one_that_was_silent_bring_it_back() -> None:
    """It runs after all."""
    world = checked(workers=2)
    former = world.workers()[0]
    tell(world, is_good=True)
    world.wait(LIMIT)
    world.turn(on.Checked(former.ticket, "database", True, "", "", 40.0))

    assert on_duty(world) == (1, 0)


def test_what_nobody_can_renew_is_forgotten() -> None:
    """Workers that serve and have closed their channels tell nothing any more, and have no successor."""
    world = checked(workers=2)
    tell(world, is_good=True)
    for worker in world.workers():
        world.kernel.close(worker)
    world.deliver_all()
    assert world.kernel.on_duty == 0
    assert status.is_ready(world.machine)
    world.wait(LIMIT)

    assert not status.is_ready(world.machine)
    assert world.machine.checking.results == {}
    assert len(world.said("lost sight of the checks")) == 1
    assert world.machine.next_deadline() is None


def test_a_stop_says_nothing_of_checks() -> None:
    """While the last workers drain nobody looks any more, and nobody has to be told so."""
    world = checked(workers=1)
    tell(world, is_good=True)
    world.workers()[0].sleeps = world.workers()[0].deaf = True
    world.ask(Ask.STOP)
    world.wait(2 * LIMIT)

    assert world.said("lost sight of the checks") == []


def test_a_worker_cannot_fill_the_memory_of_the_supervisor() -> None:
    """So many checks and no more; texts are cut."""
    world = booted()
    ticket = world.workers()[0].ticket
    for number in range(100):
        world.turn(on.CheckMade(ticket, f"c{number}", False, 2.0))
        world.turn(on.Checked(ticket, f"c{number}", False, "r" * 9999, "d" * 9999, 1.0))

    assert len(world.machine.checking.results) == MOST
    assert max(len(result.details) for result in world.machine.checking.results.values()) < 1000


def test_who_is_told_to_end_with_the_last_work_does_not_keep_the_checks() -> None:
    """
    A worker ended by itself while its successor (--max-rss) started: that slot is done, and the successor serves.

    Found by chance, in thousands of runs.
    """
    world = checked(workers=2, restart="never", max_rss=1000)
    large, other = world.workers()
    large.rss = 2000
    world.wait(11.0)
    world.kernel.die(large, 0)
    world.settle()
    (heir,) = [worker for worker in world.workers() if worker is not other]
    assert heir.pid == world.kernel.on_duty
    world.kernel.die(other, 0)
    world.catch_up()

    assert world.has_exited
    assert world.kernel.exit_code == 0
