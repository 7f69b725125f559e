"""
The parts of the page that everybody sees: workers, generations, reloads, crashes, sockets, checks.

Owns what stands in which column.  Pure.
"""

from __future__ import annotations

from launcher.lean import NamedTuple
from launcher.observer import probes
from launcher.observer.page import sparkline, words
from launcher.observer.page.headline import LEAVING, REMEMBERED, UP, finished, up
from launcher.observer.page.markup import Markup, between, join, tag
from launcher.observer.page.tables import MOST, Row, section, table
from launcher.observer.page.words import BAD, BUSY, OK, QUIET, UNKNOWN, WARNING, ago, count, mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.observer.endpoints import Known
    from launcher.observer.samples import Sample
    from launcher.observer.state import AppCheck, Death, Slot, State, Worker

_STATES = {
    "ordered": (BUSY, "starting"),
    "booting": (BUSY, "starting"),
    "entered": (BUSY, "starting"),
    "ready": (OK, "ready, held back"),
    "serving": (OK, "serving"),
    "draining": (QUIET, "draining"),
    "dumping": (BAD, "stuck, writes its stacks"),
    "killed": (WARNING, "being killed"),
    "stuck": (BAD, "survived SIGKILL"),
}
_RESULTS = {"committed": (OK, "committed"), "rejected": (BAD, "rejected"), "rolled-back": (BAD, "rolled back")}
_PHASES = {
    "preparing": (BUSY, "importing the app"),
    "filling": (BUSY, "starting workers"),
    "rolling": (BUSY, "taking over"),
    "committed": (OK, "serving"),
    "retiring": (QUIET, "retiring"),
    "rejected": (BAD, "rejected"),
}
_SCALES = (3600.0, 6 * 3600.0, 24 * 3600.0)  # seconds of the crash strip
CROWD = 32  # workers: of more, each third sample is drawn
_LITTLE = 0.1  # of one CPU: less is drawn as less
_STEADY = 4 * 1024 * 1024  # bytes: a smaller change is no slope


class Seen(NamedTuple):
    """What is known, and what of it may be shown."""

    known: Known  # the public part only, unless it is private
    is_private: bool
    samples: dict[int, list[Sample]]  # by PID
    options: tuple[str, ...] = ()  # of the query
    host: str = ""  # the machine's name
    paths: tuple[tuple[str, str], ...] = ()  # that can be asked without a word of one's own, and what they answer

    @property
    def clock(self) -> words.Clock:
        """Return now."""
        return words.Clock(self.known.time, self.known.monotonic)


# ── workers ─────────────────────────────────────────────────────────────────────────────────────


def workers(seen: Seen) -> Markup:
    """Every worker process, and the slots that have none."""
    state = seen.known.state
    slots = {slot.number: slot for slot in state.slots}
    taken = {worker.slot for worker in state.workers}
    places: list[tuple[bool, int, Worker | None]] = [(w.state in UP, w.slot, w) for w in state.workers]
    places += [(False, number, None) for number in range(state.wanted) if number not in taken]
    # In a crowd those in trouble come first: they are what somebody looks for.
    first = 0 if len(places) > MOST else 1
    places.sort(key=lambda place: place[first:2])
    scale = max((sample.share or 0.0 for each in seen.samples.values() for sample in each), default=0.0)
    done = finished(state)
    rows = [
        _worker(worker, slots.get(number), seen, scale) if worker else _nobody(number, slots.get(number), seen, done)
        for _, number, worker in places[:MOST]
    ]
    headings = (
        "Worker", "State", "Generation", "PID", "Age", "Memory", "CPU", "Stacks", "Crashes", "Says",
    )  # fmt: skip
    listed = table(
        "workers", headings, rows, "No worker is running.", kinds="   nnnn ww", hidden=len(places) - len(rows)
    )
    return section(
        "workers", "Workers", listed, about="memory is RSS; lines show the last 2 min, those of CPU on one scale"
    )


def _worker(worker: Worker, slot: Slot | None, seen: Seen, scale: float) -> Row:
    level, text = _STATES.get(worker.state, (QUIET, worker.state))
    since = words.age(seen.clock.unix(worker.since), seen.known.time)
    who = (str(worker.slot), mark(level, text), str(worker.generation), str(worker.pid or UNKNOWN), since)
    said = words.shorten(worker.says, 200)
    return (*who, *_use(seen, worker.pid, scale), _stacks(worker, seen), _ends(slot, seen), said)


def _nobody(number: int, slot: Slot | None, seen: Seen, done: set[int]) -> Row:
    level, text = (QUIET, "finished") if number in done else (WARNING, "not running")
    return (str(number), mark(level, text), "", "", "", "", "", "", _ends(slot, seen), "")


