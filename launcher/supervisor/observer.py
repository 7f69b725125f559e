"""
The supervisor's end of the observer.

Owns the observer's process and channel, a copy of the reading end of every pipe that it reads (so that no worker ever
writes to a pipe without a reader), and prod-run's own lines until they are sent.  While there is no observer to rely
on, it reads and counts what would otherwise fill a pipe.
Must never wait, and never read a pipe that the observer minds.
"""

from __future__ import annotations

import os
import select

from launcher import protocol
from launcher.lean import NamedTuple
from launcher.lean_posix import signal, socket
from launcher.logs import counters, nonblocking
from launcher.supervisor import interpreter, journal, output_pipes
from launcher.supervisor import observing as pace
from launcher.supervisor.processes import in_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.handoff import Handoff
    from launcher.supervisor import events as on
    from launcher.supervisor.introspection import Introspection
    from launcher.supervisor.loop import Watcher

AT_ONCE = 64  # messages in one turn
LIMIT = 1024 * 1024  # bytes of prod-run's own lines that wait for an observer

_ENDINGS = 2  # if the first one is killed at the end, another one says the last lines
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_ONCE = select.EPOLLIN | select.EPOLLONESHOT


class Message(NamedTuple):
    """Something to be sent."""

    data: bytes
    fds: tuple[int, ...] = ()
    is_line: bool = True  # one of prod-run's own lines, not an order


class Captured:
    """The output of one process: our copies of the reading ends, and what is known of the writer."""

    __slots__ = ("facts", "fds", "is_gone", "ticket")

    def __init__(self, ticket: int, fds: dict[str, int], facts: dict[str, protocol.Field]) -> None:
        self.ticket = ticket
        self.fds = fds  # by stream: stdout, stderr; without those that are at their end
        self.facts = facts
        self.is_gone = False


