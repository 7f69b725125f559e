"""Reloads: scripts for the machine alone."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.signals import Ask
from launcher.supervisor import actions as do
from launcher.supervisor import events as on
from tests.supervisor.world import World, booted


def stops(orders: list[do.Action], reason: str = "reload") -> list[int]:
    """Return the tickets of those who were told to go for this reason."""
    return [order.ticket for order in orders if isinstance(order, do.Stop) and order.reason == reason]


def reloading(**changes: Any) -> World:
    """Return a world in which the zygote of a second generation imports."""
    world = booted(**changes)
    world.ask(Ask.RELOAD, "SIGHUP")
    world.deliver_all()
    return world


class TestFull:
    """As many extra workers as there are workers."""

    def test_a_good_reload_replaces_all_and_leaves_no_hole(self) -> None:
        """New workers are let serve before old ones are told to go; then nothing is left of the old generation."""
        world = reloading(workers=3)
        orders = world.catch_up()
        told = [i for i, order in enumerate(orders) if isinstance(order, do.Stop)]
        let = [i for i, order in enumerate(orders) if isinstance(order, do.Serve)]

        assert len(let) == len(told) == 3
        assert max(let) < min(told)
        assert world.serving(2) == 3
        assert not world.zygote(1).alive
        assert [line["generation"] for line in world.said("retired")] == [1]

    def test_committed_waits_for_the_old_to_stop_accepting(self) -> None:
        """All have said so, or a second has passed."""
        world = reloading(workers=2)
        old = world.workers(1)
        for worker in old:
            worker.deaf = True
        world.settle()
        assert len(world.said("committed")) == 1
        world.turn(on.StoppedAccepting(old[0].ticket))
        assert len(world.said("committed")) == 1

        world.turn(on.StoppedAccepting(old[1].ticket))

        assert len(world.said("committed")) == 2

    def test_committed_waits_no_longer_than_a_second(self) -> None:
        """Old workers need not know that word."""
        world = reloading(workers=2)
        for worker in world.workers(1):
            worker.deaf = True
        world.settle()
        world.wait(0.9)
        assert len(world.said("committed")) == 1

        world.wait(0.1)

        assert len(world.said("committed")) == 2

    @pytest.mark.parametrize("trouble", ["refuses", "dies", "hangs", "a worker dies", "a worker hangs", "no process"])
    def test_a_rejected_reload_touches_no_old_worker(self, trouble: str) -> None:
        """Whatever goes wrong, the old generation goes on, and nothing is left of the new one."""
        world = booted(workers=2)
        world.kernel.refusals = trouble == "no process"
        world.ask(Ask.RELOAD)
        world.deliver_all()
        zygote = world.zygote(2)
        if trouble == "refuses":
            world.kernel.refuse(zygote)
        elif trouble == "dies":
            world.kernel.die(zygote, -11)
        elif trouble.startswith("a worker"):
            world.settle_all_but(slot=1)
            if trouble == "a worker dies":
                world.kernel.die(world.workers(2)[-1], 1)
        if "hangs" in trouble:
            world.wait(60.0)
        orders = world.catch_up()

        assert not stops(orders)
        assert len(world.said("rejected")) == 1
        assert world.serving(1) == 2
        assert not world.workers(2)
        assert not zygote.alive

    def test_a_rejection_names_the_end_of_the_zygote(self) -> None:
        """The channel closes first, but the exit tells more."""
        world = reloading()
        zygote = world.zygote(2)
        world.kernel.die(zygote, -11)
        world.hear(on.ChannelClosed, on.ProcessExited)

        assert world.said("rejected")[0]["reason"] == "a zygote ended: SIGSEGV"

    def test_a_rejection_says_what_a_worker_raised(self) -> None:
        """In one line among the facts, and in full beside them; what a worker raises later is not kept."""
        world = reloading(workers=2)
        world.settle_all_but(slot=1)
        world.turn(on.Raised(world.workers(1)[0].ticket, "OSError", "Traceback of one that serves"))
        world.turn(on.Raised(world.workers(2)[1].ticket, "ValueError: no database", "Traceback"))
        world.kernel.die(world.workers(2)[1], 3)
        world.deliver_all()
        (told,) = [o for o in world.orders if isinstance(o, do.Log) and o.event == "rejected"]

        assert dict(told.fields)["reason"] == "a worker ended: exit 3: ValueError: no database"
        assert told.detail == "Traceback"
        assert [p.raised for p in world.machine.current.workers.values()] == [None, None]

    def test_a_held_worker_that_cannot_be_told_does_not_count(self) -> None:
        """Its channel is closed: it could never be let serve."""
        world = reloading(workers=2)
        world.settle_all_but(slot=1)
        world.kernel.close(world.workers(2)[0])
        world.deliver_all()
        world.catch_up()

        assert world.said("rejected")
        assert world.serving(1) == 2

    def test_one_fewer_while_filling_does_not_commit_with_one_missing(self) -> None:
        """The ready worker that is one too many does not stand for the one that boots."""
        world = reloading(workers=3)
        world.settle_all_but(slot=0)
        world.ask(Ask.FEWER)

        assert len(world.said("committed")) == 1
        world.catch_up()
        assert world.serving(2) == 2


class TestStorm:
    """More reloads than one."""

    def test_five_reloads_become_two(self) -> None:
        """The first, and one that is remembered."""
        world = booted()
        for _ in range(5):
            world.ask(Ask.RELOAD)
            world.deliver_all()
        world.catch_up()

        assert len(world.said("preparing")) == 1 + 2
        assert world.serving(3) == 2

    def test_a_reload_during_the_boot_comes_after_the_commit(self) -> None:
        """It waits for nothing else: the turn that commits begins it."""
        world = World()
        world.ask(Ask.RELOAD)
        assert len(world.said("preparing")) == 1
        world.settle_all_but(slot=1)
        world.kernel.step(world.workers()[-1])

        orders = world.deliver_all()

        assert [o.generation for o in orders if isinstance(o, do.StartZygote)] == [2]

    def test_a_reload_after_a_rejection_begins_at_once(self) -> None:
        """What was remembered is not lost with the rejected one."""
        world = reloading()
        world.ask(Ask.RELOAD)
        world.kernel.refuse(world.zygote(2))
        world.catch_up()

        assert world.serving(3) == 2


class TestRolling:
    """Fewer extra workers than workers."""

    def test_the_commit_falls_after_the_first(self) -> None:
        """One new worker serves, one old one goes, and never more than five exist."""
        world = reloading(workers=4, max_surge=1)
        world.settle_until(on.StoppedAccepting)

        assert world.serving(2) == 1
        assert world.serving(1) == 3
        assert len(world.workers()) == 5
        world.deliver_all()
        assert world.said("committed")[-1]["rolling"] == "yes"
        assert not world.said("rolled out")
        world.catch_up()
        assert world.said("rolled out")[0]["workers"] == "4/4"
        assert world.serving(2) == 4
        assert not world.workers(1)

    def test_a_later_failure_brings_the_old_generation_back(self) -> None:
        """Rolled back: the old zygote forks again, and the new workers serve until their places are taken."""
        world = reloading(workers=4, max_surge=1)
        world.settle_until(on.StoppedAccepting)
        world.kernel.die(world.workers(2)[0], 1)
        world.catch_up()

        assert world.said("rolled-back")[0]["kept"] == 1
        assert world.serving(1) == 4
        assert not world.workers(2)

    def test_an_old_worker_that_boots_goes_first(self) -> None:
        """One that serves is not ended while one that does not is kept."""
        world = booted(workers=4, max_surge=1)
        world.lose_spare()
        world.kernel.die(world.workers()[0], 1)
        world.settle_until(on.Hello)
        booting = world.workers()[0]
        world.deliver_all()
        world.ask(Ask.RELOAD)
        world.settle_all_but(worker=booting)

        assert stops(world.orders)[0] == booting.ticket

    def test_whoever_serves_is_kept_first_of_all_former_generations(self) -> None:
        """A rolled-back generation's worker is not ended for one of the old generation that only boots."""
        world = reloading(workers=4, max_surge=1)
        world.settle_until(on.StoppedAccepting)
        world.catch_up_until(lambda: world.serving(2) == 2)
        world.kernel.die(world.workers(2)[0], 1)
        world.deliver_all()
        assert world.said("rolled-back")
        booting = world.zygote(1).forks[0]
        world.settle_all_but(worker=booting)
        world.ask(Ask.RELOAD)
        world.settle_all_but(worker=booting)
        world.kernel.die(world.workers(1)[0], 1)  # its place is what the new generation waits for
        world.settle_all_but(worker=booting)

        assert booting.ticket in stops(world.orders)
        assert world.serving(2) == 0 or world.serving(1) + world.serving(2) + world.serving(3) >= 4


