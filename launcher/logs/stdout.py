"""
The writer of an inherited standard output, which must not be able to stop the supervisor.

Owns the backlog of lines that the other side has not taken yet, the count of those given up, and for each kind of
descriptor the way to write to it without waiting.
Must never wait, never raise out of `write`, and never change or reopen the inherited description, which is shared with
whoever started prod-run (a file that is opened again overwrites itself from its start); only a terminal is opened anew.

SIGPIPE and SIGXFSZ are expected to be ignored, as CPython does when it starts: a lost reader is EPIPE, not death.
A regular file cannot be written without waiting for its file system; nothing here helps against a hung network disk.
"""

from __future__ import annotations

import errno
import os
import select
import stat

from launcher.lean_posix import signal, socket

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 1024 * 1024

_PIECE = 256 * 1024
# pipe(7): 16 pages. A page holds whole lines, so there is a part of a line less in each than there could be.
_PIPE_PIECE = 60 * 1024
# tty_poll in the kernel says "writable" while fewer than 256 characters wait in the driver.
_TERMINAL_PIECE = 256


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
        self._sink = _sink(fd)
        self._notice = notice
        self._limit = limit
        self._stderr = stderr
        self._count = count
        self._rest = b""  # of a line that is partly out: nothing may come before it
        self._rest_is_notice = False
        self._backlog = bytearray()  # whole lines
        self._waiting = 0  # their number
        self.missing = 0  # dropped since the last notice
        self._announced = 0  # what that notice said
        self._is_refused = False

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._sink.fd

    @property
    def backlog(self) -> int:
        """Return how many bytes wait."""
        return len(self._rest) + len(self._backlog)

    @property
    def wants_write(self) -> bool:
        """Say whether `flush` should be called when the descriptor is writable."""
        return self._sink.can_wait and bool(self._rest or self._backlog)

    def write(self, lines: bytes, count: int = -1) -> None:
        """
        Take whole lines and pass on at once what the other side takes; at the limit the oldest are dropped.

        `count` is their number, if the caller knows it: counting costs more than writing.
        """
        is_full = self.wants_write
        self._backlog += lines
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
            data = self._rest or notice + self._next_lines(max(self._sink.piece - len(notice), 1))
            try:
                sent = self._sink.send(data)
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
            if self._sink.can_wait and sent < len(data):
                return  # it is full

    def close(self) -> None:
        """Try once more, count what is left as dropped, and let go of all but the caller's descriptor."""
        self.flush()
        self._give_up()
        self._sink.close()
        # Lines that still come are counted, without a complaint.
        self._sink = _Sink(-1)
        self._is_refused = True

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
        lines = self._waiting if end == len(self._backlog) else newlines(self._front(end))
        self._waiting -= lines
        # A bytearray gives up its front without moving the rest.
        del self._backlog[:end]
        return lines

    def _refuse(self, error: OSError) -> None:
        """Drop what cannot be written now (reader gone, disk full); the next line tries again."""
        if self._sink.can_wait:
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


class _Sink:
    """A descriptor written plainly: regular files, /dev/null, /dev/full (epoll_ctl(2) refuses them with EPERM)."""

    can_wait = False
    piece = _PIECE

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def send(self, data: bytes) -> int:
        """Write what fits now; BlockingIOError if nothing does."""
        return os.write(self.fd, data)

    def close(self) -> None:
        """Close what was opened here, never the caller's descriptor."""


