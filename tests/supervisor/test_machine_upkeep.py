"""Stalls, recycling, reports: scripts for the machine alone."""

from __future__ import annotations

import pytest

from launcher.signals import Ask
from launcher.supervisor import actions as do
from launcher.supervisor import events as on
from tests.supervisor.pretend_kernel import Proc
from tests.supervisor.world import POLICY, World, booted


def kinds(orders: list[do.Action], *types: type) -> list[do.Action]:
    """Return the orders of these types."""
    return [order for order in orders if isinstance(order, types)]


def pass_time(world: World, seconds: float, step: float = 1.0) -> list[do.Action]:
    """Let time pass in a world that answers."""
    orders: list[do.Action] = []
    end = world.now + seconds
    while world.now < end:
        orders += world.wait(min(step, end - world.now))
        orders += world.settle()
    return orders


class TestStall:
    """`--stall-timeout`."""

    def test_a_stalled_worker_writes_its_stacks_and_is_killed_and_its_slot_is_filled_at_once(self) -> None:
        """Half a second lies between; the successor does not wait for that."""
        world = booted(workers=2, stall_timeout=10.0)
        worker = world.workers()[0]
        pass_time(world, 7.0)
        worker.stalls = True
        while not world.said("stalled"):
            world.wait_for_deadline()
            orders = world.deliver_all()
        begin = world.now

        assert do.AskStacks(worker.ticket, worker.pid) in orders
        assert [order.slot for order in orders if isinstance(order, do.Go)] == [0]
        assert not kinds(orders, do.Kill)
        last = kinds(world.wait(0.5), do.TakeStacks, do.Kill)
        assert last == [do.TakeStacks(worker.ticket, worker.pid, 0, 1), do.Kill(worker.pid)]
        assert begin <= 1007.0 + 15.0
        pass_time(world, 3.0)
        assert world.serving(1) == 2
        assert world.said("stalled")[0]["reason"] == "worker 0 gave no heartbeat within --stall-timeout 10s"

    def test_a_worker_that_beats_is_left_alone(self) -> None:
        """However long."""
        world = booted(stall_timeout=10.0)
        orders = pass_time(world, 1000.0, step=5.0)

        assert not kinds(orders, do.Kill, do.Stop, do.AskStacks)
        assert kinds(orders, do.AskBeat)

    def test_a_watchdog_message_is_a_heartbeat(self) -> None:
        """Also where the page of heartbeats stands still; and the whole limit begins anew with it."""
        world = booted(workers=1, stall_timeout=10.0)
        (worker,) = world.workers()
        world.settle()
        for _ in range(100):
            worker.stalls = False
            world.kernel.notify(worker, 0.0)
            worker.stalls = True
            world.settle()
            world.wait(9.9)
            world.settle()
        assert not world.said("stalled")
        pass_time(world, 10.0)
        assert world.said("stalled")

    def test_a_worker_that_beats_again_before_its_time_is_over_is_left_alone(self) -> None:
        """One look at an unchanged heartbeat is not a stall, and two that are no sequence neither."""
        world = booted(workers=1, stall_timeout=10.0)
        for stalls in (True, False) * 10:
            world.workers()[0].stalls = stalls
            world.wait(5.0)
            world.settle()

        assert not world.said("stalled")

    def test_who_takes_no_worker_cannot_stall(self) -> None:
        """It has no way to beat."""
        world = World(stall_timeout=10.0)
        world.kernel.takes_worker = False
        world.catch_up()

        assert not kinds(pass_time(world, 100.0), do.AskBeat, do.Kill)


