"""
The socket to a syslog receiver: down, looking its name up, connecting or up.

Owns the socket, the look-up, the back-off between attempts, and what the loop is asked to watch.
Must never wait, and never lose a descriptor that the loop still watches: `watch` hears of it before it is closed.
"""

from __future__ import annotations

import errno
import os
import select
import time

from launcher.lean_posix import socket
from launcher.logs.syslog_address import TCP, UDP, UNIX
from launcher.observer import resolve
from launcher.observer.resolve import Lookup, Place

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.logs.syslog_address import SyslogAddress

FIRST_DELAY = 0.1  # seconds; doubled to LONGEST_DELAY, each time ± 10 %
LONGEST_DELAY = 30.0
CONNECT_TIMEOUT = 10.0  # tcp(7): the kernel would try for two minutes

# tcp(7): how long sent data may stay unacknowledged, or a receiver that does not read may hold it, until the connection
# is given up: a receiver whose machine is gone would else swallow a buffer full of lines, and a quarter of an hour.
_UNANSWERED = 120_000  # ms
# What the kernel holds unsent is lost with the connection, and can neither be counted nor sent again.
_UNSENT = 128 * 1024
_NOTHING = 0
# What is worth hearing while there is nothing to send.  UDP: that nobody listens comes after the datagram (udp(7)).
_PEER = {UNIX: _NOTHING, UDP: select.EPOLLERR, TCP: select.EPOLLIN | select.EPOLLRDHUP}


def _chance() -> float:
    return int.from_bytes(os.urandom(2), "little") / 0xFFFF


