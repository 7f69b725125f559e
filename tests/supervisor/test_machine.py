"""Starts, what a worker's end means, and how many: scripts for the machine alone."""

from __future__ import annotations

import pytest

from launcher.errors import Exit as Code
from launcher.signals import Ask
from launcher.supervisor import actions as do
from tests.supervisor.world import World, booted


def kinds(orders: list[do.Action], *types: type) -> list[do.Action]:
    """Return the orders of these types."""
    return [order for order in orders if isinstance(order, types)]


def spawns(orders: list[do.Action]) -> list[int]:
    """Return the slots of the workers that were ordered."""
    return [order.slot for order in orders if isinstance(order, do.ForkWorker | do.ExecWorker)]


class TestStart:
    """The first generation."""

    def test_first_start_commits_when_all_are_ready(self) -> None:
        """Nobody serves, and nothing is announced, before the last worker is ready."""
        world = World(workers=3)
        world.kernel.step(world.zygote(1))
        world.settle_all_but(slot=2)

        assert not kinds(world.orders, do.Serve)
        assert not world.said("committed")

        world.settle()

        assert len(kinds(world.orders, do.Serve)) == 3
        assert world.said("committed") == [{"generation": 1, "workers": "3/3", "after": "0.00s"}]

    def test_a_worker_that_dies_before_the_first_commit_ends_the_start_with_70(self) -> None:
        """The manager above retries; prod-run does not."""
        world = World(workers=2)
        world.kernel.step(world.zygote(1))
        world.settle_all_but(slot=1)
        world.kernel.die(world.workers()[-1], 3)
        world.catch_up()

        assert world.kernel.exit_code == Code.SOFTWARE
        assert world.said("rejected")[0]["reason"] == "a worker ended: exit 3"
        assert not world.workers()

    def test_a_refusal_gives_its_own_exit_code(self) -> None:
        """Bad configuration is exit 78, found by the zygote."""
        world = World()
        world.kernel.refuse(world.zygote(1), 78)
        world.catch_up()

        assert world.kernel.exit_code == Code.CONFIG

    def test_no_process_to_be_had_is_71(self) -> None:
        """The operating system refused."""
        world = World(refusals=1)
        world.catch_up()

        assert world.kernel.exit_code == Code.OS_ERROR

    def test_an_import_that_hangs_ends_the_start_at_the_boot_limit(self) -> None:
        """`--boot-timeout` holds for the import."""
        world = World(boot_timeout=60.0)
        world.deliver(0)
        world.wait(59.0)
        assert not world.said("gave up")

        orders = world.wait(1.0)

        assert kinds(orders, do.Kill) == [do.Kill(world.zygote(1).pid)]
        world.catch_up()
        assert world.kernel.exit_code == Code.SOFTWARE

    def test_targets_without_a_worker_are_ready_after_a_second_of_life(self) -> None:
        """Who cannot say that it is ready must live."""
        world = World(workers=2)
        world.kernel.takes_worker = False
        world.settle()
        world.wait(0.9)
        assert not world.said("committed")

        world.wait(0.1)

        assert world.said("committed")

    def test_a_target_without_a_worker_that_dies_within_a_second_was_never_ready(self) -> None:
        """A quick death is a failed start."""
        world = World(workers=2)
        world.kernel.takes_worker = False
        world.settle()
        world.wait(0.9)
        world.kernel.die(world.workers()[0], 1)
        world.catch_up()

        assert world.kernel.exit_code == Code.SOFTWARE


class TestPreload:
    """Who imports."""

    @pytest.mark.parametrize(
        ("preload", "unforkable", "forks"),
        [
            ("auto", "", True),
            ("auto", "thread metrics", False),
            ("always", "thread metrics", True),
            ("never", "", False),
        ],
    )
    def test_preload_decides_who_imports(self, *, preload: str, unforkable: str, forks: bool) -> None:
        """`auto` forks if nothing forbids it, `always` forks, `never` does not."""
        world = World(preload=preload)
        world.kernel.unforkable = unforkable
        world.catch_up()

        assert len(kinds(world.orders, do.ForkWorker)) == (2 if forks else 0)
        assert len(kinds(world.orders, do.ExecWorker)) == (0 if forks else 2)
        assert bool(world.said("unsafe to fork")) == bool(unforkable)
        assert world.zygote(1).alive == forks


class TestRestart:
    """What a worker's end means."""

    @pytest.mark.parametrize("code", [0, 1, -15])
    def test_always_replaces_whoever_ends(self, code: int) -> None:
        """Servers never finish."""
        world = booted(workers=1, restart="always")
        world.kernel.die(world.workers()[0], code)
        world.catch_up()

        assert world.serving(1) == 1

    def test_on_failure_ends_when_all_work_is_done(self) -> None:
        """Exit 0 means done, a failure is tried again, all done is exit 0."""
        world = booted(workers=2, restart="on-failure")
        world.kernel.die(world.workers()[0], 0)
        world.catch_up()
        assert len(world.workers()) == 1
        world.kernel.die(world.workers()[0], 1)
        world.catch_up()
        assert [w.slot for w in world.workers()] == [1]
        world.kernel.die(world.workers()[0], 0)
        world.catch_up()

        assert world.kernel.exit_code == Code.DONE

    @pytest.mark.parametrize(("codes", "exits"), [((0, 0), 0), ((0, 3), 3), ((5, 3), 5), ((0, -9), 137)])
    def test_never_passes_the_first_failure_on(self, codes: tuple[int, int], exits: int) -> None:
        """The first non-zero code by copy, 128+N for a signal."""
        world = booted(workers=2, restart="never")
        for worker, code in zip(world.workers(), codes, strict=True):
            world.kernel.die(worker, code)
        world.catch_up()

        assert world.kernel.exit_code == exits

    def test_work_beyond_the_wanted_slots_does_not_end_the_rest(self) -> None:
        """One worker fewer is wanted: its finished work is not counted for the slot that still works."""
        world = booted(workers=3, restart="on-failure")
        for worker in world.workers()[1:]:
            world.kernel.die(worker, 0)
        world.catch_up()
        world.ask(Ask.FEWER)
        world.catch_up()

        assert not world.has_exited
        assert [w.slot for w in world.workers()] == [0]


class TestScale:
    """More and fewer."""

    def test_one_more_and_one_fewer(self) -> None:
        """The highest slot comes and goes; the count survives reloads."""
        world = booted(workers=2)
        world.ask(Ask.MORE)
        world.catch_up()
        assert world.serving(1) == 3
        world.ask(Ask.RELOAD)
        world.catch_up()
        assert world.serving(2) == 3
        world.ask(Ask.FEWER)
        world.catch_up()

        assert [w.slot for w in world.workers()] == [0, 1]

    def test_never_less_than_one(self) -> None:
        """The last worker stays."""
        world = booted(workers=1)
        world.ask(Ask.FEWER)
        world.catch_up()

        assert world.serving(1) == 1

    def test_upgrade_is_one_line(self) -> None:
        """Not in this version, and nothing else."""
        assert [type(order) for order in booted().ask(Ask.UPGRADE)] == [do.Log]