def _use(seen: Seen, pid: int, scale: float) -> tuple[str, str]:
    samples = seen.samples.get(pid, []) if pid else []
    if not samples:
        return "", ""
    now, last = seen.known.monotonic, samples[-1]
    if len(seen.samples) > CROWD:
        samples = samples[::-3][::-1]
    sizes = [each.rss for each in samples]
    low, high = min(sizes), max(sizes)
    middle = (low + high) / 2
    half = max(high - low, _STEADY) / 2
    told = f"memory: {words.size(low)} to {words.size(high)} in the last 2 min"
    drawn = sparkline.line([(s.at, s.rss) for s in samples], now, (middle - half, middle + half), told)
    memory = join(drawn, tag("span", words.size(last.rss)))
    used = [(sample.at, sample.share) for sample in samples if sample.share is not None]
    if not used:
        return memory, tag("span", UNKNOWN, title="measured in 2 s")
    most = max(share for _, share in used)
    told = f"CPU: up to {words.percent(most)} of one CPU in the last 2 min"
    drawn = sparkline.line(used, now, (0.0, max(scale, _LITTLE)), told)
    return memory, join(drawn, tag("span", words.percent(used[-1][1])))


def _ends(slot: Slot | None, seen: Seen) -> str:
    """Say how often a slot lost its worker, and how last; that one was told to end is no news."""
    if slot is None or not slot.restarts:
        return ""
    if not slot.last_exit:
        return str(slot.restarts)
    return join(f"{slot.restarts}; last: {slot.last_exit}, ", ago(slot.last_exit_at, seen.known.time))


def _stacks(worker: Worker, seen: Seen) -> str:
    if not (seen.is_private and worker.pid and worker.state not in LEAVING):
        return ""
    label = f"stacks of worker {worker.slot}"
    return tag("a", "stacks", href=f"/workers/{worker.slot}/stacks", aria_label=label)


# ── generations and reloads ─────────────────────────────────────────────────────────────────────


def generations(seen: Seen) -> Markup:
    """What is there of each."""
    rows = []
    for each in reversed(seen.known.state.generations):
        level, text = _PHASES.get(each.phase, (QUIET, each.phase))
        if each.phase == "committed" and not (up(seen.known.state, each.number) or seen.known.state.is_draining):
            level, text = BAD, "no worker is ready"
        remarks = []
        if each.stale_since is not None:
            age = words.age(seen.clock.unix(each.stale_since), seen.known.time)
            remarks.append(join("the reload that was to replace it failed ", age, " ago"))
        if each.cannot_respawn:
            remarks.append(join("cannot start workers any more: ", each.cannot_respawn))
        zygote = f"{each.zygote} ({each.zygote_state})" if each.zygote else ""
        workers = sum(worker.generation == each.number for worker in seen.known.state.workers)
        since = words.age(seen.clock.unix(each.since), seen.known.time)
        row = (str(each.number), mark(level, text), str(workers), since, each.origin, zygote)
        rows.append((*row, between("; ", remarks)))
    headings = ("Generation", "Phase", "Workers", "Age", "Asked by", "Zygote", "Remarks")
    listed = table("generations", headings, rows, "There is none.", kinds="  nn  w")
    return section("generations", "Generations", listed)


def reloads(seen: Seen) -> Markup:
    """How the start and the last reloads ended, the newest first."""
    state, now = seen.known.state, seen.known.time
    rows = []
    for each in reversed(state.reloads):
        level, text = _RESULTS.get(each.result, (QUIET, each.result))
        row = (ago(each.at, now), str(each.generation), mark(level, text), words.took(each.took), each.origin)
        rows.append((*row, words.reason(each.reason, each.detail) if each.reason else ""))
    headings = ("When", "Generation", "Result", "Took", "Asked by", "Reason")
    sums = ", ".join(f"{number} {result}" for result, number in state.reloads_by_result)
    listed = table("reloads", headings, rows, "None so far.", kinds="   n w")
    return section("reloads", "Start and reloads", listed, about=sums)


# ── crashes ─────────────────────────────────────────────────────────────────────────────────────


