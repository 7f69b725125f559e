"""
What the observer knows of the supervisor: the last snapshot that was pushed, as plain values.

Owns the values that probes, `/status` and the metrics read, and how a snapshot's messages become them.
Pure: nothing is asked, no clock; a snapshot says when things began, in seconds of the monotonic clock.
"""

from __future__ import annotations

from launcher import protocol
from launcher.lean import NamedTuple

Count = tuple[str, int]  # a label and how often


class Worker(NamedTuple):
    """One worker process."""

    slot: int
    generation: int
    pid: int  # 0: not known yet
    state: str  # ordered | booting | entered | ready | serving | draining | dumping | killed | stuck
    since: float  # monotonic: when it was started
    says: str = ""  # its status, in its own words


class Slot(NamedTuple):
    """A worker's place, over all the lives in it."""

    number: int
    restarts: int  # ends that nobody asked for
    last_exit: str  # in words; empty: none yet
    last_exit_at: float  # Unix time; 0: none yet
    cpu: float = 0.0  # seconds that those who ended had used


class Generation(NamedTuple):
    """One generation of which anything is left."""

    number: int
    phase: str  # preparing | filling | rolling | committed | retiring | rejected
    origin: str  # who asked for it: start, SIGHUP, prod-ctl
    since: float  # monotonic
    zygote: int = 0  # PID; 0: none
    zygote_state: str = ""
    stale_since: float | None = None  # monotonic: when a reload was asked for that failed
    stale_because: str = ""
    cannot_respawn: str = ""  # why no worker can be had from it any more


class Reload(NamedTuple):
    """How a start or reload ended."""

    generation: int
    result: str  # committed | rejected | rolled-back | pre-empted
    reason: str  # empty: it worked
    origin: str
    at: float  # Unix time
    took: float  # seconds; 0: not known
    detail: str = ""  # the app's traceback, or every problem of its configuration


class AppCheck(NamedTuple):
    """One of the app's own health checks, and its last result."""

    name: str
    is_required: bool
    is_good: bool | None  # None: there is no result
    reason: str = ""  # in prod-run's words
    details: str = ""  # in the app's
    took: float = 0.0  # seconds
    at: float = 0.0  # monotonic
    slot: int = -1  # of the worker that looked


class Death(NamedTuple):
    """The end of a worker that nobody had told to end."""

    slot: int
    generation: int
    how: str  # in words
    at: float  # Unix time


class Listener(NamedTuple):
    """One listening socket of the app."""

    name: str
    address: str
    backlog: int = -1  # connections that nobody has accepted yet; -1: not known


class Lines(NamedTuple):
    """What became of the lines that the workers and prod-run wrote; the observer's own count."""

    taken: int = 0
    passed: int = 0
    dropped: int = 0
    lost: int = 0


class State(NamedTuple):
    """How prod-run is."""

    sentence: str = "starting"
    is_ready: bool = False  # a request would be answered
    is_committed: bool = False  # a generation has been committed, now or before
    is_draining: bool = False  # told to stop
    started: float = 0.0  # monotonic: the supervisor's
    wanted: int = 0  # workers
    orphans: int = 0  # adopted and reaped so far
    generations: tuple[Generation, ...] = ()  # the current one last but for a candidate
    current: int = 0  # the number of the committed one; 0: none
    workers: tuple[Worker, ...] = ()  # of all generations
    slots: tuple[Slot, ...] = ()  # that ever lost a worker
    reloads: tuple[Reload, ...] = ()  # the last 20, the oldest first; the start is the first of them
    reloads_by_result: tuple[Count, ...] = ()
    deaths_by_reason: tuple[Count, ...] = ()  # of workers that nobody had told to end
    deaths: tuple[Death, ...] = ()  # the last 50 of them, the oldest first
    listeners: tuple[Listener, ...] = ()
    checks: tuple[AppCheck, ...] = ()
    lines: Lines = Lines()
    living: tuple[str, ...] = ()  # the identifiers of the living workers in the names of their metrics' files


def read(rows: list[str]) -> State:
    """
    Read a snapshot: each row is a message of the protocol within the supervisor's.

    Raises:
        protocol.ProtocolError: the supervisor speaks another language.
    """
    state = State()
    parts: dict[str, list[protocol.Message]] = {}
    for row in rows:
        message = protocol.decode(row.encode("utf-8", "surrogateescape"))
        parts.setdefault(message.verb, []).append(message)
    for message in parts.get("whole", ()):
        state = _whole(message)
    return state._replace(
        generations=tuple(map(_generation, parts.get("generation", ()))),
        workers=tuple(map(_worker, parts.get("worker", ()))),
        slots=tuple(map(_slot, parts.get("slot", ()))),
        checks=tuple(map(_check, parts.get("check", ()))),
        reloads=tuple(map(_reload, parts.get("reload", ()))),
        deaths=tuple(
            Death(m.number("slot"), m.number("generation"), m.text("how"), m.seconds("at"))
            for m in parts.get("death", ())
        ),
        listeners=tuple(Listener(m.text("name"), m.text("address")) for m in parts.get("listener", ())),
        reloads_by_result=tuple((m.text("result"), m.number("count")) for m in parts.get("results", ())),
        deaths_by_reason=tuple((m.text("reason"), m.number("count")) for m in parts.get("deaths", ())),
        living=tuple(f"w{place}" for m in parts.get("living", ()) for place in m.texts("places")),
    )


def _whole(message: protocol.Message) -> State:
    return State(
        sentence=message.text("sentence"),
        is_ready=message.flag("is_ready"),
        is_committed=message.flag("is_committed"),
        is_draining=message.flag("is_draining"),
        wanted=message.number("wanted"),
        orphans=message.number("orphans"),
        current=message.number("current"),
    )


def _worker(message: protocol.Message) -> Worker:
    return Worker(
        message.number("slot"),
        message.number("generation"),
        message.number("pid"),
        message.text("state"),
        message.seconds("since"),
        message.text("says"),
    )


def _check(message: protocol.Message) -> AppCheck:
    check = AppCheck(message.text("name"), message.flag("is_required"), None)
    if not message.texts("at"):
        return check
    return check._replace(
        is_good=message.flag("is_good"),
        reason=message.text("reason"),
        details=message.text("details"),
        took=message.seconds("took"),
        at=message.seconds("at"),
        slot=message.number("slot"),
    )


def _slot(message: protocol.Message) -> Slot:
    return Slot(
        message.number("number"),
        message.number("restarts"),
        message.text("last_exit"),
        message.seconds("last_exit_at"),
        message.seconds("cpu"),
    )


def _generation(message: protocol.Message) -> Generation:
    return Generation(
        message.number("number"),
        message.text("phase"),
        message.text("origin"),
        message.seconds("since"),
        message.number("zygote"),
        message.text("zygote_state"),
        message.seconds("stale_since") if message.texts("stale_since") else None,
        message.text("stale_because"),
        message.text("cannot_respawn"),
    )


def _reload(message: protocol.Message) -> Reload:
    return Reload(
        message.number("generation"),
        message.text("result"),
        message.text("reason"),
        message.text("origin"),
        message.seconds("at"),
        message.seconds("took"),
        message.text("detail"),
    )
