"""
The page at `/`: everything for people, in one file that needs nothing else.

Owns the order of its parts, the template, and the policy that a browser is to hold it to.
Must never hold up the loop for long: what has many rows is bounded (`tables.MOST`).
The script asks for `/?live`, the inner part alone, and brings what is on the screen up to it: one renderer for both.
"""

from __future__ import annotations

import os

from launcher import __version__
from launcher.observer import withheld
from launcher.observer.page import private, sections, words
from launcher.observer.page.headline import Headline, headline
from launcher.observer.page.markup import Markup, escape, join, tag
from launcher.observer.page.tables import MOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.observer.endpoints import Known
    from launcher.observer.page.sections import Seen

TEMPLATE = os.path.join(os.path.dirname(__file__), "page.html")
_COLOURS = {words.OK: "1a7f47", words.BUSY: "2563c9", words.WARNING: "b45f06", words.BAD: "c62f2f"}
_DRAWN = {
    words.OK: "<circle cx='8' cy='8' r='7'/>",
    words.BUSY: "<circle cx='8' cy='8' r='7'/>",
    words.WARNING: "<path d='M8 1l7.5 14H.5z'/>",
    words.BAD: "<path d='M1 1h14v14H1z'/>",
}
_PARTS = (
    sections.workers,
    sections.reloads,
    sections.crashes,
    sections.checks,
    sections.generations,
    sections.sockets,
)
_template: list[tuple[bool, str]] = []  # read when somebody asks


def policy(nonce: str) -> str:
    """Return the Content-Security-Policy: our own script and style, and questions to ourselves."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )


def render(seen: Seen, nonce: str) -> bytes:
    """Return the page; the inner part alone if `live` is among the options."""
    if not seen.is_private:
        seen = seen._replace(known=withheld.withhold(seen.known), host="")
    known = seen.known
    head = headline(seen.known)
    title = f"{words.SHAPES[head.level]} {known.about.name}: {head.pill.lower()}"
    every = "2000" if len(known.state.workers) <= sections.CROWD else "5000"
    inner = _inner(seen, head)
    live = tag("div", inner, id="live", data_title=title, data_icon=_icon(head.level), data_every=every)
    if any(option.partition("=")[0] == "live" for option in seen.options):
        text: str = live
    else:
        parts = {
            "title": escape(title),
            "icon": escape(_icon(head.level)),
            "nonce": nonce,
            "live": live,
            "paths": _paths(seen),
        }
        text = "".join([parts[piece] if is_place else piece for is_place, piece in _pieces()])
    return text.encode("utf-8", "backslashreplace")


def pids(known: Known) -> list[int]:
    """Return whose use is to be measured."""
    return [worker.pid for worker in known.state.workers if worker.pid][:MOST]


def _pieces() -> list[tuple[bool, str]]:
    """Return the template, taken apart: text, and the names of what is to be put between."""
    if not _template:
        with open(TEMPLATE, encoding="utf-8") as file:
            first, *others = file.read().split("{{")
        _template.append((False, first))
        for other in others:
            name, _, text = other.partition("}}")
            _template.extend(((True, name), (False, text)))
    return _template


def _icon(level: str) -> str:
    """Draw what stands in the browser's tab."""
    return (
        "data:image/svg+xml,<svg xmlns='http:%2F%2Fwww.w3.org/2000/svg' viewBox='0 0 16 16' "
        f"fill='%23{_COLOURS[level]}'>{_DRAWN[level]}</svg>"
    )


def _inner(seen: Seen, head: Headline) -> Markup:
    parts = [part(seen) for part in _PARTS]
    parts += [private.configuration(seen), private.log(seen)] if seen.is_private else [_withheld()]
    main = tag("main", sections.glance(seen), *parts)
    return join(_header(seen, head), main)


def _header(seen: Seen, head: Headline) -> Markup:
    known = seen.known
    now = known.time
    started = seen.clock.unix(known.about.started)
    facts = [
        *([join("on ", seen.host)] if seen.host else []),
        *([_version(known.version)] if known.version else []),
        join("prod-run ", __version__),
        join("PID ", str(known.about.supervisor)),
        join("up for ", words.age(started, now)),
        join("as of ", tag("time", words.exact(now)[11:], datetime=words.exact(now)[:19].replace(" ", "T") + "Z")),
    ]
    since = tag("p", "since ", words.exact(head.since), ", ", words.ago(head.since, now), class_="since")
    notes = [
        tag("li", words.mark(note.level, note.text), *(_beside(note.at, note.details, now))) for note in head.notes
    ]
    return tag(
        "header",
        tag("p", words.mark(head.level, head.pill), class_="pill"),
        tag("h1", known.about.name),
        tag("p", head.sentence, role="status", id="state"),
        since if head.since else "",
        tag("ul", *notes, class_="notes") if notes else "",
        tag("ul", *(tag("li", fact) for fact in facts), class_="facts"),
        class_=head.level,
    )


def _beside(at: float, details: str, now: float) -> list[str]:
    when: list[str] = [Markup(" "), words.ago(at, now)] if at else []
    return [*when, tag("div", words.reason(details), class_="details")] if details else when


def _version(version: bytes) -> str:
    """Say what the app calls itself, from its version.json (Dockerflow)."""
    import json  # noqa: PLC0415  few have one

    try:
        told = json.loads(version)
    except ValueError:
        return "version.json cannot be read"
    named = [str(told[name]) for name in ("version", "commit") if told.get(name)] if isinstance(told, dict) else []
    return words.shorten("version " + (", ".join(named) or "not named in version.json"), 100)


def _withheld() -> Markup:
    """Say what is not here, and how to see it."""
    way = tag("code", "ssh -L 8900:RUNTIME-DIRECTORY/introspect.sock HOST")
    text = "Reasons, the app's own words, configuration, stacks and the log are for the private view: through the unix "
    return tag("p", text, "socket (", way, ", then localhost:8900), or with the token.", class_="none withheld")


def _paths(seen: Seen) -> Markup:
    return tag("ul", *(tag("li", tag("a", path, href=path), " ", meaning) for path, meaning in seen.paths))
