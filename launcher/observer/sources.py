"""
The pipes of all processes, and who is behind each.

Owns the captures, the descriptors they read, the order in which the supervisor's facts about a process become those
of its lines, and the last words of the dead.  Must never wait.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import sys
import time

from launcher.logs.batch import Source
from launcher.observer.capture import PIECE, Capture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from launcher import protocol
    from launcher.logs.batch import Batch, Form

_FIONREAD = 0x541B  # ioctl_tty(2)
_REMEMBERED = 32  # of the dead, whose last words may still be asked for


class _Writer:
    """One process: its captures by stream, and whether it is over."""

    __slots__ = ("captures", "is_gone", "source")

    def __init__(self, source: Source) -> None:
        self.source = source
        self.captures: dict[str, Capture] = {}
        self.is_gone = False


class Sources:
    """Everything that is read."""

    __slots__ = ("_app", "_by_fd", "_finished", "_form", "_open", "_poll", "_ready", "_took", "_words", "_writers")

    def __init__(self, app: str, form: Form, took: Callable[[int], None]) -> None:
        """`took` is told at once how many newlines were read."""
        self._app = app
        self._form = form
        self._took = took
        self._poll = select.epoll()
        self._writers: dict[int, _Writer] = {}  # by ticket
        self._by_fd: dict[int, tuple[int, str]] = {}
        self._open: dict[int, Capture] = {}  # those that hold something back
        self._ready: list[int] = []  # descriptors that have something
        self._finished: list[tuple[int, str]] = []
        self._words: dict[int, str] = {}  # by ticket, the oldest first

    def fileno(self) -> int:
        """Return the descriptor that is readable when any of the pipes is (epoll(7))."""
        return self._poll.fileno()

    def add(self, message: protocol.Message, descriptors: list[int]) -> None:
        """
        Read a process's pipes from now on.

        Raises:
            OSError: there was no descriptor left for them (unix(7): the kernel throws away what does not fit).
        """
        if len(descriptors) < len(message.texts("streams")):
            raise OSError(errno.EMFILE, "no descriptors left for the pipes of another process; raise the limit")
        source = Source(self._app, message.number("generation"), message.number("pid"))
        writer = self._writers[message.number("ticket")] = _Writer(_with(source, message))
        for stream, fd in zip(message.texts("streams"), descriptors, strict=True):
            writer.captures[stream] = Capture(
                fd, stream, writer.source, self._form, mark=message.text("mark"), took=self._took
            )
            self._by_fd[fd] = (message.number("ticket"), stream)
            self._poll.register(fd, select.EPOLLIN)

    def know(self, message: protocol.Message) -> None:
        """Learn more about a process."""
        writer = self._writers.get(message.number("ticket"))
        if writer:
            writer.source = _with(writer.source, message)
            for capture in writer.captures.values():
                capture.source = writer.source

    def gone(self, ticket: int, may_read: Callable[[], bool]) -> Iterator[list[Batch]]:
        """
        A process is over: read what it left; a leftover of its group may go on writing.

        Its stdout is read as long as that is wanted now, and the rest as any other's.
        """
        writer = self._writers.get(ticket)
        if writer is None:
            return
        writer.is_gone = True
        stderr = writer.captures.get("stderr")
        for stream in tuple(writer.captures):
            for batches in self._read_out(ticket, stream):
                yield batches
                if stream != "stderr" and not may_read():
                    break
        self._tidy(ticket)
        if stderr:
            self._remember(ticket, stderr.last_words())

    def last_words(self, ticket: int) -> str:
        """Return what a process said last on its stderr; empty if that is not known any more."""
        return self._words.pop(ticket, "")

    def look(self) -> None:
        """Ask which pipes have something, when all of the last time have had their turn."""
        if not self._ready:
            self._ready = [fd for fd, _ in self._poll.poll(0)]

    def read(self) -> Iterator[list[Batch]]:
        """Read one piece of each pipe that `look` has found; whoever stops half-way goes on with the others."""
        self.look()
        while self._ready:
            fd = self._ready.pop(0)
            if fd in self._by_fd:  # else it has come to its end meanwhile
                yield self._read(*self._by_fd[fd])

    def read_to_the_end(self) -> Iterator[list[Batch]]:
        """Read everything that is there now, and give up what is unfinished."""
        for ticket, stream in tuple(self._by_fd.values()):
            yield from self._read_out(ticket, stream)
        for writer in self._writers.values():
            for capture in writer.captures.values():
                yield capture.finish()

    def deadline(self) -> float | None:
        """Say when something that is held back has to go out."""
        times = [capture.deadline() for capture in self._open.values()]
        return min((due for due in times if due is not None), default=None)

    def expire(self, now: float) -> list[Batch]:
        """
        Give out what was held back for long enough.

        Not where the pipe has something: that we have not come to read it is no pause of the writer's.
        """
        batches: list[Batch] = []
        for fd, capture in tuple(self._open.items()):
            due = capture.deadline()
            if due is not None and now >= due and not _held_by(fd):
                batches += capture.expire(now)
                due = capture.deadline()
            if due is None:
                del self._open[fd]
        return batches

    def take_finished(self) -> list[tuple[int, str]]:
        """Return the streams that are at their end since the last call: ticket and stream."""
        finished, self._finished = self._finished, []
        return finished

    def _read_out(self, ticket: int, stream: str) -> Iterator[list[Batch]]:
        """Read what is in a pipe now, and its end if that is next; not what somebody goes on writing."""
        writer = self._writers.get(ticket)
        capture = writer.captures.get(stream) if writer else None
        if capture is None:
            return
        for _ in range(_held_by(capture.fileno()) // PIECE + 2):
            if not capture.ended:
                yield self._read(ticket, stream)

    def _read(self, ticket: int, stream: str) -> list[Batch]:
        writer = self._writers[ticket]
        capture = writer.captures.get(stream)
        if capture is None:
            return []
        fd = capture.fileno()
        batches = capture.read(time.monotonic())
        if capture.deadline() is not None:
            self._open[fd] = capture
        if capture.ended:
            self._open.pop(fd, None)
            self._poll.unregister(fd)
            del self._by_fd[fd], writer.captures[stream]
            os.close(fd)
            self._finished.append((ticket, stream))
            if stream == "stderr":
                self._remember(ticket, capture.last_words())
            self._tidy(ticket)
        return batches

    def _tidy(self, ticket: int) -> None:
        writer = self._writers.get(ticket)
        if writer and writer.is_gone and not writer.captures:
            del self._writers[ticket]

    def _remember(self, ticket: int, words: str) -> None:
        self._words.pop(ticket, None)
        self._words[ticket] = words
        while len(self._words) > _REMEMBERED:
            del self._words[next(iter(self._words))]


def _held_by(fd: int) -> int:
    """Return how many bytes a pipe has for us."""
    return int.from_bytes(fcntl.ioctl(fd, _FIONREAD, bytes(4)), sys.byteorder)


def _with(source: Source, message: protocol.Message) -> Source:
    if message.texts("pid"):
        source = source._replace(pid=message.number("pid"))
    if message.texts("slot"):
        source = source._replace(slot=message.number("slot"))
    return source._replace(version=message.text("version")) if message.texts("version") else source
