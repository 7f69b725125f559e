"""
How one record of Python's logging becomes one line.

Owns the record as a value (`Entry`) and its written forms, in the order: time, level, whose it is, logger, message,
what came with it, traceback.  Must never wait, and never fail, whatever the record holds.

No value can forge a line, a field or a terminal's colours; no field comes twice; a line never exceeds `LONGEST`.
"""

from __future__ import annotations

from _json import encode_basestring as _encode  # json builds classes and tables around it, 2 ms
from _json import encode_basestring_ascii as _encode_ascii

from launcher.lean import NamedTuple
from launcher.logs import formats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from launcher.logs.batch import Form, Source

    Mask = Callable[[str], str]
    Pairs = list[tuple[str, object]]

LONGEST = 60_000  # bytes: below where the observer cuts, which would leave half a JSON object

# An extra of such a name would pass for ours.
_IDENTITY = frozenset({"time", "level", "app", "version", "slot", "generation", "pid", "logger", "message"})
_ADDED = {"thread", "trace_id", "span_id", "exc", "stack", "stream", "partial", "left_out"}
RESERVED = _IDENTITY | _ADDED

_LIMITS = (
    LONGEST,
    LONGEST // 4,
    LONGEST // 20,
    300,
)  # characters of one value: tried in this order until the line fits
_LONGEST_NAME = 200
_LARGE = 1 << 63  # beyond, it may have more digits than Python writes
_time = [(0, "")]  # the last second that was written, since most lines are of the same
_DIM = "\x1b[2m"
_PLAIN = "\x1b[0m"


class Entry(NamedTuple):
    """One record: when, how urgent, from which logger, what, and what came with it."""

    time: float  # wall clock, seconds since 1970
    level: str  # one of batch.SEVERITIES
    logger: str
    message: str
    extras: Mapping[str, object]  # the app's own: names may be anything
    context: tuple[tuple[str, str], ...] = ()  # thread, trace_id, span_id
    exc: str = ""
    stack: str = ""


def prefix(source: Source, form: Form) -> str:
    """Write whose line it is, as it stands in each line of a process."""
    if form.kind == "console":
        text = f"[{source.slot if source.slot >= 0 else '-'}/{source.generation}]"
        return f"{_DIM}{text}{_PLAIN}" if form.colour else text
    pairs: Pairs = [("app", source.app)]
    if source.version:
        pairs.append(("version", source.version))
    if source.slot >= 0:
        pairs.append(("slot", source.slot))
    pairs += [("generation", source.generation), ("pid", source.pid)]
    if form.kind == "json":
        return ",".join(f'"{name}":{_json(item)}' for name, item in pairs)
    return " ".join(f"{name}={_bare(item)}" for name, item in pairs)


def line(entry: Entry, prefix: str, form: Form, mask: Mask | None = None) -> str:
    """
    Write a record.

    Args:
        entry: the record.
        prefix: of its process and this form.
        form: how the sink wants it; of kind `console` and `message` a traceback is indented lines below.
        mask: what takes secrets out of a text.
    """
    entry = _masked(entry, mask) if mask else entry
    for limit in _LIMITS:
        text = _written(entry, prefix, form, limit)
        if _fits(text):
            return text
    context = (*entry.context, ("left_out", f"{len(entry.extras)} fields"))
    return _written(entry._replace(extras={}, context=context), prefix, form, _LIMITS[-1])


def quoted(text: str) -> str:
    """Write a text as a JSON string in which everything can be seen."""
    return visible(_encode(text))


def visible(text: str) -> str:
    """Escape as JSON does what cannot be seen, quotes and backslashes excepted."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else _encode_ascii(sign)[1:-1] for sign in text)


def shown(item: object) -> str:
    """Return a value's `repr`, or say that it has none."""
    try:
        return repr(item)
    except Exception:  # noqa: BLE001  it is the app's code, and a log line must not end its request
        return f"<{type(item).__name__}: its repr failed>"


# ── the forms ───────────────────────────────────────────────────────────────────────────────────────


def _written(entry: Entry, prefix: str, form: Form, limit: int) -> str:
    if form.kind == "json":
        return _as_json(entry, prefix, limit)
    if form.kind == "logfmt":
        return _logfmt(entry, prefix, limit)
    text = _message(entry, limit)
    return f"{_head(entry, form)} {prefix} {text}" if form.kind == "console" else text


def _logfmt(entry: Entry, prefix: str, limit: int) -> str:
    parts = [
        f"time={_timestamp(entry.time)} level={entry.level} {prefix} logger={_bare(entry.logger, limit)}",
        f"message={quoted(_cut(entry.message, limit))}",
        *_pairs(entry, limit),
    ]
    parts += [f"{name}={quoted(_cut(text, limit))}" for name, text in _details(entry)]
    return " ".join(parts) + "\n"


