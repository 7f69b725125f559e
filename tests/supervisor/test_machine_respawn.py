"""Deaths and the pace of replacements: scripts for the machine alone."""

from __future__ import annotations

import itertools
import signal

import pytest

from launcher.signals import Ask
from launcher.supervisor import actions as do
from launcher.supervisor import events as on
from launcher.supervisor.pacing import Backoff
from tests.supervisor.world import World, booted


def kinds(orders: list[do.Action], *types: type) -> list[do.Action]:
    """Return the orders of these types."""
    return [order for order in orders if isinstance(order, types)]


def spawns(orders: list[do.Action]) -> list[int]:
    """Return the slots of the workers that were ordered."""
    return [order.slot for order in orders if isinstance(order, do.ForkWorker | do.ExecWorker)]


class TestRespawn:
    """Deaths after the commit."""

    def test_a_worker_that_served_is_replaced_at_once(self) -> None:
        """Its slot is filled in the same turn, from the generation's zygote."""
        world = booted(workers=3)
        world.lose_spare()
        world.kernel.die(world.workers()[1], -11)

        assert spawns(world.settle()) == [1]
        assert world.serving(1) == 3

    def test_a_death_before_ready_is_paced_by_half_as_much_again(self) -> None:
        """100 ms, then 1.5 times as long each, at most 30 s."""
        world = booted(workers=1, preload="never")
        world.kernel.die(world.workers()[0], 1)
        delays = []
        for _ in range(20):
            world.deliver_all()
            world.kernel.die(world.workers()[0], 1)
            world.deliver_all()
            begin = world.now
            while not spawns(world.wait_for_deadline()):
                pass
            delays.append(round(world.now - begin, 3))

        assert delays[:4] == pytest.approx([0.1, 0.15, 0.225, 0.3375], abs=0.001)
        assert delays[-1] == 30.0

    def test_half_a_minute_of_life_makes_failures_history(self) -> None:
        """The next delay is the first one again."""
        backoff = Backoff()
        delays = []
        for lived in (0.0, 1.0, 31.0):
            backoff.forget(lived)
            delays.append(backoff.fail(0.0, lambda: 0.5))

        assert delays == pytest.approx([0.1, 0.15, 0.1])

    def test_days_of_service_make_failures_history_also_where_the_replacement_is_immediate(self) -> None:
        """A slot that had a bad start begins with the first delay again, ten days later."""
        world = booted(workers=1, preload="never")
        world.kernel.die(world.workers()[0], 1)
        world.deliver_all()
        for _ in range(12):
            world.kernel.die(world.workers()[0], 1)
            world.deliver_all()
            while not spawns(world.wait_for_deadline()):
                pass
            world.deliver_all()
        world.catch_up()
        world.wait(10 * 86400.0)
        world.kernel.die(world.workers()[0], 1)  # replaced at once
        world.deliver_all()
        world.kernel.die(world.workers()[0], 1)  # before it is ready
        world.deliver_all()

        assert world.said("delayed respawn")[-1]["by"] == "0.10s"

    def test_a_crash_loop_of_serving_workers_runs_out_of_tokens(self) -> None:
        """Ten replacements and one for each worker are immediate, then it is paced."""
        world = booted(workers=1, preload="never")
        at_once = 0
        for _ in range(20):
            world.kernel.die(world.workers()[0], 1)
            orders = world.settle()
            if not spawns(orders):
                break
            at_once += 1

        assert at_once == 11
        assert world.said("delayed respawn")

    def test_a_crash_loop_never_ends_prod_run(self) -> None:
        """After the first commit no worker's failure does."""
        world = booted(workers=1)
        for _ in range(40):
            for worker in world.workers():
                world.kernel.die(worker, 1)
            world.catch_up()

        assert not world.has_exited
        assert world.serving(1) == 1

    def test_an_exit_may_come_before_its_announcement(self) -> None:
        """The death is kept until somebody says whose it was."""
        world = booted(workers=1)
        world.lose_spare()
        world.kernel.die(world.workers()[0], 1)
        world.deliver_all()
        zygote = world.zygote(1)
        world.kernel.step(zygote)
        child = world.workers()[0]
        world.kernel.die(child, 7)
        world.hear(on.ProcessExited)
        assert not world.said("lost worker")[1:]

        world.hear(on.Started)

        assert world.said("lost worker")[-1]["how"] == "exit 7"
        assert world.machine.processes.orphans == 0

    def test_a_dead_worker_is_not_told_to_go_on(self) -> None:
        """A hello that is read after the death gives no slot to anybody."""
        world = World(workers=1)
        for _ in range(2):
            world.deliver_all()
            world.kernel.step(world.zygote(1))
        child = world.workers()[0]
        world.kernel.step(child)
        world.kernel.die(child, 7)
        world.hear(on.ProcessExited, on.Hello)

        assert do.Forget(child.ticket) in world.orders
        assert not kinds(world.orders, do.Go)

    def test_a_number_that_comes_around_is_not_taken_for_the_dead(self) -> None:
        """An orphan's death is not the death of a worker that was ordered later and has its PID."""
        world = booted(workers=1)
        machine, now = world.machine, world.now
        machine.handle(on.Asked(Ask.MORE, "test"), now)  # ordered, and not announced for a while
        machine.handle(on.ProcessExited(900, 0), now)
        later = next(o for o in machine.handle(on.Asked(Ask.MORE, "test"), now) if isinstance(o, do.ForkWorker))
        orders = machine.handle(on.Hello(later.ticket, 900), now)

        assert do.Go(later.ticket, 2) in orders
        assert not kinds(orders, do.Forget)

    def test_orphans_are_counted_and_nothing_else(self) -> None:
        """A stranger's death moves nobody."""
        world = booted()
        orphan = world.kernel.adopt()
        world.kernel.die(orphan, 9)

        assert not [o for o in world.settle() if not isinstance(o, do.SignalGroup)]
        assert world.machine.processes.orphans == 1

    def test_what_is_left_of_a_group_gets_five_seconds(self) -> None:
        """SIGTERM at once, SIGKILL after 5 s, nothing more."""
        world = booted(workers=1)
        worker = world.workers()[0]
        world.kernel.bear_child(worker).deaf = True
        world.kernel.die(worker, 1)
        assert do.SignalGroup(worker.pid, signal.SIGTERM) in world.settle()
        assert not kinds(world.wait(4.9), do.SignalGroup)

        orders = world.wait(0.1)

        assert kinds(orders, do.SignalGroup) == [do.SignalGroup(worker.pid, signal.SIGKILL)]
        assert not world.kernel.strangers

    def test_an_unkillable_worker_is_reported_and_replaced(self) -> None:
        """Five seconds after SIGKILL its slot is somebody else's."""
        world = booted(workers=1, max_surge=1)
        world.ask(Ask.MORE)
        world.settle_until(on.Hello)
        stuck = world.workers()[-1]
        stuck.sleeps = True
        world.wait(60.0)
        world.wait(5.0)
        assert world.said("unkillable")

        world.catch_up()

        assert world.serving(1) == 2


