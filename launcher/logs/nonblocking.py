"""
Writing to an inherited descriptor without waiting, whatever is behind it.

Owns, for each kind of descriptor, the way to do that.  Must never change or reopen the inherited description, which is
shared with whoever started prod-run (a file that is opened again overwrites itself from its start); only a terminal is
opened anew.

SIGPIPE and SIGXFSZ are expected to be ignored, as CPython does when it starts: a lost reader is EPIPE, not death.
A regular file cannot be written without waiting for its file system; nothing here helps against a hung network disk.
"""

from __future__ import annotations

import errno
import os
import select
import stat

from launcher.lean_posix import signal, socket

_PIECE = 256 * 1024
# pipe(7): 16 pages. A page holds whole lines, so there is a part of a line less in each than there could be.
_PIPE_PIECE = 60 * 1024
# tty_poll in the kernel says "writable" while fewer than 256 characters wait in the driver.
_TERMINAL_PIECE = 256


class Writer:
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


class _Pipe(Writer):
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


class _Socket(Writer):
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


class _Terminal(Writer):
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


def writer_of(fd: int) -> Writer:
    """Return the way to write there; the descriptor stays the caller's."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        # Closed (`>&-`): the number may soon be another file's, which must not get our lines.
        return Writer(-1)
    if stat.S_ISFIFO(mode):
        return _Pipe(fd)
    if stat.S_ISSOCK(mode):
        return _Socket(fd)
    if stat.S_ISCHR(mode) and os.isatty(fd):
        return _Terminal(fd)
    return Writer(fd)


def _open_terminal(fd: int) -> int | None:
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        # Not by its name: in a container that may be missing, or be another terminal's.
        return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        return None


def try_to_write(fd: int, data: bytes) -> None:
    """Write a few words if that descriptor takes them without waiting; else they are not said."""
    try:
        writer = writer_of(fd)
    except OSError:
        return
    try:
        writer.send(data)
    except OSError:
        # Usually the same broken pipe; the count and the notice tell it later.
        return
    finally:
        writer.close()
