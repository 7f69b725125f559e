"""Init tasks: scripts for the machine alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from launcher.signals import Ask
from launcher.supervisor import actions as do
from launcher.supervisor import events as on
from tests.supervisor.pretend_kernel import TASK
from tests.supervisor.world import World, booted

if TYPE_CHECKING:
    from tests.supervisor.pretend_kernel import Proc


def task_of(world: World, generation: int) -> Proc:
    """Return the init task of a generation."""
    return next(p for p in world.kernel.procs.values() if (p.slot, p.generation) == (TASK, generation))


def running(**changes: object) -> World:
    """Return a world in which the init task of a second generation has begun."""
    world = booted(before="migrate", **changes)
    world.ask(Ask.RELOAD, "SIGHUP")
    world.settle_until(on.Begun)
    world.deliver_all()
    return world


def tasks(orders: list[do.Action]) -> list[int]:
    """Return the generations whose init task was ordered."""
    return [o.generation for o in orders if isinstance(o, do.ForkWorker | do.ExecWorker) and o.slot == TASK]


@pytest.mark.parametrize("preload", ["auto", "never"])
def test_it_is_run_once_and_before_any_worker(preload: str) -> None:
    """At the start and at each reload, but not when workers, spares or the zygote are replaced."""
    world = booted(before="migrate", preload=preload)
    world.kernel.die(world.workers()[0], 1)
    world.catch_up()
    if preload == "auto":
        world.kernel.die(world.zygote(1), 1)
    world.catch_up()
    world.ask(Ask.MORE)
    world.catch_up()
    assert tasks(world.orders) == [1]

    world.ask(Ask.RELOAD)
    world.catch_up()

    assert tasks(world.orders) == [1, 2]
    assert world.serving(2) == 3
    assert [line["generation"] for line in world.said("finished --before")] == [1, 2]


def test_the_old_serve_while_it_runs() -> None:
    """Also singletons, which go only when it has ended well."""
    world = running(max_surge=0)

    assert world.serving(1) == 2
    assert world.workers(2) == []


@pytest.mark.parametrize("how", ["exit 1", "SIGKILL", "refused", "limit", "zygote"])
def test_a_failure_rejects_and_touches_nobody(how: str) -> None:
    """With the reason; what it told beats how it ended."""
    world = running()
    task = task_of(world, 2)
    match how:
        case "refused":
            world.turn(on.Refused(task.ticket, 70, "--before migrate: RuntimeError", "Traceback"))
        case "limit":
            world.wait(60.0)
        case "zygote":
            world.kernel.die(world.zygote(2), -9)
        case _:
            world.kernel.die(task, 1 if how == "exit 1" else -9)
    world.catch_up()
    reason = str(world.said("rejected")[0]["reason"])

    assert {
        "exit 1": "--before migrate: exit 1",
        "SIGKILL": "--before migrate: SIGKILL",
        "refused": "--before migrate: RuntimeError",
        "limit": "--before migrate: it did not end within --boot-timeout 60s",
        "zygote": "a zygote ended: SIGKILL",
    }[how] == reason
    assert world.serving(1) == 2
    assert not any(isinstance(order, do.Stop) and order.ticket != task.ticket for order in world.orders)


def test_an_exit_without_a_beginning_is_a_failure() -> None:
    """Who never ran the task has not done it, whatever the exit code."""
    world = booted(before="migrate")
    world.ask(Ask.RELOAD)
    world.settle(lambda proc: proc.slot == TASK)
    world.kernel.die(task_of(world, 2), 0)
    world.catch_up()

    assert world.said("rejected")
    assert world.serving(1) == 2


def test_a_stop_ends_it_at_once() -> None:
    """With its group: TERM, and KILL for who does not go."""
    world = running()
    task = task_of(world, 2)
    task.deaf = task.sleeps = True

    orders = world.ask(Ask.STOP)
    assert next((o.ticket, o.pid) for o in orders if isinstance(o, do.Stop)) == (task.ticket, task.pid)
    world.wait(5.0)
    assert do.Kill(task.pid) in world.orders
    world.kernel.wake(task)
    world.catch_up()
    assert world.has_exited
