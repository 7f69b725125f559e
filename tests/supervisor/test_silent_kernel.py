"""Nothing waits for ever: in every state, with a kernel that has fallen silent, an action follows at the deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from launcher.signals import Ask
from launcher.supervisor import events as on
from launcher.supervisor.generation import LEAVING, Phase, State
from launcher.supervisor.stopping import Stage
from tests.supervisor.pretend_kernel import TASK
from tests.supervisor.promises import promise
from tests.supervisor.world import World, booted

if TYPE_CHECKING:
    from collections.abc import Callable

    from _pytest.mark import ParameterSet

ROUNDS = 60  # deadlines; a generation that nobody answers is tried again and again, so there is no end to them
AT_REST = (State.SERVING, State.WARM, State.PARKED, State.STUCK)


# ── ways into every state ───────────────────────────────────────────────────────────────────────


def ordered() -> World:
    """Forks are asked for, and not answered."""
    world = World()
    world.deliver_all()
    world.kernel.step(world.zygote(1))
    world.deliver_all()
    return world


def ordered_again() -> World:
    """A fork is asked for in a generation that serves."""
    world = booted()
    world.lose_spare()
    world.kernel.die(world.workers()[0], 1)
    world.deliver_all()
    return world


def booting() -> World:
    """Workers have said hello, and nothing since."""
    world = World()
    world.settle_until(on.Hello)
    world.deliver_all()
    return world


def booting_again() -> World:
    """A worker boots in a generation that serves."""
    world = booted()
    world.lose_spare()
    world.kernel.die(world.workers()[0], 1)
    world.settle_until(on.Hello)
    world.deliver_all()
    return world


def entered() -> World:
    """A target that takes no Worker has begun."""
    world = World()
    world.kernel.takes_worker = False
    world.settle()
    return world


def held(**changes: Any) -> World:
    """One worker is held because another boots."""
    world = booted(**changes)
    world.ask(Ask.RELOAD)
    world.settle_all_but(slot=1)
    return world


def held_and_mute() -> World:
    """The channel of a held worker is closed, and it lives."""
    world = held()
    world.kernel.close(world.workers(2)[0])
    world.deliver_all()
    return world


def draining(**changes: Any) -> World:
    """Old workers are told to go, and say nothing."""
    world = booted(**changes)
    for worker in world.workers():
        worker.deaf = True
    world.ask(Ask.RELOAD)
    world.settle()
    return world


def dumping() -> World:
    """Old workers have missed the drain limit, and are to write their stacks."""
    world = draining()
    for worker in world.workers(1):
        worker.sleeps = True
    world.wait(25.0)
    return world


def stalled() -> World:
    """A worker's heartbeat has stood still, and it is to write its stacks."""
    world = booted(stall_timeout=10.0)
    world.workers()[0].stalls = True
    world.wait(4.0)
    for _ in range(2):
        world.wait_for_deadline()
        world.deliver_all()
    return world


def killed() -> World:
    """Old workers have been killed for that."""
    world = dumping()
    world.wait(0.5)
    return world


def spare_taken() -> World:
    """A spare has got a slot, and boots; the next one is asked for."""
    world = booted()
    world.kernel.die(world.workers()[0], 1)
    world.deliver_all()
    return world


def spare_ordered() -> World:
    """A spare is asked for, and the zygote does not fork it."""
    world = booted()
    world.lose_spare()
    world.wait(0.2)
    return world


def parked_and_mute() -> World:
    """The channel of a spare is closed, and it lives."""
    world = booted()
    spare = world.spare()
    assert spare
    spare.sleeps = True
    world.kernel.close(spare)
    world.deliver_all()
    return world


def killed_spare() -> World:
    """It has been killed for that, and still lives."""
    world = parked_and_mute()
    world.wait(5.0)
    return world


def stuck_spare() -> World:
    """It has survived even that."""
    world = killed_spare()
    world.wait(5.0)
    return world


def dismissed_spare() -> World:
    """A spare is dismissed for the next generation, and does not end."""
    world = booted()
    spare = world.spare()
    assert spare
    spare.sleeps = True
    world.ask(Ask.RELOAD)
    world.settle_until(on.StoppedAccepting)
    return world


