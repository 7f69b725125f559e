"""
A worker's side of its private channel to the supervisor.

Owns what was said on it, and the two events that come by it: `stopping` and "you may serve".  Must never start a
thread, never block without being asked to, and never fail because the supervisor is gone.
"""

from __future__ import annotations

import errno
import os
import select
import time

from launcher import protocol
from launcher.lean_posix import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_CLOSED_HERE = (errno.EBADF, errno.ENOTSOCK)
_SENTENCE = "the app has closed descriptors that it did not open: prod-run's channel to this worker is gone"
_LONGEST_WAIT = 86400.0  # seconds: poll(2) takes an int of milliseconds; who waits looks again


class Event:
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
            self._is_set = bool(wait_until_readable((self._fd,), 0.0))  # in a fork of the app's, told by its parent
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
            if self._fd in wait_until_readable((self._fd, self._link.fileno()), left):
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


class Stopping(Event):
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
        self.serving = Event(self)
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
            elif message.verb == "stop-later":
                self.stop_until = message.seconds("until")


def wait_until_readable(descriptors: tuple[int, ...], seconds: float | None) -> list[int]:
    """Wait until one of them is readable, at most so many seconds or a day; -1 stands for none."""
    poll = select.poll()
    for fd in descriptors:
        if fd >= 0:
            poll.register(fd, select.POLLIN)
    found = poll.poll(None if seconds is None else min(seconds, _LONGEST_WAIT) * 1000.0)
    if any(what & select.POLLNVAL for _, what in found):
        raise RuntimeError(_SENTENCE)  # or it would return at once, for ever
    return [fd for fd, _ in found]
