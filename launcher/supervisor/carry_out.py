"""
The hands of the machine.

Owns one function for each action; it is the only place that acts on the world.  A failed action comes back
as an event.  Must never decide, and never wait.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import time

from launcher import protocol
from launcher.logs import formats
from launcher.supervisor import actions as do
from launcher.supervisor import children, listeners, notify
from launcher.supervisor import events as on
from launcher.supervisor.children import Child
from launcher.supervisor.forward import Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.handoff import Handoff
    from launcher.logs.stdout import Stdout
    from launcher.supervisor.loop import Watcher

CHANNEL = 3  # where a fresh interpreter finds it
HEARTBEATS = 512  # slots of 8 bytes on the shared page
# The path of a script's directory, or of -c's, must not lead: a user's own launcher.py would be imported.
BOOT = "import sys; sys.path[:] = filter(None, sys.path); from launcher.runtime.start import main; main()"
LAST_PIECES = 64  # of output, that are read from a process that is over: 4 MiB


class Hands:
    """Everything that actions need: the children, their ends, and where output goes."""

    __slots__ = ("_functions", "_null", "_page", "children", "exit_code", "handoff", "is_colour", "output", "watcher")

    def __init__(self, handoff: Handoff, watcher: Watcher, output: Stdout, *, is_colour: bool) -> None:
        self.handoff = handoff
        self.watcher = watcher
        self.output = output
        self.is_colour = is_colour
        self.children: dict[int, Child] = {}  # by ticket
        self.exit_code: int | None = None
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._page = os.memfd_create("heartbeats", os.MFD_CLOEXEC)
        os.ftruncate(self._page, HEARTBEATS * 8)
        self._functions: dict[type, Callable[..., list[on.Event] | None]] = {
            do.StartZygote: self._start_zygote,
            do.ForkWorker: self._fork_worker,
            do.ExecWorker: self._exec_worker,
            do.Go: self._go,
            do.Serve: self._serve,
            do.Stop: self._stop,
            do.Kill: self._kill,
            do.EndZygote: self._end_zygote,
            do.CloseListeners: self._close_listeners,
            do.SignalGroup: self._signal_group,
            do.SweepOrphans: self._sweep_orphans,
            do.Forget: self._forget,
            do.Log: self._log,
            do.Exit: self._exit,
        }

    def carry_out(self, action: do.Action) -> list[on.Event]:
        """Do one thing; return what came of it at once."""
        return self._functions[type(action)](action) or []

    # ── births ──────────────────────────────────────────────────────────────────────────────────

    def _start_zygote(self, order: do.StartZygote) -> list[on.Event]:
        def bear(child: Child, channel: socket.socket, given: list[int]) -> None:
            self._add_outputs(child, given)
            child.pid = self._spawn(given)
            self._send_prepare(channel, order.generation, is_worker=False)

        return self._bear(Child(order.ticket, is_zygote=True), bear)

    def _fork_worker(self, order: do.ForkWorker) -> list[on.Event]:
        zygote = self.children.get(order.zygote)

        def bear(child: Child, _: socket.socket, given: list[int]) -> None:
            if zygote is None or zygote.channel is None:
                raise BrokenPipeError(errno.EPIPE, "the zygote is gone")
            self._add_belongings(child, given)
            self._send_spawn(zygote.channel, order, child, given)

        return self._bear(Child(order.ticket, is_zygote=False), bear)

    def _exec_worker(self, order: do.ExecWorker) -> list[on.Event]:
        def bear(child: Child, channel: socket.socket, given: list[int]) -> None:
            self._add_belongings(child, given)
            child.pid = self._spawn(given)
            self._send_prepare(channel, order.generation, is_worker=True)
            # Its private channel serves for both orders: the descriptor in the second is the one it has already.
            self._send_spawn(channel, order, child, given)

        return self._bear(Child(order.ticket, is_zygote=False), bear)

    def _bear(self, child: Child, bear: Callable[[Child, socket.socket, list[int]], None]) -> list[on.Event]:
        """
        Have a process made; whatever the kernel refuses (EMFILE, EAGAIN, ENOMEM) is the failure of this one alone.

        `bear` gets the list of what the process is given: first its end of the channel, then its stdout and stderr.
        """
        given: list[int] = []
        try:
            child.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            given.append(theirs.detach())
            bear(child, child.channel, given)
            self._adopt(child, child.channel)
        except OSError as error:
            self._let_go(child)
            if child.pid:
                # It lives, and nobody could tell it anything.
                _signal(child.pid, signal.SIGKILL)
            what = error.filename or self.handoff.interpreter
            return [on.StartFailed(child.ticket, f"cannot start {what}: {error.strerror or error}")]
        finally:
            for fd in given:
                os.close(fd)
        return [on.Started(child.ticket, child.pid)] if child.pid else []

    def _add_belongings(self, child: Child, given: list[int]) -> None:
        """Make what a worker is given, in the order of the spawn message."""
        self._add_outputs(child, given)
        child.stacks, stacks = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        given.append(stacks)
        given.append(os.dup(self._page))

    def _add_outputs(self, child: Child, given: list[int]) -> None:
        for is_stderr in (False, True):
            reading, writing = os.pipe2(os.O_CLOEXEC)
            given.append(writing)
            child.outputs.append(Lines(reading, remember=is_stderr))
            os.set_blocking(reading, False)  # the writing end stays blocking: it is the app's print

    def _spawn(self, given: list[int]) -> int:
        """Start a fresh interpreter, with stdio, its channel, and nothing else of ours."""
        every_signal = [s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)]
        # Anew for each generation, and before the start: PYTHONPATH may be relative to it, and CPython 3.13 does not
        # come up in a directory that was removed.
        try:
            os.chdir(self.handoff.directory)
        except OSError:
            os.chdir("/")  # the child will say why
        # Where the links lead now: all that this generation imports, early or late, is from one release.
        folder, name = os.path.split(self.handoff.interpreter)
        interpreter = os.path.join(os.path.realpath(folder), name)
        return os.posix_spawn(
            interpreter,
            [interpreter, "-c", BOOT],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, self._null, 0),
                (os.POSIX_SPAWN_DUP2, given[1], 1),
                (os.POSIX_SPAWN_DUP2, given[2], 2),
                (os.POSIX_SPAWN_DUP2, given[0], CHANNEL),
            ],
            setpgroup=0,
            setsigmask=[],
            setsigdef=every_signal,
        )

    def _send_prepare(self, channel: socket.socket, generation: int, *, is_worker: bool) -> None:
        handoff = self.handoff
        message = protocol.encode(
            "prepare",
            protocol=protocol.VERSION,
            supervisor=os.getpid(),
            name=handoff.name,
            target=handoff.target,
            arguments=handoff.arguments,
            generation=generation,
            is_worker=is_worker,
            directory=handoff.directory,
            open_files=handoff.open_files,
            umask=handoff.umask,
            listeners=tuple(listener.name for listener in handoff.listeners),
        )
        socket.send_fds(channel, [message], [handoff.environ_fd, *(listener.fd for listener in handoff.listeners)])

    def _send_spawn(
        self, channel: socket.socket, order: do.ForkWorker | do.ExecWorker, child: Child, given: list[int]
    ) -> None:
        child.notify, address = notify.open_address()
        message = protocol.encode(
            "spawn",
            ticket=order.ticket,
            generation=order.generation,
            heartbeat_offset=8 * (order.slot % HEARTBEATS),
            notify_address=address,
        )
        socket.send_fds(channel, [message], given, socket.MSG_DONTWAIT)

    def _adopt(self, child: Child, channel: socket.socket) -> None:
        self.watcher.watch(channel.fileno(), lambda: self._hear(child, channel))
        for lines in child.outputs:
            self.watcher.watch(lines.fileno(), lambda lines=lines: self._forward(lines))  # type: ignore[misc]
        if child.notify is not None:
            sock = child.notify
            self.watcher.watch(sock.fileno(), lambda: notify.read(sock, child.ticket))
        self.children[child.ticket] = child

    def _hear(self, child: Child, channel: socket.socket) -> list[on.Event]:
        events = children.listen(child)
        for event in events:
            if isinstance(event, on.Started | on.Hello) and event.ticket in self.children:
                self.children[event.ticket].pid = event.pid
        if on.ChannelClosed(child.ticket) in events:
            # Its end is readable for ever, and the process may live on for long: an app that closed it, or an exec.
            self.watcher.forget(channel.fileno())
        return events

    def _let_go(self, child: Child) -> None:
        """Close all that was kept for a process."""
        for sock in (child.channel, child.notify):
            if sock is not None:
                self.watcher.forget(sock.fileno())
        for lines in child.outputs:
            self.watcher.forget(lines.fileno())
            self.output.write(lines.close())
        child.close()

    def last_messages(self, dead: list[on.Event]) -> list[on.Event]:
        """Return what the dead had said before: a refusal must not be heard after the end that it explains."""
        pids = {event.pid for event in dead if isinstance(event, on.ProcessExited)}
        said = [event for child in self.children.values() if child.pid in pids for event in children.listen(child)]
        return [event for event in said if not isinstance(event, on.ChannelClosed)]

    # ── orders ──────────────────────────────────────────────────────────────────────────────────

    def _go(self, order: do.Go) -> list[on.Event]:
        return self._tell(order.ticket, "go", slot=order.slot)

    def _serve(self, order: do.Serve) -> list[on.Event]:
        return self._tell(order.ticket, "serve")

    def _stop(self, order: do.Stop) -> list[on.Event]:
        events = self._tell(order.ticket, "stop", reason=order.reason, last=order.last)
        if order.pid:
            _signal(order.pid, signal.SIGTERM)
        return events

    def _kill(self, order: do.Kill) -> None:
        _signal(order.pid, signal.SIGKILL)

    def _end_zygote(self, order: do.EndZygote) -> list[on.Event]:
        return self._tell(order.ticket, "end")

    def _close_listeners(self, _: do.CloseListeners) -> None:
        for child in self.children.values():
            if child.is_zygote:
                self._tell(child.ticket, "close-listeners")
        for listener in self.handoff.listeners:
            listeners.close(listener)
        self.handoff = self.handoff._replace(listeners=())

    def _signal_group(self, order: do.SignalGroup) -> list[on.Event]:
        try:
            os.killpg(order.pgid, order.signal)
        except ProcessLookupError:
            return [on.GroupGone(order.pgid)]
        except PermissionError:  # a setuid program of another user: nothing can be done
            return [on.GroupGone(order.pgid)]
        return []

    def _sweep_orphans(self, order: do.SweepOrphans) -> list[on.Event]:
        left = children.orphans(child.pid for child in self.children.values())
        for pid in left if order.signal else ():
            _signal(pid, order.signal)
        return [on.OrphansLeft(len(left))]

    def _forget(self, order: do.Forget) -> None:
        child = self.children.pop(order.ticket, None)
        if child is None:
            return
        for lines in child.outputs:
            # Its last words; what a leftover of its group writes later has no reader.
            for _ in range(LAST_PIECES):
                self.output.write(lines.read())
                if lines.ended:
                    break
        self._let_go(child)

    def _exit(self, order: do.Exit) -> None:
        self.exit_code = order.code

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

    def _log(self, order: do.Log) -> None:
        self.log(order.level, order.event, order.fields, order.detail)

    def log(self, level: str, event: str, fields: tuple[tuple[str, object], ...] = (), detail: str = "") -> None:
        """Write one line of prod-run's own."""
        if not formats.is_at_least(level, self.handoff.log_level):
            return
        record = formats.Record(time.time(), level, event, fields, detail)
        self.output.write((formats.console(record, colour=True) if self.is_colour else formats.logfmt(record)).encode())

    def _forward(self, lines: Lines) -> list[on.Event]:
        data = lines.read()
        if data:
            self.output.write(data)
        if lines.ended:
            self.watcher.forget(lines.fileno())
        return []


def _signal(pid: int, number: int) -> None:
    # Only we reap it, and we have not: the number is still its own (DESIGN §2).
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass
