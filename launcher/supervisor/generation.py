"""
What the supervisor knows of one generation: its zygote, its workers, its slots.

Owns the records that the machine keeps and the questions that can be asked of them.
Pure: never decides, never acts.
"""

from __future__ import annotations

from launcher import protocol
from launcher.lean import Enum, NamedTuple
from launcher.supervisor.pacing import Backoff

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.supervisor.checking import Check
    from launcher.supervisor.events import Raised


ZYGOTE = -1  # in place of a slot
SPARE = -2
TASK = protocol.INIT_TASK


class Phase(Enum):
    """Where a generation stands between its order and its end (DESIGN §3.5)."""

    PREPARING = "preparing"
    BEFORE = "running --before"
    FILLING = "filling"
    ROLLING = "rolling"  # committed, but the former one is not replaced altogether
    COMMITTED = "committed"
    RETIRING = "retiring"  # its workers serve until they are replaced
    REJECTED = "rejected"  # its workers never serve


class State(Enum):
    """Where a process stands."""

    ORDERED = "ordered"
    BOOTING = "booting"
    RUNNING = "running"  # an init task
    ENTERED = "entered"  # takes no Worker: ready when it has lived a second
    READY = "ready"  # held back until its generation is committed
    SERVING = "serving"
    DRAINING = "draining"
    KILLED = "killed"
    STUCK = "stuck"  # survived SIGKILL for five seconds: reported and given up
    PARKED = "parked"  # a spare that waits for a slot
    DUMPING = "dumping"  # it is writing its stacks, and is killed then
    PREPARING = "preparing"  # a zygote that imports
    WARM = "warm"  # a zygote that can fork
    RESTORING = "restoring"  # a zygote that puts the former files back


Files = tuple[tuple[str, str], ...]  # the path of each, and where the former file is; empty if there was none

UP = (State.READY, State.SERVING)
LEAVING = (State.DRAINING, State.DUMPING, State.KILLED, State.STUCK)


class Failure(NamedTuple):
    """Why a generation cannot be had."""

    reason: str
    detail: str  # the app's traceback, cut to the app's frames
    code: int  # exit code of prod-run if this is the first generation


class Watch:
    """What is looked at from time to time in a worker that serves; times are None if they are not."""

    __slots__ = ("beat", "measure_at", "misses", "rss", "stacks_at", "too_old_at")

    def __init__(self) -> None:
        self.beat = 0.0  # what stood on the heartbeat page
        self.misses = 0  # how often it stood there unchanged
        self.rss = 0  # bytes
        self.measure_at: float | None = None
        self.too_old_at: float | None = None
        self.stacks_at: float | None = None  # when stacks that were asked for are to be taken

    def times(self) -> tuple[float | None, ...]:
        """Return when to look again."""
        return (self.measure_at, self.too_old_at, self.stacks_at)


class Process:
    """A zygote, worker or spare, from its order to its end."""

    __slots__ = (
        "deadline",
        "generation",
        "mute",
        "pid",
        "placed",
        "raised",
        "recycle_for",
        "slot",
        "started",
        "state",
        "status",
        "stopped_accepting",
        "ticket",
        "watch",
        "zygote",
    )

    def __init__(self, ticket: int, generation: Generation, slot: int, now: float, deadline: float) -> None:
        self.ticket = ticket
        self.generation = generation
        self.slot = slot  # or ZYGOTE, SPARE or TASK
        self.pid = 0  # 0: not known yet
        self.state = State.PREPARING if slot == ZYGOTE else State.ORDERED
        self.started = now
        self.deadline: float | None = deadline
        self.stopped_accepting = False
        self.mute = False  # its channel is closed
        self.zygote = 0  # ticket of the one that was asked to fork it; 0: nobody was
        self.status = ""  # in the worker's own words
        self.placed: Files = ()  # what a zygote moved into its place, and still can put back
        self.raised: Raised | None = None  # why it ends, if its generation hangs on it
        self.watch = Watch()
        self.recycle_for = ""  # why it is to be replaced, once a successor is up

    def enter(self, state: State, deadline: float | None) -> None:
        """Change the state; there is no state without a word on its deadline."""
        self.state = state
        self.deadline = deadline

    @property
    def is_up(self) -> bool:
        """Say whether it serves, or would if it were let."""
        return self.state is State.SERVING or (self.state is State.READY and not self.mute)

    @property
    def is_worker(self) -> bool:
        """Say whether it is a worker, not a zygote or spare."""
        return self.slot >= 0

    @property
    def role(self) -> str:
        """Name what it is."""
        return {ZYGOTE: "zygote", SPARE: "spare", TASK: "init task"}.get(self.slot, "worker")


