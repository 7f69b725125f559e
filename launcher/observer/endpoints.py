"""
Every path that the observer answers, and what it answers.

Owns the route table, from which `/` and the reference are printed.
Must never ask anybody: what is known is an argument; only what a process uses is looked up in /proc.
"""

from __future__ import annotations

import os

from launcher.lean import NamedTuple
from launcher.observer import probes, tail
from launcher.observer.http import TEXT, Reply
from launcher.observer.tail import Found, Wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.observer.http import Request
    from launcher.observer.probes import Check, Probe
    from launcher.observer.samples import Sample
    from launcher.observer.state import State

    Answer = Callable[["Known", "Request", "dict[str, str]", bool], "Reply | Later | Scrape | Wanted"]

JSON = "application/json"
HTML = "text/html; charset=utf-8"
LEAVING = ("draining", "dumping", "killed", "stuck")  # of these no stacks are taken, or they are in the log already


class About(NamedTuple):
    """What never changes."""

    name: str = ""
    started: float = 0.0  # monotonic: the supervisor's
    supervisor: int = 0  # PID
    directory: str = ""
    token_file: str = ""
    metrics_directory: str = ""  # of the app; empty: none
    settings: tuple[tuple[str, str, str], ...] = ()  # name, value, origin


class Known(NamedTuple):
    """All that an answer is made from."""

    about: About
    state: State
    monotonic: float  # seconds: now
    time: float  # the same as Unix time
    silent_for: float  # seconds that the supervisor's loop has owed an answer
    version: bytes | None  # version.json of the generation that serves
    config: tuple[tuple[str, str, str], ...] = ()  # its variables: name, value, origin
    log: Callable[[Wanted], Found] = lambda _: Found(b"", "", 0)
    look: Callable[[list[int]], dict[int, list[Sample]]] = lambda _: {}  # what these processes used lately


class Later(NamedTuple):
    """The answer is to come from the supervisor: the stacks of this slot."""

    slot: int


class Scrape(NamedTuple):
    """The answer is to come from a collection of the app's metrics."""

    what: str  # not only a flag: to be equal to a `Later` would be to get its answer
    is_open: bool  # OpenMetrics


class Route(NamedTuple):
    """One path; parts of it in capitals stand for anything."""

    path: str
    meaning: str
    codes: str
    answer: Answer
    kind: str = TEXT
    is_private: bool = False


def find(path: str) -> tuple[Route, dict[str, str]] | None:
    """Find the route of a path, and what stands in its open parts."""
    parts = path.split("/")
    for route in ROUTES:
        pairs = list(zip(route.path.split("/"), parts, strict=False))
        is_it = route.path.count("/") == path.count("/") and all(
            bool(part) if is_open(name) else part == name for name, part in pairs
        )
        if is_it:
            return route, {name: part for name, part in pairs if is_open(name)}
    return None


def is_open(part: str) -> bool:
    """Say whether a part of a route's path stands for anything."""
    return part.isupper()


# ── probes ──────────────────────────────────────────────────────────────────────────────────────


def _probe(probe: Probe, request: Request, parts: dict[str, str], is_private: bool) -> Reply:  # noqa: FBT001  a tier
    name = parts.get("CHECK")
    if name is None:
        is_verbose = any(
            option.partition("=")[0] == "verbose" for option in request.options
        )  # as Kubernetes: is it there
        text = probes.text(probe, is_verbose=is_verbose, is_private=is_private)
        return Reply(200 if probe.is_good else 503, text.encode("utf-8", "backslashreplace"))
    check = next((check for check in probe.checks if check.name == name), None)
    if check is None:
        return Reply(404, f"there is no such check: {', '.join(check.name for check in probe.checks)}\n".encode())
    text = "ok" if check.is_good else probes.line(check, is_private=is_private)
    return Reply(200 if check.is_good or check.is_warning else 503, f"{text}\n".encode("utf-8", "backslashreplace"))


def _livez(known: Known, request: Request, parts: dict[str, str], is_private: bool) -> Reply:  # noqa: FBT001
    return _probe(probes.alive(known.silent_for), request, parts, is_private)


def _healthz(known: Known, request: Request, parts: dict[str, str], is_private: bool) -> Reply:  # noqa: FBT001
    return _probe(probes.healthy(known.state, known.silent_for, known.monotonic), request, parts, is_private)


def _readyz(known: Known, request: Request, parts: dict[str, str], is_private: bool) -> Reply:  # noqa: FBT001
    return _probe(probes.ready(known.state, known.monotonic), request, parts, is_private)


def _startupz(known: Known, request: Request, parts: dict[str, str], is_private: bool) -> Reply:  # noqa: FBT001
    return _probe(probes.started(known.state), request, parts, is_private)


def _version(known: Known, *_: object) -> Reply:
    if known.version is None:
        return Reply(404, b"there is no version.json in the app's directory\n")
    return Reply(200, known.version, JSON)


def _heartbeat(known: Known, _: Request, __: object, is_private: bool) -> Reply:  # noqa: FBT001
    probe = probes.ready(known.state, known.monotonic)
    levels = {check.name: _level(check) for check in probe.checks}
    details = {
        check.name: {
            "status": levels[check.name],
            "messages": {} if check.is_good else {check.name: probes.line(check, is_private=is_private)},
            **({} if check.age is None else {"age": round(check.age, 3)}),
        }
        for check in probe.checks
        if not check.is_good or check.age is not None
    }
    status = "error" if not probe.is_good else "ok" if set(levels.values()) == {"ok"} else "warning"
    return _json(200 if probe.is_good else 503, {"status": status, "checks": levels, "details": details})


