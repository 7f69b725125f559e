"""
Names of hosts, looked up without waiting.

Owns the one-shot child that asks (getaddrinfo(3) can take a minute, and the observer has one loop and no threads).
Must never look a name up in the observer itself, and must never let the child touch or keep what is the observer's.
"""

from __future__ import annotations

import os

from launcher.lean import NamedTuple
from launcher.lean_posix import signal, socket

TIMEOUT = 10.0  # seconds; resolv.conf(5): two servers, two attempts of 5 s each, would take 20

_MOST = 8  # addresses of one name that are tried
_ANSWER = 4096  # pipe(7): up to PIPE_BUF bytes are written as a whole
_FAILED = "!"


class Place(NamedTuple):
    """Where to connect to: a family, and an address as sockets of that family take it."""

    family: int
    address: str | tuple[object, ...]


def numeric(host: str, port: int) -> list[Place]:
    """Return the place of a numeric address; nothing if it is a name."""
    try:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)
    except OSError:
        return []
    return [Place(family, address) for family, _, _, _, address in found]


class Lookup:
    """
    One name that is being looked up; the child ends itself after TIMEOUT.

    The loop waits for EPOLLIN on `fileno()`, a pidfd: readable means that the child has ended, so that the answer is
    complete and reaping cannot wait.
    """

    def __init__(self, host: str, port: int) -> None:
        """
        Start the child.

        Raises:
            OSError: there can be no pipe or process now.
        """
        self.reason = ""  # why there is no place, once `places` has been called
        self._port = port
        self._answer, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._pid = os.fork()
            if not self._pid:
                _ask(host, writing)
            # The child is not reaped before it is asked for here, so the number is its own.
            self._pidfd = os.pidfd_open(self._pid)
        except OSError:
            os.close(self._answer)
            raise
        finally:
            os.close(writing)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._pidfd

    def places(self) -> list[Place]:
        """Return what was found, or nothing and say why in `reason`; to be called once, when the child has ended."""
        try:
            answer = os.read(self._answer, _ANSWER).decode()
        except BlockingIOError:
            answer = ""  # no end of file: a process that was forked meanwhile holds the writing end
        self._release()
        if not answer or answer.startswith(_FAILED):
            self.reason = answer.removeprefix(_FAILED) or "the look-up did not end in time"
            return []
        return [self._place(line) for line in answer.splitlines()]

    def close(self) -> None:
        """Give up: end the child."""
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended, and somebody else has reaped it
        self._release()

    def _place(self, line: str) -> Place:
        family, address, scope = line.split(" ")
        if int(family) == socket.AF_INET6:
            return Place(socket.AF_INET6, (address, self._port, 0, int(scope)))
        return Place(int(family), (address, self._port))

    def _release(self) -> None:
        os.close(self._answer)
        os.close(self._pidfd)
        try:
            os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:
            pass  # a loop over waitpid(-1) was faster


def _ask(host: str, writing: int) -> None:
    """Look a name up in the child, answer, and end; whatever happens, the observer's code does not go on here."""
    try:
        # Nothing of the observer's is held: a pipe's end that lives on here would hide that a worker or reader is gone.
        os.closerange(3, writing)
        os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX"))
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # It ends by itself: the observer may be gone by then, or suspended.
        signal.setitimer(signal.ITIMER_REAL, TIMEOUT)
        os.write(writing, _found(host).encode()[:_ANSWER])
    finally:
        os._exit(0)


def _found(host: str) -> str:
    try:
        found = socket.getaddrinfo(host, None, 0, socket.SOCK_DGRAM)
    except OSError as error:
        return f"{_FAILED}{error.strerror}"
    lines = [f"{family} {address[0]} {address[3] if len(address) > 3 else 0}" for family, _, _, _, address in found]  # noqa: PLR2004
    return "\n".join(lines[:_MOST])
