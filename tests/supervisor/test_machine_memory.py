"""A reload for which there is no memory: scripts for the machine alone."""

from __future__ import annotations

import pytest

from launcher.handoff import AS_MANY_AS_WORKERS
from launcher.signals import Ask
from launcher.supervisor import actions as do
from launcher.supervisor import events as on
from launcher.supervisor.weighing import refusal
from tests.supervisor.world import booted

MEBIBYTE = 1024 * 1024


def weighed(limit: int, use: int, zygote: int, worker: int) -> on.Weighed:
    """Write figures in MiB."""
    return on.Weighed(*(size * MEBIBYTE for size in (limit, use, zygote, worker)))


@pytest.mark.parametrize(
    ("figures", "workers", "surge", "fits"),
    [
        (weighed(512, 300, 100, 28), 4, AS_MANY_AS_WORKERS, True),
        (weighed(512, 300, 100, 29), 4, AS_MANY_AS_WORKERS, False),
        (weighed(512, 300, 100, 56), 4, 2, True),
        (weighed(512, 300, 100, 57), 4, 2, False),
        (weighed(512, 300, 100, 113), 4, 0, True),  # the old ones end first
        (weighed(512, 300, 213, 10), 4, 0, False),
        (weighed(512, 300, 100, 28), 4, 9, True),  # no more than there are
        (weighed(0, 300, 100, 900), 4, 4, True),  # no limit
        (weighed(512, 600, 100, 0), 4, 4, True),  # nobody knows what a worker takes
        (None, 4, 4, True),
    ],
)
def test_the_expected_peak(figures: on.Weighed | None, workers: int, surge: int, *, fits: bool) -> None:
    """What is used now, a zygote, and as many workers as live beside the old ones."""
    assert (refusal(figures, workers, surge) == "") == fits


def test_the_refusal_has_the_figures_and_a_way_out() -> None:
    """All of them, so that nobody has to guess."""
    assert refusal(weighed(512, 300, 50, 100), 4, AS_MANY_AS_WORKERS) == (
        "no memory for it: 750M with a limit of 512M (300M in use, 50M for its zygote, 4 x 100M for workers); "
        "with --max-surge 1 it would need 450M"
    )
    assert refusal(weighed(512, 450, 50, 100), 4, 2).endswith("raise the limit, or restart; --max-surge 1 would not do")
    assert refusal(weighed(512, 450, 50, 100), 4, 1).endswith("raise the limit, or restart")


def test_what_does_not_fit_is_rejected_before_anything_is_started() -> None:
    """Nothing of the old generation is touched; systemd hears READY, and the result has the reason."""
    world = booted(workers=2)
    world.kernel.weight = weighed(100, 50, 10, 30)
    before = len(world.orders)
    world.ask(Ask.RELOAD, "SIGHUP")
    world.catch_up()
    orders = world.orders[before:]

    assert [order for order in orders if not isinstance(order, do.Log | do.Notify | do.Weigh)] == []
    assert "no memory for it: 120M with a limit of 100M" in str(world.said("rejected")[0]["reason"])
    assert world.said("rejected")[0] | {"reason": ""} == {"generation": 2, "kept": 1, "reason": ""}
    assert [order.lines[0] for order in orders if isinstance(order, do.Notify)] == ["RELOADING=1", "READY=1"]
    assert world.machine.generations() == [world.machine.current]
    assert world.serving(1) == 2


def test_the_next_reload_is_weighed_anew() -> None:
    """When there is room again, it comes."""
    world = booted(workers=2)
    world.kernel.weight = weighed(100, 50, 10, 30)
    world.ask(Ask.RELOAD)
    world.catch_up()
    world.kernel.weight = weighed(100, 30, 10, 30)
    world.ask(Ask.RELOAD)
    world.catch_up()

    assert world.serving(3) == 2


def test_a_usual_worker_is_weighed_and_the_zygote() -> None:
    """Those that serve, and not a thousand of them."""
    world = booted(workers=40)
    world.ask(Ask.RELOAD)
    (order,) = [order for order in world.orders if isinstance(order, do.Weigh)]

    assert order.zygote == world.zygote(1).pid
    assert order.workers == tuple(worker.pid for worker in world.workers(1)[:32])


def test_the_start_is_not_weighed() -> None:
    """There is nothing beside it."""
    world = booted()

    assert not [order for order in world.orders if isinstance(order, do.Weigh)]


def test_a_reload_does_not_wait_for_ever_for_the_figures() -> None:
    """Unknown is not checked."""
    world = booted()
    world.kernel.weight = None
    world.ask(Ask.RELOAD)
    world.deliver_all()
    assert len(world.said("preparing")) == 1
    world.wait(1.0)

    assert len(world.said("preparing")) == 2


def test_work_that_is_done_meanwhile_is_begun_again() -> None:
    """A reload that waits for the figures is a reload: prod-run does not exit under it."""
    world = booted(workers=1, restart="on-failure")
    world.kernel.weight = None
    world.ask(Ask.RELOAD)
    world.kernel.die(world.workers(1)[0], 0)
    world.deliver_all()
    assert not world.has_exited
    world.wait(1.0)
    world.settle()

    assert world.serving(2) == 1


def test_a_stop_does_not_wait_for_the_figures() -> None:
    """They come too late, and mean nothing any more."""
    world = booted()
    world.ask(Ask.RELOAD)
    world.ask(Ask.STOP)
    world.catch_up()

    assert world.has_exited
    assert len(world.said("preparing")) == 1
