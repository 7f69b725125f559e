"""
The supervisor's end of its children.

Owns, for each process that was ordered, the private channel, the reading ends of its output and its notify
address; and the one source of deaths.  Must never wait: everything here is non-blocking.
"""

from __future__ import annotations

import os
import socket

from launcher import protocol
from launcher.supervisor import events as on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from launcher.supervisor.forward import Lines


AT_ONCE = 64  # messages of one process: the others must not wait for one that never stops talking


class Child:
    """One process that was ordered, from the supervisor's side."""

    __slots__ = ("channel", "is_zygote", "notify", "outputs", "pid", "stacks", "ticket")

    def __init__(self, ticket: int, *, is_zygote: bool) -> None:
        self.ticket = ticket
        self.is_zygote = is_zygote
        self.pid = 0
        self.channel: socket.socket | None = None
        self.outputs: list[Lines] = []
        self.notify: socket.socket | None = None
        self.stacks = -1

    def close(self) -> None:
        """Close all that was kept for it."""
        for sock in (self.channel, self.notify):
            if sock is not None:
                sock.close()
        if self.stacks >= 0:
            os.close(self.stacks)
        self.channel = self.notify = None
        self.stacks = -1


def reap() -> list[on.Event]:
    """Reap every child that is over, ours or adopted (waitpid(2); several deaths may come as one SIGCHLD)."""
    events: list[on.Event] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return events
        except InterruptedError:
            continue
        if pid == 0:
            return events
        events.append(on.ProcessExited(pid, os.waitstatus_to_exitcode(status)))


def listen(child: Child) -> list[on.Event]:
    """Return what a child said on its channel, so much for one turn; nonsense counts as the end of the talk."""
    events: list[on.Event] = []
    while child.channel is not None and len(events) < AT_ONCE:
        try:
            datagram = child.channel.recv(protocol.LARGEST, socket.MSG_DONTWAIT)
            if not datagram:
                events.append(on.ChannelClosed(child.ticket))
                break
            events.append(_translate(child.ticket, protocol.decode(datagram)))
        except BlockingIOError:
            break
        except (OSError, ValueError):  # ProtocolError is a ValueError; ECONNRESET is an end like any other
            events.append(on.ChannelClosed(child.ticket))
            break
    return events


def orphans(known: Iterable[int]) -> list[int]:
    """Return the PIDs of our living children that nobody ordered; none where /proc cannot tell."""
    found: set[int] = set()
    try:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children", encoding="ascii") as file:  # proc_tid_children(5)
                found.update(map(int, file.read().split()))
    except OSError:
        found = _children_by_stat()
    return sorted(found.difference(known))


def _children_by_stat() -> set[int]:
    """Find our children without CONFIG_PROC_CHILDREN: by the parent in everybody's stat."""
    found: set[int] = set()
    try:
        names = os.listdir("/proc")
    except OSError:
        return found
    for name in filter(str.isdigit, names):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.add(int(name))
    return found


def _translate(ticket: int, message: protocol.Message) -> on.Event:
    translate = _EVENTS.get(message.verb)
    if translate is None:
        text = f"unknown verb {message.verb!r}"
        raise protocol.ProtocolError(text)
    return translate(ticket, message)


_EVENTS: dict[str, Callable[[int, protocol.Message], on.Event]] = {
    "prepared": lambda t, m: on.Prepared(t, m.flag("takes_worker"), m.text("files"), m.text("unforkable")),
    "refused": lambda t, m: on.Refused(t, m.number("code"), m.text("reason"), m.text("detail")),
    "spawned": lambda _, m: on.Started(m.number("ticket"), m.number("pid")),
    "spawn-failed": lambda _, m: on.StartFailed(m.number("ticket"), m.text("reason")),
    "hello": lambda t, m: on.Hello(t, m.number("pid")),
    "entered": lambda t, _: on.Entered(t),
    "ready": lambda t, _: on.BecameReady(t),
    "stopped-accepting": lambda t, _: on.StoppedAccepting(t),
    "status": lambda t, m: on.StatusGiven(t, m.text("text")),
}