class TestRecycling:
    """`--max-rss` and `--max-age`."""

    def test_a_large_worker_is_replaced_with_the_successor_first(self) -> None:
        """It goes when the one in the same slot serves."""
        world = booted(workers=2, max_rss=100 * 1024 * 1024)
        large = world.workers()[1]
        large.rss = 150 * 1024 * 1024
        orders = pass_time(world, 12.0)
        serve = next(i for i, order in enumerate(orders) if isinstance(order, do.Serve))
        stop = next(i for i, order in enumerate(orders) if isinstance(order, do.Stop))

        assert world.said("recycling")[0]["reason"] == "uses 150M, more than --max-rss 100M"
        told = orders[stop]
        assert isinstance(told, do.Stop)
        assert told[:4] == (large.ticket, large.pid, "recycle", False)
        assert serve < stop
        assert [worker.slot for worker in world.workers()] == [0, 1]
        assert large not in world.workers()

    def test_the_old_go_one_at_a_time(self) -> None:
        """The next one is chosen when the last one is gone."""
        world = booted(workers=3, max_age=100.0)
        first = world.workers()
        for worker in first:
            worker.deaf = True
        world.wait(100.0)
        world.settle()
        assert len(world.said("recycling")) == 1
        assert world.serving(1) == 3

        world.wait(25.5)
        world.settle()
        assert len(world.said("recycling")) == 2

        for worker in first:
            worker.deaf = False
        pass_time(world, 5.0)
        assert len(world.said("recycling")) == 3
        assert not set(first) & set(world.workers())
        assert world.serving(1) == 3

    def test_singletons_are_recycled_without_overlap(self) -> None:
        """With `--max-surge 0` the old one ends before the new one gets its slot."""
        world = booted(workers=1, max_surge=0, max_age=100.0)
        old = world.workers()[0]
        orders = world.wait(100.0)
        limit = world.now + POLICY.drain_timeout
        assert kinds(orders, do.Stop, do.Go) == [do.Stop(old.ticket, old.pid, "recycle", last=False, until=limit)]

        orders = world.settle()

        assert not old.alive
        assert [order.slot for order in orders if isinstance(order, do.Go)] == [0]
        assert world.serving(1) == 1

    @pytest.mark.parametrize("surge", [0, 1])
    def test_nobody_is_recycled_who_cannot_be_replaced(self, surge: int) -> None:
        """The zygote died, and the code on disk differs: the old ones are all there is."""
        world = booted(workers=2, max_surge=surge, max_age=100.0)
        world.kernel.files = "v2"
        world.kernel.die(world.zygote(1), -9)
        world.catch_up()
        world.wait(200.0)

        assert not world.said("recycling")
        assert world.serving(1) == 2

    def test_an_unkillable_worker_does_not_end_recycling(self) -> None:
        """The next one has its turn when it is given up."""
        world = booted(workers=2, max_age=100.0)
        world.workers()[0].sleeps = True
        world.wait(100.0)
        pass_time(world, 40.0)

        assert world.said("unkillable")
        assert len(world.said("recycling")) == 2

    def test_a_successor_that_fails_costs_nothing(self) -> None:
        """The old one serves until one is up."""
        world = booted(workers=1, max_age=100.0)
        old: Proc = world.workers()[0]
        world.wait(100.0)
        world.kernel.die(world.workers()[1], 1)
        orders = world.deliver_all()

        assert not kinds(orders, do.Stop)
        assert old.alive
        pass_time(world, 5.0)
        assert not old.alive
        assert world.serving(1) == 1


class TestNotify:
    """What the manager above hears."""

    @staticmethod
    def first_words(world: World) -> list[str]:
        """Return the first line of each message but those that only ask for time."""
        lines = [order.lines[0] for order in world.orders if isinstance(order, do.Notify)]
        return [line for line in lines if not line.startswith("EXTEND_TIMEOUT_USEC=")]

    def test_ready_comes_with_the_first_commit(self) -> None:
        """And not before."""
        world = World()
        world.settle_all_but(slot=1)
        assert self.first_words(world) == []

        world.catch_up()

        assert self.first_words(world) == ["READY=1"]

    @pytest.mark.parametrize("is_good", [True, False])
    def test_reloading_is_followed_by_ready_whether_the_reload_is_good_or_not(self, *, is_good: bool) -> None:
        """Else a unit hangs in "reloading" for ever."""
        world = booted()
        world.ask(Ask.RELOAD)
        world.deliver_all()
        assert self.first_words(world) == ["READY=1", "RELOADING=1"]
        if not is_good:
            world.kernel.refuse(world.zygote(2))
        world.catch_up()

        assert self.first_words(world) == ["READY=1", "RELOADING=1", "READY=1"]

    @pytest.mark.parametrize("max_surge", [0, 1])
    def test_a_reload_of_one_after_the_other_asks_for_time_again(self, max_surge: int) -> None:
        """With every worker that is to come, and for those that go first: else `systemctl reload` fails half-way."""
        world = booted(workers=3, max_surge=max_surge, boot_timeout=60.0, drain_timeout=600.0)
        world.orders.clear()
        world.ask(Ask.RELOAD)
        world.catch_up()
        asked = [order.lines[0] for order in kinds(world.orders, do.Notify) if isinstance(order, do.Notify)]

        boots = 3 if max_surge == 0 else 2  # the first of a rolling one is asked for with what was prepared
        assert asked.count("EXTEND_TIMEOUT_USEC=75000000") == 2 + boots
        assert "EXTEND_TIMEOUT_USEC=615000000" in asked

    def test_a_reload_that_is_rolled_back_ends_in_ready(self) -> None:
        """READY for the commit, which was said by then, and for the way back."""
        world = booted(workers=4, max_surge=1)
        world.ask(Ask.RELOAD)
        world.settle_until(on.StoppedAccepting)
        world.kernel.die(world.workers(2)[0], 1)
        world.catch_up()

        assert self.first_words(world) == ["READY=1", "RELOADING=1", "READY=1", "READY=1"]

    def test_stopping_is_the_last_word(self) -> None:
        """Also when a reload is pre-empted: no READY follows."""
        world = booted()
        world.ask(Ask.RELOAD)
        world.deliver_all()
        world.ask(Ask.STOP)
        world.catch_up()

        assert self.first_words(world) == ["READY=1", "RELOADING=1", "STOPPING=1"]

    def test_a_start_that_fails_is_never_ready(self) -> None:
        """The exit code tells."""
        world = World()
        world.kernel.refuse(world.zygote(1))
        world.catch_up()

        assert "READY=1" not in self.first_words(world)


