"""
The supervisor's only loop, and the only place that waits.

Owns epoll and the clock.  Facts are recorded first, all that are there; then the machine
decides once; then everything is carried out.  Must never wait anywhere but in `_wait`.
"""

from __future__ import annotations

import select
import time

from launcher.lean_posix import signal
from launcher.logs import nonblocking
from launcher.signals import ASK_OF, name_of
from launcher.supervisor import actions as do
from launcher.supervisor import children, status, terminal
from launcher.supervisor import events as on
from launcher.supervisor.memory_kills import MemoryKills

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.supervisor.arrivals import Arrivals
    from launcher.supervisor.carry_out import Hands
    from launcher.supervisor.machine import Machine

FLUSH = 2.0  # seconds at the end for the observer to write what it has
LONGEST_WAIT = 86400.0  # seconds: epoll_wait(2) takes an int of milliseconds; to look a little early does no harm
LATE = 2.0  # seconds; a later wake-up means that the machine, or this process, was suspended


class Clock:
    """Monotonic seconds, less those in which nobody could do anything."""

    __slots__ = ("skew",)

    def __init__(self) -> None:
        self.skew = 0.0

    def now(self) -> float:
        """Return the time that counts."""
        return time.monotonic() - self.skew


class Watcher:
    """Who is to be asked when a descriptor is readable."""

    __slots__ = ("_callbacks", "_epoll")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], list[on.Event]]] = {}

    def watch(self, fd: int, callback: Callable[[], list[on.Event]], mask: int = select.EPOLLIN) -> None:
        """Call back when `fd` is ready; the callback must not wait."""
        self._epoll.register(fd, mask)
        self._callbacks[fd] = callback

    def change(self, fd: int, mask: int) -> None:
        """Wait for something else on `fd` from now on, or once more (EPOLLONESHOT)."""
        self._epoll.modify(fd, mask)

    def forget(self, fd: int) -> None:
        """Stop watching; to be called before `fd` is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def wait(self, timeout: float | None) -> list[on.Event]:
        """Wait until something is ready, at most `timeout` seconds; return what came of it."""
        events: list[on.Event] = []
        for fd, _ in self._epoll.poll(None if timeout is None else min(timeout, LONGEST_WAIT)):
            # It may have been forgotten while an earlier one of the same batch was served.
            callback = self._callbacks.get(fd)
            if callback:
                events += callback()
        return events


class Loop:
    """Feeds the machine, and does what it says, until it says Exit."""

    __slots__ = ("_arrivals", "_clock", "_hands", "_machine", "_memory_kills", "_set_title", "_told", "_watcher")

    def __init__(  # noqa: PLR0917  each is what it says
        self,
        machine: Machine,
        hands: Hands,
        watcher: Watcher,
        clock: Clock,
        arrivals: Arrivals,
        set_title: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._machine = machine
        self._hands = hands
        self._memory_kills = MemoryKills()
        self._watcher = watcher
        self._set_title = set_title
        self._told = ""
        self._arrivals = arrivals
        watcher.watch(arrivals.fd, self._on_signals)

    def run(self) -> int:
        """Run until the machine exits; return the exit code."""
        self._arrivals.let_in()
        self._turn([on.Tick()])
        while self._hands.exit_code is None:
            self._turn(self._wait() or [on.Tick()])
        self._show()  # the last word: nobody drains any more
        self._end_observer()
        return self._hands.exit_code

    def abandon(self) -> None:
        """Leave nobody behind when the loop cannot go on; PDEATHSIG would not reach a setuid command (prctl(2))."""
        for child in self._hands.children.values():
            if child.pid:
                self._hands.send(child.pid, signal.SIGKILL)

    def _wait(self) -> list[on.Event]:
        upwards, observer = self._hands.upwards, self._hands.observer
        self._show()
        upwards.watch()
        observer.tend()
        at = upwards.deadline()
        times = (self._machine.next_deadline(), None if at is None else at - self._clock.skew, observer.deadline())
        deadline = min((time for time in times if time is not None), default=None)
        began = self._clock.now()
        events = self._watcher.wait(None if deadline is None else max(0.0, deadline - began))
        if deadline is not None and self._clock.now() - max(deadline, began) > LATE:
            # Suspended, or stopped: those we wait for were too.  The whole wait is given back, so that a
            # deadline that is overdue only because of us leaves them the time they had left.
            late = self._clock.now() - began
            self._clock.skew += late
            self._hands.journal.log("warning", "woke up late: deadlines moved", (("by", f"{late:.1f}s"),))
        return events

    def _end_observer(self) -> None:
        """Let the observer write the last lines; what it cannot in time is lost with it (PDEATHSIG)."""
        observer = self._hands.observer
        observer.end()
        ends = time.monotonic() + FLUSH
        while not observer.is_over and (left := ends - time.monotonic()) > 0:
            self._watcher.wait(left)
        for text in observer.unsaid():
            nonblocking.try_to_write(2, text.encode())  # nobody else can say it any more

    def _turn(self, events: list[on.Event]) -> None:
        """Record, decide, carry out, until nothing more follows."""
        while events:
            now = self._clock.now()
            for event in events:
                self._machine.record(event, now)
            events = []
            actions = self._machine.decide(now)
            # A spare gets its slot before the dead one is cleared away: clients wait for it, nobody for a log line.
            for action in sorted(actions, key=_is_no_go) if len(actions) > 1 else actions:
                events += self._hands.carry_out(action)

    def _on_signals(self) -> list[on.Event]:
        events: list[on.Event] = []
        numbers = self._arrivals.take()
        if not numbers:
            return events
        is_command = bool(self._hands.handoff.command)
        if is_command:
            events += [on.Signalled(number) for number in numbers if number != signal.SIGCHLD]
        else:
            events += [on.Asked(ASK_OF[number], name_of(number)) for number in numbers if number in ASK_OF]
        # At any signal: SIGCHLD itself may have found the pipe full.
        reaped = children.reap(self._memory_kills, self._on_stopped if is_command else None)
        if signal.SIGCONT in numbers:
            self._hands.is_suspended = False
        dead = [death for death in reaped if not self._hands.observer.exited(death)]
        return events + children.last_messages(self._hands.children, dead) + dead

    def _on_stopped(self, pid: int, number: int) -> None:
        """Be suspended with the one command that has the terminal, as a shell expects of its job."""
        if self._hands.is_suspended:
            return  # it was stopped by us, and we with it
        if self._hands.handoff.workers == 1 and any(child.pid == pid for child in self._hands.children.values()):
            terminal.follow(pid, number)

    def _show(self) -> None:
        told = status.told(self._machine)
        self._hands.upwards.show(told)
        if told != self._told:
            self._told = told
            title = status.sentence(self._machine)
            self._set_title(f"prod-run: {self._hands.handoff.name} [supervisor] {title}")


def _is_no_go(action: do.Action) -> bool:
    return not isinstance(action, do.Go)