class _Pipe(_Sink):
    """
    A pipe, which may be blocking: pages are moved to it from a non-blocking pipe of our own.

    splice(2): with SPLICE_F_NONBLOCK it does not wait for room, whatever the flags of the descriptions.  O_NONBLOCK on
    the description itself would give EAGAIN to everybody who shares it, and Python's print() would lose lines.
    """

    can_wait = True
    piece = _PIPE_PIECE

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._out, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def send(self, data: bytes) -> int:
        sent = 0
        while sent < len(data):
            offered = self._offer(data, sent)
            moved = 0
            try:
                moved = os.splice(self._out, self.fd, offered, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                if not sent:
                    raise
            finally:
                left = offered - moved
                while left:
                    # Our pipe is empty between calls: the backlog is in one place, and can be dropped line by line.
                    left -= len(os.read(self._out, left))
            sent += moved
            if moved < offered:
                break
        return sent

    def _offer(self, data: bytes, start: int) -> int:
        """
        Fill our pipe with pages of whole lines; return how many bytes.

        pipe(7): what is written at once, up to PIPE_BUF bytes, gets a page of its own if it does not fit into the last
        one, and splice moves whole pages while there are places for them.  So lines of others on the same pipe cannot
        tear ours.
        """
        at = start
        while at < len(data):
            end = data.rfind(b"\n", at, at + select.PIPE_BUF) + 1 or data.find(b"\n", at) + 1 or len(data)
            try:
                written = os.write(self._in, data[at:end])
            except BlockingIOError:
                break  # our pipe is full
            at += written
            if at < end:
                break
        return at - start

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)


class _Socket(_Sink):
    """A socket, such as the journal's: send(2) takes MSG_DONTWAIT for one call."""

    can_wait = True

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        # The object leaves O_NONBLOCK as it is only while no socket.setdefaulttimeout() is set; prod-run sets none.
        self._socket = socket.socket(fileno=os.dup(fd))
        if self._socket.type != socket.SOCK_STREAM:
            self.piece = 1  # a datagram for each line

    def send(self, data: bytes) -> int:
        return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        self._socket.close()


class _Terminal(_Sink):
    """
    A terminal, opened anew to be non-blocking: ^S must not stop the supervisor, and splice waits there.

    If it cannot be opened (another user's, or not in this container) it is asked for room before small plain writes.
    """

    can_wait = True

    def __init__(self, fd: int) -> None:
        self._own = _open_terminal(fd)
        super().__init__(fd if self._own is None else self._own)
        self._room = select.poll()
        self._room.register(self.fd, select.POLLOUT)
        if self._own is None:
            self.piece = _TERMINAL_PIECE

    def send(self, data: bytes) -> int:
        if self._own is None:
            if not self._room.poll(0):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            data = data[:_TERMINAL_PIECE]
        # `stty tostop`, in the background: write(2) raises SIGTTOU unless it is blocked.  It is one worker fewer here,
        # and CPython would repeat the interrupted call for ever (PEP 475).
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
        try:
            return os.write(self.fd, data)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def close(self) -> None:
        if self._own is not None:
            os.close(self._own)


def _sink(fd: int) -> _Sink:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        # Closed (`>&-`): the number may soon be another file's, which must not get our lines.
        return _Sink(-1)
    if stat.S_ISFIFO(mode):
        return _Pipe(fd)
    if stat.S_ISSOCK(mode):
        return _Socket(fd)
    if stat.S_ISCHR(mode) and os.isatty(fd):
        return _Terminal(fd)
    return _Sink(fd)


def _open_terminal(fd: int) -> int | None:
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        # Not by its name: in a container that may be missing, or be another terminal's.
        return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        return None


def newlines(data: bytes) -> int:
    """Count the newlines."""
    # A quarter of the time of bytes.count, which looks at each byte by itself.
    return len(data) - len(data.replace(b"\n", b""))


def try_to_write(fd: int, data: bytes) -> None:
    """Write a few words if that descriptor takes them without waiting; else they are not said."""
    try:
        sink = _sink(fd)
    except OSError:
        return
    try:
        sink.send(data)
    except OSError:
        # Usually the same broken pipe; the count and the notice tell it later.
        return
    finally:
        sink.close()


def _complain(stderr: int, error: OSError) -> None:
    text = f"prod-run: cannot write to standard output: {error.strerror}. Lines are dropped until it works again.\n"
    try_to_write(stderr, text.encode())