class TestAsked:
    """So many workers, stacks, reports."""

    @pytest.mark.parametrize(("workers", "wanted"), [(5, 5), (1, 1), (0, 1), (-3, 1)])
    def test_so_many_workers_are_had(self, workers: int, wanted: int) -> None:
        """At least one."""
        world = booted(workers=2)
        world.turn(on.ScaleAsked(workers, "prod-ctl"))
        world.catch_up()

        assert [worker.slot for worker in world.workers()] == list(range(wanted))
        assert world.said("scaled") == [{"workers": wanted, "origin": "prod-ctl"}]

    def test_stacks_of_one_slot_are_taken_half_a_second_later(self) -> None:
        """Nobody else's, and nobody is killed."""
        world = booted(workers=2)
        worker = world.workers()[1]
        assert world.turn(on.StacksAsked(1)) == [do.AskStacks(worker.ticket, worker.pid)]
        assert not world.wait(0.4)

        assert world.wait(0.1) == [do.TakeStacks(worker.ticket, worker.pid, 1, 1)]

    def test_a_report_tells_the_state_and_then_the_stacks_of_all(self) -> None:
        """One line for prod-run, one for each generation and worker."""
        world = booted(workers=2)
        orders = world.ask(Ask.REPORT)

        assert len(kinds(orders, do.Log)) == 1 + 1 + 2
        assert len(kinds(orders, do.AskStacks)) == 2
        assert len(kinds(world.wait(0.5), do.TakeStacks)) == 2


class TestMoreTime:
    """EXTEND_TIMEOUT_USEC of a worker."""

    def test_a_boot_gets_it(self) -> None:
        """From now on, and never less than the limit was; whoever is above hears of it."""
        world = World(workers=1)
        world.settle_all_but(slot=0)
        (worker,) = world.workers()
        world.wait(50.0)
        world.kernel.notify(worker, 100.0)
        orders = world.deliver_all()
        assert [o.lines[0] for o in orders if isinstance(o, do.Notify)] == ["EXTEND_TIMEOUT_USEC=115000000"]
        world.kernel.notify(worker, 1.0)
        world.deliver_all()
        world.wait(99.0)
        assert not world.said("gave up")
        world.wait(2.0)
        assert world.said("gave up")

    def test_a_drain_gets_it(self) -> None:
        """It is killed later, and not for ever."""
        world = booted(workers=1, drain_timeout=25.0)
        (worker,) = world.workers()
        worker.deaf = True
        world.ask(Ask.STOP)
        world.wait(20.0)
        world.kernel.notify(worker, 100.0)
        world.settle()
        world.wait(99.0)
        assert not world.said("killed straggler")
        world.catch_up()
        assert world.said("killed straggler")

    def test_who_drains_hears_of_it(self) -> None:
        """Its servers say good-bye shortly before the limit, and the limit has moved; less than it has is no news."""
        world = booted(workers=1, drain_timeout=25.0)
        (worker,) = world.workers()
        worker.deaf = True
        world.ask(Ask.STOP)
        until = world.now + 100.0
        for seconds in (100.0, 1.0):
            world.kernel.notify(worker, seconds)
        orders = world.deliver_all()

        assert kinds(orders, do.StopLater) == [do.StopLater(worker.ticket, until)]

    def test_who_serves_needs_none(self) -> None:
        """There is no limit that it could move, and none comes of it."""
        world = booted(workers=1)
        world.kernel.notify(world.workers()[0], 100.0)
        world.deliver_all()

        assert world.machine.next_deadline() is None
