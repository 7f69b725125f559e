"""
The syslog sink: lines on their way to a receiver that may be slow, full, away or not there yet.

Owns the queue of batches, what is on its way to the kernel, and the counts of both outcomes.
Must never wait, and never raise out of `write`.

What can be lost without being counted: what the kernel has taken and the receiver has not.  That is a datagram that
finds nobody (UDP), and what is in the socket's buffers when a TCP connection breaks: syslog has no acknowledgements.
"""

from __future__ import annotations

import errno
import time

from launcher.logs import rfc5424
from launcher.logs.syslog_address import LOCAL, TCP, UDP
from launcher.observer.connection import Connection

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.logs.batch import Batch
    from launcher.logs.syslog_address import SyslogAddress

LIMIT = 8 * 1024 * 1024  # bytes

# RFC 5424 §6.1: receivers should take 2048.
LONGEST_UDP = 2048

_OVERHEAD = 256  # bytes that a batch costs beside its text
_WINDOW_BYTES = 64 * 1024
_WINDOW_MESSAGES = 256
_WINDOWS = 4  # per call: the loop has others to serve
_SHORTER = (8192, 2048, 480)  # bytes, tried in turn; RFC 5424 §6.1: everybody must take 480


class Syslog:
    """
    Lines on their way to a syslog receiver.

    The loop calls `on_ready` for the descriptors that `watch` told it, and `tick` at `deadline()`.
    Each batch that was written is, in units of `Batch.taken`, in `passed` or `dropped` or on its way.
    """

    def __init__(
        self,
        address: SyslogAddress,
        *,
        host: str,
        notice: Callable[[int], Batch],
        watch: Callable[[int, int], None],
        complain: Callable[[str], None],
        limit: int = LIMIT,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        Open nothing yet: that comes with the first line.

        `host` is this machine's name. `notice` makes the batch that stands where messages are missing, from their
        number. `watch` and `complain` are `Connection`'s.
        """
        self.passed = 0  # taken by the kernel
        self.dropped = 0
        self.missing = 0  # dropped messages, since the last notice
        self._announced = 0  # what the notice in front of the window says; 0: there is none
        self._address = address
        self._host = host
        self._notice = notice
        self._limit = limit
        self._wall = wall
        self._connection = Connection(address, watch=watch, complain=complain, clock=clock)
        # Two lists are a queue: the oldest is the last of `_oldest`, and the newest the last of `_newest`.
        self._oldest: list[tuple[Batch, float]] = []
        self._newest: list[tuple[Batch, float]] = []
        self._queued = 0  # bytes in both
        self._window: list[bytes] = []  # messages in their final form; nothing may come before them
        self._units: list[int] = []  # what each stands for
        self._next = 0  # of the window

    @property
    def backlog(self) -> int:
        """Return how many bytes are on their way."""
        return self._queued + sum(map(len, self._window[self._next :])) - self._connection.offset

    def write(self, batch: Batch) -> None:
        """Take whole lines and pass on at once what the kernel takes; at the limit the oldest batches are dropped."""
        self._newest.append((batch, self._wall()))
        self._queued += len(batch.lines) + _OVERHEAD
        if self._connection.is_closed:
            self._drop(0)
        elif not self._connection.is_full:
            # Else the loop says when it is worth another system call.
            self._connection.open()
            self._flush()
        if self._queued > self._limit:
            self._drop(self._limit)

    def on_ready(self, fd: int, mask: int) -> None:
        """Go on with a descriptor that is ready in this way (epoll_ctl(2))."""
        self._connection.on_ready(fd, mask)
        self._flush()

    def deadline(self) -> float | None:
        """Return when `tick` is due (monotonic); nothing queued or under way means never."""
        return self._connection.deadline(is_wanted=self._is_waiting())

    def tick(self) -> None:
        """Do what is due."""
        self._connection.tick()
        if self._is_waiting():
            self._connection.open()
        self._flush()

    def close(self) -> None:
        """Try once more, count what is left as dropped, and let go of everything; later lines are only counted."""
        self._flush()
        left = sum(self._units[self._next :])
        self.dropped += left
        self.missing += left + (self._announced if self._window and not self._next else 0)
        self._window, self._units, self._next = [], [], 0
        self._drop(0)
        self._connection.close()

    def _is_waiting(self) -> bool:
        return self._queued > 0 or self._next < len(self._window)

    def _flush(self) -> None:
        """Pass on as much as the kernel takes now, within the share of one call."""
        windows = _WINDOWS
        while self._connection.is_up and windows:
            if self._next == len(self._window) and not self._fill():
                self._connection.wait_for_room(False)
                return
            windows -= 1
            try:
                (self._send_stream if self._address.transport == TCP else self._send_datagrams)()
            except BlockingIOError:
                break
            except OSError as error:
                self._connection.fail(error.strerror or str(error))
        self._connection.wait_for_room(True)

    def _send_stream(self) -> None:
        link = self._connection
        data = b"".join(self._window[self._next :])
        link.offset += link.send(data[link.offset :] if link.offset else data)
        if link.offset == len(data):
            self.passed += sum(self._units[self._next :])
            self._next, link.offset = len(self._window), 0
            return
        while link.offset >= len(self._window[self._next]):
            link.offset -= len(self._window[self._next])
            self.passed += self._units[self._next]
            self._next += 1

    def _send_datagrams(self) -> None:
        send = self._connection.send
        while self._next < len(self._window):
            try:
                send(self._window[self._next])
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                self._shorten()
                continue
            self.passed += self._units[self._next]
            self._next += 1

    def _shorten(self) -> None:
        """Cut a datagram that the kernel finds too long, or give it up."""
        message = self._window[self._next]
        for size in _SHORTER:
            if size < len(message):
                self._window[self._next] = rfc5424.cut(message, size)
                return
        self.dropped += self._units[self._next]
        self.missing += 1
        self._next += 1

    def _fill(self) -> bool:
        """Bring the next messages into their final form; say whether there are any."""
        self._window, self._units, self._next = [], [], 0
        self._announced, self.missing = self.missing, 0
        if self._announced:
            # Together with lines: alone it could take the only free place each time, and no line would come.
            self._add(self._notice(self._announced), self._wall())
        size = 0
        while self._queued and size < _WINDOW_BYTES and len(self._window) < _WINDOW_MESSAGES:
            batch, seconds = self._pop()
            head, rest = _split(batch, _WINDOW_MESSAGES)
            if rest is not None:
                self._oldest.append((rest, seconds))
                self._queued += len(rest.lines) + _OVERHEAD
            self._add(head, seconds)
            size += len(head.lines)
        return bool(self._window)

    def _add(self, batch: Batch, seconds: float) -> None:
        priority = self._address.facility * 8 + batch.severity
        is_local = self._address.form == LOCAL
        if is_local:
            head = rfc5424.local_header(priority, time.localtime(seconds), batch.source)
        else:
            head = rfc5424.header(priority, seconds, self._host, batch.source)
        made = rfc5424.messages(head, batch.lines, is_local=is_local)
        if self._address.transport == UDP:
            made = [rfc5424.cut(message, LONGEST_UDP) for message in made]
        elif self._address.transport == TCP:
            made = [rfc5424.counted(message) for message in made]
        self._window += made
        self._units += _units(len(made), batch.taken)

    def _pop(self) -> tuple[Batch, float]:
        if not self._oldest:
            self._oldest, self._newest = self._newest[::-1], []
        entry = self._oldest.pop()
        self._queued -= len(entry[0].lines) + _OVERHEAD
        return entry

    def _drop(self, limit: int) -> None:
        """Drop the oldest batches until the queue has at most so many bytes."""
        while self._queued > limit:
            batch, _ = self._pop()
            self.dropped += batch.taken
            self.missing += _count(batch.lines)


def _count(lines: bytes) -> int:
    return lines.count(b"\n") + (not lines.endswith(b"\n") and lines != b"")


def _units(messages: int, taken: int) -> list[int]:
    """
    Say how many newlines of the input each message of a batch stands for.

    One each, as is right for plain lines; the last has what is left over (the lines of a traceback).
    """
    units = [1] * min(messages, taken) + [0] * (messages - taken)
    if messages:
        units[-1] += max(taken - messages, 0)
    return units


def _split(batch: Batch, most: int) -> tuple[Batch, Batch | None]:
    """Part a batch after so many lines; what `_units` would give to them stays with them."""
    if batch.lines.count(b"\n") <= most:
        return batch, None
    rest = batch.lines.split(b"\n", most)[most]
    head = batch.lines[: len(batch.lines) - len(rest)]
    taken = min(most, batch.taken)
    return batch._replace(lines=head, taken=taken), batch._replace(lines=rest, taken=batch.taken - taken)
