"""
The supervisor's end of its children.

Owns, for each process that was ordered, the private channel, the reading ends of its output and its notify
address; and the one source of deaths.  Must never wait: everything here is non-blocking.
"""

from __future__ import annotations

import os
import sys

from launcher import protocol
from launcher.lean_posix import signal, socket
from launcher.signals import Ask
from launcher.supervisor import events as on

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from launcher.supervisor.memory_kills import MemoryKills


AT_ONCE = 64  # messages of one process: the others must not wait for one that never stops talking


class Inputs:
    """What a generation's configuration was loaded from: a sealed memfd for its later processes, never read here."""

    __slots__ = ("code", "fd", "is_used")

    def __init__(self) -> None:
        self.fd = -1
        self.is_used = False  # a worker of the generation was ready
        self.code: set[str] = set()  # digests of what its first workers imported, if they import for themselves

    def keep(self, fd: int) -> None:
        """Keep what the generation's first process sent."""
        self.close()
        self.fd = fd

    def close(self) -> None:
        """Let go of it."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


class Child:
    """One process that was ordered, from the supervisor's side."""

    __slots__ = (
        "channel",
        "generation",
        "inputs",
        "is_armed",
        "is_zygote",
        "mark",
        "notify",
        "pid",
        "place",
        "stacks",
        "ticket",
    )

    def __init__(self, ticket: int, generation: int, inputs: Inputs, *, is_zygote: bool) -> None:
        self.ticket = ticket
        self.generation = generation
        self.inputs = inputs  # the same one for all processes of a generation
        self.is_zygote = is_zygote
        self.pid = 0
        self.channel: socket.socket | None = None
        self.mark = 0  # tells its log records from what it prints
        self.notify: socket.socket | None = None
        self.place = -1  # on the heartbeat page
        self.is_armed = False  # the stacks signal has its handler
        self.stacks = -1

    def take_stacks(self) -> str:
        """Return what it wrote of its stacks since the last time."""
        text = b""
        while self.stacks >= 0:
            try:
                piece = os.read(self.stacks, 65536)
            except OSError:
                break
            if not piece:
                break
            text += piece
        return text.decode("utf-8", "backslashreplace").rstrip()

    def close(self) -> None:
        """Close all that was kept for it."""
        for sock in (self.channel, self.notify):
            if sock is not None:
                sock.close()
        if self.stacks >= 0:
            os.close(self.stacks)
        self.channel = self.notify = None
        self.stacks = -1


def reap(memory_kills: MemoryKills, on_stopped: Callable[[int, int], None] | None = None) -> list[on.ProcessExited]:
    """
    Reap every child that is over, ours or adopted (waitpid(2); several deaths may come as one SIGCHLD).

    `on_stopped` hears of those that are suspended, and by which signal.
    """
    events: list[on.ProcessExited] = []
    spent = _spent()
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | (os.WUNTRACED if on_stopped else 0))
        except ChildProcessError:
            return events
        except InterruptedError:
            continue
        if pid == 0:
            return events
        if os.WIFSTOPPED(status):
            if on_stopped:
                on_stopped(pid, os.WSTOPSIG(status))
            continue
        code = os.waitstatus_to_exitcode(status)
        note = "core dumped" if os.WCOREDUMP(status) else ""
        if code == -signal.SIGKILL:
            note = memory_kills.explain()
        before, spent = spent, _spent()
        events.append(on.ProcessExited(pid, code, note, spent - before))


def _spent() -> float:
    """Return the CPU seconds of all children reaped so far (wait4(2) tells it of each, but Python loads a module)."""
    times = os.times()
    return times.children_user + times.children_system


