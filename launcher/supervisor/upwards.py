"""
sd_notify upwards: what the manager above is told.

Owns the datagrams to $NOTIFY_SOCKET; only the main PID may send them.  Must never wait, and never fail:
a manager that does not listen is no reason to stop.
"""

from __future__ import annotations

import time

from launcher.lean_posix import socket


class Upwards:
    """The way to systemd, or whatever stands for it; nothing is sent if nobody asked for it."""

    __slots__ = ("_address", "_socket", "_watchdog", "watchdog_at")

    def __init__(self, address: str, watchdog: float) -> None:
        """Take an address as in $NOTIFY_SOCKET; `watchdog` is in seconds, 0 if nobody waits for a sign of life."""
        # A leading @ stands for the NUL of an abstract address (sd_notify(3)).
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address.startswith(("@", "/")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # Half of the limit, as sd_watchdog_enabled(3) recommends.
        self._watchdog = watchdog / 2 if self._socket else 0.0
        self.watchdog_at: float | None = None  # monotonic seconds: the next sign of life

    def tell(self, lines: tuple[str, ...]) -> None:
        """Send one datagram; RELOADING gets the time that it needs to be believed."""
        if self._socket is None:
            return
        if "RELOADING=1" in lines:
            # It must be later than the signal that asked, or systemd ignores it and the READY after it.
            lines = (*lines, f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        if "READY=1" in lines and self._watchdog and self.watchdog_at is None:
            self.watchdog_at = time.monotonic()
        text = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            self._socket.sendto(text.encode("utf-8", "replace"), socket.MSG_DONTWAIT, self._address)
        except OSError:
            pass

    def watch(self) -> None:
        """Give the sign of life if it is due."""
        if self.watchdog_at is not None and time.monotonic() >= self.watchdog_at:
            self.watchdog_at = time.monotonic() + self._watchdog
            self.tell(("WATCHDOG=1",))
