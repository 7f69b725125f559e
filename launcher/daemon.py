"""
`--daemon`: the service in the background, and its caller waiting until it is ready.

Owns the detaching (with python-daemon), standard input, output and error of the daemon, and what the caller prints and
returns.  Must never let the caller return before it is known whether the service is up.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from launcher import exec as launching
from launcher import protocol
from launcher.errors import Exit, LauncherError, Problem, SystemRefusedError, UsageError

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import NoReturn

    from launcher.settings import Settings
    from launcher.supervisor.execution import Caller

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)  # of the caller: the daemon has left its terminal


def launch(settings: Settings, environ: Mapping[str, str], tell: Callable[..., None], how: Caller) -> NoReturn:
    """
    Become the supervisor in the background; the caller returns with the exit code of the start.

    Raises:
        UsageError: as PID 1 there is no background.
        OSError: no process or channel can be had.
    """
    if os.getpid() == 1:
        reason = "this is PID 1, and its end is the container's end"
        raise UsageError(Problem("--daemon", reason, "Leave it out: the container is the background"))
    from daemon.daemon import (  # type: ignore[import-untyped]  # noqa: PLC0415  9 ms that only a daemon pays
        detach_process_context,
    )

    caller = os.getpid()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for stream in (sys.stdout, sys.stderr):
        if stream:
            stream.flush()
    child = os.fork()
    if child:
        theirs.close()
        _wait(ours, child, tell)
    ours.close()
    try:
        detach_process_context()  # fork, setsid, fork: no leader of a session, which a terminal could come back to
        _send(theirs, "pid", pid=os.getpid())
        _redirect(settings, theirs)
        launching.launch(settings, environ, lambda text: _send(theirs, "say", text=text), how, theirs.fileno(), caller)
    except BaseException as error:  # noqa: BLE001  this process must not come back into the caller's code
        text, code = _in_words(error)
        _send(theirs, "failed", code=code, text=text)
        os._exit(code)


def _redirect(settings: Settings, caller: socket.socket) -> None:
    """Have nothing of the caller's terminal; where somebody chose a file or a pipe, the log goes on to it."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    is_wanted = settings.log == "stdout"
    if is_wanted and os.isatty(1):
        where = "stdout is a terminal, which a daemon leaves: its log goes to /dev/null"
        _send(caller, "say", text=f"{where}. Redirect stdout to a file, or give --log syslog")
    for fd in (1, 2):
        if not is_wanted or os.isatty(fd):
            os.dup2(null, fd)
    os.close(null)


def _in_words(error: BaseException) -> tuple[str, int]:
    if isinstance(error, OSError):
        error = SystemRefusedError(Problem(error.filename or "", error.strerror or str(error)))
    if isinstance(error, LauncherError):
        return str(error), error.exit_code
    return f"{type(error).__name__}: {error}", Exit.SOFTWARE


def _send(channel: socket.socket, verb: str, **fields: protocol.Field) -> None:
    try:
        channel.send(protocol.encode(verb, **fields), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        pass  # the caller was killed: nobody waits


class _Caller:
    """What the caller knows of its daemon."""

    def __init__(self) -> None:
        self.daemon = 0  # its PID; 0: not known yet
        self.interrupted_by = 0  # a signal's number
        self.code: int | None = None  # None: nothing was said yet

    def interrupt(self, number: int, _: FrameType | None) -> None:
        """Ctrl-C is for both, and only one of them hears it."""
        self.interrupted_by = number
        self.pass_on()

    def pass_on(self) -> None:
        """Ask the daemon to end."""
        if self.daemon and self.interrupted_by:
            try:
                os.kill(self.daemon, signal.SIGTERM)
            except (ProcessLookupError, PermissionError):
                pass  # it has just ended

    def hear(self, message: protocol.Message, tell: Callable[..., None]) -> None:
        """Take in one message."""
        match message.verb:
            case "pid":
                self.daemon = message.number("pid")
                self.pass_on()
            case "say":
                tell(message.text("text"))
            case "ready":
                self.code = Exit.DONE
            case "failed":
                self.code = message.number("code")
                tell(message.text("text"), severity=3)


def _wait(channel: socket.socket, child: int, tell: Callable[..., None]) -> NoReturn:
    """Wait until the daemon is ready, or over; it has limits of its own."""
    caller = _Caller()
    for number in _ENDING:
        signal.signal(number, caller.interrupt)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    while True:
        try:
            datagram = channel.recv(protocol.LARGEST)
        except ConnectionError:
            break
        if not datagram:
            break
        caller.hear(protocol.decode(datagram), tell)
    try:
        os.waitpid(child, 0)  # the first of two that ended at once
    except ChildProcessError:
        pass  # whoever called us ignores SIGCHLD
    if caller.interrupted_by:
        signal.signal(caller.interrupted_by, signal.SIG_DFL)
        os.kill(os.getpid(), caller.interrupted_by)
    if caller.code is None:
        tell("cannot start: the daemon was killed before it was ready", severity=3)
        caller.code = Exit.SOFTWARE
    os._exit(caller.code)
