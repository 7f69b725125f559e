"""
What can happen to the supervisor.

Owns the events that enter the machine; each is a fact, in the past tense, that somebody else found out.
Must never decide or do anything.
"""

from __future__ import annotations

from launcher.lean import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.signals import Ask


class Asked(NamedTuple):
    """An operator asked for something."""

    ask: Ask
    origin: str  # "SIGHUP", "prod-ctl"


class Signalled(NamedTuple):
    """A signal came to the supervisor of plain commands, which are to get it."""

    number: int


class ScaleAsked(NamedTuple):
    """An operator asked for so many workers."""

    workers: int
    origin: str


class StacksAsked(NamedTuple):
    """An operator wants to see what a worker does, or all (slot -1)."""

    slot: int


class ProcessExited(NamedTuple):
    """Some child is gone and reaped: ours, or an orphan that was given to us."""

    pid: int
    code: int  # as in os.waitstatus_to_exitcode: 0 to 255, or -N for signal N
    note: str = ""  # what else the kernel tells of it, in words
    cpu: float = 0.0  # seconds that it used, and those of its children that it reaped


class Started(NamedTuple):
    """A process that was ordered has a PID now."""

    ticket: int
    pid: int


class StartFailed(NamedTuple):
    """A process that was ordered cannot be had."""

    ticket: int
    reason: str


class Prepared(NamedTuple):
    """A zygote has imported the target and looked at itself."""

    ticket: int
    takes_worker: bool  # the target calls ready() itself and can be held back
    files: str  # digest of the loaded module files: path, size, mtime
    unforkable: str = ""  # what forbids to fork from it, in words; empty if nothing does
    zygote_stays: bool = False  # it keeps templates, or watches files, also where it forks nothing
    is_web: bool = False  # a WSGI or ASGI application: prod-run drives its server
    bind: str = ""  # where that is to listen, since nobody said so
    workers: int = 0  # how many of it its platform wants; 0: it does not say
    version: str = ""  # of the app, for its log lines
    placed: tuple[tuple[str, str], ...] = ()  # files that it moved, each with where the former one is
    shared: str = ""  # what all that are forked from it will share, in words; no harm in it


class Restored(NamedTuple):
    """A zygote has put back what it was told to; what it could not, it has said itself."""

    ticket: int
    errand: float = 0.0  # for one that died: until when it was to be done; else it put back what it moved itself


class Configured(NamedTuple):
    """A zygote has loaded the app's configuration; for those who ask for it."""

    ticket: int
    names: tuple[str, ...]
    values: tuple[str, ...]  # a secret's never
    origins: tuple[str, ...]


class Refused(NamedTuple):
    """A generation cannot be had, for a reason that its zygote or its init task could still tell."""

    ticket: int
    code: int  # exit code of prod-run if this is the first generation
    reason: str
    detail: str = ""  # the app's traceback, cut to the app's frames


class Hello(NamedTuple):
    """A new worker is our child now and waits for its slot."""

    ticket: int
    pid: int


class Begun(NamedTuple):
    """An init task is about to be run."""

    ticket: int


class Entered(NamedTuple):
    """A worker whose target takes no Worker is about to call it."""

    ticket: int


class BecameReady(NamedTuple):
    """A worker says that it could serve."""

    ticket: int


class Raised(NamedTuple):
    """A worker's target raised, and its end follows."""

    ticket: int
    reason: str
    detail: str  # the app's traceback, cut to the app's frames


class StoppedAccepting(NamedTuple):
    """A worker that was told to stop takes no new connections any more."""

    ticket: int


class StatusGiven(NamedTuple):
    """A worker says how it is, in words."""

    ticket: int
    text: str


class CheckMade(NamedTuple):
    """A worker has a health check, which it runs when it is entrusted with them."""

    ticket: int
    name: str
    is_required: bool
    timeout: float  # seconds


class Checked(NamedTuple):
    """A health check of the app ended."""

    ticket: int
    name: str
    is_good: bool
    reason: str  # in prod-run's words; empty if there are only the app's, or it is good
    details: str  # in the app's own words
    took: float  # seconds


class ChannelClosed(NamedTuple):
    """The private channel of a process is closed at its other end, or speaks nonsense."""

    ticket: int


class Beat(NamedTuple):
    """What stands on a worker's place of the heartbeat page: it changes with each heartbeat."""

    ticket: int
    value: float


class Lived(NamedTuple):
    """A worker says that it is alive, in sd_notify's words; as good as a heartbeat."""

    ticket: int


class Extended(NamedTuple):
    """A worker needs more time for what it is at: so many seconds from now (sd_notify(3): EXTEND_TIMEOUT_USEC)."""

    ticket: int
    seconds: float


class Measured(NamedTuple):
    """How much memory a worker has resident, in bytes; 0 where /proc cannot tell."""

    ticket: int
    rss: int


class Weighed(NamedTuple):
    """How much memory there is, and what processes take of it, in bytes; 0 where that is not known."""

    limit: int  # of the control group that is nearest to its own
    use: int  # by all in that group
    zygote: int
    worker: int  # what a usual one shares with nobody


class GroupGone(NamedTuple):
    """Nothing is left of a process group."""

    pgid: int


class OrphansLeft(NamedTuple):
    """So many adopted orphans are alive (0 also where /proc cannot tell)."""

    number: int


class Tick(NamedTuple):
    """Time passed; nothing else happened."""


Event = (
    Asked
    | Signalled
    | ScaleAsked
    | StacksAsked
    | ProcessExited
    | Started
    | StartFailed
    | Prepared
    | Restored
    | Configured
    | Refused
    | Hello
    | Begun
    | Entered
    | BecameReady
    | Raised
    | StoppedAccepting
    | StatusGiven
    | CheckMade
    | Checked
    | ChannelClosed
    | Beat
    | Lived
    | Extended
    | Measured
    | Weighed
    | GroupGone
    | OrphansLeft
    | Tick
)
