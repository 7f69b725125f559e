"""
prod-run's own metrics.

Owns the table of families, and their text in both forms.  Pure: the values are given.
"""

from __future__ import annotations

from launcher.lean import NamedTuple
from launcher.observer import probes
from launcher.observer.families import OURS, escape_help, label, number_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from launcher.observer.state import Generation, State

    Samples = Iterable[tuple[tuple[str, ...], float]]  # the values of the labels, and the value

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
END = b"# EOF\n"  # what OpenMetrics ends with, after the app's families

STATES = ("ordered", "booting", "entered", "ready", "serving", "draining", "dumping", "killed", "stuck")
UP = ("ready", "serving")
RESULTS = ("committed", "rejected", "rolled-back", "pre-empted")


class Use(NamedTuple):
    """What is used in a slot."""

    slot: int
    rss: int  # bytes; of two workers in a reload, the newer one's
    cpu: float  # seconds, of all that were in it


class Measured(NamedTuple):
    """What the observer knows besides the supervisor's state."""

    now: float  # monotonic
    time: float  # Unix
    version: str  # of prod-run
    name: str
    uses: tuple[Use, ...] = ()
    files: int = 0  # of the app's metrics
    skipped: int = 0  # so far
    free_bytes: int = -1  # where they are; -1: not known, or there are none


class Family(NamedTuple):
    """One family; its name is without prod-run's prefix, and for a counter without `_total`."""

    name: str
    kind: str  # counter | gauge
    help: str
    labels: tuple[str, ...]
    read: Callable[[State, Measured], Samples]

    @property
    def full_name(self) -> str:
        """Return the name that a query has."""
        return f"{OURS}{self.name}{'_total' if self.kind == 'counter' else ''}"


def accepts_openmetrics(accept: str) -> bool:
    """Say whether whoever sent this `Accept` header asked for OpenMetrics."""
    return "application/openmetrics-text" in accept


def render(state: State, measured: Measured, *, openmetrics: bool) -> bytes:
    """Write all own families; what is not known is left out."""
    return "".join(_lines(state, measured, openmetrics=openmetrics)).encode("utf-8", "backslashreplace")


def _lines(state: State, measured: Measured, *, openmetrics: bool) -> Iterator[str]:
    for family in FAMILIES:
        samples = list(family.read(state, measured))
        if not samples:
            continue
        name = f"{OURS}{family.name}" if openmetrics else family.full_name
        yield f"# HELP {name} {escape_help(family.help, openmetrics=openmetrics)}\n# TYPE {name} {family.kind}\n"
        for values, value in samples:
            inner = ",".join(label(*pair) for pair in zip(family.labels, values, strict=True))
            yield f"{family.full_name}{f'{{{inner}}}' if inner else ''} {number_text(float(value))}\n"


def _one(value: float | None) -> Samples:
    return () if value is None else (((), value),)


def _current(state: State) -> Generation | None:
    return next((g for g in state.generations if g.number == state.current), None)


def _workers(state: State, _: Measured) -> Samples:
    return [((name,), sum(worker.state == name for worker in state.workers)) for name in STATES]


def _worker_up(state: State, _: Measured) -> Samples:
    up = {worker.slot for worker in state.workers if worker.state in UP}
    known = {*range(state.wanted), *(worker.slot for worker in state.workers if worker.slot >= 0)}
    return [((str(slot),), slot in up) for slot in sorted(known)]


def _stale(state: State, measured: Measured) -> Samples:
    current = _current(state)
    since = current.stale_since if current else None
    return _one(0.0 if since is None else max(0.0, measured.now - since))


def _reloads(state: State, _: Measured) -> Samples:
    counts = {**dict.fromkeys(RESULTS, 0), **dict(state.reloads_by_result)}
    return [((result,), count) for result, count in counts.items()]


def _last_success(state: State, _: Measured) -> Samples:
    times = [reload.at for reload in state.reloads if reload.result == "committed"]
    return _one(times[-1] if times else None)


def _lines_of_log(state: State, _: Measured) -> Samples:
    # `taken` goes back when several lines turn out to be one record, and by then somebody may have seen it.
    return _one(state.lines.passed + state.lines.dropped + state.lines.lost)


def _backlog(state: State, _: Measured) -> Samples:
    return [((one.name,), one.backlog) for one in state.listeners if one.backlog >= 0]


