"""
The parts of the page that are for the private tier: settings, the app's configuration, the log.

Owns what stands in them.  Pure; secrets were taken out before the values came here.
"""

from __future__ import annotations

from launcher.observer import tail
from launcher.observer.page.markup import Markup, escape, tag, void
from launcher.observer.page.tables import section, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.observer.page.sections import Seen


SHOWN = 200  # lines
SEARCHED = 5000  # lines
_HEX = frozenset(b"0123456789abcdefABCDEF")
LEVELS = ("info", "warning", "error")


def configuration(seen: Seen) -> Markup:
    """Return settings and variables with their origin."""
    known = seen.known
    parts = (
        ("variables", "The app's variables", known.config),
        ("settings", "prod-run's settings", known.about.settings),
    )
    return section(
        "config",
        "Configuration",
        *(
            tag(
                "details",
                tag("summary", f"{title} ({len(rows)})"),
                table(name, ("Name", "Value", "Origin"), [_fact(*row) for row in rows], "There is none.", kinds=" ww"),
                id=name,
            )
            for name, title, rows in parts
        ),
    )


def _fact(name: str, value: str, origin: str) -> tuple[str, str, str]:
    return tag("code", name), tag("code", value), origin


def log(seen: Seen) -> Markup:
    """Return the last lines of the log that match, and the form that says which."""
    asked = {name: unquote(value) for name, _, value in (option.partition("=") for option in seen.options) if value}
    wanted = tail.understand(tuple(f"{name}={value}" for name, value in asked.items() if name in ("level", "slot")))
    text = asked.get("find", "")
    if isinstance(wanted, str):
        lines = [wanted]
    else:
        found = seen.known.log(wanted._replace(lines=SEARCHED if text else SHOWN)).text.decode("utf-8", "replace")
        lines = [line for line in found.splitlines() if text.casefold() in line.casefold()][-SHOWN:]
    shown = (
        tag("pre", "\n".join(lines), id="log-lines")
        if lines
        else tag("p", "No line matches." if asked else "Nothing so far.")
    )
    box = tag("div", shown, class_="tail", tabindex="0", role="region", aria_label="the last lines of the log")
    return section("log", "Log", _form(seen, asked), box, about=f"the last {SHOWN} lines that match")


def _form(seen: Seen, asked: dict[str, str]) -> Markup:
    slots = sorted({worker.slot for worker in seen.known.state.workers})
    levels = _select("level", "of every level", [(each, f"{each} and worse") for each in LEVELS], asked)
    workers = _select("slot", "of everybody", [(str(each), f"of worker {each}") for each in slots], asked)
    hint = "with this text"
    find = void("input", name="find", type="search", value=asked.get("find", ""), aria_label=hint, placeholder=hint)
    return tag("form", levels, workers, find, tag("button", "Show"), method="get", action="/", role="search")


def _select(name: str, everything: str, choices: list[tuple[str, str]], asked: dict[str, str]) -> Markup:
    options = [
        tag("option", text, value=value, selected="selected" if asked.get(name) == value else "")
        for value, text in choices
    ]
    first = Markup(f'<option value="">{escape(everything)}</option>')
    return tag("select", first, *options, name=name, aria_label="lines")


def unquote(text: str) -> str:
    """Take a word of a query out of its form (urllib.parse costs 2 ms and half a megabyte)."""
    first, *others = text.replace("+", " ").encode("utf-8", "surrogateescape").split(b"%")
    data = first
    for other in others:
        is_code = len(other) > 1 and _HEX.issuperset(other[:2])
        data += bytes((int(other[:2], 16),)) + other[2:] if is_code else b"%" + other
    return data.decode("utf-8", "replace")