class Connection:
    """A socket that comes and goes; `open` is called whenever there is something to send."""

    def __init__(
        self,
        address: SyslogAddress,
        *,
        watch: Callable[[int, int], None],
        complain: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = _chance,
    ) -> None:
        """
        Open nothing yet.

        `watch` is called with a descriptor and the epoll events that are wanted from now on; 0: forget it, it is
        about to be closed. `complain` gets one sentence when the receiver cannot be had twice in a row, then none
        until it could be had for a while.
        """
        self.is_up = False
        self.is_full = False  # up, and the kernel takes nothing more for now
        self.is_closed = False  # for good
        # Bytes of a message that is partly out (the sink counts them): on the next connection it begins anew.
        self.offset = 0
        self._address = address
        self._watch = watch
        self._complain = complain
        self._clock = clock
        self._chance = chance
        self._socket: socket.socket | None = None
        self._lookup: Lookup | None = None
        self._places: list[Place] = []  # still to be tried
        self._watched = _NOTHING
        self._since = 0.0  # when the socket was made
        self._delay = 0.0
        self._retry_at = 0.0
        self._has_complained = False

    def open(self) -> None:
        """Begin to connect, unless it is up, under way, or too early."""
        if self._socket is not None or self._lookup is not None or self.is_closed:
            return
        if self._clock() < self._retry_at:
            return
        if self._address.transport == UNIX:
            self._places = [Place(socket.AF_UNIX, self._address.path)]
        else:
            self._places = resolve.numeric(self._address.host, self._address.port)
        if self._places:
            self._connect("")
            return
        try:
            self._lookup = Lookup(self._address.host, self._address.port)
        except OSError as error:
            self._back_off(str(error.strerror))
            return
        self._watch(self._lookup.fileno(), select.EPOLLIN)

    def send(self, data: bytes) -> int:
        """Send what fits now; BlockingIOError if nothing does."""
        if self._socket is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self._socket.send(data, socket.MSG_NOSIGNAL)

    def wait_for_room(self, wanted: bool) -> None:  # noqa: FBT001  the only thing it says
        """Ask the loop to say when the kernel takes more, or no longer to say so."""
        if self.is_up and wanted != self.is_full:
            self.is_full = wanted
            # A connected datagram socket is not writable while the other side's queue is full (unix_dgram_poll).
            self._want(_PEER[self._address.transport] | (select.EPOLLOUT if wanted else 0))

    def on_ready(self, fd: int, mask: int) -> None:
        """Go on with what was waited for."""
        if self._lookup is not None and fd == self._lookup.fileno():
            self._end_lookup()
        elif self._socket is None or fd != self._socket.fileno():
            pass  # of a moment ago
        elif not self.is_up:
            self._end_connect()
        elif mask & ~select.EPOLLOUT:
            self._hear()

    def deadline(self, *, is_wanted: bool) -> float | None:
        """Return when `tick` is due: for an attempt that is under way, or for the next one if there is to be one."""
        if self._socket is not None:
            return None if self.is_up else self._since + CONNECT_TIMEOUT
        return self._retry_at if is_wanted and self._lookup is None and not self.is_closed else None

    def tick(self) -> None:
        """Give up an attempt that takes too long."""
        if self._socket is not None and not self.is_up and self._clock() >= self._since + CONNECT_TIMEOUT:
            self.fail(os.strerror(errno.ETIMEDOUT))

    def fail(self, reason: str) -> None:
        """Give the socket up; go on with the receiver's next address, or later with the first."""
        lived = self._clock() - self._since if self.is_up else 0.0
        if lived >= self._delay:
            # It was good for at least as long as it was waited for.
            self._delay = 0.0
        if lived >= LONGEST_DELAY:
            self._has_complained = False
            self._places = []  # of long ago: the name is looked up again
        self._release()
        self._connect(reason)

    def close(self) -> None:
        """Let go of everything, for good."""
        self.is_closed = True
        self._release()

    def _connect(self, reason: str) -> None:
        """Try the places in turn until one is under way; `reason` is why the one before was not."""
        kind = socket.SOCK_STREAM if self._is_stream() else socket.SOCK_DGRAM
        while self._places:
            place = self._places.pop(0)
            try:
                made = socket.socket(place.family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            except OSError as error:
                reason = str(error.strerror)
                continue
            if self._is_stream():
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
            number = made.connect_ex(place.address)
            if number in {0, errno.EINPROGRESS}:
                self._socket, self._since = made, self._clock()
                self._stand(is_up=number == 0)
                return
            reason = os.strerror(number)
            made.close()
        self._back_off(reason)

    def _stand(self, *, is_up: bool) -> None:
        self.is_up = is_up
        self._want(_PEER[self._address.transport] if is_up else select.EPOLLOUT)

    def _end_connect(self) -> None:
        number = self._socket_error()
        if number:
            self.fail(os.strerror(number))
        else:
            self._stand(is_up=True)

    def _end_lookup(self) -> None:
        lookup = self._lookup
        if lookup is not None:
            self._watch(lookup.fileno(), _NOTHING)
            self._lookup = None
            self._places = lookup.places()
            self._connect(lookup.reason)

    def _hear(self) -> None:
        """Find out what the other side says: nothing that it sends is for us, but its end is."""
        number = self._socket_error()
        if not number and self._is_stream() and self._socket is not None:
            try:
                # To close with something unread would reset the connection, and lose what is on its way.
                if self._socket.recv(4096):
                    return
                number = errno.ECONNRESET
            except BlockingIOError:
                return
            except OSError as error:
                number = error.errno or errno.ECONNRESET
        if number:
            self.fail(os.strerror(number))

    def _back_off(self, reason: str) -> None:
        if self._delay and not self._has_complained:
            self._has_complained = True
            self._complain(f"cannot reach syslog at {self._address.text}: {reason}. Lines wait, then the oldest go.")
        self._delay = min(max(self._delay * 2, FIRST_DELAY), LONGEST_DELAY)
        self._retry_at = self._clock() + self._delay * (0.9 + 0.2 * self._chance())

    def _release(self) -> None:
        self.is_up = self.is_full = False
        self.offset = 0
        if self._lookup is not None:
            self._watch(self._lookup.fileno(), _NOTHING)
            self._lookup.close()
            self._lookup = None
        if self._socket is not None:
            self._want(_NOTHING)
            self._socket.close()
            self._socket = None

    def _want(self, events: int) -> None:
        if self._socket is not None and events != self._watched:
            self._watched = events
            self._watch(self._socket.fileno(), events)

    def _socket_error(self) -> int:
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if self._socket is not None else 0

    def _is_stream(self) -> bool:
        return self._address.transport == TCP