class Observer:
    """The process that reads what the workers write."""

    __slots__ = (
        "_captured",
        "_channel",
        "_counters",
        "_counters_fd",
        "_discarded",
        "_endings",
        "_handoff",
        "_is_blocked",
        "_now",
        "_pending",
        "_sent",
        "_unheard",
        "_watcher",
        "introspection",
        "life",
        "lives",
    )

    def __init__(
        self, handoff: Handoff, watcher: Watcher, now: Callable[[], float], chance: Callable[[], float]
    ) -> None:
        self.life = pace.Observing(now(), chance)
        self.lives = 0  # how often one was started
        self.introspection: Introspection | None = None
        self._handoff = handoff
        self._watcher = watcher
        self._now = now
        self._channel: socket.socket | None = None
        self._captured: dict[int, Captured] = {}
        self._pending: list[Message] = []
        self._is_blocked = False  # its channel is full
        self._discarded = 0  # lines that nobody could take
        self._endings = 0
        self._counters_fd = counters.page()
        self._counters = counters.Counters(self._counters_fd)  # only read here
        self._unheard: list[Message] = []  # the last lines that were sent
        self._sent = 0  # lines, of all that were ever heard and those that still may be

    # ── what the rest of the supervisor tells ───────────────────────────────────────────────────

    def capture(self, ticket: int, fds: dict[str, int], **facts: protocol.Field) -> None:
        """Have the output of a process read; the descriptors are ours from now on."""
        captured = self._captured[ticket] = Captured(ticket, fds, facts)
        for fd in fds.values():
            os.set_blocking(fd, False)  # the writing end stays blocking: it is the app's print
            # One event, then none until it is armed again: what a pipe brings is the observer's to read.
            self._watcher.watch(fd, self._ask, _ONCE)
        self._send_capture(captured)

    def outputs(self) -> list[int]:
        """Return the reading ends of all that is captured."""
        return [fd for captured in self._captured.values() for fd in captured.fds.values()]

    def know(self, ticket: int, **facts: protocol.Field) -> None:
        """Tell more about a process: its PID, its slot, its app's version."""
        captured = self._captured.get(ticket)
        if captured is not None and captured.facts != {**captured.facts, **facts}:
            captured.facts.update(facts)
            self.tell(protocol.encode("know", ticket=ticket, **facts))

    def gone(self, ticket: int) -> None:
        """A process is over; what is in its pipes is read, and what is left of its group may still write."""
        captured = self._captured.get(ticket)
        if captured is not None:
            captured.is_gone = True
            self.tell(protocol.encode("gone", ticket=ticket))
            self._tidy(captured)

    def say(self, message: bytes) -> None:
        """Have one of prod-run's own lines written, by the next observer if there is none; the oldest give way."""
        self._pending.append(Message(message))
        self._flush()
        size = sum(len(each.data) for each in self._pending)
        while size > LIMIT:
            oldest = next((i for i, each in enumerate(self._pending) if each.is_line), None)
            if oldest is None:
                break
            size -= len(self._pending.pop(oldest).data)
            self._discarded += 1

    @property
    def takes_more(self) -> bool:
        """Say whether there is one, and room in its channel."""
        return self._channel is not None and not self._is_blocked

    def exited(self, death: on.ProcessExited) -> bool:
        """Say whether it was the observer that is over."""
        if not death.pid or death.pid != self.life.pid:
            return False
        self._ended(death)
        return True

    def end(self) -> None:
        """Ask it to write what it has and to end; if there is none, one is made for the last lines."""
        self._endings += 1
        if not self.life.pid:
            self._start(self._now())
        self.tell(protocol.encode("end"))

    @property
    def is_over(self) -> bool:
        """Say whether nothing more is to be expected of it, after `end`."""
        return self._endings > 0 and not self.life.pid

    def unsaid(self) -> list[str]:
        """Return, for people, prod-run's own lines that no observer has taken."""
        lines = (*self._not_heard(), *(message for message in self._pending if message.is_line))
        return [journal.as_text(line.data) for line in lines]

    # ── the loop's turns ────────────────────────────────────────────────────────────────────────

    def tend(self) -> None:
        """Do what the time asks for: start it, end it, or read in its place."""
        now = self._now()
        if self.life.must_start(now) and not self._endings:
            self._start(now)
        if self.life.must_end(now):
            os.kill(self.life.pid, signal.SIGKILL)  # only we reap it, and we have not (DESIGN §2)
            self.life.given_up()
        if self._captured and self.life.is_away(now):
            self._discard()
        if self.introspection:
            self.introspection.tend(now)

    def deadline(self) -> float | None:
        """Say when `tend` is due even if nothing happens."""
        if self._endings:
            return None
        times = [self.life.deadline(self._now(), is_needed=bool(self._captured))]
        times += [self.introspection.deadline()] if self.introspection else []
        return min((time for time in times if time is not None), default=None)

    # ── its process ─────────────────────────────────────────────────────────────────────────────

    def _start(self, now: float) -> None:
        try:
            pid, channel = interpreter.start_observer(self._handoff, self._counters_fd)
        except OSError as error:
            delay = self.life.ended(now)
            _say(f"the observer cannot be started ({error.strerror}): tried again in {delay:.1f}s")
            return
        self.life.started(pid, now)
        self.lives += 1
        self._channel = socket.socket(fileno=channel)
        self._is_blocked = False
        self._watcher.watch(channel, self._hear)
        lines = [*self._not_heard(), *(message for message in self._pending if message.is_line)]
        self._pending, self._unheard, self._sent = [], [], self._counters[counters.HEARD]
        for captured in list(self._captured.values()):
            self._send_capture(captured)
        self._pending += lines
        self._flush()

    def _hear(self) -> list[on.Event]:
        channel = self._channel
        events: list[on.Event] = []
        for _ in range(AT_ONCE):
            if channel is None or self._channel is not channel:
                return events
            try:
                datagram = channel.recv(protocol.LARGEST, socket.MSG_DONTWAIT)
                message = protocol.decode(datagram) if datagram else None
            except BlockingIOError:
                break
            except (OSError, ValueError):
                message = None
            if message is None:
                self._hang_up()  # its death is told by waitpid(2)
                return events
            events += self._on_message(message)
        self._flush()
        return events

    def _on_message(self, message: protocol.Message) -> list[on.Event]:
        match message.verb:
            case "watching":
                self.life.came_up()
                self._resume()
            case "pong":
                self.life.answered()
                self._resume()
            case "finished":
                self._finished(message.number("ticket"), message.text("stream"))
            case "ask" | "stacks" if self.introspection:
                return self.introspection.answer(message)
        return []

    def _ended(self, death: on.ProcessExited) -> None:
        self._hang_up()
        if self._endings:
            self.life.pid = 0
            # One that came to its end could not write what is left: the next one could not either.
            is_left = self._not_heard() and death.code != 0
            if self._endings < _ENDINGS and (is_left or self._pending or self._counters.held > 0):
                self.end()
            return
        fields: journal.Fields = (("pid", death.pid), ("how", in_words(death.code, death.note)))
        if self.life.is_given_up:
            fields += (("reason", "it gave no answer"),)
        delay = self.life.ended(self._now())
        self.say(journal.encode("warning", "lost the observer", (*fields, ("retry", f"{delay:.2f}s"))))

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._watcher.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None

    # ── its orders ──────────────────────────────────────────────────────────────────────────────

    def _send_capture(self, captured: Captured) -> None:
        streams, fds = tuple(captured.fds), tuple(captured.fds.values())
        self.tell(protocol.encode("capture", ticket=captured.ticket, streams=streams, **captured.facts), fds)
        if captured.is_gone:
            self.tell(protocol.encode("gone", ticket=captured.ticket))

    def _not_heard(self) -> list[Message]:
        """Return the lines that were sent and have not been taken: if it dies, the next one gets them."""
        count = max(self._sent - self._counters[counters.HEARD], 0)
        return self._unheard[len(self._unheard) - count :]

    def tell(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Order something of the living one; the next one is told anew."""
        if self._channel is not None:
            self._pending.append(Message(data, fds, is_line=False))
            self._flush()

    def _flush(self) -> None:
        channel = self._channel
        if channel is None:
            return
        sent = 0
        is_blocked = False
        try:
            for message in self._pending:
                interpreter.send(channel, message.data, list(message.fds))
                sent += 1
        except BlockingIOError:
            is_blocked = True
        except OSError:
            pass  # gone: what is pending goes to the next one
        lines = [message for message in self._pending[:sent] if message.is_line]
        self._unheard += lines
        self._sent += len(lines)
        del self._pending[:sent]
        if is_blocked is not self._is_blocked:
            self._is_blocked = is_blocked
            self._watcher.change(channel.fileno(), _IN | _OUT if is_blocked else _IN)
        if sent:
            self._ask()

    def _ask(self) -> list[on.Event]:
        """Have it show that it lives: there is something for it to do."""
        if self.life.asked(self._now()):
            self.tell(protocol.encode("ping"))
        return []

    def _resume(self) -> None:
        """It is back: say what is missing, and have the pipes ask for it again."""
        self._unheard = self._not_heard()
        if self._discarded:
            lines, self._discarded = self._discarded, 0
            self.say(journal.encode("warning", "discarded output", (("lines", lines),)))
        for captured in self._captured.values():
            for fd in captured.fds.values():
                self._watcher.change(fd, _ONCE)

    # ── the pipes ───────────────────────────────────────────────────────────────────────────────

    def _finished(self, ticket: int, stream: str) -> None:
        captured = self._captured.get(ticket)
        fd = captured.fds.pop(stream, -1) if captured else -1
        if captured and fd >= 0:
            self._watcher.forget(fd)
            os.close(fd)
            self._tidy(captured)

    def _tidy(self, captured: Captured) -> None:
        if captured.is_gone and not captured.fds:
            self._captured.pop(captured.ticket, None)

    def _discard(self) -> None:
        """Make room in the pipes that are more than half full: no print of a worker may wait for an observer."""
        before = self._discarded
        for captured in self._captured.values():
            for fd in captured.fds.values():
                self._discarded += output_pipes.make_room(fd)
        if self._discarded and not before:
            _say("nobody reads what the workers write: it is discarded and counted until the observer is back")


def _say(text: str) -> None:
    """Say it where the observer cannot: on stderr, if that takes it without waiting."""
    nonblocking.try_to_write(2, f"prod-run: {text}\n".encode())
