"""Spares: scripts for the machine alone."""

from __future__ import annotations

import pytest

from launcher.signals import Ask
from launcher.supervisor import actions as do
from launcher.supervisor import events as on
from tests.supervisor.pretend_kernel import Proc
from tests.supervisor.world import World, booted


def kinds(orders: list[do.Action], *types: type) -> list[do.Action]:
    """Return the orders of these types."""
    return [order for order in orders if isinstance(order, types)]


def spare_of(world: World) -> Proc:
    """Return the spare that is there."""
    spare = world.spare()
    assert spare
    return spare


class TestTaken:
    """A worker dies while a spare is parked."""

    def test_a_spare_is_forked_after_the_first_commit(self) -> None:
        """Not before: until then each fork is a worker's."""
        world = World(workers=2)
        world.settle_all_but(slot=1)
        assert not kinds(world.orders, do.Park)

        world.catch_up()

        assert len(kinds(world.orders, do.Park)) == 1
        assert spare_of(world).step == "waiting"

    def test_a_spare_takes_the_slot_and_is_replaced_in_the_same_turn(self) -> None:
        """No fork stands between a death and its replacement."""
        world = booted(workers=2)
        spare = spare_of(world)
        world.kernel.die(world.workers()[1], -11)
        orders = world.deliver_all()

        assert kinds(orders, do.Go, do.ForkWorker) == [do.Go(spare.ticket, 1)]
        assert [order.ticket for order in kinds(orders, do.Park) if isinstance(order, do.Park)] == [spare.ticket + 1]
        world.catch_up()
        assert spare in world.workers()
        assert spare_of(world) is not spare
        assert world.serving(1) == 2

    def test_of_two_missing_slots_one_is_forked(self) -> None:
        """There is one spare."""
        world = booted(workers=2)
        spare = spare_of(world)
        for worker in world.workers():
            world.kernel.die(worker, 1)
        orders = world.deliver(0, 0)

        assert kinds(orders, do.Go) == [do.Go(spare.ticket, 0)]
        assert [order.slot for order in orders if isinstance(order, do.ForkWorker)] == [1]

    def test_a_spare_that_fails_in_its_slot_is_a_worker_that_failed(self) -> None:
        """It is paced by its slot's failures, and no spare is used up before that."""
        world = booted(workers=1)
        world.kernel.die(world.workers()[0], 1)
        world.deliver_all()
        world.kernel.die(world.workers()[0], 1)
        orders = world.settle()

        assert world.said("delayed respawn")[0]["slot"] == 0
        assert not kinds(orders, do.Go)
        following = spare_of(world)
        assert do.Go(following.ticket, 0) in world.wait(0.1)
        world.catch_up()
        assert world.serving(1) == 1

    def test_a_worker_more_is_had_from_the_spare(self) -> None:
        """Scaling up needs no fork either."""
        world = booted(workers=1)
        spare = spare_of(world)

        assert do.Go(spare.ticket, 1) in world.ask(Ask.MORE)


class TestDismissed:
    """A spare that is not needed any more."""

    def test_a_spare_is_dismissed_at_the_commit_and_the_new_generation_gets_its_own(self) -> None:
        """After the new workers were let serve, and it is not drained."""
        world = booted()
        old = spare_of(world)
        world.ask(Ask.RELOAD)
        orders = world.catch_up()
        dismissals = [i for i, order in enumerate(orders) if isinstance(order, do.Dismiss)]
        let = [i for i, order in enumerate(orders) if isinstance(order, do.Serve)]

        assert [orders[i] for i in dismissals] == [do.Dismiss(old.ticket)]
        assert max(let) < dismissals[0]
        assert not old.alive
        assert spare_of(world).generation == 2

    def test_a_rejected_reload_leaves_the_spare(self) -> None:
        """Nothing of the old generation is touched."""
        world = booted()
        spare = spare_of(world)
        world.ask(Ask.RELOAD)
        world.deliver_all()
        world.kernel.refuse(world.zygote(2))
        orders = world.catch_up()

        assert not kinds(orders, do.Dismiss, do.Park)
        assert spare_of(world) is spare

    def test_a_generation_that_is_rolled_back_loses_none_it_never_had(self) -> None:
        """While it rolls it has no spare; the one that is brought back gets a new one."""
        world = booted(workers=4, max_surge=1)
        world.ask(Ask.RELOAD)
        world.settle_until(on.StoppedAccepting)
        world.kernel.die(world.workers(2)[0], 1)
        world.catch_up()

        assert {order.generation for order in world.orders if isinstance(order, do.Park)} == {1}
        assert spare_of(world).generation == 1

    def test_a_spare_is_dismissed_when_the_stop_drains(self) -> None:
        """Not while it only waits: a worker that dies in the drain delay is replaced."""
        world = booted(drain_delay=5.0)
        spare = spare_of(world)
        orders = world.ask(Ask.STOP)
        assert not kinds(orders, do.Dismiss)

        assert kinds(world.wait(5.0), do.Dismiss) == [do.Dismiss(spare.ticket)]
        world.catch_up()
        assert world.kernel.exit_code == 0
        assert not spare.alive

    def test_a_spare_that_does_not_end_is_killed_after_five_seconds(self) -> None:
        """It has nothing to drain."""
        world = booted(drain_timeout=25.0)
        spare = spare_of(world)
        spare.deaf = True
        world.ask(Ask.STOP)
        world.settle()
        assert not kinds(world.wait(4.9), do.Kill)

        assert kinds(world.wait(0.1), do.Kill) == [do.Kill(spare.pid)]


class TestLost:
    """A spare dies."""

    def test_a_dead_spare_is_nobodys_loss(self) -> None:
        """Told as what it is, replaced after a while, and no worker is touched."""
        world = booted()
        world.lose_spare()
        assert world.said("lost spare")
        assert not world.said("lost worker")
        orders = world.catch_up()

        assert not kinds(orders, do.Stop, do.Go, do.ForkWorker)
        assert len(kinds(orders, do.Park)) == 1
        assert world.serving(1) == 2

    def test_spares_that_die_are_paced(self) -> None:
        """100 ms, then 1.5 times as long each."""
        world = booted()
        delays = []
        for _ in range(4):
            world.settle()
            world.lose_spare()
            begin = world.now
            while not kinds(world.wait_for_deadline(), do.Park):
                pass
            delays.append(round(world.now - begin, 3))

        assert delays == pytest.approx([0.1, 0.15, 0.225, 0.3375], abs=0.001)

    def test_a_spare_that_dies_during_a_reload_rejects_nothing(self) -> None:
        """The new generation does not need it."""
        world = booted()
        world.ask(Ask.RELOAD)
        world.deliver_all()
        world.lose_spare()
        world.catch_up()

        assert not world.said("rejected")
        assert world.serving(2) == 2

    def test_an_unkillable_spare_is_replaced(self) -> None:
        """One that hangs in the kernel does not cost the next."""
        world = booted()
        spare = spare_of(world)
        spare.sleeps = True
        world.kernel.close(spare)
        world.catch_up()

        assert world.said("unkillable")
        assert len(kinds(world.orders, do.Park)) == 2
