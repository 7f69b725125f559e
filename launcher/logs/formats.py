"""
How one event of prod-run becomes one line.

Owns the record of an event and its two written forms: for people (`console`) and for programs (`logfmt`).
Must never read a clock, write anything or fail: the supervisor calls it from its only loop, with values from anywhere.

One event, one line, verb first, then facts as key=value: `retired generation=1 workers=4 after=2.31s`.
No value can forge a line, a field or a terminal's colours: what is not printable is escaped.
"""

from __future__ import annotations

from launcher.lean import NamedTuple

LEVELS = ("debug", "info", "warning", "error")

_WIDTH = max(map(len, LEVELS))
_INDENT = "    "
_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[1;31m"}
_PLAIN = "\x1b[0m"
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LONG = ("stderr",)  # facts of many lines, which a sentence for people does without
_OWN_KEYS = ("time", "level", "event", "detail")
_LARGEST_BMP = 0xFFFF
_INFINITE = float("inf")  # JSON has no word for it


class Record(NamedTuple):
    """
    One event: when, how urgent, what happened, and the facts.

    `detail` is for text of many lines, such as the app's traceback; it ends the record.
    """

    time: float  # wall clock, seconds since 1970
    level: str  # one of LEVELS
    event: str  # a verb in the past tense
    fields: tuple[tuple[str, object], ...] = ()
    detail: str = ""


def is_at_least(level: str, threshold: str) -> bool:
    """Say whether a record of this level is wanted; a level nobody knows is always wanted."""
    return level not in LEVELS or threshold not in LEVELS or LEVELS.index(level) >= LEVELS.index(threshold)


def console(record: Record, *, colour: bool = False) -> str:
    """
    Write a record for people: one aligned line, the detail indented below it.

    Returns:
        Whole lines, the last newline included; always encodable as UTF-8.
    """
    level = f"{_visible(record.level):<{_WIDTH}}"
    if colour:
        level = f"{_COLOURS.get(record.level, '')}{level}{_PLAIN}"
    parts = [timestamp(record.time), level, _visible(record.event), *_pairs(record.fields)]
    return " ".join(parts) + "\n" + _indented(record.detail)


def logfmt(record: Record) -> str:
    """
    Write a record for programs: key=value only, the detail as an escaped field.

    Returns:
        One line, its newline included; always encodable as UTF-8.
    """
    parts = [
        f"time={timestamp(record.time)}",
        f"level={value(record.level)}",
        f"event={value(record.event)}",
        *_pairs(record.fields),
    ]
    if record.detail:
        parts.append(f"detail={value(record.detail)}")
    return " ".join(parts) + "\n"


def json(record: Record, app: str) -> str:
    """
    Write a record as one JSON object: `message` is the event with its facts for people, then each by itself.

    Returns:
        One line, its newline included; always encodable as UTF-8.
    """
    known = (("time", timestamp(record.time)), ("level", record.level), ("app", app), ("logger", "prod-run"))
    said = " ".join((record.event, *_pairs(tuple(fact for fact in record.fields if fact[0] not in _LONG))))
    facts: list[tuple[str, object]] = [*known, ("message", said), ("event", record.event)]
    names = {name for name, _ in facts}
    facts += [(f"x_{name}" if name in names else name, item) for name, item in record.fields]
    if record.detail:
        facts.append(("detail", record.detail))
    return "{" + ",".join(f'"{_escaped(name)}":{_json(item)}' for name, item in facts) + "}\n"


def message(record: Record) -> str:
    """Write a record without time and level, which the header of a syslog message has; the detail below it."""
    return " ".join((_visible(record.event), *_pairs(record.fields))) + "\n" + _indented(record.detail)


def timestamp(seconds: float) -> str:
    """Write a time as RFC 3339 in UTC with milliseconds: `2026-01-31T08:05:09.250Z`."""
    # Cut, not rounded: 59.9996 s must not become second 60.
    days, milliseconds = divmod(int(seconds * 1000 // 1), 86_400_000)
    year, month, day = _date(days)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hour, minute = divmod(minutes, 60)
    second, milliseconds = divmod(milliseconds, 1000)
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z"


def duration(seconds: float) -> str:
    """Write a span of time as people say it: `2.31s`."""
    return f"{seconds:.2f}s"


def value(item: object) -> str:
    """
    Write one fact: as it is if that is unambiguous, else quoted and escaped as in JSON.

    Several things are joined by commas, truth is `true` or `false`, nothing is `-`.
    """
    text = text_of(item)
    if text and text.isprintable() and not any(sign in text for sign in ' "='):
        return text
    return f'"{_escaped(text)}"'


def _pairs(fields: tuple[tuple[str, object], ...]) -> list[str]:
    return [f"{_key(name)}={value(item)}" for name, item in fields]


def _json(item: object) -> str:
    if isinstance(item, bool) or not isinstance(item, int | float) or not -_INFINITE < item < _INFINITE:
        return f'"{_escaped(text_of(item))}"'
    return text_of(item)


def _key(name: str) -> str:
    if name in _OWN_KEYS:
        # A program that reads `level=` must get the record's, not a fact that happens to have its name.
        return f"x_{name}"
    if name.isidentifier():
        return name
    return "".join(sign if sign.isalnum() or sign in "_.-" else "_" for sign in name) or "_"


def text_of(item: object) -> str:
    """Write one fact as plain text, with nothing escaped."""
    match item:
        case bytes():
            text = item.decode("utf-8", "backslashreplace")
        case bool():
            text = "true" if item else "false"
        case None:
            text = "-"
        case float():
            text = f"{item:.3f}".rstrip("0").rstrip(".")
        case tuple() | list() | set() | frozenset():
            text = ",".join(map(text_of, item))
        case _:
            text = str(item)
    return text


def _visible(text: str) -> str:
    """Escape what cannot be seen, and leave the rest unquoted."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else _escape(sign) for sign in text)


def _escaped(text: str) -> str:
    return "".join(sign if sign.isprintable() and sign not in '\\"' else _escape(sign) for sign in text)


def _escape(sign: str) -> str:
    # Lone surrogates (bytes that were not UTF-8) come here too, so that the line can always be encoded.
    code = ord(sign)
    if code > _LARGEST_BMP:
        # JSON has no longer escape than \uXXXX: two of them stand for one sign.
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return _ESCAPES.get(sign) or f"\\u{code:04x}"


def _indented(detail: str) -> str:
    if not detail.strip():
        return ""
    lines = detail.rstrip().expandtabs(4).split("\n")
    return "".join(f"{_INDENT}{_visible(line.rstrip())}".rstrip() + "\n" for line in lines)


def _date(days: int) -> tuple[int, int, int]:
    """Turn days since 1970 into year, month, day (the method is Howard Hinnant's `civil_from_days`)."""
    # Years that begin in March put the leap day last; an era of 400 years always has 146097 days.
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9  # noqa: PLR2004  March is the first month of such a year
    return era * 400 + year_of_era + (month <= 2), month, day  # noqa: PLR2004
