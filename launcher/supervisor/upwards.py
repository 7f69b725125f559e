"""
sd_notify upwards: what the manager above is told.

Owns the datagrams to $NOTIFY_SOCKET; only the main PID may send them.  Must never wait, and never fail:
a manager that does not listen is no reason to stop.  One that is behind with its queue hears it later.
"""

from __future__ import annotations

import errno
import time

from launcher.lean_posix import socket

RETRY = 0.1  # seconds; nobody tells when another's queue has room (unix(7))
_BEHIND = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)
_STATUS = "STATUS="


class Upwards:
    """The way to systemd, or whatever stands for it; nothing is sent if nobody asked for it."""

    __slots__ = ("_address", "_retry_at", "_shown", "_socket", "_unsent", "_watchdog", "_watchdog_at")

    def __init__(self, address: str, watchdog: float) -> None:
        """Take an address as in $NOTIFY_SOCKET; `watchdog` is in seconds, 0 if nobody waits for a sign of life."""
        # A leading @ stands for the NUL of an abstract address (sd_notify(3)).
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address.startswith(("@", "/")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # Half of the limit, as sd_watchdog_enabled(3) recommends.
        self._watchdog = watchdog / 2 if self._socket else 0.0
        self._watchdog_at: float | None = None  # monotonic seconds: the next sign of life
        self._unsent: dict[str, str] = {}  # by the first variable, oldest first: the last of each is what is true
        self._retry_at: float | None = None
        self._shown = ""  # STATUS

    def tell(self, lines: tuple[str, ...]) -> None:
        """Send one datagram; RELOADING gets the time that it needs to be believed."""
        if self._socket is None:
            return
        if "RELOADING=1" in lines:
            # It must be later than the signal that asked, or systemd ignores it and the READY after it.
            lines = (*lines, f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        if "READY=1" in lines and self._watchdog and self._watchdog_at is None:
            self._watchdog_at = time.monotonic()
        self._shown = next((line[len(_STATUS) :] for line in lines if line.startswith(_STATUS)), self._shown)
        name = lines[0].partition("=")[0]
        self._unsent.pop(name, None)
        self._unsent[name] = "\n".join(line.replace("\n", " ") for line in lines)
        self._flush(self._socket)

    def show(self, text: str) -> None:
        """Have `systemctl status` show this, unless it does."""
        if self._socket is not None and text != self._shown:
            self.tell((_STATUS + text,))

    def watch(self) -> None:
        """Give the sign of life if it is due, and say what could not be said before."""
        if self._watchdog_at is not None and time.monotonic() >= self._watchdog_at:
            self._watchdog_at = time.monotonic() + self._watchdog
            self.tell(("WATCHDOG=1",))
        elif self._unsent and self._socket is not None:
            self._flush(self._socket)

    def deadline(self) -> float | None:
        """Return when `watch` is due; monotonic seconds."""
        return min((at for at in (self._watchdog_at, self._retry_at) if at is not None), default=None)

    def _flush(self, sock: socket.socket) -> None:
        self._retry_at = None
        for name, text in list(self._unsent.items()):
            try:
                sock.sendto(text.encode("utf-8", "replace"), socket.MSG_DONTWAIT, self._address)
            except OSError as error:
                if error.errno in _BEHIND:
                    self._retry_at = time.monotonic() + RETRY
                    return
                # Nobody is there.
            del self._unsent[name]