def crashes(seen: Seen) -> Markup:
    """Ends of workers that nobody asked for: when in a strip, and the last ones in a table."""
    state, now = seen.known.state, seen.known.time
    if not state.deaths:
        return section("crashes", "Crashes", tag("p", "No worker has crashed.", class_="none"))
    oldest = now - state.deaths[0].at
    window = next((scale for scale in _SCALES if oldest <= scale), _SCALES[-1])
    times = [each.at for each in state.deaths if each.at > now - window]
    told = f"{count(len(times), 'crash', 'crashes')} in the last {words.span(window)}"
    axis = tag("p", tag("span", f"{words.span(window)} ago"), tag("span", "now"), class_="axis", aria_hidden="true")
    drawn = tag("div", sparkline.strip(times, now, window, told), axis, class_="strip-box")
    rows = [_crash(each, now) for each in reversed(state.deaths)]
    listed = table("crashes", ("When", "Worker", "Generation", "Ended with"), rows[:10], "", kinds="   w")
    rest = table("crashes-before", ("When", "Worker", "Generation", "Ended with"), rows[10:], "", kinds="   w")
    older = tag("details", tag("summary", f"{len(rows) - 10} before these"), rest, id="older") if rows[10:] else ""
    total = sum(number for _, number in state.deaths_by_reason)
    sums = ", ".join(f"{how}: {number}" for how, number in state.deaths_by_reason)
    kept = f"; the last {len(rows)} are listed" if total > len(rows) else ""
    return section("crashes", "Crashes", drawn, listed, older, about=f"{sums}{kept}")


def _crash(death: Death, now: float) -> Row:
    return ago(death.at, now), str(death.slot), str(death.generation), death.how


# ── sockets and checks ──────────────────────────────────────────────────────────────────────────


def sockets(seen: Seen) -> Markup:
    """Where the app listens, and how many connections wait there."""
    rows = [
        (each.name, str(each.backlog) if each.backlog >= 0 else UNKNOWN, each.address)
        for each in seen.known.state.listeners
    ]
    listed = table("sockets", ("Name", "Waiting", "Address"), rows, "The app has none.", kinds=" nw")
    return section("sockets", "Sockets", listed, about="connections that nobody has accepted yet")


def checks(seen: Seen) -> Markup:
    """What `/readyz` looks at: prod-run itself, and the app's own."""
    state, clock = seen.known.state, seen.clock
    own = [check for check in probes.ready(state, clock.monotonic).checks if check.name not in _names(state)]
    rows: list[Row] = [
        (check.name, mark(OK, "ok") if check.is_good else _failed(check.is_warning), "", "", "", "prod-run",
         "" if check.is_good else check.reason)
        for check in own
    ]  # fmt: skip
    rows += [_check(check, clock) for check in state.checks]
    headings = ("Check", "Result", "When", "Took", "Worker", "Of", "Why")
    return section("checks", "Checks", table("checks", headings, rows, "", kinds="   n  w"))


def _names(state: State) -> set[str]:
    return {check.name for check in state.checks}


def _failed(is_warning: bool) -> Markup:  # noqa: FBT001  the only thing it says
    return mark(WARNING if is_warning else BAD, "failed")


def _check(check: AppCheck, clock: words.Clock) -> Row:
    of = "the app, required" if check.is_required else "the app"
    if check.is_good is None:
        return check.name, mark(QUIET, "no result yet"), "", "", "", of, ""
    result = mark(OK, "ok") if check.is_good else _failed(not check.is_required)
    why = "" if check.is_good else join(check.reason, ": " if check.details else "", words.shorten(check.details, 300))
    took = words.took(check.took) if check.took else "under 1 ms"  # it comes in whole milliseconds
    return check.name, result, ago(clock.unix(check.at), clock.time), took, str(check.slot), of, why


# ── at a glance ─────────────────────────────────────────────────────────────────────────────────


def glance(seen: Seen) -> Markup:
    """The figures that somebody compares first."""
    state, now = seen.known.state, seen.known.time
    pids = {worker.pid for worker in state.workers if worker.pid}
    last_looks = [samples[-1] for pid, samples in seen.samples.items() if samples and pid in pids]
    sizes = [each.rss for each in last_looks]
    used = [each.share for each in last_looks if each.share is not None]
    waiting = [each.backlog for each in state.listeners if each.backlog >= 0]
    last = state.reloads[-1] if state.reloads else None
    hour = sum(each.at > now - _SCALES[0] for each in state.deaths)
    tiles: list[tuple[str, str]] = [
        ("Crashes, last hour", f"{hour}+" if hour == len(state.deaths) >= REMEMBERED else str(hour)),
        (
            "Last reload" if len(state.reloads) > 1 else "Start",
            join(last.result, ", ", ago(last.at, now)) if last else UNKNOWN,
        ),
        ("Memory of workers", words.size(sum(sizes)) if sizes else UNKNOWN),
        ("CPU of workers", words.percent(sum(used)) if used else UNKNOWN),
        ("Connections waiting", str(sum(waiting)) if waiting else UNKNOWN),
        ("Log lines lost", f"{state.lines.dropped + state.lines.lost:,}"),
    ]
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in tiles), class_="glance")