class Generation:
    """One generation: what was prepared once, and the workers that run it."""

    __slots__ = (
        "abandoned",
        "backoffs",
        "checks",
        "done",
        "failure",
        "files",
        "has_served",
        "imports_anew",
        "is_watched",
        "number",
        "origin",
        "phase",
        "since",
        "spare",
        "stale_because",
        "stale_since",
        "takes_worker",
        "task",
        "unrespawnable",
        "workers",
        "zygote",
        "zygote_stays",
    )

    def __init__(self, number: int, origin: str, now: float) -> None:
        self.number = number
        self.origin = origin  # who asked for it: "start", "SIGHUP"
        self.since = now
        self.phase = Phase.PREPARING
        self.zygote: Process | None = None
        self.spare: Process | None = None  # forked ahead: becomes a worker the moment one dies
        self.task: Process | None = None  # runs --before, once
        self.imports_anew = False  # no preload: every worker imports for itself
        self.zygote_stays = False  # its zygote is needed for more than forking
        self.is_watched = False  # by a process of its zygote's (--watch)
        self.takes_worker = True
        self.has_served = False  # a client may have seen it
        self.files = ""
        self.stale_since: float | None = None  # when a reload was asked for that failed
        self.stale_because = ""  # why the last one did
        self.failure: Failure | None = None
        self.checks: dict[str, Check] = {}  # the app's own, by name
        self.abandoned: Files = ()  # what its zygote had moved when it was killed
        self.unrespawnable = ""  # why no worker can be had from it any more
        self.workers: dict[int, Process] = {}  # by ticket
        self.done: dict[int, int] = {}  # slot → exit code, of workers that are not started again
        self.backoffs: dict[int, Backoff] = {}  # by slot; ZYGOTE is the zygote's own

    def grow_stale(self, since: float, reason: str) -> None:
        """Note that a reload failed, which was asked for at `since`: what is served is older than what was wanted."""
        if self.stale_since is None:
            self.stale_since = since
        self.stale_because = reason

    def staying(self) -> list[Process]:
        """Return the workers that have not been told to go, by slot."""
        return sorted((w for w in self.workers.values() if w.state not in LEAVING), key=lambda w: w.slot)

    def beyond(self, target: int) -> list[Process]:
        """Return the workers that have not been told to go, and whose slots are one too many."""
        return [worker for worker in self.staying() if worker.slot >= target]

    def processes(self) -> list[Process]:
        """Return all of its processes."""
        return [*self.workers.values(), *(p for p in (self.zygote, self.spare, self.task) if p)]

    def up(self, target: int | None = None) -> int:
        """Count the slots, those below `target` if it is given, with a ready worker or with their work done."""
        slots = {*(w.slot for w in self.workers.values() if w.is_up), *self.done}
        return sum(target is None or slot < target for slot in slots)

    def present(self) -> int:
        """Count the worker processes that exist, or may: all but those given up."""
        return sum(w.state is not State.STUCK for w in self.workers.values())

    def missing(self, target: int) -> Iterator[int]:
        """Yield the slots below `target` that nobody has and whose work is not done."""
        taken = {w.slot for w in self.workers.values() if w.state not in LEAVING and not w.recycle_for}
        return (slot for slot in range(target) if slot not in taken and slot not in self.done)

    def outlived(self) -> list[Process]:
        """Return the workers that are to be recycled and whose successor is up, or has done the work already."""
        up = {w.slot for w in self.workers.values() if w.is_up and not w.recycle_for}
        return [w for w in self.staying() if w.recycle_for and (w.slot in up or w.slot in self.done)]

    def backoff(self, slot: int) -> Backoff:
        """Return the back-off of a slot."""
        return self.backoffs.setdefault(slot, Backoff())

    @property
    def lacks_zygote(self) -> bool:
        """Say whether a zygote is to be started; one that survives SIGKILL is as good as none."""
        forks = not (self.imports_anew or self.unrespawnable)
        is_needed = forks or (self.is_watched and self.phase is Phase.COMMITTED)
        return is_needed and (self.zygote is None or self.zygote.state is State.STUCK)

    @property
    def has_spare(self) -> bool:
        """Say whether a worker is parked that can be given a slot."""
        return self.spare is not None and self.spare.state is State.PARKED and not self.spare.mute

    @property
    def wants_spare(self) -> bool:
        """Say whether a worker should be forked ahead: it serves, and has none but what survives SIGKILL."""
        if self.phase is not Phase.COMMITTED or self.imports_anew:
            return False
        return self.spare is None or self.spare.state is State.STUCK

    @property
    def can_spawn(self) -> bool:
        """Say whether a worker can be had from it now."""
        if self.unrespawnable:
            return False
        if self.imports_anew:
            return True
        return self.zygote is not None and self.zygote.state is State.WARM and not self.zygote.mute
