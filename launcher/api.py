"""
What a target sees of prod-run: its Worker.

Owns the worker's side of the private channel to the supervisor, and the two events `stopping` and
"you may serve".  Must never start a thread, never block without being asked to, and never fail because
the supervisor is gone: an app stays runnable without prod-run.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import sys
import time

from launcher import checks, protocol
from launcher.checks import Wish
from launcher.lean_posix import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from mmap import mmap
    from typing import Any, Generic, TypeVar

    from launcher.runtime.health import Checks

    ConfigT = TypeVar("ConfigT")
else:
    # `typing` takes 10 ms, which an app that does without should not have to pay.
    ConfigT = None

    class Generic:
        """The part of typing.Generic that `Worker[Config]` needs."""

        __class_getitem__ = classmethod(type(list[int]))


_CLOSED_HERE = (errno.EBADF, errno.ENOTSOCK)
_SENTENCE = "the app has closed descriptors that it did not open: prod-run's channel to this worker is gone"
_LONGEST_WAIT = 86400.0  # seconds: poll(2) takes an int of milliseconds; who waits looks again
_HEARTBEAT = struct.Struct("=d")  # monotonic seconds; 8 aligned bytes are written at once
_current: list[Worker[Any]] = []  # of this process: one at most


class _Event:
    """
    Like threading.Event, but safe in a signal handler and waitable by an event loop.

    threading.Event.set() in a handler deadlocks against wait(): both take the same lock.  An eventfd has none.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._is_set = False
        # Never read, so it stays readable for everybody who waits: eventfd(2).
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Return a descriptor that is readable once it happened here."""
        return self._fd

    def is_set(self) -> bool:
        """Say whether it happened."""
        self._link.listen()
        if not self._is_set and not self._link.is_ours():
            self._is_set = bool(_wait_until_readable((self._fd,), 0.0))  # in a fork of the app's, told by its parent
        return self._is_set

    def set(self) -> None:
        """Let it have happened."""
        self._is_set = True
        try:
            os.eventfd_write(self._fd, 1)
        except OSError:
            pass  # closed by the app; and a signal handler is no place to raise

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait until it happened, at most `timeout` seconds.

        Returns:
            Whether it happened.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            if self._fd in _wait_until_readable((self._fd, self._link.fileno()), left):
                self._is_set = True  # by whichever process
        return True

    async def wait_async(self) -> None:
        """Wait in an event loop until it happened."""
        import asyncio  # noqa: PLC0415  only async apps pay for it

        loop = asyncio.get_running_loop()
        happened: asyncio.Future[None] = loop.create_future()

        def look() -> None:
            if not happened.done() and self.is_set():
                happened.set_result(None)

        # An event loop knows one reader for each descriptor: a copy for each waiter.
        copies = [os.dup(fd) for fd in (self._fd, self._link.fileno()) if fd >= 0]
        try:
            for fd in copies:
                loop.add_reader(fd, look)
            look()
            await happened
        finally:
            for fd in copies:
                loop.remove_reader(fd)
                os.close(fd)


class Stopping(_Event):
    """
    Set when this worker is to stop: stop accepting, finish what is in flight, return.

    Attributes:
        reason: why: `stop`, `reload`, `scale`, `recycle`, `rejected`; empty while nobody asked.
        last: nobody accepts after this worker, so it should accept what is still queued.
    """

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.reason = ""
        self.last = False


class Link:
    """The private channel to the supervisor; none when the app runs without prod-run."""

    def __init__(self, channel: socket.socket | None = None, show: Callable[[str], object] = lambda _: None) -> None:
        self._channel = channel
        self.show = show  # the state, in the process title
        self.mask: Callable[[str], str] = str  # takes the app's secrets out of a text
        self._pid = os.getpid()
        self.stopping = Stopping(self)
        self.serving = _Event(self)
        self.on_stop_soon: Callable[[], object] = lambda: None  # for servers that prod-run drives: --drain-delay runs
        self.stop_until = 0.0  # for them too: the drain limit, in monotonic seconds; 0: nobody said
        if channel is None:
            self.serving.set()

    @property
    def is_supervised(self) -> bool:
        """Say whether there is a supervisor to talk to."""
        return self._channel is not None and self.is_ours()

    def is_ours(self) -> bool:
        """Say whether this is still the process that was given the channel, and not a fork of the app's."""
        return os.getpid() == self._pid

    def fileno(self) -> int:
        """Return the descriptor to wait for; -1 if there is nothing to hear."""
        channel = self._channel
        return channel.fileno() if channel and self.is_ours() else -1

    def say(self, verb: str, **fields: protocol.Field) -> None:
        """
        Send what must arrive; the supervisor never waits, so there is room soon.

        Raises:
            RuntimeError: the app has closed the channel.
        """
        try:
            self._send(0, verb, fields)
        except OSError as error:
            if error.errno in _CLOSED_HERE:
                raise RuntimeError(_SENTENCE) from None

    def mention(self, verb: str, **fields: protocol.Field) -> None:
        """Send what is not worth waiting for."""
        try:
            self._send(socket.MSG_DONTWAIT, verb, fields)
        except OSError:
            pass

    def _send(self, flags: int, verb: str, fields: dict[str, protocol.Field]) -> None:
        channel = self._channel
        if channel and self.is_ours():
            channel.send(protocol.encode(verb, **fields), flags)

    def listen(self) -> None:
        """
        Take in what the supervisor said, without waiting.

        May run in a signal handler in the middle of itself: each message is taken whole by one of the two.
        """
        while (channel := self._channel) and self.is_ours():
            try:
                datagram = channel.recv(protocol.LARGEST, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _CLOSED_HERE:
                    self._channel = None  # SIGTERM is still heard
                    return
                datagram = b""
            if not datagram:  # the supervisor is gone, and its death takes us along
                self._channel = None
                self.stopping.set()
                return
            message = protocol.decode(datagram)
            if message.verb == "serve":
                self.serving.set()
                self.show("serving")
            elif message.verb == "stop-soon":
                self.on_stop_soon()
            elif message.verb == "stop":
                self.show("stopping")
                self.stopping.reason = message.text("reason")
                self.stopping.last = message.flag("last")
                self.stop_until = message.seconds("until")
                self.stopping.set()


class Worker(Generic[ConfigT]):
    """
    One worker, as its target sees it.

    Attributes:
        slot: which of the workers this is, from 0; a replacement has the slot of the one before.
        generation: counts the reloads, from 1.
        sockets: the listening, non-blocking sockets by their names in `--bind`.
        stopping: an event like threading.Event, set when this worker is to stop.
        config: the configuration that was loaded for this generation; None if no class was found.
        templates: the paths of the files that were made for this generation, by the names of their templates.
    """

    config: ConfigT
    templates: Mapping[str, str]

    def __init__(
        self,
        *,
        slot: int = 0,
        generation: int = 1,
        sockets: Mapping[str, socket.socket] | None = None,
        link: Link | None = None,
        heartbeat: tuple[mmap, int] | None = None,
        config: Any = None,
        templates: Mapping[str, str] | None = None,
    ) -> None:
        self.slot = slot
        self.generation = generation
        self.sockets: Mapping[str, socket.socket] = dict(sockets or {})
        self._link = link or Link()
        self.stopping = self._link.stopping
        self._heartbeat = heartbeat
        self.config = config
        self.templates = dict(templates or {})
        self._said_ready = False
        self._wishes: list[Wish] = []  # what was asked for with check()
        self._checks: Checks | None = None

    def ready(self) -> None:
        """
        Say "I could serve", and return when this worker may.

        Before its generation is committed that is when all its workers are ready; afterwards at once.

        Raises:
            SystemExit: the generation was rejected, or prod-run stops: no client will come.
            RuntimeError: called inside a running event loop; use `await worker.ready_async()`.
        """
        if _in_event_loop():
            message = "worker.ready() would block the event loop: use `await worker.ready_async()`"
            raise RuntimeError(message)
        self._say_ready()
        link = self._link
        while not self._may_serve():
            _wait_until_readable((link.fileno(), link.stopping.fileno(), link.serving.fileno()), None)

    async def ready_async(self) -> None:
        """Do the same as `ready()` in an event loop."""
        import asyncio  # noqa: PLC0415  only async apps pay for it

        self._say_ready()
        if self._may_serve():
            return
        waits = [asyncio.ensure_future(event.wait_async()) for event in (self._link.serving, self.stopping)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        self._may_serve()

    def stopped_accepting(self) -> None:
        """Say that no new connection will be accepted here; to be called once, after `stopping` is set."""
        self._link.say("stopped-accepting")

    def status(self, text: str) -> None:
        """Say in a few words how this worker is; operators see it."""
        # A lone surrogate could not be sent; its question mark is as good.
        self._link.mention("status", text=protocol.shorten(text.encode("utf-8", "replace").decode(), 200))

    def heartbeat(self) -> None:
        """Say "I am alive"; only needed with `--stall-timeout`.  A write to a shared page, no system call."""
        if self._heartbeat:
            page, offset = self._heartbeat
            _HEARTBEAT.pack_into(page, offset, time.monotonic())

    def check(self, name: str, function: Callable[[], object], timeout: float = 2.0, required: bool = False) -> None:  # noqa: FBT001, FBT002  public API
        """
        Have something that the app depends on looked at every ten seconds, in one worker of all, in a thread.

        Args:
            name: up to 40 letters, digits, - and _; operators see it.
            function: raises, or returns False, if it is bad; may be async if this is called in an event loop.
            timeout: seconds; a run that takes longer has failed, and is not begun again before it has ended.
            required: prod-run is not ready while the last result is bad, or before there is one.

        Raises:
            ValueError, TypeError: the name or the time limit is none, or there are that name or 32 checks already.
        """
        wish = Wish(name, function, float(timeout), bool(required))
        checks.look_at(wish, tuple(each.name for each in self._wishes))
        self._wishes.append(wish)
        if not self._link.is_supervised:
            return  # of a zygote: its workers take it over
        if self._checks is None:
            from launcher.runtime import health  # noqa: PLC0415  only who has checks pays for threads

            self._checks = health.Checks(self._link, health.duty(self._heartbeat[0] if self._heartbeat else None))
        self._checks.add(wish)

    @classmethod
    def current(cls) -> Worker[Any]:
        """
        Return the Worker of this process, for code that is not given it.

        While the app is imported that is one whose checks every worker takes over, and good for nothing else.
        """
        if not _current:
            _current.append(cls())
        return _current[0]

    def _become_current(self) -> None:
        wishes = _current[0]._wishes if _current else []
        _current[:] = [self]
        for wish in wishes:
            self.check(*wish)

    def _say_ready(self) -> None:
        if not self._said_ready:
            self._said_ready = True
            self._link.show("ready")
            self._link.say("ready")

    def _may_serve(self) -> bool:
        if self._link.serving.is_set():
            return True
        if self._link.stopping.is_set():
            raise SystemExit(0)
        return False


def _in_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _wait_until_readable(descriptors: tuple[int, ...], seconds: float | None) -> list[int]:
    """Wait until one of them is readable, at most so many seconds or a day; -1 stands for none."""
    poll = select.poll()
    for fd in descriptors:
        if fd >= 0:
            poll.register(fd, select.POLLIN)
    found = poll.poll(None if seconds is None else min(seconds, _LONGEST_WAIT) * 1000.0)
    if any(what & select.POLLNVAL for _, what in found):
        raise RuntimeError(_SENTENCE)  # or it would return at once, for ever
    return [fd for fd, _ in found]
