"""
What the machine can order.

Owns the actions; `carry_out` has one function for each.  A ticket names a process from the moment it is
ordered, when it has no PID yet.
Must never do anything.
"""

from __future__ import annotations

from launcher.lean import NamedTuple


class StartZygote(NamedTuple):
    """Start a fresh interpreter that prepares a generation and then forks its workers."""

    ticket: int
    generation: int


class ForkWorker(NamedTuple):
    """Have a zygote fork a worker."""

    ticket: int
    zygote: int
    generation: int
    slot: int


class ExecWorker(NamedTuple):
    """Start a worker as a fresh interpreter that imports for itself (no preload)."""

    ticket: int
    generation: int
    slot: int


class Go(NamedTuple):
    """Give a waiting worker its slot: it starts to run the target."""

    ticket: int
    slot: int


class Serve(NamedTuple):
    """Let a held worker out of ready()."""

    ticket: int


class Forewarn(NamedTuple):
    """Tell a worker that it will be told to stop after --drain-delay: clients may look for another server by then."""

    ticket: int


class Stop(NamedTuple):
    """Tell a worker to drain: first the order on its channel, then SIGTERM if it has a PID."""

    ticket: int
    pid: int  # 0: not known yet, the order alone
    reason: str
    last: bool  # nobody else will accept what is queued
    until: float  # monotonic seconds: the drain limit
    number: int = 15  # SIGTERM; a command may get another one


class StopLater(NamedTuple):
    """Tell a worker that drains that its limit has moved: it asked for more time."""

    ticket: int
    until: float  # monotonic seconds


class Confirm(NamedTuple):
    """Tell a zygote that its generation is committed: what it keeps for a way back is not needed any more."""

    ticket: int


class Restore(NamedTuple):
    """Have a zygote put the former files back: those that it moved itself, or these; comes back as Restored."""

    ticket: int
    files: tuple[tuple[str, str], ...]  # the path of each, and where the former file is; empty if there was none
    until: float  # monotonic seconds: later, other files may be there


class Kill(NamedTuple):
    """SIGKILL one child."""

    pid: int


class EndZygote(NamedTuple):
    """Tell a zygote that it is not needed any more."""

    ticket: int


class CloseListeners(NamedTuple):
    """Close the supervisor's and all zygotes' copies of the listening sockets."""


class SignalGroup(NamedTuple):
    """Signal what is left of a process group; comes back as GroupGone if that is nothing."""

    pgid: int
    signal: int


class Suspend(NamedTuple):
    """Stop the supervisor itself, as its commands are stopped, until somebody sends SIGCONT."""


class SweepOrphans(NamedTuple):
    """
    Signal every adopted orphan (0: only count them); comes back as OrphansLeft.

    SIGTERM does not go to those in the process groups `told`: they have had it with the end of their leader.
    """

    signal: int
    told: tuple[int, ...] = ()


class Forget(NamedTuple):
    """A process is over: close what was kept for it."""

    ticket: int


class Park(NamedTuple):
    """Have a zygote fork a spare: a worker that waits for a slot."""

    ticket: int
    zygote: int
    generation: int


class Dismiss(NamedTuple):
    """End a spare: it runs no app code, so there is nothing to drain."""

    ticket: int


class AskBeat(NamedTuple):
    """Look at a worker's place on the heartbeat page; comes back as Beat."""

    ticket: int


class AskStacks(NamedTuple):
    """Have a worker write its Python stacks."""

    ticket: int
    pid: int


class TakeStacks(NamedTuple):
    """Log what a worker wrote of its stacks, or why it wrote nothing."""

    ticket: int
    pid: int
    slot: int
    generation: int


class Entrust(NamedTuple):
    """Have the app's health checks run by this worker alone; 0: by nobody."""

    pid: int


class Measure(NamedTuple):
    """Measure a worker's memory; comes back as Measured."""

    ticket: int
    pid: int


class Weigh(NamedTuple):
    """Find out how much memory there is, and how much one more generation takes; comes back as Weighed."""

    zygote: int  # PID; 0: there is none
    workers: tuple[int, ...]  # PIDs of some that serve
    more: int  # so many workers are to come


class Notify(NamedTuple):
    """Tell the manager above, line by line as in sd_notify(3)."""

    lines: tuple[str, ...]


class Log(NamedTuple):
    """Write one line."""

    level: str
    event: str
    fields: tuple[tuple[str, str | float], ...] = ()
    detail: str = ""
    words_of: int = 0  # the ticket of a process whose last words belong to it


class Exit(NamedTuple):
    """End prod-run with this code."""

    code: int


Action = (
    StartZygote
    | ForkWorker
    | ExecWorker
    | Go
    | Serve
    | Forewarn
    | Stop
    | StopLater
    | Kill
    | Confirm
    | Restore
    | EndZygote
    | CloseListeners
    | SignalGroup
    | Suspend
    | SweepOrphans
    | Forget
    | Park
    | Dismiss
    | AskBeat
    | AskStacks
    | TakeStacks
    | Entrust
    | Measure
    | Weigh
    | Notify
    | Log
    | Exit
)