def recycling(**changes: Any) -> World:
    """A worker is too old, and its successor boots, or it does not go."""
    world = booted(max_age=100.0, **changes)
    for worker in world.workers():
        worker.deaf = True
    world.wait(120.0)
    return world


def recycling_alone() -> World:
    """It is told to go before its successor comes."""
    return recycling(max_surge=0)


def mute_spare_passed_over() -> World:
    """A worker dies while the spare cannot hear: another one is asked for."""
    world = parked_and_mute()
    world.kernel.die(world.workers()[0], 1)
    world.deliver_all()
    return world


def beating_again() -> World:
    """A heartbeat has stood still at every second look."""
    world = booted(stall_timeout=10.0)
    for stalls in (True, False) * 4:
        world.workers()[0].stalls = stalls
        world.wait(5.0)
        world.deliver_all()
    return world


def too_old_to_be_replaced() -> World:
    """All are too old, and the code on disk differs."""
    world = booted(max_surge=0, max_age=100.0)
    world.kernel.files = "v2"
    world.kernel.die(world.zygote(1), -9)
    world.catch_up()
    world.wait(120.0)
    return world


def reported() -> World:
    """Stacks are asked for."""
    world = booted()
    world.ask(Ask.REPORT)
    return world


def stuck() -> World:
    """Old workers have survived SIGKILL."""
    world = killed()
    world.wait(5.0)
    return world


def killed_unborn() -> World:
    """A worker without a PID has missed its limit."""
    world = ordered_again()
    world.wait(60.0)
    return world


def mute_zygote() -> World:
    """A zygote that can fork has closed its channel, and lives."""
    world = booted()
    world.zygote(1).sleeps = True
    world.kernel.close(world.zygote(1))
    world.deliver_all()
    return world


def killed_zygote() -> World:
    """It has been killed for that, and still lives."""
    world = mute_zygote()
    world.wait(5.0)
    return world


def stuck_zygote() -> World:
    """It has survived even that."""
    world = killed_zygote()
    world.wait(5.0)
    return world


def zygote_to_end() -> World:
    """A zygote is told to end when its last worker is gone."""
    world = booted()
    world.zygote(1).sleeps = True
    world.ask(Ask.RELOAD)
    world.settle_until(on.ProcessExited)
    for worker in world.workers(1):
        world.kernel.die(worker, 0)
    world.deliver_all()
    return world


def importing() -> World:
    """A reload's zygote imports."""
    world = booted()
    world.ask(Ask.RELOAD)
    world.deliver_all()
    return world


def importing_and_mute() -> World:
    """It has closed its channel, and lives."""
    world = importing()
    world.zygote(2).sleeps = True
    world.kernel.close(world.zygote(2))
    world.deliver_all()
    return world


def weighing() -> World:
    """A reload waits for the figures of memory."""
    world = booted()
    world.kernel.weight = None
    world.ask(Ask.RELOAD)
    return world


def without_room(**changes: Any) -> World:
    """There is memory for one more worker, and not for two."""
    world = booted(workers=2, **changes)
    world.kernel.weight = on.Weighed(100, 50, 5, 30)
    world.ask(Ask.RELOAD)
    world.deliver_all()
    return world


def room_for_one() -> World:
    """One by one they fit."""
    return without_room(max_surge=1)


def refused() -> World:
    """It has said why it cannot, and does not end."""
    world = importing()
    world.kernel.refuse(world.zygote(2))
    world.deliver_all()
    return world


def rejected() -> World:
    """A generation is rejected, and its workers do not hear it."""
    world = held()
    world.kernel.die(world.workers(2)[1], 1)
    world.deliver_all()
    return world


def given_up(*, is_killed: bool = False) -> World:
    """A generation with a file is rejected, and its zygote does not put the former one back; or who is to do it."""
    world = held()
    world.kernel.has_file = True
    world.kernel.die(world.workers(2)[1], 1)
    world.settle()
    world.ask(Ask.RELOAD)
    world.settle_all_but(slot=1)
    world.kernel.die(world.zygote(3) if is_killed else world.workers(3)[1], -9)
    world.deliver_all()
    return world


