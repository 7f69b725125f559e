"""
One copy of a plain command among several, or of one that has more settings than its signals.

Owns the start of a copy (fork and exec by the supervisor, what it is given, DESIGN §2.1), and the signals that the
supervisor of a command listens to.
Must never read a copy's environment here: it may hold secrets, and the fork reads it by itself.
"""

from __future__ import annotations

import fcntl
import os
import resource

from launcher.lean_posix import signal
from launcher.supervisor import execution, terminal
from launcher.supervisor.command import FAULTS
from launcher.supervisor.execution import Caller, Environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from launcher.handoff import Handoff

_FIRST_LISTENER = 3  # sd_listen_fds(3)
# What comes to a supervisor of commands is passed on: all but what is its own, and what cannot be had.
PASSED_ON = tuple(
    sorted({int(n) for n in signal.valid_signals()} - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, *FAULTS})
)


def start(handoff: Handoff, environment: int, notify_address: str, outputs: list[int]) -> int:
    """
    Start a copy and return its PID; `environment` is the memfd with what it is to find.

    Raises:
        OSError: it cannot be had.
    """
    supervisor = os.getpid()
    silent = (*handoff.ignored_signals, *handoff.signal_mask)
    is_in_foreground = handoff.workers == 1 and terminal.is_wanted_at_once(silent) and terminal.is_ours()

    def become() -> NoReturn:
        execution.die_with(supervisor)
        if is_in_foreground:
            terminal.take()
        pairs = execution.read_environment(os.pread(environment, os.fstat(environment).st_size, 0))
        pairs.append((b"NOTIFY_SOCKET", os.fsencode(notify_address)))
        for place, fd in enumerate(outputs, 1):
            os.dup2(fd, place)
        pairs += _give_listeners(handoff)
        _restore_limits(handoff)
        _enter(handoff.directory)
        execution.restore_signals(Caller(handoff.signal_mask, handoff.ignored_signals))
        execution.run(tuple(map(os.fsencode, handoff.command)), Environment(pairs), _say)

    pid = execution.fork(become)
    if is_in_foreground:
        terminal.hand_to(pid)
    return pid


def _give_listeners(handoff: Handoff) -> list[tuple[bytes, bytes]]:
    """Put the listening sockets where sd_listen_fds(3) looks for them."""
    if not handoff.listeners:
        return []
    free = _FIRST_LISTENER + len(handoff.listeners)
    # Away first: one may stand where another belongs.
    away = [fcntl.fcntl(listener.fd, fcntl.F_DUPFD_CLOEXEC, free) for listener in handoff.listeners]
    for place, fd in enumerate(away, _FIRST_LISTENER):
        os.dup2(fd, place)
    names = ":".join(listener.name for listener in handoff.listeners)
    return [
        (b"LISTEN_PID", b"%d" % os.getpid()),
        (b"LISTEN_FDS", b"%d" % len(away)),
        (b"LISTEN_FDNAMES", os.fsencode(names)),
    ]


def _restore_limits(handoff: Handoff) -> None:
    soft, (_, hard) = handoff.open_files, resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard) if hard >= 0 else soft, hard))
    except (OSError, ValueError):
        pass  # it was not raised either
    if handoff.umask >= 0:
        os.umask(handoff.umask)


def _enter(directory: str) -> None:
    try:
        os.chdir(directory)
    except OSError as error:
        _say(f"cannot enter {directory}: {error.strerror}")
        os._exit(execution.CANNOT_RUN)


def _say(text: str) -> None:
    os.write(2, os.fsencode(f"prod-run: {text}\n"))