def listen(child: Child) -> list[on.Event]:
    """Return what a child said on its channel, so much for one turn; nonsense counts as the end of the talk."""
    events: list[on.Event] = []
    while child.channel is not None and len(events) < AT_ONCE:
        try:
            datagram, descriptors = _receive(child.channel)
            if descriptors and child.is_zygote and child.inputs.fd < 0:
                child.inputs.keep(descriptors.pop())
            for fd in descriptors:
                os.close(fd)
            if not datagram:
                events.append(on.ChannelClosed(child.ticket))
                break
            message = protocol.decode(datagram)
            if message.verb == "armed":
                child.is_armed = True
            elif message.verb == "imported":
                child.inputs.code.add(message.text("files"))
            else:
                events.append(_translate(child.ticket, message))
        except BlockingIOError:
            break
        except (OSError, ValueError):  # ProtocolError is a ValueError; ECONNRESET is an end like any other
            events.append(on.ChannelClosed(child.ticket))
            break
    return events


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """Take one message; all but one descriptor are thrown away by the kernel (unix(7): SCM_RIGHTS)."""
    datagram, ancillary, _, _ = channel.recvmsg(
        protocol.LARGEST, socket.CMSG_LEN(4), socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    )
    rights = [data for level, kind, data in ancillary if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)]
    return datagram, [int.from_bytes(data[:4], sys.byteorder) for data in rights if len(data) >= 4]  # noqa: PLR2004


def last_messages(known: dict[int, Child], dead: list[on.ProcessExited]) -> list[on.Event]:
    """Return what the dead had said before: a refusal must not be heard after the end that it explains."""
    pids = {event.pid for event in dead}
    said = [event for child in known.values() if child.pid in pids for event in listen(child)]
    return [event for event in said if not isinstance(event, on.ChannelClosed)]


def send_signal(pid: int, number: int) -> None:
    """Signal a child.  Only we reap it, and we have not: the number is still its own (DESIGN §2)."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def group_of(pid: int) -> int:
    """Return the process group of a child; 0 if it is over."""
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def resident(pid: int) -> int:
    """Return the bytes that a process has resident; 0 where /proc cannot tell (proc_pid_statm(5))."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return 0


def condition(pid: int) -> str:
    """Say in words what the kernel thinks of a process (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            letter = file.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "unknown"
    return _CONDITIONS.get(letter, f"state {letter}")


_CONDITIONS = {
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "D": "in an uninterruptible wait of the kernel",
    "Z": "dead",
    "R": "running",
    "S": "asleep",
}


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
    "prepared": lambda t, m: on.Prepared(
        t,
        m.flag("takes_worker"),
        m.text("files"),
        m.text("unforkable"),
        m.texts("zygote_stays") == ("1",),
        m.text("interface") in {"wsgi", "asgi"},
        m.text("bind"),
        m.number("workers"),
        "".join(m.texts("version")),
        tuple(zip(m.texts("placed"), m.texts("kept"), strict=True)),
        m.text("shared"),
    ),
    "restored": lambda t, m: on.Restored(t, m.seconds("errand")),
    "config": lambda t, m: on.Configured(t, m.texts("names"), m.texts("values"), m.texts("origins")),
    "refused": lambda t, m: on.Refused(t, m.number("code"), m.text("reason"), m.text("detail")),
    "spawned": lambda _, m: on.Started(m.number("ticket"), m.number("pid")),
    "changed": lambda _, m: on.Asked(Ask.RELOAD, f"--watch: {m.text('paths')}"),
    "spawn-failed": lambda _, m: on.StartFailed(m.number("ticket"), m.text("reason")),
    "hello": lambda t, m: on.Hello(t, m.number("pid")),
    "begun": lambda t, _: on.Begun(t),
    "entered": lambda t, _: on.Entered(t),
    "ready": lambda t, _: on.BecameReady(t),
    "raised": lambda t, m: on.Raised(t, m.text("reason"), m.text("detail")),
    "stopped-accepting": lambda t, _: on.StoppedAccepting(t),
    "status": lambda t, m: on.StatusGiven(t, m.text("text")),
    "check": lambda t, m: on.CheckMade(t, m.text("name"), m.flag("is_required"), m.seconds("timeout")),
    "checked": lambda t, m: on.Checked(
        t, m.text("name"), m.flag("is_good"), m.text("reason"), m.text("details"), m.seconds("took")
    ),
}