def on_an_errand() -> World:
    """The zygote that serves is to do it for one that was killed."""
    return given_up(is_killed=True)


def rolling() -> World:
    """The first of a rolling reload serves, and an old one does not go."""
    world = booted(workers=4, max_surge=1)
    world.ask(Ask.RELOAD)
    world.settle_until(on.StoppedAccepting)
    return world


def singletons() -> World:
    """The old singletons are told to go, and do not."""
    world = booted(max_surge=0)
    world.ask(Ask.RELOAD)
    world.deliver_all()
    world.kernel.step(world.zygote(2))
    world.deliver_all()
    return world


def leftovers() -> World:
    """Something is left of a dead worker's group."""
    world = booted()
    world.kernel.bear_child(world.workers()[0]).deaf = True
    world.kernel.die(world.workers()[0], 1)
    world.settle()
    return world


def delayed() -> World:
    """A stop lets workers accept for a while."""
    world = booted(drain_delay=5.0)
    world.ask(Ask.STOP)
    return world


def stopping(ask: Ask = Ask.STOP) -> World:
    """All have been told to go."""
    world = booted()
    for worker in world.workers():
        worker.sleeps = worker.deaf = True
    world.ask(ask)
    return world


def killed_by_quit() -> World:
    """All have been killed, and still live."""
    return stopping(Ask.STOP_NOW)


def sweeping() -> World:
    """All are gone; orphans are asked for."""
    world = booted()
    world.kernel.adopt().deaf = True
    world.ask(Ask.STOP)
    for _ in range(ROUNDS):
        world.deliver_all()
        for proc in list(world.kernel.procs.values()):
            world.kernel.step(proc)
    return world


def sweeping_again() -> World:
    """Orphans have ignored SIGTERM."""
    world = sweeping()
    world.wait(5.0)
    return world


def over() -> World:
    """It has exited."""
    world = sweeping_again()
    world.wait(5.0)
    return world


def task_ordered() -> World:
    """The fork of an init task is asked for, and not answered."""
    world = World(before="migrate")
    world.deliver_all()
    world.kernel.step(world.zygote(1))
    world.deliver_all()
    return world


def task_booting() -> World:
    """An init task has said hello, and nothing since."""
    world = World(before="migrate")
    world.settle_until(on.Hello)
    world.deliver_all()
    return world


def task_running(*, sleeps: bool = False) -> World:
    """An init task of a reload has begun, and does not end."""
    world = booted(before="migrate")
    world.ask(Ask.RELOAD)
    world.settle_until(on.Begun)
    world.deliver_all()
    for proc in world.kernel.procs.values():
        proc.sleeps = sleeps and proc.slot == TASK and proc.alive
    return world


def task_stopping() -> World:
    """A stop has pre-empted the reload of an init task that does not hear it."""
    world = task_running(sleeps=True)
    world.ask(Ask.STOP)
    return world


def task_killed() -> World:
    """An init task has missed its limit, and hangs in the kernel."""
    world = task_running(sleeps=True)
    world.wait(60.0)
    return world


def task_stuck() -> World:
    """It has survived SIGKILL."""
    world = task_killed()
    world.wait(5.0)
    return world