class TestSingletons:
    """No extra worker at all."""

    def test_two_generations_never_live_at_once(self) -> None:
        """All old ones are gone before the first new one is started."""
        world = reloading(workers=2, max_surge=0)
        old = world.workers(1)
        old[1].deaf = True
        world.kernel.step(world.zygote(2))
        world.settle()
        assert len(stops(world.orders)) == 2
        assert [worker.slot for worker in world.workers()] == [1]

        world.catch_up()

        assert world.serving(2) == 2

    def test_the_old_comes_back_if_the_new_fails(self) -> None:
        """From its own zygote, when the last of the new ones is gone."""
        world = reloading(workers=2, max_surge=0)
        world.settle_until(on.Hello)
        world.deliver_all()
        assert not world.workers(1)
        world.kernel.die(world.workers(2)[0], 1)
        world.catch_up()

        assert world.said("rolled-back")
        assert world.serving(1) == 2
        assert not world.workers(2)

    def test_a_refusal_costs_the_old_nothing(self) -> None:
        """The old ones are not told to go before the new code is imported."""
        world = reloading(workers=2, max_surge=0)
        world.kernel.refuse(world.zygote(2))
        world.catch_up()

        assert not stops(world.orders)
        assert world.serving(1) == 2


def test_who_closes_its_channel_before_it_counts_as_ready_cannot_be_let_go() -> None:
    """A target without a Worker is ready after a second; if it closed all descriptors by then, the reload fails."""
    world = booted(workers=2)
    world.kernel.takes_worker = False
    world.ask(Ask.RELOAD)
    world.settle()
    world.kernel.close(world.workers(2)[0])
    world.catch_up()

    assert world.said("rejected")[0]["reason"] == "worker 0 closed its channel"
    assert world.serving(1) == 2
