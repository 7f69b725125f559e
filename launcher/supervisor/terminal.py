"""
The terminal that a command was started at, as a shell sees to it: who is in the foreground, and who is suspended.

Owns the hand-over of the foreground to the command and back (tcsetpgrp(3)), and the supervisor's own suspension.
Must never take the foreground from somebody who is not ours.
"""

from __future__ import annotations

import os

from launcher.lean_posix import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

STDIN, STDOUT = 0, 1
_OURS = "/dev/tty"  # tty(4): the controlling terminal, wherever stdin leads to
WANTS = (signal.SIGTTIN, signal.SIGTTOU)  # it would read, or write, and is not in the foreground
STOPS = (signal.SIGTSTP, *WANTS)


def is_wanted_at_once(silent: tuple[int, ...] = ()) -> bool:
    """
    Say whether a command is to have the foreground before it asks: what it reads and writes is the terminal.

    Else it may be one of a pipeline, and who is before or behind it there has the same right: `… | less`.
    With SIGTTIN among its `silent` signals, ignored or blocked, it could never ask: bash has it so in `$(…)`.
    """
    return (os.isatty(STDIN) and os.isatty(STDOUT)) or signal.SIGTTIN in silent


def foreground() -> int:
    """Return the foreground group of our controlling terminal; 0 if we have none."""
    try:
        return _at_terminal(os.tcgetpgrp)
    except OSError:
        return 0


def hand_to(group: int) -> bool:
    """Give the foreground to a group if it is ours to give; say whether it was."""
    return foreground() == os.getpgrp() and _set(group)


def is_ours() -> bool:
    """Say whether the foreground is ours to give, or that of a group that is over: the copy before this one."""
    group = foreground()
    if group == os.getpgrp():
        return True
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return group > 0 and _set(os.getpgrp())
    except OSError:
        pass
    return False


def follow(group: int, number: int) -> None:
    """Do as a shell's job does when the command in `group` was stopped by a signal at the terminal."""
    if number in WANTS and hand_to(group):
        _continue(group)  # a shell's `fg` gave the terminal to us
    elif foreground() == 0:
        pass  # no other stop is our business
    elif not is_orphaned():
        suspend(with_our_group=True)
    elif number == signal.SIGTSTP:
        _continue(group)  # nobody could ever continue it: without us the kernel had dropped the ^Z


def take() -> None:
    """Become the foreground group, after a fork; our parent was in it, and does the same (tcsetpgrp(3))."""
    _set(os.getpgrp())


def take_from(group: int) -> None:
    """Take the foreground back from a group that is over: a shell without job control would not."""
    if foreground() == group:
        _set(os.getpgrp())


def suspend(*, with_our_group: bool) -> None:
    """Stop, until somebody sends SIGCONT; at a terminal together with the rest of the pipeline that we are in."""
    # Our own is not passed on: what is pending of it is dropped by SIGCONT (signal(7)).
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTSTP,))
    if with_our_group:
        os.killpg(os.getpgrp(), signal.SIGTSTP)
    os.kill(os.getpid(), signal.SIGSTOP)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def is_orphaned() -> bool:
    """
    Say whether nobody of our session could continue us.

    setpgid(2): in an orphaned process group the kernel drops what ^Z sends; the command's own is not one, since we
    are its parent.
    """
    group, session, parent = os.getpgrp(), os.getsid(0), os.getppid()
    try:
        while os.getpgid(parent) == group:
            parent = _parent_of(parent)
        return os.getsid(parent) != session
    except (OSError, ValueError, IndexError):
        return True  # 0, outside of our PID namespace, or gone


def _continue(group: int) -> None:
    try:
        os.killpg(group, signal.SIGCONT)
    except OSError:
        pass  # over meanwhile


def _parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # proc_pid_stat(5)
        return int(file.read().rpartition(")")[2].split()[1])


def _set(group: int) -> bool:
    # From the background it raises SIGTTOU, or fails in an orphaned group, unless that is blocked (tcsetpgrp(3)).
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
    try:
        _at_terminal(lambda fd: os.tcsetpgrp(fd, group))
    except OSError:
        return False  # hung up meanwhile, or the group is over
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return True


def _at_terminal(ask: Callable[[int], int | None]) -> int:
    try:
        fd = os.open(_OURS, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return ask(STDIN) or 0  # there is no such file, or no such terminal
    try:
        return ask(fd) or 0
    finally:
        os.close(fd)