FAMILIES = (
    Family("info", "gauge", "Which prod-run this is, and what it runs.", ("name", "version"),
           lambda _, m: [((m.name, m.version), 1)]),
    Family("start_time_seconds", "gauge", "When prod-run was started, in seconds since 1970.", (),
           lambda s, m: _one(m.time - m.now + s.started)),
    Family("ready", "gauge", "1 if a request would be answered, as /readyz says.", (),
           lambda s, m: _one(probes.ready(s, m.now).is_good)),
    Family("draining", "gauge", "1 once prod-run was told to stop.", (),
           lambda s, _: _one(s.is_draining)),
    Family("generation", "gauge", "Number of the generation that serves; 0 before the first one.", (),
           lambda s, _: _one(s.current)),
    Family("workers", "gauge", "Worker processes of all generations, by state.", ("state",), _workers),
    Family("workers_wanted", "gauge", "Workers that there should be.", (),
           lambda s, _: _one(s.wanted)),
    Family("worker_up", "gauge", "1 if a worker in this slot is ready or serving.", ("slot",), _worker_up),
    Family("worker_restarts", "counter", "Workers that ended without having been told to, by reason.", ("reason",),
           lambda s, _: [((reason,), count) for reason, count in s.deaths_by_reason]),
    Family("slot_restarts", "counter", "Workers that ended without having been told to, by slot.", ("slot",),
           lambda s, _: [((str(slot.number),), slot.restarts) for slot in s.slots]),
    Family("worker_rss_bytes", "gauge", "Resident memory of the worker in this slot.", ("slot",),
           lambda _, m: [((str(use.slot),), use.rss) for use in m.uses]),
    Family("worker_cpu_seconds", "counter",
           "CPU time of all workers that were in this slot, and of their children that they reaped.", ("slot",),
           lambda _, m: [((str(use.slot),), use.cpu) for use in m.uses]),
    Family("orphans", "counter", "Processes of others that prod-run adopted and reaped.", (),
           lambda s, _: _one(s.orphans)),
    Family("reloads", "counter", "Starts and reloads, by result.", ("result",), _reloads),
    Family("reload_duration_seconds", "gauge", "How long the last start or reload took.", (),
           lambda s, _: _one(s.reloads[-1].took if s.reloads else None)),
    Family("last_reload_successful", "gauge", "1 if the last start or reload was committed.", (),
           lambda s, _: _one(s.reloads[-1].result == "committed" if s.reloads else None)),
    Family("last_reload_success_timestamp_seconds", "gauge",
           "When a start or reload was committed last, in seconds since 1970.", (), _last_success),
    Family("config_stale_seconds", "gauge",
           "For how long what serves has not been what a reload asked for; 0 if it is.", (), _stale),
    Family("cannot_respawn", "gauge",
           "1 if the code on disk differs, so that no worker can be replaced before a reload.", (),
           lambda s, _: _one(bool((current := _current(s)) and current.cannot_respawn))),
    Family("listen_backlog", "gauge", "Connections that no worker has accepted yet.", ("socket",), _backlog),
    Family("check_passed", "gauge", "1 if this health check of the app ended well the last time.", ("check",),
           lambda s, _: [((check.name,), check.is_good) for check in s.checks if check.is_good is not None]),
    Family("check_age_seconds", "gauge", "How long ago this health check of the app ended.", ("check",),
           lambda s, m: [((c.name,), max(0.0, m.now - c.at)) for c in s.checks if c.is_good is not None]),
    Family("log_lines", "counter", "Lines that the workers and prod-run wrote.", (),
           _lines_of_log),
    Family("log_lines_passed", "counter", "Lines that the log's target has.", (),
           lambda s, _: _one(s.lines.passed)),
    Family("log_lines_dropped", "counter", "Lines dropped because the log's target was slow, full or away.", (),
           lambda s, _: _one(s.lines.dropped)),
    Family("log_lines_lost", "counter", "Lines lost with an observer that was killed.", (),
           lambda s, _: _one(s.lines.lost)),
    Family("metrics_files", "gauge", "Files in which the app's processes keep their metrics.", (),
           lambda _, m: _one(m.files)),
    Family("metrics_files_skipped", "counter", "Files that were torn or garbage when a scrape read them.", (),
           lambda _, m: _one(m.skipped)),
    Family("metrics_free_bytes", "gauge",
           "Room where the app's metrics are; a new series that finds none is not counted until there is some.", (),
           lambda _, m: _one(m.free_bytes if m.free_bytes >= 0 else None)),
)  # fmt: skip
