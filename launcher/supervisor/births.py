"""
How processes of the app come to be.

Owns what each one is given (its channel, its output, its place on the heartbeat page, its notify address) and
the two ways to make it: a fresh interpreter, or an order to a zygote.  Must never wait; whatever the kernel
refuses is the failure of that one process alone.
"""

from __future__ import annotations

import errno
import mmap
import os

from launcher import protocol
from launcher.lean_posix import signal, socket
from launcher.supervisor import actions as do
from launcher.supervisor import children, default_address, interpreter, notify, output_pipes
from launcher.supervisor import events as on
from launcher.supervisor.children import Child, Inputs, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.handoff import Handoff, Listener, Newborn
    from launcher.supervisor.journal import Journal
    from launcher.supervisor.loop import Watcher

PLACES = 16 * 1024  # on the heartbeat page, 8 bytes each: more than there can be workers


class Births:
    """The maker of processes; `children` is the list that it adds to."""

    __slots__ = (
        "_children",
        "_free_places",
        "_handoff",
        "_inputs",
        "_is_closed",
        "_journal",
        "_last_place",
        "_newborn",
        "_observer",
        "_page",
        "_page_fd",
        "_ready",
        "_versions",
        "_watcher",
    )

    def __init__(self, handoff: Handoff, known: dict[int, Child], watcher: Watcher, journal: Journal) -> None:
        self._handoff = handoff
        self._children = known
        self._watcher = watcher
        self._journal = journal
        self._observer = journal.observer
        self._page_fd = os.memfd_create("heartbeats", os.MFD_CLOEXEC)
        # The last 8 bytes tell all workers who of them is to run the app's checks.
        os.ftruncate(self._page_fd, PLACES * 8 + 8)
        self._page = mmap.mmap(self._page_fd, PLACES * 8 + 8)
        self._newborn = handoff.zygote  # started by the command line; the first one to be ordered
        self._free_places: list[int] = []
        self._last_place = -1
        self._inputs: dict[int, Inputs] = {}  # by generation
        self._versions: dict[int, str] = {}  # of the app, by generation
        self._is_closed = False  # nobody shall listen any more
        self._ready = (0, 0)  # the two generations that had a ready worker last

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Return the listening sockets; none once they are closed."""
        return self._handoff.listeners

    def take_listeners(self) -> tuple[Listener, ...]:
        """Return the listening sockets, and give none to anybody any more."""
        listeners, self._handoff = self._handoff.listeners, self._handoff._replace(listeners=())
        self._is_closed = True
        return listeners

    def start_zygote(self, order: do.StartZygote) -> list[on.Event]:
        """Start a fresh interpreter that prepares a generation; the first one is there already."""

        def bear(child: Child, _: list[int]) -> None:
            newborn, self._newborn = self._newborn, None
            if newborn is None:
                newborn = interpreter.start(self._handoff, order.generation, os.environ, inputs=child.inputs.fd)
            self._take(child, newborn)

        return self._bear(self._child(order, is_zygote=True), bear)

    def fork_worker(self, order: do.ForkWorker | do.Park) -> list[on.Event]:
        """Order a worker, or a spare, from a zygote."""
        zygote = self._children.get(order.zygote)

        def bear(child: Child, given: list[int]) -> None:
            if zygote is None or zygote.channel is None:
                raise BrokenPipeError(errno.EPIPE, "the zygote is gone")
            child.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            given.append(theirs.detach())
            child.mark = interpreter.new_mark()
            self._capture(child, *self._output_pipes(given))
            self._add_belongings(child, given)
            self._send_spawn(zygote.channel, order, child, given)

        return self._bear(self._child(order, is_zygote=False), bear)

    def exec_worker(self, order: do.ExecWorker) -> list[on.Event]:
        """Start a worker as a fresh interpreter that imports for itself."""

        def bear(child: Child, given: list[int]) -> None:
            newborn = interpreter.start(
                self._handoff, order.generation, os.environ, is_worker=True, inputs=child.inputs.fd
            )
            channel = self._take(child, newborn)
            self._add_belongings(child, given)
            self._send_spawn(channel, order, child, given)

        return self._bear(self._child(order, is_zygote=False), bear)

    def exec_copy(self, order: do.ExecWorker) -> list[on.Event]:
        """Start a copy of a plain command; it says nothing of itself but by sd_notify(3)."""
        from launcher.supervisor import copies  # noqa: PLC0415  only commands pay for it

        def bear(child: Child, given: list[int]) -> None:
            readings = self._output_pipes(given) if self._handoff.log_capture else []
            try:
                child.notify, address = notify.open_address()
                environment = child.inputs.fd if child.inputs.fd >= 0 else self._handoff.environ_fd
                child.pid = copies.start(self._handoff, environment, address, given)
            except OSError as error:
                for fd in readings:
                    os.close(fd)  # nobody has them yet
                error.filename = error.filename or self._handoff.command[0]
                raise
            if readings:
                self._capture(child, *readings)

        events = self._bear(self._child(order, is_zygote=False), bear)
        pids = [event.pid for event in events if isinstance(event, on.Started)]
        return [*events, *(say for pid in pids for say in (on.Hello(order.ticket, pid), on.Entered(order.ticket)))]

    def _child(self, order: do.StartZygote | do.ForkWorker | do.Park | do.ExecWorker, *, is_zygote: bool) -> Child:
        inputs = self._inputs.setdefault(order.generation, Inputs())
        return Child(order.ticket, order.generation, inputs, is_zygote=is_zygote)

    def _drop_inputs(self) -> None:
        """Close what was kept for generations that are over."""
        # None of its processes may be alive, and yet it serves; or it is the one that a failure would go back to.
        alive = {*self._ready, *(child.generation for child in self._children.values())}
        for generation in self._inputs.keys() - alive:
            self._inputs.pop(generation).close()
            self._versions.pop(generation, None)

    def _bear(self, child: Child, bear: Callable[[Child, list[int]], None]) -> list[on.Event]:
        """
        Have a process made; whatever the kernel refuses (EMFILE, EAGAIN, ENOMEM) is the failure of this one alone.

        `bear` puts into the list what the process is given, in the order of the spawn message.
        """
        given: list[int] = []
        try:
            bear(child, given)
            self._adopt(child)
        except OSError as error:
            self.let_go(child)
            if child.pid:
                # It lives, and nobody could tell it anything.
                send_signal(child.pid, signal.SIGKILL)
            what = error.filename or self._handoff.interpreter
            return [on.StartFailed(child.ticket, f"cannot start {what}: {error.strerror or error}")]
        finally:
            for fd in given:
                os.close(fd)
        return [on.Started(child.ticket, child.pid)] if child.pid else []

    def _take(self, child: Child, newborn: Newborn) -> socket.socket:
        """Keep our ends of a fresh interpreter."""
        child.pid, child.mark, fd, stdout, stderr = newborn
        child.channel = socket.socket(fileno=fd)
        self._capture(child, stdout, stderr)
        return child.channel

    def _output_pipes(self, given: list[int]) -> list[int]:
        """Make a worker's stdout and stderr; return our ends."""
        readings: list[int] = []
        try:
            for output in (1, 2):
                reading, writing = interpreter.output_pipe(self._handoff, output)
                given.append(writing)
                readings.append(reading)
        except OSError:
            for fd in readings:
                os.close(fd)
            raise
        return readings

    def _capture(self, child: Child, stdout: int, stderr: int) -> None:
        """Have its output read; without --no-log-capture, that is."""
        if stdout < 0:
            return
        output_pipes.share_out((stdout, stderr), self._observer.outputs(), self._handoff.workers)
        self._observer.capture(
            child.ticket,
            {"stdout": stdout, "stderr": stderr},
            generation=child.generation,
            pid=child.pid,
            version=self._versions.get(child.generation, ""),
            mark=f"{child.mark:08x}",
        )

    def _add_belongings(self, child: Child, given: list[int]) -> None:
        """Make what a worker is given besides its channel and its output."""
        child.stacks, stacks = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        given.append(stacks)
        given.append(os.dup(self._page_fd))
        child.place = self._free_places.pop() if self._free_places else self._next_place()
        self._page[8 * child.place : 8 * child.place + 8] = bytes(8)

    def _send_spawn(
        self, channel: socket.socket, order: do.ForkWorker | do.Park | do.ExecWorker, child: Child, given: list[int]
    ) -> None:
        child.notify, address = notify.open_address()
        message = protocol.encode(
            "spawn",
            ticket=order.ticket,
            generation=order.generation,
            heartbeat_offset=8 * child.place,
            notify_address=address,
            mark=f"{child.mark:08x}" if self._handoff.log_capture else "",
            # Who comes later must not bring other code: what lies on disk by then may have been rejected.
            code=tuple(sorted(child.inputs.code)) if child.inputs.is_used else (),
        )
        interpreter.send(channel, message, given)

    def _adopt(self, child: Child) -> None:
        channel = child.channel
        if channel is not None:
            self._watcher.watch(channel.fileno(), lambda: self._hear(child, channel))
        if child.notify is not None:
            sock = child.notify
            self._watcher.watch(sock.fileno(), lambda: notify.read(sock, child.ticket))
        self._children[child.ticket] = child

    def _hear(self, child: Child, channel: socket.socket) -> list[on.Event]:
        events = [self._with_address(event, channel) for event in children.listen(child)]
        for event in events:
            if isinstance(event, on.Started | on.Hello) and event.ticket in self._children:
                self._children[event.ticket].pid = event.pid
                self._observer.know(event.ticket, pid=event.pid)
            if isinstance(event, on.Prepared) and event.version:
                self._versions[child.generation] = event.version
                self._observer.know(event.ticket, version=event.version)
            if isinstance(event, on.Configured) and self._observer.introspection:
                self._observer.introspection.configured(child.generation, event)
            child.inputs.is_used |= isinstance(event, on.Entered | on.BecameReady)
            if isinstance(event, on.Entered | on.BecameReady) and child.generation not in self._ready:
                self._ready = (*self._ready[1:], child.generation)
        if on.ChannelClosed(child.ticket) in events:
            # Its end is readable for ever, and the process may live on for long: an app that closed it, or an exec.
            self._watcher.forget(channel.fileno())
        return events

    def _with_address(self, event: on.Event, channel: socket.socket) -> on.Event:
        if not isinstance(event, on.Prepared) or self._is_closed:
            return event
        if event.bind:
            opened, event = default_address.open_once(event, self._handoff, channel, self._journal)
            self._handoff = self._handoff._replace(listeners=opened, stored=())
        elif self._handoff.stored:
            default_address.drop(self._handoff)
            self._handoff = self._handoff._replace(stored=())
        return event

    def let_go(self, child: Child) -> None:
        """Close all that was kept for a process."""
        for sock in (child.channel, child.notify):
            if sock is not None:
                self._watcher.forget(sock.fileno())
        self._observer.gone(child.ticket)
        if child.place >= 0:
            self._free_places.append(child.place)
        child.close()
        self._drop_inputs()

    def beat(self, child: Child) -> float:
        """Return what stands on a worker's place of the heartbeat page."""
        return (
            float(memoryview(self._page)[8 * child.place : 8 * child.place + 8].cast("d")[0])
            if child.place >= 0
            else 0.0
        )

    def entrust(self, pid: int) -> None:
        """Write on the page who is to run the app's health checks; no system call."""
        memoryview(self._page)[8 * PLACES :].cast("q")[0] = pid

    def _next_place(self) -> int:
        self._last_place = (self._last_place + 1) % PLACES
        return self._last_place