def _level(check: Check) -> str:
    return "ok" if check.is_good else "warning" if check.is_warning else "error"


def _lbheartbeat(*_: object) -> Reply:
    return Reply(200, b"ok\n")


# ── the rest ────────────────────────────────────────────────────────────────────────────────────


def _status(known: Known, _: Request, __: object, is_private: bool) -> Reply:  # noqa: FBT001
    from launcher.observer import report  # noqa: PLC0415  json costs 5 ms, which only those pay who ask

    return _json(200, report.status(known, is_private=is_private))


def _config(known: Known, *_: object) -> Reply:
    variables = [{"name": name, "value": value, "origin": origin} for name, value, origin in known.config]
    return _json(200, {"generation": known.state.current or None, "variables": variables})


def _stacks(known: Known, _: Request, parts: dict[str, str], __: object) -> Reply | Later:
    text = parts["SLOT"]
    slot = int(text) if text.isdecimal() and text.isascii() and len(text) < 6 else -1  # noqa: PLR2004  10,000 workers
    if not any(worker.slot == slot and worker.pid and worker.state not in LEAVING for worker in known.state.workers):
        return Reply(404, b"there is no worker in this slot\n")
    return Later(slot)


def _logs(known: Known, request: Request, *_: object) -> Reply | Wanted:
    wanted = tail.understand(request.options)
    if isinstance(wanted, str):
        return Reply(400, f"{wanted}\n".encode())
    found = known.log(wanted)
    return wanted if wanted.is_following and wanted.since and not found.text else lines(found)


def lines(found: Found) -> Reply:
    """Answer with what there is of the log."""
    return Reply(200, found.text, headers=(("Log-Position", found.position), ("Log-Missed", str(found.missed))))


def _metrics(_: Known, request: Request, *__: object) -> Scrape:
    from launcher.observer import metrics  # noqa: PLC0415  only who is scraped needs it

    return Scrape("metrics", metrics.accepts_openmetrics(request.accept))


def _index(known: Known, request: Request, _: object, is_private: bool) -> Reply:  # noqa: FBT001
    from launcher.observer.page import sections, whole  # noqa: PLC0415  only who looks at the page needs it

    nonce = os.urandom(16).hex()
    paths = tuple(
        (route.path, route.meaning)
        for route in ROUTES
        if not any(map(is_open, route.path.split("/"))) and (is_private or not route.is_private)
    )
    uses = known.look(whole.pids(known))
    seen = sections.Seen(known, is_private, uses, request.options, os.uname().nodename, paths)
    body = whole.render(seen, nonce)
    return Reply(200, body, HTML, (("Content-Security-Policy", whole.policy(nonce)),))


def _json(status: int, value: object) -> Reply:
    import json  # noqa: PLC0415

    return Reply(status, json.dumps(value, indent=2).encode() + b"\n", JSON)


ROUTES: tuple[Route, ...] = (
    Route("/", "how it is, for people: one page, live; `?live` is its inner part", "200", _index, HTML),
    Route("/livez", "the supervisor answers; also while draining, and while no worker is up", "200, 503", _livez),
    Route("/livez/CHECK", "one check of it", "200, 503, 404", _livez),
    Route(
        "/readyz",
        "a generation is committed, a worker is ready, nothing drains, and no required check of the app fails",
        "200, 503",
        _readyz,
    ),
    Route(
        "/readyz/CHECK",
        "one check of it: generation, workers, shutdown, reload, respawn, and the app's own",
        "200, 503, 404",
        _readyz,
    ),
    Route("/startupz", "a generation was ready once; stays so", "200, 503", _startupz),
    Route(
        "/healthz",
        "the same as /livez, under its old name; `?verbose` shows the app's checks too, which change no code here",
        "200, 503",
        _healthz,
    ),
    Route(
        "/__version__",
        "version.json of the app's directory, as the generation that serves found it",
        "200, 404",
        _version,
        JSON,
    ),
    Route("/__heartbeat__", "the checks of /readyz as JSON (Dockerflow)", "200, 503", _heartbeat, JSON),
    Route("/__lbheartbeat__", "it answers, and looks at nothing (Dockerflow)", "200", _lbheartbeat),
    Route(
        "/metrics",
        "metrics of prod-run and of the app, all its processes together: Prometheus text, or OpenMetrics if asked for",
        "200, 504",
        _metrics,
    ),
    Route(
        "/status",
        "generations, workers, sockets, reloads; in public without reasons and settings' values",
        "200",
        _status,
        JSON,
    ),
    Route(
        "/config", "the app's variables with value and origin, without secrets", "200", _config, JSON, is_private=True
    ),
    Route(
        "/logs",
        "the last lines of the log, as the sink got them; `?lines=N&slot=N&level=NAME`; with `&since=POSITION` (an "
        "earlier answer's `Log-Position`) those after it, with `&follow` waiting up to 5 s for some",
        "200, 400",
        _logs,
        is_private=True,
    ),
    Route(
        "/workers/SLOT/stacks",
        "the Python stacks of a worker now, also if it holds the GIL; 503: it is stopped, or dead",
        "200, 404, 503, 504",
        _stacks,
        is_private=True,
    ),
)