def _as_json(entry: Entry, prefix: str, limit: int) -> str:
    head = f'"time":"{_timestamp(entry.time)}","level":"{entry.level}",{prefix}'
    parts = [
        f'{head},"logger":{_json(entry.logger, limit)}',
        f'"message":{_json(entry.message, limit)}',
        *(f"{quoted(name)}:{_json(item, limit)}" for name, item in _named(entry, is_bare=False)),
    ]
    parts += [f'"{name}":{_json(text, limit)}' for name, text in _details(entry)]
    return f"{{{','.join(parts)}}}\n"


def _head(entry: Entry, form: Form) -> str:
    level = f"{entry.level:<7}"
    if form.colour:
        level = f"{formats._COLOURS.get(entry.level, formats._COLOURS['error'])}{level}{_PLAIN}"
    return f"{_timestamp(entry.time)} {level}"


def _message(entry: Entry, limit: int) -> str:
    first, _, rest = _cut(entry.message, limit).partition("\n")
    parts = [f"{visible(_cut(entry.logger, limit))}: {visible(first)}", *_pairs(entry, limit)]
    below = [rest, *(_cut(text, limit) for _, text in _details(entry))]
    # Indented, also where no terminal is: a text of several lines must not pass for several records.
    return " ".join(parts) + "\n" + formats._indented("\n".join(filter(None, below)))


# ── names and values ────────────────────────────────────────────────────────────────────────────────


def _timestamp(seconds: float) -> str:
    second, milliseconds = divmod(int(seconds * 1000 // 1), 1000)
    number, text = _time[0]
    if number != second:
        text = formats.timestamp(second)[: -len("000Z")]
        _time[0] = second, text
    return f"{text}{milliseconds:03}Z"


def _pairs(entry: Entry, limit: int) -> list[str]:
    return [f"{name}={_bare(item, limit)}" for name, item in _named(entry, is_bare=True)]


def _details(entry: Entry) -> Iterator[tuple[str, str]]:
    return ((name, text) for name, text in (("exc", entry.exc), ("stack", entry.stack)) if text)


def _named(entry: Entry, *, is_bare: bool) -> Iterator[tuple[str, object]]:
    """Yield extras, each under a name that nothing else has, then the context."""
    taken = set(RESERVED) if entry.extras else set()
    for given, item in entry.extras.items():
        name = (given if isinstance(given, str) else shown(given))[:_LONGEST_NAME]
        name = formats._key(name) if is_bare else name
        while name in taken:
            name = f"x_{name}"
        taken.add(name)
        yield name, item
    yield from entry.context


def _bare(item: object, limit: int = LONGEST) -> str:
    if item is None or isinstance(item, bool):
        return formats.value(item)
    return formats.value(_cut(item if isinstance(item, str) else shown(item), limit))


def _json(item: object, limit: int = LONGEST) -> str:
    if isinstance(item, str):
        return quoted(_cut(item, limit))
    text = _encoded(item)
    return text if text and len(text) <= limit else quoted(_cut(text or shown(item), limit))


def _encoded(item: object) -> str:
    """Return a value as JSON, empty if it has no such form."""
    if type(item) is int and abs(item) < _LARGE:
        return str(item)
    if item is not None and not isinstance(item, (bool, int, float, dict, list, tuple)):
        return ""
    import json  # noqa: PLC0415  only for what is no text

    try:
        return visible(json.dumps(item, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=shown))
    except Exception:  # noqa: BLE001  keys of the app's, circles, NaN, a dict that another thread changes
        return ""


def _masked(entry: Entry, mask: Mask) -> Entry:
    """Take secrets out of values, not out of the line: that would stay whole only by chance."""
    return entry._replace(
        message=mask(entry.message),
        extras={name: _masked_value(item, mask) for name, item in entry.extras.items()},
        exc=mask(entry.exc),
        stack=mask(entry.stack),
    )


def _masked_value(item: object, mask: Mask) -> object:
    text = item if isinstance(item, str) else shown(item)
    masked = mask(text)
    return item if masked == text else masked


def _cut(text: str, limit: int) -> str:
    """Cut a long text in its middle: tracebacks say most at their ends."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} …[{len(text) - 2 * half} characters left out]… {text[-half:]}"


def _fits(text: str) -> bool:
    # utf-8(7): a character is at most four bytes.
    return len(text) <= LONGEST // 4 or len(text.encode()) <= LONGEST
