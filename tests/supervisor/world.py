"""
The machine in its pretend world, with a clock and a witness.

Owns the way of an event: from the air into the machine, its orders past the promises into the kernel.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from launcher.handoff import AS_MANY_AS_WORKERS
from launcher.supervisor import actions as do
from launcher.supervisor import events as on
from launcher.supervisor.machine import Machine
from launcher.supervisor.policy import Policy
from tests.supervisor.pretend_kernel import NOBODY, PretendKernel, Proc
from tests.supervisor.promises import Promises, promise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from launcher.signals import Ask

POLICY = Policy(
    workers=2,
    max_surge=AS_MANY_AS_WORKERS,
    preload="auto",
    restart="always",
    boot_timeout=60.0,
    drain_delay=0.0,
    drain_timeout=25.0,
)
ROUNDS = 200  # of a world that catches up: far more than any way to rest needs


class World:
    """A machine, a pretend kernel, the time, and all that was ordered so far."""

    def __init__(self, policy: Policy = POLICY, *, refusals: int = 0, **changes: Any) -> None:
        """Begin at 1000 s, in a world that refuses so many starts."""
        policy = policy._replace(**changes)
        self.now = 1000.0
        self.machine = Machine(policy, self.now, lambda: 0.5)
        self.kernel = PretendKernel()
        self.kernel.refusals = refusals
        self.kernel.is_prepared = policy.is_prepared
        self.kernel.zygote_stays = policy.watch
        self.kernel.forks = policy.preload != "never"
        self.promises = Promises(policy, self.kernel)
        self.orders: list[do.Action] = []
        self.story: list[tuple[float, on.Event | do.Action]] = []
        self.turn(on.Tick())

    # ── the loop ────────────────────────────────────────────────────────────────────────────────

    def turn(self, *events: on.Event) -> list[do.Action]:
        """Record, decide and carry out, as the loop does; return what was ordered."""
        if self.has_exited:
            return []
        self.story += [(self.now, event) for event in events]
        with self.telling():
            return self._turn(events)

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Tell what happened last if a promise is broken."""
        try:
            yield
        except AssertionError as error:
            if not getattr(error, "__notes__", ()):
                error.add_note("\n".join(f"{at:10.2f}  {what}" for at, what in self.story[-TOLD:]))
            raise

    def _turn(self, events: tuple[on.Event, ...]) -> list[do.Action]:
        for event in events:
            self.kernel.see(event, self.now)
            self.promises.hear(event, self.now)
            self.machine.record(event, self.now)
        orders = self._decide()
        for _ in range(3):  # a limit of 0 s is over at once
            deadline = self.machine.next_deadline()
            if deadline is None or deadline > self.now or self.has_exited:
                break
            orders += self._decide()
        if not self.has_exited:
            self.promises.look_ahead(self.machine.next_deadline(), self.now)
            again = self.machine.decide(self.now)
            promise(not again, "deciding twice orders nothing twice", *again)
        return orders

    def _decide(self) -> list[do.Action]:
        orders = self.machine.decide(self.now)
        for action in orders:
            self.story.append((self.now, action))
            promise(not self.has_exited, "nothing is ordered after the exit", action)
            self.promises.look_at(action, self.now)
            self.kernel.carry_out(action, self.now)
        self.promises.look_back(orders, self.now)
        self.orders += orders
        self._clear_up()
        return orders

    def _clear_up(self) -> None:
        """Drop what is over, so that long runs stay fast."""
        over = [t for t, p in self.kernel.procs.items() if p.forgotten and not p.alive and (p.seen_exit or not p.pid)]
        for ticket in over:
            if len(self.kernel.procs) > KEPT:
                del self.kernel.procs[ticket]

    @property
    def has_exited(self) -> bool:
        """Say whether prod-run is over."""
        return self.kernel.exit_code is not None

    # ── what happens ────────────────────────────────────────────────────────────────────────────

    def ask(self, ask: Ask, origin: str = "operator") -> list[do.Action]:
        """Let an operator ask."""
        return self.turn(on.Asked(ask, origin))

    def deliver(self, *lanes: int) -> list[do.Action]:
        """Let the oldest event of each of these lanes arrive, all in one turn."""
        events = [event for event in map(self.kernel.take, lanes) if event is not None]
        return self.turn(*events) if events else []

    def deliver_all(self) -> list[do.Action]:
        """Let everything arrive that is in the air; nobody does anything."""
        orders: list[do.Action] = []
        waiting = sum(map(len, self.kernel.lanes.values()))  # of looks that nobody heard for long there are many
        for _ in range(waiting + MANY):
            if not self.kernel.lanes or self.has_exited:
                return orders
            orders += self.deliver(0)
        promise(0, "the world comes to rest")
        return orders

    def hear(self, *types: type[on.Event]) -> list[do.Action]:
        """Let events of these types arrive, in this order, and nothing else."""
        orders: list[do.Action] = []
        for wanted in types:
            lanes = [lane for lane, events in self.kernel.lanes.items() if isinstance(events[0], wanted)]
            orders += self.deliver(list(self.kernel.lanes).index(lanes[0]))
        return orders

    def settle_until(self, wanted: type[on.Event]) -> None:
        """Let everybody behave until events of this type are in the air, and nothing else."""
        for _ in range(ROUNDS):
            for proc in list(self.kernel.procs.values()):
                lane = self.kernel.lanes.get(proc.ticket, ())
                if not any(isinstance(event, wanted) for event in lane):
                    self.kernel.step(proc)
            heads = [lane for lane, events in self.kernel.lanes.items() if not isinstance(events[0], wanted)]
            if heads:
                self.deliver(list(self.kernel.lanes).index(heads[0]))
            elif self.kernel.lanes:
                return

    def settle_all_but(self, slot: int = NOBODY, worker: Proc | None = None) -> None:
        """Let all arrive and everybody behave, but for one slot or worker, who only boots."""
        self.settle(lambda proc: proc is worker or proc.slot == slot >= 0)

    def wait_for_deadline(self) -> list[do.Action]:
        """Let time pass until the machine wants to be asked."""
        deadline = self.machine.next_deadline()
        self.now = max(self.now, self.now if deadline is None else deadline)
        return self.turn(on.Tick())

    def wait(self, seconds: float) -> list[do.Action]:
        """Let time pass, from deadline to deadline."""
        end = self.now + seconds
        orders: list[do.Action] = []
        for _ in range(MANY):
            deadline = self.machine.next_deadline()
            if deadline is None or deadline > end or self.has_exited:
                break
            self.now = max(self.now, deadline)
            orders += self.turn(on.Tick())
        self.now = end
        return orders + self.turn(on.Tick())

    def settle(self, held: Callable[[Proc], bool] = lambda _: False) -> list[do.Action]:
        """
        Let all arrive that is in the air, and everybody do what a good process does, in no time.

        Who is held boots, and goes no further.
        """
        orders: list[do.Action] = []
        for _ in range(ROUNDS):
            orders += self.deliver_all()
            going = [p for p in self.kernel.procs.values() if p.step != "running" or not held(p)]
            if self.has_exited or not any([self.kernel.step(p) for p in going]):  # noqa: C419  all of them
                return orders
        promise(0, "the world comes to rest", *self.kernel.procs.values())
        return orders

    def catch_up(self) -> list[do.Action]:
        """Let all arrive, all behave and as much time pass as the machine wants, until nothing is awaited."""
        orders = self.settle()
        for _ in range(ROUNDS):
            deadline = self.machine.next_deadline()
            if deadline is None or self.has_exited or self.promises.is_at_rest():
                break
            self.now = max(self.now, deadline)
            orders += self.turn(on.Tick())
            orders += self.settle()
        else:
            promise(0, "in a world that answers nothing is awaited for ever", deadline)
        if not self.has_exited:
            self.promises.look_at_rest()
        return orders

    def catch_up_until(self, is_so: Callable[[], bool]) -> None:
        """Let one event arrive, or all do one step, until something is so."""
        for _ in range(MANY):
            if is_so():
                return
            if not self.deliver(0) and not self.kernel.lanes:
                for proc in list(self.kernel.procs.values()):
                    self.kernel.step(proc)

    # ── who is who ──────────────────────────────────────────────────────────────────────────────

    def workers(self, generation: int | None = None) -> list[Proc]:
        """Return the living workers by slot."""
        living = [p for p in self.kernel.procs.values() if p.alive and p.is_worker]
        return sorted((p for p in living if generation in (None, p.generation)), key=lambda p: (p.slot, p.ticket))

    def zygote(self, generation: int) -> Proc:
        """Return the newest zygote of a generation."""
        return [p for p in self.kernel.procs.values() if p.generation == generation and p.is_zygote][-1]

    def spare(self) -> Proc | None:
        """Return the spare that lives and was not told to end."""
        return next((p for p in self.kernel.procs.values() if p.alive and p.is_spare and not p.told), None)

    def lose_spare(self) -> None:
        """Let the spare die; the next one comes a moment later."""
        spare = self.spare()
        assert spare
        self.kernel.die(spare, 1)
        self.deliver_all()

    def serving(self, generation: int) -> int:
        """Count the living workers that were let serve and not told to go."""
        return sum(p.is_let and not p.told for p in self.workers(generation))

    def said(self, event: str) -> list[dict[str, object]]:
        """Return the fields of all log lines of this event."""
        return [dict(o.fields) for o in self.orders if isinstance(o, do.Log) and o.event.split(":")[0] == event]


MANY = 1000  # events, or deadlines
KEPT = 12  # processes, before the dead are dropped
TOLD = 25  # events and orders that a failing test shows


def booted(**changes: Any) -> World:
    """Return a world in which the first generation serves and nothing is awaited."""
    world = World(**changes)
    world.catch_up()
    return world
