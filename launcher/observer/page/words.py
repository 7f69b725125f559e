"""
Figures and times as people say them.

Owns the wording; every short form keeps the exact one beside it.
Pure.
"""

from __future__ import annotations

from launcher.lean import NamedTuple
from launcher.logs.formats import timestamp
from launcher.observer.page.markup import Markup, escape, tag

UNKNOWN = "–"  # noqa: RUF001  a dash that stands for a figure
OK, BUSY, WARNING, BAD, QUIET = "ok", "busy", "warn", "bad", "quiet"
SHAPES = {OK: "●", BUSY: "◐", WARNING: "▲", BAD: "■", QUIET: "○"}  # nothing is told by colour alone
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_NOW = 5  # seconds
_KIB = 1024


class Clock(NamedTuple):
    """The same instant on both clocks."""

    time: float  # Unix time
    monotonic: float

    def unix(self, monotonic: float) -> float:
        """Turn a time of the monotonic clock into Unix time."""
        return self.time - self.monotonic + monotonic


def span(seconds: float) -> str:
    """Say how long: `12 s`, `3 min`, `5 h 12 min`, `3 days`."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < 2 * _DAY:
        minutes = whole % _HOUR // _MINUTE
        return f"{whole // _HOUR} h" + (f" {minutes} min" if minutes else "")
    return f"{whole // _DAY} days"


def took(seconds: float) -> str:
    """Say how long something took: `0.84 s`, `12 s`."""
    if seconds <= 0:
        return UNKNOWN
    return f"{seconds:.2f} s" if 0.1 <= seconds < 10 else f"{seconds * 1000:.1f} ms" if seconds < 0.1 else span(seconds)  # noqa: PLR2004  three digits


def exact(at: float) -> str:
    """Write a Unix time to the second: `2026-01-31 08:05:09 UTC`."""
    return _plain(timestamp(at))


def ago(at: float, now: float) -> Markup:
    """Say how long ago a Unix time was, with the exact one to be had."""
    stamp = timestamp(at)
    text = "just now" if now - at < _NOW else f"{span(now - at)} ago"
    return Markup(f'<time datetime="{stamp}" title="{_plain(stamp)}">{text}</time>')


def age(since: float, now: float) -> Markup:
    """Say for how long something has been, since a Unix time."""
    stamp = timestamp(since)
    return Markup(f'<time datetime="{stamp}" title="since {_plain(stamp)}">{span(now - since)}</time>')


def _plain(stamp: str) -> str:
    return f"{stamp[:10]} {stamp[11:19]} UTC"


def size(number: int) -> str:
    """Write bytes with three digits: `38.2 MiB`."""
    value, units = number / _KIB, ("KiB", "MiB", "GiB", "TiB")
    for unit in units:
        if value < 1000 or unit == units[-1]:  # noqa: PLR2004  four digits are the next unit
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"  # noqa: PLR2004
        value /= _KIB
    return ""


def percent(share: float) -> str:
    """Write a share of one CPU: `0.5 %`, `12 %`."""
    return f"{share * 100:.1f} %" if share < 0.1 else f"{share * 100:.0f} %"  # noqa: PLR2004  two digits


def count(number: int, one: str, many: str = "") -> str:
    """Count things: `1 worker`, `2 workers`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def mark(level: str, text: str, **attributes: str) -> Markup:
    """Write a state by word, shape and colour."""
    shape = tag("span", SHAPES[level], aria_hidden="true")
    return tag("span", shape, Markup(" "), text, class_=f"mark {level}", **attributes)


def shorten(text: str, most: int) -> str:
    """Cut a text of somebody else's."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def first_line(text: str) -> tuple[str, str]:
    """Split a reason into its first line and the rest."""
    first, _, rest = text.strip("\n").partition("\n")
    return first, rest


def reason(text: str, detail: str = "", most: int = 300) -> Markup:
    """Show somebody else's words: the first line at once, what follows, and all else, when asked for."""
    first, rest = first_line(text)
    is_all = not rest and len(first) <= most
    if is_all and not detail:
        return escape(first)
    whole = "\n\n".join(filter(None, ("" if is_all else text.strip("\n"), detail)))
    return tag("details", tag("summary", shorten(first, most)), tag("pre", whole, tabindex="0"))
