"""
The lines on their way to an inherited standard output, which may be slow, full or gone.

Owns the backlog of lines that the other side has not taken yet, and the count of those given up.
Must never wait, and never raise out of `write`.
"""

from __future__ import annotations

from launcher.logs import nonblocking
from launcher.logs.batch import newlines

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 1024 * 1024


class Stdout:
    """
    Lines on their way to a descriptor that may be slow, full or gone.

    The loop waits for EPOLLOUT on `fileno()` while `wants_write` is true and only then: a pipe without a reader
    reports EPOLLERR whether asked or not.
    """

    def __init__(
        self,
        fd: int,
        *,
        notice: Callable[[int], bytes],
        limit: int = LIMIT,
        stderr: int = 2,
        count: Callable[[int, int], None] | None = None,
    ) -> None:
        """
        Take a descriptor, which stays the caller's.

        `notice` makes the line that stands where lines are missing, from their number.  `count` is told `passed` and
        `dropped` after each piece that the other side took.
        """
        self.passed = 0  # lines, since the start, without the notices
        self.dropped = 0  # the same
        self._writer = nonblocking.writer_of(fd)
        self._notice = notice
        self._limit = limit
        self._stderr = stderr
        self._count = count
        self._rest = b""  # of a line that is partly out: nothing may come before it
        self._rest_is_notice = False
        self._backlog: bytes | bytearray = b""  # whole lines
        self._waiting = 0  # their number
        self.missing = 0  # dropped since the last notice
        self._announced = 0  # what that notice said
        self._is_refused = False

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._writer.fd

    @property
    def backlog(self) -> int:
        """Return how many bytes wait."""
        return len(self._rest) + len(self._backlog)

    @property
    def wants_write(self) -> bool:
        """Say whether `flush` should be called when the descriptor is writable."""
        return self._writer.can_wait and bool(self._rest or self._backlog)

    def write(self, lines: bytes, count: int = -1) -> None:
        """
        Take whole lines and pass on at once what the other side takes; at the limit the oldest are dropped.

        `count` is their number, if the caller knows it: counting costs more than writing.
        """
        is_full = self.wants_write
        self._append(lines)
        self._waiting += newlines(lines) if count < 0 else count
        if not is_full:
            # Else the loop says when it is worth another system call.
            self.flush()
        excess = len(self._backlog) - self._limit
        if excess > 0:
            self._drop(self._end_of_line(excess - 1))

    def flush(self) -> None:
        """Pass on as much as the other side takes now."""
        while self._rest or self._backlog:
            notice = self._notice(self.missing) if self.missing and not self._rest else b""
            # Notice and lines go together: alone it could take the only free place each time, and no line would come.
            data = self._rest or notice + self._next_lines(max(self._writer.piece - len(notice), 1))
            try:
                sent = self._writer.send(data)
            except BlockingIOError:
                return
            except OSError as error:
                self._refuse(error)
                return
            if not sent:
                return
            self._is_refused = False
            if self._rest:
                self._rest = self._rest[sent:]
                self.passed += not (self._rest or self._rest_is_notice)
            else:
                self._announced, self.missing = self.missing, 0
                self._rest = notice[sent:]
                self._rest_is_notice = True
                self._take(max(sent - len(notice), 0))
            if self._count:
                self._count(self.passed, self.dropped)
            if self._writer.can_wait and sent < len(data):
                return  # it is full

    def close(self) -> None:
        """Try once more, count what is left as dropped, and let go of all but the caller's descriptor."""
        self.flush()
        self._give_up()
        self._writer.close()
        # Lines that still come are counted, without a complaint.
        self._writer = nonblocking.Writer(-1)
        self._is_refused = True

    def _append(self, lines: bytes) -> None:
        if not self._backlog:
            self._backlog = lines  # usually all of it goes out at once: not a copy
        elif isinstance(self._backlog, bytearray):
            self._backlog += lines
        else:
            self._backlog = bytearray(b"".join((self._backlog, lines)))

    def _next_lines(self, piece: int) -> bytes:
        if len(self._backlog) <= piece:
            return bytes(self._backlog)
        return self._front(self._backlog.rfind(b"\n", 0, piece) + 1 or self._end_of_line(piece))

    def _end_of_line(self, at: int) -> int:
        return self._backlog.find(b"\n", at) + 1 or len(self._backlog)

    def _front(self, end: int) -> bytes:
        """Return the first bytes of the backlog; a slice of it would be copied twice."""
        with memoryview(self._backlog) as view:
            return bytes(view[:end])

    def _take(self, sent: int) -> None:
        """Remove what is out from the backlog; the end of a line whose beginning is out becomes the rest."""
        if not sent:
            return
        is_whole = self._backlog[sent - 1] == ord("\n")
        end = sent if is_whole else self._end_of_line(sent)
        self._rest = b"" if is_whole else bytes(self._backlog[sent:end])
        self._rest_is_notice = is_whole and self._rest_is_notice
        self.passed += self._remove(end) - (not is_whole)

    def _drop(self, end: int) -> None:
        lines = self._remove(end)
        self.dropped += lines
        self.missing += lines

    def _remove(self, end: int) -> int:
        """Remove whole lines from the front of the backlog; return their number."""
        if end == len(self._backlog):
            lines, self._waiting, self._backlog = self._waiting, 0, b""
            return lines
        lines = newlines(self._front(end))
        self._waiting -= lines
        # A bytearray gives up its front without moving the rest.
        self._backlog = bytearray(self._backlog) if isinstance(self._backlog, bytes) else self._backlog
        del self._backlog[:end]
        return lines

    def _refuse(self, error: OSError) -> None:
        """Drop what cannot be written now (reader gone, disk full); the next line tries again."""
        if self._writer.can_wait:
            self._give_up()
        else:
            # A full disk may have half a line of ours: its end is kept, so that the line is whole when there is room.
            self._drop(len(self._backlog))
        if not self._is_refused:
            self._is_refused = True
            _complain(self._stderr, error)

    def _give_up(self) -> None:
        if self._rest:
            self._rest = b""
            if self._rest_is_notice:
                self.missing += self._announced
            else:
                self.dropped += 1
                self.missing += 1
        self._drop(len(self._backlog))


def _complain(stderr: int, error: OSError) -> None:
    text = f"prod-run: cannot write to standard output: {error.strerror}. Lines are dropped until it works again.\n"
    nonblocking.try_to_write(stderr, text.encode())
