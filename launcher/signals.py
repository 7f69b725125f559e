"""
What an operator can ask of a running prod-run, and which signal asks it.

Owns the enum `Ask` and THE table of signals; the README's table and prod-ctl's verbs come from here.
Must never send, block or handle a signal: this is a leaf that only names things.
"""

from __future__ import annotations

from launcher.lean import Enum, NamedTuple
from launcher.lean_posix import signal


class Ask(Enum):
    """One thing an operator can ask."""

    STOP = "stop"
    STOP_NOW = "stop now"
    RELOAD = "reload"
    REPORT = "report"
    UPGRADE = "upgrade"
    MORE = "more workers"
    FEWER = "fewer workers"


class Row(NamedTuple):
    """One line of the table: the signal, what it asks, and the sentence in the docs."""

    signal: int
    ask: Ask
    sentence: str


TABLE: tuple[Row, ...] = (
    Row(
        signal.SIGTERM,
        Ask.STOP,
        "drain and stop: keep accepting for `--drain-delay`, then answer what is queued and in flight, exit 0; "
        "a second one more than 1 s later stops immediately",
    ),
    Row(signal.SIGINT, Ask.STOP, "the same as SIGTERM"),
    Row(signal.SIGQUIT, Ask.STOP_NOW, "stop immediately: workers are killed; exit 0"),
    Row(
        signal.SIGHUP,
        Ask.RELOAD,
        "transactional reload; during a boot or reload one more is remembered, never more; while draining one "
        "line in the log",
    ),
    Row(signal.SIGUSR1, Ask.REPORT, "write a status report and the stacks of all workers to the log"),
    Row(signal.SIGUSR2, Ask.UPGRADE, "upgrade in place: not in this version, one line in the log"),
    Row(signal.SIGTTIN, Ask.MORE, "one worker more; the number survives reloads, not restarts"),
    Row(signal.SIGTTOU, Ask.FEWER, "one worker fewer (at least 1)"),
)

ASK_OF = {row.signal: row.ask for row in TABLE}

# What stops a process, unless it has a handler: a supervisor of plain commands stops with them.
SUSPENDING = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

# Has a worker write its stacks (faulthandler).  Only sent to one that said it is armed: the default action is death.
STACKS = signal.SIGRTMIN + 8

# What a worker does nothing on, unless the app installed its own handler: an operator's `pkill -HUP NAME`
# must not kill workers, as the default action of these signals would.
HARMLESS_TO_WORKERS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
)


def name_of(number: int) -> str:
    """Name a signal: `SIGTERM`, or `signal 42` if it has no name."""
    names = (n for n in dir(signal) if n.startswith("SIG") and "_" not in n and getattr(signal, n) == number)
    return next(names, f"signal {number}")
