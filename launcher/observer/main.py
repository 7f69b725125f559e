"""
The process that watches: it reads what the workers write and passes it on.

Owns its only loop, and the talk with the supervisor.
Must never start a thread, and never wait anywhere but in `_wait`.  Idle, it makes no system call.
"""

from __future__ import annotations

import os
import select
import sys
import time

from launcher import libc, protocol
from launcher.lean_posix import signal, socket
from launcher.logs import counters as places
from launcher.logs import formats, nonblocking
from launcher.logs.batch import Batch, Form, Source, newlines
from launcher.logs.counters import Counters
from launcher.observer import own, sinks
from launcher.observer.sources import Sources
from launcher.observer.valve import FULL, Valve
from launcher.signals import HARMLESS_TO_WORKERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    from launcher.observer.introspection import Introspection

CHANNEL = 3  # where the supervisor puts it before the exec
ANSWER_EVERY = 0.5  # seconds: questions come as fast as they are answered
FLUSH = 1.8  # seconds at the end; the supervisor waits for two
AT_ONCE = 64  # messages in one turn
LONGEST_WAIT = 86400.0  # seconds: epoll_wait(2) takes an int of milliseconds
ALL = sys.maxsize
LAST = "stopped"  # prod-run's own last line: what the pipes still hold comes before it
LARGEST = 1024 * 1024  # bytes that the work on one piece may need
_SOME = 8  # descriptors


def main() -> NoReturn:
    """Watch until told to end; what the system refuses ends this process with a sentence, and the next one tries."""
    try:
        _watch()
    except OSError as error:
        os.closerange(CHANNEL, CHANNEL + _SOME)  # the sentence needs two, and all are given up anyway
        nonblocking.try_to_write(2, f"prod-run: the observer ends: {error.strerror}\n".encode())
        os._exit(71)


def _watch() -> NoReturn:
    """Take the first message and do what it says."""
    for number in (*HARMLESS_TO_WORKERS, signal.SIGTERM):
        signal.signal(number, _ignore)  # it ends last
    channel = socket.socket(fileno=CHANNEL)
    message, descriptors = _receive(channel)
    if message is None or message.number("protocol") != protocol.VERSION:
        os._exit(0 if message is None else 70)
    # Nobody reads the pipes of the dead: like every process of prod-run's own, it goes with the supervisor.
    if not libc.kill_with_parent() or os.getppid() != message.number("supervisor"):
        os._exit(0)
    _show_title(message.text("name"))
    # The allocator gives back what a piece needed, and asks for it again with the next one, until it has seen a larger
    # block come and go (mallopt(3): M_MMAP_THRESHOLD); this one is never touched.
    bytes(LARGEST)
    loop = Loop(channel, message, Counters(descriptors[0]))
    if message.texts("introspect"):
        loop.open_port(list(zip(descriptors[1:], message.texts("introspect"), strict=True)))
    loop.run()