WAYS: dict[object, tuple[Callable[[], World], ...]] = {
    ("worker", State.ORDERED): (ordered, ordered_again, mute_spare_passed_over),
    ("worker", State.BOOTING): (booting, booting_again, spare_taken),
    ("worker", State.ENTERED): (entered,),
    ("worker", State.READY): (held, held_and_mute),
    ("worker", State.SERVING): (booted, leftovers, recycling, reported, beating_again, too_old_to_be_replaced),
    ("worker", State.DRAINING): (draining, singletons, stopping, recycling_alone),
    ("worker", State.DUMPING): (dumping, stalled),
    ("worker", State.KILLED): (killed, killed_unborn, killed_by_quit),
    ("worker", State.STUCK): (stuck,),
    ("zygote", State.PREPARING): (importing, importing_and_mute),
    ("zygote", State.WARM): (booted, mute_zygote),
    ("zygote", State.RESTORING): (given_up,),
    ("zygote", State.DRAINING): (zygote_to_end, refused),
    ("zygote", State.KILLED): (killed_zygote,),
    ("zygote", State.STUCK): (stuck_zygote,),
    ("spare", State.ORDERED): (spare_ordered, spare_taken),
    ("spare", State.PARKED): (booted, parked_and_mute),
    ("spare", State.DRAINING): (dismissed_spare,),
    ("spare", State.KILLED): (killed_spare,),
    ("spare", State.STUCK): (stuck_spare,),
    ("init task", State.ORDERED): (task_ordered,),
    ("init task", State.BOOTING): (task_booting,),
    ("init task", State.RUNNING): (task_running,),
    ("init task", State.DRAINING): (task_stopping,),
    ("init task", State.KILLED): (task_killed,),
    ("init task", State.STUCK): (task_stuck,),
    Phase.BEFORE: (task_ordered, task_running),
    Phase.PREPARING: (World, importing, room_for_one),
    Phase.FILLING: (held, ordered, singletons),
    Phase.ROLLING: (rolling,),
    Phase.COMMITTED: (booted, weighing, without_room),
    Phase.RETIRING: (draining, rolling),
    Phase.REJECTED: (rejected, refused, on_an_errand),
    Stage.DELAY: (delayed,),
    Stage.DRAIN: (stopping,),
    Stage.SWEEP: (sweeping,),
    Stage.LAST_SWEEP: (sweeping_again,),
    Stage.OVER: (over,),
}


def states(world: World) -> set[object]:
    """Return every state that anybody is in."""
    machine = world.machine
    found: set[object] = {generation.phase for generation in machine.generations()}
    found |= {(p.role, p.state) for p in machine.processes.by_ticket.values()}
    return found | ({machine.stop.stage} if machine.stop else set())


def test_every_state_is_driven_into() -> None:
    """A new state without a way into it fails here."""
    others = {state for state in WAYS if not isinstance(state, tuple)}
    kinds = {state for _, state in (pair for pair in WAYS if isinstance(pair, tuple))}

    assert others == {*Phase, *Stage}
    assert kinds == set(State)
    leaving = {(kind, state) for kind in ("worker", "zygote", "spare") for state in LEAVING}
    assert leaving - {("zygote", State.DUMPING), ("spare", State.DUMPING)} <= WAYS.keys()


def named(state: object, way: Callable[[], World]) -> ParameterSet:
    """Return a case with a name that a failure can be found by."""
    kind, of = state if isinstance(state, tuple) else (type(state).__name__.lower(), state)
    return pytest.param(state, way, id=f"{kind} {of.name}: {getattr(way, '__name__', way)}")


@pytest.mark.parametrize(("state", "way"), [named(state, way) for state, ways in WAYS.items() for way in ways])
def test_silence_ends_at_a_deadline(state: object, way: Callable[[], World]) -> None:
    """From every state: an action at each deadline, nobody waits for ever, and a stop still ends it."""
    world = way()
    promise(state in states(world), "every state can be reached", state)

    waiting = [p for p in world.machine.processes.by_ticket.values() if p.state not in AT_REST or p.mute]
    listen_to_nobody(world)
    still = [p for p in waiting if world.machine.processes.knows(p.ticket) and p.state not in AT_REST]
    promise(not still or world.has_exited, "nobody is waited for for ever", [(p.ticket, p.state) for p in still])
    if not world.has_exited:
        world.ask(Ask.STOP)
        listen_to_nobody(world)
    promise(world.has_exited, "a stop ends even if nobody answers")


def listen_to_nobody(world: World) -> None:
    """Move the time from deadline to deadline until nothing is awaited."""
    with world.telling():
        for _ in range(ROUNDS):
            if world.has_exited or world.machine.next_deadline() is None:
                return
            promise(world.wait_for_deadline(), "an action follows at each deadline")
