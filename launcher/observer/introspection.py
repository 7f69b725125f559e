"""
What is answered to those who ask how prod-run is.

Owns the supervisor's snapshots as they arrive, the question whether its loop turns (asked when somebody asks us, at
most once a second), and the way of a request to its answer.
Must never let a fault in an answer reach the log lines of the workers.
"""

from __future__ import annotations

import os
import stat
import time

from launcher import protocol
from launcher.logs import counters as places
from launcher.observer import access, endpoints, state, usage
from launcher.observer.endpoints import About, Known, Later, Scrape
from launcher.observer.http import METHODS, Reply, Request
from launcher.observer.port import Port
from launcher.observer.samples import Sample, Samples
from launcher.observer.tail import Tail, Wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.logs.batch import Batch, Form
    from launcher.logs.counters import Counters
    from launcher.observer.scrape import Scraper

ASK_EVERY = 1.0  # seconds
TELL_EVERY = 0.1  # seconds: to those who follow the log, what came meanwhile at once
VERSION_FILE = "version.json"
LARGEST_FILE = 64 * 1024  # bytes


class Introspection:
    """The port, and what it needs to know."""

    __slots__ = (
        "_about",
        "_answered_at",
        "_asked_at",
        "_backlog",
        "_complain",
        "_configs",
        "_counters",
        "_is_followed",
        "_listeners",
        "_port",
        "_rows",
        "_samples",
        "_say",
        "_scraper",
        "_state",
        "_tail",
        "_tell_at",
        "_versions",
        "_warn",
    )

    def __init__(
        self,
        listeners: list[tuple[int, str]],
        counters: Counters,
        form: Form,
        say: Callable[[bytes], None],
        complain: Callable[[str], None],
        *,
        warn: Callable[[str], None],
    ) -> None:
        """
        Answer nobody yet.

        `listeners` are descriptors and addresses; `form` is the sink's; `say` tells the supervisor, `complain` whoever
        reads stderr, `warn` whoever reads the log.
        """
        self._about = About()
        self._state = state.State()
        self._rows: list[str] = []  # of a snapshot that is not complete
        self._configs: dict[int, tuple[tuple[str, str, str], ...]] = {}  # by generation: name, value, origin
        self._versions: dict[int, bytes | None] = {}  # by generation
        self._backlog: dict[str, int] = {}
        self._answered_at = float("-inf")
        self._asked_at: float | None = None  # and no answer yet
        self._counters = counters
        self._listeners = listeners
        self._say = say
        self._complain = complain
        self._warn = warn
        self._scraper: Scraper | None = None
        self._samples = Samples(_measure)
        self._tail = Tail(form, os.getpid())
        self._is_followed = False  # somebody may wait for the next lines
        self._tell_at: float | None = None  # there are some
        self._port = Port(self._answer, self._overdue)

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to serve."""
        return self._port.fileno()

    def serve(self) -> None:
        """Serve what there is."""
        self._port.serve()

    def deadline(self) -> float | None:
        """Say when `expire` is due."""
        if self._scraper and self._scraper.is_busy:
            return 0.0
        times = (self._port.deadline(), self._tell_at, self._samples.deadline())
        return min((due for due in times if due is not None), default=None)

    def expire(self, now: float) -> None:
        """End what took too long, and go on for a moment with what takes long."""
        self._port.expire(now)
        self._samples.tick((worker.pid for worker in self._state.workers if worker.pid), now)
        if self._tell_at is not None and now >= self._tell_at:
            self._tell()
        if self._scraper and self._scraper.is_busy:
            for scrape, reply in self._scraper.work(self._state, self._known):
                self._port.deliver(scrape, reply)

    def remember(self, batch: Batch) -> None:
        """Keep some lines that go to the sink; `taken` says how many they are."""
        self._tail.add(batch, time.time())
        if self._is_followed and self._tell_at is None:
            self._tell_at = time.monotonic() + TELL_EVERY

    def end(self) -> None:
        """Give the last lines to those who wait for them."""
        self._tell()

    def _tell(self) -> None:
        """Give those who follow the log what came."""
        self._tell_at = None
        for wanted in {each for each in self._port.awaited() if isinstance(each, Wanted)}:
            found = self._tail.read(wanted)
            if found.text:
                self._port.deliver(wanted, endpoints.lines(found))
        self._is_followed = any(isinstance(each, Wanted) for each in self._port.awaited())

    def _overdue(self, awaited: object) -> Reply:
        if isinstance(awaited, Wanted):
            return endpoints.lines(self._tail.read(awaited))
        return Reply(504, b"no answer\n")

    # ── the supervisor ──────────────────────────────────────────────────────────────────────────

    def hear(self, message: protocol.Message) -> None:
        """Take what the supervisor says."""
        match message.verb:
            case "about":
                self._about = _about(message)
            case "config":
                told = tuple(message.texts(what) for what in ("names", "values", "origins"))
                self._configs[message.number("generation")] = tuple(zip(*told, strict=True))
            case "state":
                self._rows += message.texts("row")
                if message.flag("last"):
                    rows, self._rows = self._rows, []
                    self._learn(state.read(rows))
            case "alive":
                self._asked_at, self._answered_at = None, time.monotonic()
                pairs = (text.rpartition("=") for text in message.texts("backlog"))
                self._backlog = {name: int(number) for name, _, number in pairs}
            case "stacks":
                self._port.deliver(Later(message.number("slot")), _stacks(message))

    def _learn(self, new: state.State) -> None:
        self._state = new._replace(started=self._about.started)
        # Once for each generation, when it begins: what stands there later is what the next one will find.
        self._versions = {
            g.number: self._versions[g.number] if g.number in self._versions else self._read_version()
            for g in new.generations
        }
        for number in [each for each in self._configs if each not in self._versions]:
            del self._configs[number]
        # Not before: it would have said for an instant that nothing is ready.
        for fd, address in self._listeners:
            self._port.listen(fd, by_socket=address.startswith("unix:"))
        self._listeners = []

    def _read_version(self) -> bytes | None:
        return _read(os.path.join(self._about.directory, VERSION_FILE))

    def _silence(self, now: float) -> float:
        """Return for how long the supervisor has owed an answer; ask it, if it has not been asked lately."""
        if self._asked_at is not None:
            return now - self._asked_at
        if now >= self._answered_at + ASK_EVERY:
            self._asked_at = now
            self._say(protocol.encode("ask"))
        return 0.0

    # ── requests ────────────────────────────────────────────────────────────────────────────────

    def _answer(self, request: Request, by_socket: bool) -> object:  # noqa: FBT001  the port's table
        try:
            return self._answered(request, by_socket=by_socket)
        except Exception as error:  # noqa: BLE001  a fault in a page must not cost the workers' lines
            self._complain(f"cannot answer {request.path!r}: {type(error).__name__}: {error}")
            return Reply(500, b"this is a fault of prod-run's\n")

    def _answered(self, request: Request, *, by_socket: bool) -> Reply | Later | Scrape | Wanted:
        found = endpoints.find(request.path)
        if found is None:
            return Reply(404, b"there is nothing here: see /\n")
        route, parts = found
        if request.method not in METHODS:
            return Reply(
                405, b"only GET and HEAD: this port shows, it does not change\n", headers=(("Allow", "GET, HEAD"),)
            )
        if request.has_body:
            return Reply(400, b"a body is not expected here\n")
        token = self._read_token if self._about.token_file else None
        judgement = access.judge(request, token, by_socket=by_socket, wants_private=route.is_private)
        if judgement.refusal:
            return judgement.refusal
        answer = route.answer(self._known(), request, parts, judgement.is_private)
        if isinstance(answer, Later):
            self._say(protocol.encode("stacks", slot=answer.slot))
        self._is_followed = self._is_followed or isinstance(answer, Wanted)
        if isinstance(answer, Scrape):
            return self._begin(answer)
        return answer

    def _begin(self, scrape: Scrape) -> Reply | Scrape:
        """Collect what the app counted; a little is there at once."""
        if self._scraper is None:
            from launcher.observer.scrape import Scraper  # noqa: PLC0415  only who is scraped needs it

            self._scraper = Scraper(self._about.metrics_directory, self._counters, self._complain, self._warn)
        return self._scraper.begin(scrape, self._state, self._known)

    def _known(self) -> Known:
        now = time.monotonic()
        counts = state.Lines(
            self._counters[places.TAKEN],
            self._counters[places.PASSED],
            self._counters[places.DROPPED],
            self._counters[places.LOST],
        )
        listeners = tuple(
            listener._replace(backlog=self._backlog.get(listener.name, -1)) for listener in self._state.listeners
        )
        return Known(
            self._about,
            self._state._replace(lines=counts, listeners=listeners),
            now,
            time.time(),
            self._silence(now),
            self._versions.get(self._state.current),
            self._configs.get(self._state.current, ()),
            self._tail.read,
            self._look,
        )

    def _look(self, pids: list[int]) -> dict[int, list[Sample]]:
        return self._samples.look(pids, time.monotonic())

    def _read_token(self) -> bytes:
        return (_read(self._about.token_file) or b"").strip()


def _about(message: protocol.Message) -> About:
    names, values, origins = (message.texts(f"setting_{what}") for what in ("names", "values", "origins"))
    return About(
        message.text("name"),
        message.seconds("started"),
        message.number("supervisor"),
        message.text("directory"),
        message.text("token_file"),
        message.text("metrics_directory"),
        tuple(zip(names, values, origins, strict=True)),
    )


def _measure(pid: int) -> tuple[int, float] | None:
    used = usage.of(pid)
    return (used.rss, used.cpu) if used else None


def _stacks(message: protocol.Message) -> Reply:
    who = f"worker {message.text('slot')}, generation {message.text('generation')}, pid {message.text('pid')}"
    text, process = message.text("text"), message.text("process")
    what = text or f"no stacks: the process is {process}"
    return Reply(200 if text else 503, f"{who}\n{what}\n".encode("utf-8", "backslashreplace"))


def _read(path: str) -> bytes | None:
    """Read a small regular file; None if there is none.  Never a FIFO, which would make us wait for its writer."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        data = os.read(fd, LARGEST_FILE + 1)
        return data if len(data) <= LARGEST_FILE else None
    except OSError:
        return None
    finally:
        os.close(fd)