class Loop:
    """What is read, where it goes, and what the supervisor wants."""

    __slots__ = (
        "_answer_at",
        "_answered_at",
        "_channel",
        "_counters",
        "_end_at",
        "_farewell",
        "_has_parted",
        "_introspection",
        "_pen",
        "_poll",
        "_rest",
        "_sink",
        "_sources",
        "_unsaid",
        "_valve",
    )

    def __init__(self, channel: socket.socket, message: protocol.Message, counters: Counters) -> None:
        form = Form(message.text("log_kind"), message.flag("log_colour"), message.flag("log_priority"))
        name = message.text("name")
        self._channel = channel
        self._counters = counters
        self._pen = own.Pen(Source(name, 0, message.number("supervisor")), form)
        self._poll = select.epoll()
        self._poll.register(channel, select.EPOLLIN)
        self._sources = Sources(name, form, lambda lines: counters.add(places.TAKEN, lines))
        self._poll.register(self._sources.fileno(), select.EPOLLIN)
        self._valve = Valve()
        self._sink = sinks.open_sink(
            message.text("log"), notice=self._notice, watch=self._watch, complain=self._complain, count=counters.keep
        )
        self._unsaid: list[bytes] = []  # the channel is full
        self._answer_at: float | None = None  # the supervisor has a question
        self._answered_at = 0.0
        self._end_at: float | None = None
        self._rest: Iterator[list[Batch]] = iter(())  # what the pipes hold at the end
        self._farewell: protocol.Message | None = None
        self._has_parted = False
        self._introspection: Introspection | None = None

    def open_port(self, listeners: list[tuple[int, str]]) -> None:
        """Answer at these sockets how prod-run is; each is a descriptor and an address."""
        from launcher.observer.introspection import Introspection  # noqa: PLC0415  --introspect off costs nothing

        self._introspection = Introspection(
            listeners,
            self._counters,
            self._pen.form,
            self._say,
            self._complain,
            warn=lambda text: self._tell("warning", "little room", ("reason", text)),
        )
        self._poll.register(self._introspection.fileno(), select.EPOLLIN)

    def run(self) -> NoReturn:
        """Watch until told to end and everything is written."""
        self._say(protocol.encode("watching"))
        lost = self._counters.lose_what_was_held()
        if lost:
            self._tell("warning", "lost output", ("lines", lost), ("reason", "the observer before was killed"))
        while self._end_at is None or not (self._is_drained() or time.monotonic() >= self._end_at):
            self._wait()
            now = time.monotonic()
            if self._end_at is None:
                self._give_out(now)
                self._adjust(now)
            elif self._sink.backlog < FULL:
                self._read_the_rest()
            if self._introspection:
                self._introspection.expire(now)
            for ticket, stream in self._sources.take_finished():
                self._say(protocol.encode("finished", ticket=ticket, stream=stream))
            if self._answer_at is not None:
                self._reassure(now)
        self._read_the_rest(ALL)  # and what is too much is counted
        self._let_go()
        if self._introspection:
            self._introspection.end()
        os._exit(0)

    def _let_go(self) -> None:
        self._sink.close()
        self._count()
        if self._sink.missing:
            self._complain(f"{self._sink.missing} lines could not be written at the end")
        elif self._farewell:
            self._counters.add(places.HEARD, 1)  # else the supervisor says it, on stderr

    def _reassure(self, now: float) -> None:
        if now < self._answered_at + ANSWER_EVERY:
            self._answer_at = self._answered_at + ANSWER_EVERY
            return
        self._answer_at, self._answered_at = None, now
        self._say(protocol.encode("pong"))

    # ── waiting ─────────────────────────────────────────────────────────────────────────────────

    def _wait(self) -> None:
        times = (
            self._sources.deadline() if self._valve.is_open and self._end_at is None else None,
            self._sink.deadline(),
            self._valve.deadline(),
            self._answer_at,
            self._end_at,
            self._introspection.deadline() if self._introspection else None,
        )
        deadline = min((due for due in times if due is not None), default=None)
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        for fd, mask in self._poll.poll(None if timeout is None else min(timeout, LONGEST_WAIT)):
            if fd == self._channel.fileno():
                if self._unsaid and self._send():
                    self._poll.modify(self._channel, select.EPOLLIN)
                self._hear()
            elif fd == self._sources.fileno():
                self._read()
            elif self._introspection and fd == self._introspection.fileno():
                self._hear()  # the last snapshot first
                self._introspection.serve()
            else:
                self._sink.on_ready(fd, mask)
        due = self._sink.deadline()
        if due is not None and time.monotonic() >= due:
            self._sink.tick()
        self._count()

    def _watch(self, fd: int, mask: int) -> None:
        """Wait for a descriptor of the sink; with an empty mask not any more."""
        if not mask:
            try:
                self._poll.unregister(fd)
            except OSError:
                pass  # closed: the kernel has forgotten it
            return
        try:
            self._poll.modify(fd, mask)
        except FileNotFoundError:
            self._poll.register(fd, mask)

    def _read(self) -> None:
        self._sources.look()
        # What the supervisor knows of a process it says before the process can write anything: before what was seen.
        self._hear()
        if self._end_at is not None:
            return  # it was the last word: what is left is read as the sink takes it
        for batches in self._sources.read():
            self._emit(batches)
            self._adjust(time.monotonic())
            if not self._valve.is_open:
                return

    def _give_out(self, now: float) -> None:
        if self._valve.is_open:  # else its rest may have come, and was not read
            self._emit(self._sources.expire(now))

    def _adjust(self, now: float) -> None:
        was_open = self._valve.is_open
        self._valve.adjust(self._sink.backlog, now)
        if self._valve.is_open is not was_open:
            self._poll.modify(self._sources.fileno(), 0 if was_open else select.EPOLLIN)

    def _emit(self, batches: list[Batch]) -> None:
        for batch in batches:
            # One line may become several (a traceback on a console), and several one: what comes out is what counts.
            lines = batch.number if batch.number >= 0 else newlines(batch.lines)
            self._counters.add(places.TAKEN, lines - batch.taken)
            if lines:
                written = batch if batch.taken == lines else batch._replace(taken=lines)
                self._sink.write(written)
                if self._introspection:
                    self._introspection.remember(written)
        if batches:
            self._count()

    def _count(self) -> None:
        self._counters.keep(self._sink.passed, self._sink.dropped)

    # ── prod-run's own lines ────────────────────────────────────────────────────────────────────

    def _tell(self, level: str, event: str, *fields: tuple[str, object]) -> None:
        batch = self._pen.write(formats.Record(time.time(), level, event, fields))
        self._counters.add(places.TAKEN, batch.taken)
        self._emit([batch])

    def _notice(self, lines: int) -> Batch:
        batch = self._pen.write(formats.Record(time.time(), "warning", "dropped output", (("lines", lines),)))
        return batch._replace(taken=0)  # nobody wrote it

    def _complain(self, text: str) -> None:
        """Say on stderr what is wrong with the sink."""
        nonblocking.try_to_write(2, f"prod-run: {text}\n".encode())

    # ── the supervisor ──────────────────────────────────────────────────────────────────────────

    def _say(self, data: bytes) -> None:
        self._unsaid.append(data)
        if len(self._unsaid) == 1 and not self._send():
            self._poll.modify(self._channel, select.EPOLLIN | select.EPOLLOUT)

    def _send(self) -> bool:
        """Send what was not said yet; return whether that is all."""
        while self._unsaid:
            try:
                self._channel.send(self._unsaid[0], socket.MSG_DONTWAIT)
            except OSError:
                return False  # it takes nothing for the moment; if it is gone, so are we
            del self._unsaid[0]
        return True

    def _hear(self) -> None:
        for _ in range(AT_ONCE):
            try:
                message, descriptors = _receive(self._channel, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if message is None:
                os._exit(0)
            self._obey(message, descriptors)

    def _obey(self, message: protocol.Message, descriptors: list[int]) -> None:
        match message.verb:
            case "capture":
                self._sources.add(message, descriptors)
            case "know":
                self._sources.know(message)
            case "gone":
                for batches in self._sources.gone(message.number("ticket"), lambda: self._sink.backlog < FULL):
                    self._emit(batches)
            case "log" if message.text("event") == LAST:
                self._farewell = message
            case "log":
                self._write_own(message)
            case "ping":
                self._answer_at = time.monotonic()
            case "about" | "config" | "state" | "alive" | "stacks" if self._introspection:
                self._introspection.hear(message)
            case "end":
                self._end_at = time.monotonic() + FLUSH
                self._poll.unregister(self._sources.fileno())
                self._rest = self._sources.read_to_the_end()
                self._read_the_rest()

    def _write_own(self, message: protocol.Message) -> None:
        words = self._sources.last_words(message.number("words_of"))
        batch = self._pen.write(own.record_of(message, words, self._pen.form))
        if message is not self._farewell:
            self._counters.add(places.HEARD, 1)
        self._counters.add(places.TAKEN, batch.taken)
        self._emit([batch])

    def _read_the_rest(self, most: float = FULL) -> None:
        """Read what the pipes still hold, as the sink takes it: all at once would be more than is kept for it."""
        for batches in self._rest:
            self._emit(batches)
            if self._sink.backlog >= most:
                return
        if self._farewell and not self._has_parted:
            self._has_parted = True
            self._write_own(self._farewell)

    def _is_drained(self) -> bool:
        return self._sink.backlog == 0


def _ignore(number: int, frame: object) -> None:
    """Do nothing on a signal."""


def _show_title(name: str) -> None:
    try:
        from _setproctitle import setproctitle  # noqa: PLC0415  a title is a courtesy
    except ImportError:
        return
    setproctitle(f"prod-run: {name} [observer]")


def _receive(channel: socket.socket, flags: int = 0) -> tuple[protocol.Message | None, list[int]]:
    """Take one message with its descriptors; None if the supervisor is gone."""
    data, ancillary, _, _ = channel.recvmsg(protocol.LARGEST, socket.CMSG_SPACE(4 * 4), flags | socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors += [int.from_bytes(payload[i : i + 4], sys.byteorder) for i in range(0, len(payload) - 3, 4)]
    return (protocol.decode(data) if data else None), descriptors
