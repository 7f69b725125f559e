"""Stops: scripts for the machine alone."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.signals import Ask
from launcher.supervisor import actions as do
from launcher.supervisor import events as on
from tests.supervisor.world import World, booted


def kinds(orders: list[do.Action], *types: type) -> list[do.Action]:
    """Return the orders of these types."""
    return [order for order in orders if isinstance(order, types)]


@pytest.mark.parametrize("when", ["importing", "forking", "booting", "reload imports", "reload boots", "rolling"])
def test_a_stop_preempts_whatever_goes_on(when: str) -> None:
    """Nothing new is started or let serve, all are told to go, exit 0."""
    world = World(workers=4, max_surge=1)
    if when not in ("importing", "forking", "booting"):
        world.catch_up()
        world.ask(Ask.RELOAD)
    world.deliver_all()
    if when in ("forking", "booting", "reload boots"):
        world.kernel.step(world.zygote(world.promises.current() + 1))
        world.deliver_all()
    if when in ("booting", "reload boots"):
        world.settle_all_but(slot=0)
    if when == "rolling":
        world.settle_until(on.StoppedAccepting)
    orders = world.ask(Ask.STOP)
    orders += world.catch_up()

    assert not kinds(orders, do.StartZygote, do.ForkWorker, do.Serve)
    assert len(world.said("pre-empted")) == (when != "rolling")
    assert world.kernel.exit_code == 0
    assert not world.workers()


def between_singletons(**changes: Any) -> World:
    """Return a world in which the old worker has gone, clients wait, and the new one boots."""
    world = booted(workers=1, max_surge=0, **{"listens": True, **changes})
    world.ask(Ask.RELOAD)
    world.settle_until(on.Hello)
    world.deliver_all()
    assert [worker.generation for worker in world.workers()] == [2]
    return world


def test_a_stop_between_two_singletons_empties_the_queue() -> None:
    """One of the old comes back from its zygote and is the last that accepts; only then the listeners are closed."""
    world = between_singletons()
    orders = world.ask(Ask.STOP) + world.catch_up()

    born = [o for o in orders if isinstance(o, do.ForkWorker | do.Go | do.Serve | do.CloseListeners | do.Stop)]
    assert [type(o) for o in born if not isinstance(o, do.ForkWorker)] == [
        do.Stop,
        do.Go,
        do.Serve,
        do.CloseListeners,
        do.Stop,
    ]
    assert [(o.reason, o.last) for o in born if isinstance(o, do.Stop)] == [("rejected", False), ("stop", True)]
    assert world.kernel.exit_code == 0


@pytest.mark.parametrize("why", ["nobody listens", "no preload", "its zygote is gone", "at once", "it never boots"])
def test_a_stop_between_two_singletons_does_not_wait_in_vain(why: str) -> None:
    """Where nobody can come back, or would have anything to do, or in time."""
    changes = {"nobody listens": {"listens": False}, "no preload": {"preload": "never"}}.get(why, {})
    world = between_singletons(**changes)
    if why == "its zygote is gone":
        world.kernel.die(world.zygote(1), 1)
        world.deliver_all()
    begin = world.now
    world.ask(Ask.STOP_NOW if why == "at once" else Ask.STOP)
    if why == "it never boots":
        world.settle(lambda proc: proc.generation == 1 and proc.is_worker)
        world.wait(25.0)
    world.catch_up()

    assert world.now - begin <= 30.0
    assert world.now == begin or why == "it never boots"
    assert world.kernel.exit_code == 0


def test_a_second_stop_within_a_second_is_an_echo() -> None:
    """Ctrl-C twice in a hurry, or a container engine that asks both PIDs."""
    world = booted()
    world.ask(Ask.STOP)
    world.now += 1.0
    orders = world.ask(Ask.STOP)

    assert not kinds(orders, do.Kill)


def test_a_second_stop_after_a_second_kills() -> None:
    """It is a wish of its own."""
    world = booted()
    world.ask(Ask.STOP)
    world.now += 1.1
    orders = world.ask(Ask.STOP)
    world.catch_up()

    assert len(kinds(orders, do.Kill)) == 4
    assert world.kernel.exit_code == 0


def test_the_first_stop_during_a_failed_start_is_no_second_one() -> None:
    """prod-run is ending by itself; nobody has asked before."""
    world = World()
    world.deliver_all()
    world.kernel.refuse(world.zygote(1))
    world.deliver_all()
    world.wait(2.0)
    orders = world.ask(Ask.STOP)

    assert not kinds(orders, do.Kill)


def test_quit_kills_at_once() -> None:
    """No drain, exit 0, and the leftovers of groups are killed as well."""
    world = booted(drain_delay=10.0)
    world.kernel.bear_child(world.workers()[0]).deaf = True
    orders = world.ask(Ask.STOP_NOW)
    begin = world.now
    world.catch_up()

    assert len(kinds(orders, do.Kill)) == 4
    assert not kinds(orders, do.Stop)
    assert world.kernel.exit_code == 0
    assert world.now == begin
    assert not world.kernel.strangers


def test_quit_during_the_drain_waits_without_spinning() -> None:
    """A worker that hangs in the kernel is waited for until a time that lies ahead."""
    world = booted(workers=1)
    world.workers()[0].sleeps = True
    world.ask(Ask.STOP)
    world.ask(Ask.STOP_NOW)

    assert world.machine.next_deadline() == world.now + 5.0


def test_the_drain_delay_still_accepts_and_replaces() -> None:
    """Listeners stay open, and a worker that dies is replaced."""
    world = booted(workers=2, drain_delay=5.0)
    world.ask(Ask.STOP)
    world.kernel.die(world.workers()[0], 1)
    world.settle()
    assert world.serving(1) == 2
    assert world.kernel.listening

    orders = world.wait(5.0)

    assert isinstance(orders[0], do.CloseListeners)
    assert len(kinds(orders, do.Stop)) == 2


def test_nobody_is_replaced_once_the_drain_began() -> None:
    """A death in the drain is an end like any other."""
    world = booted(workers=2)
    world.ask(Ask.STOP)
    world.kernel.die(world.workers()[0], 1)

    assert not kinds(world.catch_up(), do.ForkWorker, do.StartZygote)


def test_a_straggler_is_killed_at_the_drain_limit() -> None:
    """One error line, its stacks half a second before it is killed, and the exit code stays 0."""
    world = booted(workers=1, drain_timeout=25.0)
    worker = world.workers()[0]
    worker.deaf = True
    world.ask(Ask.STOP)
    world.settle()
    assert not kinds(world.wait(24.9), do.Kill)

    assert kinds(world.wait(0.1), do.AskStacks, do.Kill) == [do.AskStacks(worker.ticket, worker.pid)]
    stacks = do.TakeStacks(worker.ticket, worker.pid, 0, 1)
    assert kinds(world.wait(0.5), do.TakeStacks, do.Kill) == [stacks, do.Kill(worker.pid)]
    world.catch_up()
    assert world.said("killed straggler")
    assert world.kernel.exit_code == 0


def test_an_unkillable_process_is_reported_and_not_waited_for() -> None:
    """Five seconds after SIGKILL, which follows the stacks, prod-run exits without it."""
    world = booted(workers=1, drain_timeout=25.0)
    world.workers()[0].deaf = world.workers()[0].sleeps = True
    begin = world.now
    world.ask(Ask.STOP)
    world.catch_up()

    assert world.said("unkillable")
    assert world.kernel.exit_code == 0
    assert world.now - begin == 30.5


def test_zygotes_end_after_their_last_worker() -> None:
    """So that nobody is adopted by somebody else in the middle of a drain."""
    world = booted(workers=2)
    orders = world.ask(Ask.STOP)
    assert not kinds(orders, do.EndZygote)
    world.workers()[0].deaf = True
    assert not kinds(world.settle(), do.EndZygote)

    assert kinds(world.catch_up(), do.EndZygote)


def test_a_worker_that_was_not_born_yet_is_not_left_behind() -> None:
    """It finds the order on its channel, or is killed when its PID is known."""
    world = booted(workers=1)
    world.ask(Ask.MORE)
    world.ask(Ask.STOP)
    world.catch_up()

    assert not world.workers()
    assert world.kernel.exit_code == 0


def test_adopted_orphans_get_term_then_kill() -> None:
    """At the exit, five seconds apart."""
    world = booted()
    world.kernel.adopt().deaf = True
    begin = world.now
    world.ask(Ask.STOP)
    world.catch_up()

    assert [order.signal for order in world.orders if isinstance(order, do.SweepOrphans) and order.signal] == [15, 9]
    assert not world.kernel.strangers
    assert world.now - begin == 5.0


def test_a_reload_while_stopping_is_one_line() -> None:
    """Nothing is prepared any more."""
    world = booted(drain_delay=5.0)
    world.ask(Ask.STOP)

    assert [type(order) for order in world.ask(Ask.RELOAD)] == [do.Log]


def test_a_scaling_while_draining_is_one_line() -> None:
    """Nobody comes any more, and the log must not say that somebody would; while it still accepts, somebody does."""
    world = booted(drain_delay=5.0)
    world.ask(Ask.STOP)
    world.ask(Ask.MORE)
    assert len(world.said("scaled")) == 1
    world.wait(5.0)

    assert [type(order) for order in world.ask(Ask.MORE)] == [do.Log]
    assert len(world.said("ignored scale")) == 1
    assert len(world.said("scaled")) == 1
