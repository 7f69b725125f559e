"""
The hands of the machine.

Owns one function for each action; it is the only place that acts on the world.  A failed action comes back
as an event.  Must never decide, and never wait.
"""

from __future__ import annotations

import os

from launcher import memory, protocol
from launcher.lean_posix import signal, socket
from launcher.signals import STACKS
from launcher.supervisor import actions as do
from launcher.supervisor import children, syn_filter, terminal, weighing
from launcher.supervisor import events as on
from launcher.supervisor.births import Births
from launcher.supervisor.children import Child, send_signal
from launcher.supervisor.unix_sockets import unlink_if_ours
from launcher.supervisor.upwards import Upwards

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.handoff import Handoff, Listener
    from launcher.supervisor.journal import Journal
    from launcher.supervisor.loop import Clock, Watcher


class Hands:
    """Everything that actions need: the children, their ends, and where output goes."""

    __slots__ = (
        "_births",
        "_clock",
        "_functions",
        "children",
        "exit_code",
        "handoff",
        "is_suspended",
        "journal",
        "observer",
        "upwards",
    )

    def __init__(self, handoff: Handoff, watcher: Watcher, journal: Journal, clock: Clock) -> None:
        self.handoff = handoff
        self.journal = journal
        self._clock = clock
        self.observer = journal.observer
        self.upwards = Upwards(handoff.notify_socket, handoff.watchdog)
        self.children: dict[int, Child] = {}  # by ticket
        self.exit_code: int | None = None
        self.is_suspended = False  # with a command, at somebody's wish
        self._births = Births(handoff, self.children, watcher, journal)
        self._functions: dict[type, Callable[..., list[on.Event] | None]] = {
            do.StartZygote: self._births.start_zygote,
            do.ForkWorker: self._births.fork_worker,
            do.Park: self._births.fork_worker,
            do.ExecWorker: self._births.exec_copy if handoff.command else self._births.exec_worker,
            do.Go: self._go,
            do.Serve: self._serve,
            do.Forewarn: self._forewarn,
            do.Stop: self._stop,
            do.StopLater: self._stop_later,
            do.Kill: self._kill,
            do.Confirm: self._confirm,
            do.Restore: self._restore,
            do.EndZygote: self._end_zygote,
            do.CloseListeners: self._close_listeners,
            do.SignalGroup: self._signal_group,
            do.Suspend: self._suspend,
            do.SweepOrphans: self._sweep_orphans,
            do.Forget: self._forget,
            do.Dismiss: self._dismiss,
            do.AskBeat: self._ask_beat,
            do.AskStacks: self._ask_stacks,
            do.TakeStacks: self._take_stacks,
            do.Entrust: self._entrust,
            do.Measure: self._measure,
            do.Weigh: self._weigh,
            do.Notify: self._notify,
            do.Log: self._log,
            do.Exit: self._exit,
        }

    def carry_out(self, action: do.Action) -> list[on.Event]:
        """Do one thing; return what came of it at once."""
        return self._functions[type(action)](action) or []

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Return the app's listening sockets that are open here."""
        return self._births.listeners

    @property
    def places(self) -> tuple[int, ...]:
        """Return the places of the workers that have taken theirs: what stands there is their own."""
        return tuple(sorted(child.place for child in self.children.values() if child.is_armed))

    # ── orders ──────────────────────────────────────────────────────────────────────────────────

    def _go(self, order: do.Go) -> list[on.Event]:
        if order.slot >= 0:
            self.observer.know(order.ticket, slot=order.slot)
        return self._tell(order.ticket, "go", slot=order.slot)

    def _serve(self, order: do.Serve) -> list[on.Event]:
        return self._tell(order.ticket, "serve")

    def _forewarn(self, order: do.Forewarn) -> list[on.Event]:
        return self._tell(order.ticket, "stop-soon")

    def _stop(self, order: do.Stop) -> list[on.Event]:
        until = order.until + self._clock.skew  # who is told looks at the kernel's clock, not at ours
        events = self._tell(order.ticket, "stop", reason=order.reason, last=order.last, until=until)
        if order.pid:
            self.send(order.pid, order.number)
        return events

    def _stop_later(self, order: do.StopLater) -> list[on.Event]:
        return self._tell(order.ticket, "stop-later", until=order.until + self._clock.skew)

    def _kill(self, order: do.Kill) -> None:
        self.send(order.pid, signal.SIGKILL)

    def send(self, pid: int, number: int) -> None:
        """Signal a worker, or the whole group of a command."""
        try:
            (os.killpg if self.handoff.command else os.kill)(pid, number)
        except OSError:
            send_signal(pid, number)  # over, or it went to another group

    def _suspend(self, _: do.Suspend) -> None:
        self.is_suspended = True  # until SIGCONT is heard of
        terminal.suspend(with_our_group=False)

    def _confirm(self, order: do.Confirm) -> list[on.Event]:
        return self._tell(order.ticket, "committed")

    def _restore(self, order: do.Restore) -> list[on.Event]:
        places, kept = tuple(path for path, _ in order.files), tuple(former for _, former in order.files)
        return self._tell(order.ticket, "restore", placed=places, kept=kept, until=order.until)

    def _end_zygote(self, order: do.EndZygote) -> list[on.Event]:
        return self._tell(order.ticket, "end")

    def _close_listeners(self, _: do.CloseListeners) -> None:
        for listener in self.listeners:
            if listener.is_our_own:
                syn_filter.attach(listener.fd)
        for child in self.children.values():
            if child.is_zygote:
                self._tell(child.ticket, "close-listeners")
        for listener in self._births.take_listeners():
            unlink_if_ours(listener)
            os.close(listener.fd)

    def _signal_group(self, order: do.SignalGroup) -> list[on.Event]:
        if order.signal == signal.SIGCONT and self.handoff.command and terminal.is_wanted_at_once():
            terminal.hand_to(order.pgid)  # first: it may read at once
        try:
            os.killpg(order.pgid, order.signal)
        except ProcessLookupError:
            return [on.GroupGone(order.pgid)]
        except PermissionError:  # a setuid program of another user: nothing can be done
            return [on.GroupGone(order.pgid)]
        return []

    def _sweep_orphans(self, order: do.SweepOrphans) -> list[on.Event]:
        left = children.orphans((self.observer.life.pid, *(child.pid for child in self.children.values())))
        for pid in left if order.signal else ():
            if order.signal != signal.SIGTERM or children.group_of(pid) not in order.told:
                send_signal(pid, order.signal)
        return [on.OrphansLeft(len(left))]

    def _forget(self, order: do.Forget) -> None:
        child = self.children.pop(order.ticket, None)
        if child is not None:
            self._births.let_go(child)

    def _dismiss(self, order: do.Dismiss) -> list[on.Event]:
        # It waits for its slot, and ends when it hears anything else.
        return self._tell(order.ticket, "stop", reason="dismissed", last=False, until=0.0)

    def _exit(self, order: do.Exit) -> None:
        self.exit_code = order.code

    # ── looks ───────────────────────────────────────────────────────────────────────────────────

    def _ask_beat(self, order: do.AskBeat) -> list[on.Event]:
        child = self.children.get(order.ticket)
        return [on.Beat(order.ticket, self._births.beat(child))] if child else []

    def _entrust(self, order: do.Entrust) -> None:
        self._births.entrust(order.pid)

    def _measure(self, order: do.Measure) -> list[on.Event]:
        return [on.Measured(order.ticket, children.resident(order.pid))]

    def _weigh(self, order: do.Weigh) -> list[on.Event]:
        room = memory.room()
        if room is None:
            return [on.Weighed(0, 0, 0, 0)]
        sizes = sorted((memory.anonymous(pid), pid) for pid in order.workers)
        # The usual one: of an idle worker and of one that leaks, neither is what the next one will be.
        size, usual = sizes[len(sizes) // 2] if sizes else (0, 0)
        zygote = memory.anonymous(order.zygote) if order.zygote else 0
        weight = on.Weighed(room.limit, room.use, zygote, size)
        if usual and weighing.expected(weight, order.more) > room.limit:
            # Some of that may be shared with the zygote.  To know it takes longer.
            weight = weight._replace(worker=memory.private(usual))
        return [weight]

    def _ask_stacks(self, order: do.AskStacks) -> None:
        child = self.children.get(order.ticket)
        if child is not None and child.is_armed:
            send_signal(order.pid, STACKS)

    def _take_stacks(self, order: do.TakeStacks) -> None:
        child = self.children.get(order.ticket)
        text = child.take_stacks() if child else ""
        fields = (("slot", order.slot), ("generation", order.generation), ("pid", order.pid))
        if text:
            self.journal.log("info", "stacks", fields, text)
            return
        why = children.condition(order.pid) if child and child.is_armed else "not far enough to tell"
        self.journal.log("info", "no stacks", (*fields, ("process", why)))

    # ── words ───────────────────────────────────────────────────────────────────────────────────

    def _tell(self, ticket: int, verb: str, **fields: protocol.Field) -> list[on.Event]:
        child = self.children.get(ticket)
        if child is None or child.channel is None:
            return []
        try:
            child.channel.send(protocol.encode(verb, **fields), socket.MSG_DONTWAIT)
        except OSError:
            return [on.ChannelClosed(ticket)]
        return []

    def _notify(self, order: do.Notify) -> None:
        self.upwards.tell(order.lines)

    def _log(self, order: do.Log) -> None:
        self.journal.log(order.level, order.event, order.fields, order.detail, words_of=order.words_of)