class TestZygote:
    """A zygote dies while its generation serves."""

    def test_a_dead_zygote_is_replaced_if_the_files_are_the_same(self) -> None:
        """Its workers stay, and the next one is forked from the new zygote."""
        world = booted()
        world.kernel.die(world.zygote(1), -9)
        orders = world.catch_up()
        assert not kinds(orders, do.Stop)
        assert world.said("replaced zygote")

        world.kernel.die(world.workers()[0], 1)
        world.catch_up()

        assert world.serving(1) == 2

    def test_other_files_on_disk_are_not_adopted(self) -> None:
        """The generation cannot respawn, its workers stay, and a reload heals it."""
        world = booted()
        world.kernel.files = "v2"
        world.kernel.die(world.zygote(1), -9)
        world.catch_up()
        for left in (2, 1):  # the spare is of the right code, whatever lies on disk
            world.kernel.die(world.workers()[0], 1)
            world.catch_up()
            assert world.serving(1) == left
        assert world.said("cannot respawn")[0]["reason"] == "code on disk differs"
        assert not world.zygote(1).alive

        world.ask(Ask.RELOAD)
        world.catch_up()

        assert world.serving(2) == 2

    @pytest.mark.parametrize("code", [69, 71])
    def test_a_zygote_that_is_refused_for_a_passing_reason_is_tried_again(self, code: int) -> None:
        """EMFILE, ENOMEM or a directory that is away for a moment: no reload is needed when it is over."""
        world = booted()
        world.kernel.die(world.zygote(1), -9)
        for _ in range(3):
            world.deliver_all()
            world.wait(1.0)
            world.kernel.refuse(world.zygote(1), code)
            world.deliver_all()
            world.kernel.die(world.zygote(1), code)
        world.catch_up()

        assert not world.said("cannot respawn")
        assert [line["by"] for line in world.said("delayed respawn")] == ["0.10s", "0.15s", "0.23s", "0.34s"]
        for _ in range(2):
            world.kernel.die(world.workers()[0], 1)
        world.catch_up()
        assert world.serving(1) == 2

    def test_the_spare_takes_a_slot_while_a_zygote_is_prepared(self) -> None:
        """What was forked before needs no zygote."""
        world = booted()
        world.kernel.die(world.zygote(1), -9)
        world.kernel.die(world.workers()[0], 1)

        orders = world.deliver_all()

        assert not kinds(orders, do.StartZygote)
        assert kinds(orders, do.Go)

    def test_a_crash_loop_of_the_zygote_is_paced(self) -> None:
        """It is not started more often than a worker that fails."""
        world = booted()
        starts = []
        for _ in range(4):
            world.kernel.die(world.zygote(1), -11)
            world.deliver_all()
            while not kinds(world.wait_for_deadline(), do.StartZygote):
                pass
            starts.append(world.now)
            world.deliver_all()

        assert [b - a for a, b in itertools.pairwise(starts)] == pytest.approx([0.15, 0.225, 0.3375])

    def test_a_lost_order_does_not_cost_the_next_zygote(self) -> None:
        """A fork that died with its zygote is not laid to the charge of the new one."""
        world = booted(workers=1)
        world.lose_spare()
        world.kernel.die(world.workers()[0], 1)
        world.deliver_all()
        old = world.zygote(1)
        lost = old.forks[0]
        lost.open = False  # its channel's end is held by somebody: nothing is heard of it
        world.kernel.die(old, -9)
        world.deliver_all()
        world.wait(1.0)
        world.deliver_all()
        new = world.zygote(1)
        assert new is not old
        world.kernel.step(new)
        world.settle()
        world.wait(60.0)

        assert new.ticket not in world.promises.missed

    def test_a_zygote_that_cannot_be_killed_is_replaced(self) -> None:
        """One that hangs in the kernel does not cost the generation its respawns."""
        world = booted()
        world.zygote(1).sleeps = True
        world.kernel.close(world.zygote(1))
        world.catch_up()
        world.kernel.die(world.workers()[0], 1)
        world.catch_up()

        assert world.serving(1) == 2

    def test_forks_that_were_pending_are_not_waited_for(self) -> None:
        """Half are born and unannounced, the others are gone: all slots are filled at once."""
        world = booted(workers=4)
        world.lose_spare()
        for worker in world.workers():
            world.kernel.die(worker, 1)
        world.deliver_all()
        zygote = world.zygote(1)
        world.kernel.fork(zygote, silently=True)
        world.kernel.die(zygote, -9)
        begin = world.now
        world.catch_up()

        assert world.serving(1) == 4
        assert world.now - begin < 6.0
