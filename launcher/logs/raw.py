"""
What an app's printed lines become in the form that was chosen.

Owns the text around such a line, the escapes within it, and the fields put into lines that are JSON already.
Must never read a clock or wait.  Whatever the bytes are: one line in is one record out, in order, and nobody can forge
a second line, a field or a terminal's colours.

The work is done on all lines of a piece at once, by what `bytes` does in C; only odd lines are looked at one by one.
`json` is loaded when the first line looks like JSON.
"""

from __future__ import annotations

from launcher.lean import NamedTuple
from launcher.logs import formats
from launcher.logs.batch import INNER_NEWLINE, SEVERITIES

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.logs.batch import Form, Source

    _Scan = Callable[[str, int], tuple[list[object], int]]

CUT = " …[cut]".encode()  # ends a line that was longer than allowed

_LEVELS = {severity: level for level, severity in SEVERITIES.items()}
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_INDENT = b"    "  # a console record's further lines cannot look like its first
_ASCII_END = 0x80
_BRACE = ord("{")
_LARGEST_BMP = 0xFFFF

# Looking for each (memchr) takes half the time of one bytes.translate.
_CONTROLS = bytes(code for code in (*range(0x20), 0x7F) if code != ord("\n"))
_ESCAPES = {code: b"\\u%04x" % code for code in _CONTROLS} | {ord("\t"): b"\\t", ord("\r"): b"\\r"}
_CONSOLE_ESCAPES = {code: escape for code, escape in _ESCAPES.items() if code != ord("\t")}
# In valid JSON these two stand only between tokens, and the rest, DEL excepted, nowhere.
_JSON_ESCAPES = _ESCAPES | {ord("\t"): b" ", ord("\r"): b" "}


class Look(NamedTuple):
    """What stands around a line's text; the time goes between `before` and `after`."""

    before: bytes
    after: bytes
    end: bytes  # its newline included
    escapes: dict[int, bytes]
    is_quoted: bool  # the text stands in quotation marks
    inner: bytes  # for each newline within a record
    fields: bytes  # for the end of an app's JSON object, brace and newline included; empty: JSON is just text
    priority: bytes


def look(source: Source, form: Form, stream: str, severity: int, *, partial: bool = False) -> Look:
    """Return what stands around the lines of one source, of one severity."""
    level = _LEVELS.get(severity, "info")
    priority = b"<%d>" % severity if form.priority else b""
    if form.kind == "message":
        return Look(priority, b"", b"\n", _ESCAPES, False, INNER_NEWLINE.encode(), b"", priority)
    if form.kind == "console":
        after = _console(source, level, colour=form.colour)
        return Look(priority, after, b"\n", _CONSOLE_ESCAPES, False, b"\n" + priority + _INDENT, b"", priority)
    identity = _identity(source)
    added = "".join(f",{_quoted(name)}:{_json(item)}" for name, item in identity)
    fields = f"{added}}}\n".encode()
    said = (("level", level), *identity, ("stream", stream), *((("partial", True),) if partial else ()))
    if form.kind == "json":
        facts = '",' + "".join(f"{_quoted(name)}:{_json(item)}," for name, item in said) + '"message":"'
        return Look(priority + b'{"time":"', facts.encode(), b'"}\n', _ESCAPES, True, b"\\n", fields, priority)
    facts = "".join(f" {name}={formats.value(item)}" for name, item in said) + ' message="'
    return Look(priority + b"time=", facts.encode(), b'"\n', _ESCAPES, True, b"\\n", fields, priority)


def lines(data: bytes, around: Look, time: str) -> bytes:
    """
    Write raw lines: an app's JSON objects with our fields added, all others as text.

    `data` are whole lines, the last newline included; not empty.
    """
    if around.fields and b"{" in data and (data.startswith(b"{") or b"\n{" in data):
        return _objects(data, around) or _mixed(data, around, time)
    return _texts(data, around, time)


def record(data: bytes, around: Look, time: str) -> bytes:
    """Write lines (the last without its newline) as one record."""
    text = _escaped(data, around.escapes, is_quoted=around.is_quoted)
    return b"".join((_prefix(around, time), text.replace(b"\n", around.inner), around.end))


def finished(rows: list[bytes], head: int, form: Form, severity: int) -> bytes:
    """Write records that are in their form already, without the first `head` bytes of each."""
    priority = b"<%d>" % severity if form.priority else b""
    text = priority + (b"\n" + priority).join([row[head:] for row in rows]) + b"\n"
    return text.replace(INNER_NEWLINE.encode(), b"\n" + priority) if form.kind == "console" else text


def _console(source: Source, level: str, *, colour: bool) -> bytes:
    slot = "-" if source.slot < 0 else source.slot
    place = f"[{slot}/{source.generation}]"
    # As prod-run's own lines have it: what stands there between the time and the event.
    own = formats.console(formats.Record(0.0, level, ""), colour=colour)
    between = own.rstrip("\n")[len(formats.timestamp(0.0)) :]
    return f"{between}{_DIM}{place}{_PLAIN} ".encode() if colour else f"{between}{place} ".encode()


def _identity(source: Source) -> list[tuple[str, object]]:
    fields = (
        ("app", source.app),
        ("version", source.version or None),
        ("slot", source.slot if source.slot >= 0 else None),
        ("generation", source.generation),
        ("pid", source.pid or None),
    )
    return [(name, item) for name, item in fields if item is not None]


def _json(item: object) -> str:
    if isinstance(item, bool):
        return "true" if item else "false"
    return str(item) if isinstance(item, int) else _quoted(str(item))


def _quoted(text: str) -> str:
    data = text.encode("utf-8", "surrogateescape").replace(b"\n", b" ")
    return f'"{_escaped(data, _ESCAPES, is_quoted=True).decode()}"'


def _prefix(around: Look, time: str) -> bytes:
    # Only the kind `message` has no text around, and no time.
    return around.before + time.encode() + around.after if around.after else around.before


def _texts(data: bytes, around: Look, time: str) -> bytes:
    prefix = _prefix(around, time)
    text = _escaped(data, around.escapes, is_quoted=around.is_quoted)
    made = text.replace(b"\n", around.end + prefix)
    # The prefix that follows the last line is wanted before the first.  A view: slices of what is long are dear.
    with memoryview(made) as view:
        return b"".join((prefix, view[: len(made) - len(prefix)]))


def _escaped(data: bytes, escapes: dict[int, bytes], *, is_quoted: bool) -> bytes:
    """Escape what cannot be seen, newlines excepted, and bytes that are not UTF-8 (by their hexadecimal codes)."""
    is_ascii = data.isascii()
    if not is_ascii:
        data = data.decode("utf-8", "backslashreplace").encode()
    if is_quoted:
        data = data.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    for code in [code for code in _CONTROLS if code in data]:
        data = data.replace(b"%c" % code, escapes.get(code, b"%c" % code))
    return data if is_ascii else _visible(data)


def _visible(data: bytes) -> bytes:
    text = data.decode()
    if text.replace("\n", " ").replace("\t", " ").isprintable():
        return data
    parts = text.split("\n")
    return "\n".join(part if part.isprintable() else part.translate(_BEYOND_ASCII) for part in parts).encode()


class _BeyondAscii(dict[int, str]):
    """For str.translate: what is not printable beyond ASCII becomes an escape."""

    def __missing__(self, code: int) -> str:
        sign = chr(code)
        if code < _ASCII_END or sign.isprintable():
            return sign
        if code <= _LARGEST_BMP:
            return f"\\u{code:04x}"
        code -= 0x10000
        # JSON has no longer escape than \uXXXX: two of them stand for one sign.
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


_BEYOND_ASCII = _BeyondAscii()


def _objects(data: bytes, around: Look) -> bytes:
    """Return the lines with our fields, if each is a JSON object of a plain kind; else nothing."""
    body = data[:-1]
    if b"-Infinity" in body:
        return b""
    joined = body.replace(b"\n", b",-Infinity,")
    between = (len(joined) - len(body)) // len(b"-Infinity,")
    scan, _ = _scanners()
    try:
        text = f"[{joined.decode()}]"
        values, end = scan(text, 0)
    except (ValueError, KeyError, StopIteration, RecursionError):
        return b""
    # Every -Infinity in there is ours, and stands between two values of the outer list: no line has the end of a value
    # that began in another one, or more than one value.
    if (
        end != len(text)
        or len(values) != 2 * between + 1
        or values[1::2].count(_Between) != between
        or not all(values[::2])
    ):
        return b""
    parts = _escaped(data, _JSON_ESCAPES, is_quoted=False).split(b"}\n")
    parts.pop()
    if len(parts) != between + 1 or {part[0] for part in parts} != {_BRACE}:
        return b""  # white space before or after an object
    return b"".join((around.priority, (around.fields + around.priority).join(parts), around.fields))


def _mixed(data: bytes, around: Look, time: str) -> bytes:
    out: list[bytes] = []
    texts: list[bytes] = []
    for line in data[:-1].split(b"\n"):
        enriched = _object(line, around) if line.startswith(b"{") else b""
        if not enriched:
            texts += line, b"\n"
            continue
        if texts:
            out.append(_texts(b"".join(texts), around, time))
            texts = []
        out.append(enriched)
    if texts:
        out.append(_texts(b"".join(texts), around, time))
    return b"".join(out)


def _object(line: bytes, around: Look) -> bytes:
    """Return one line with our fields if it is a JSON object, else nothing."""
    _, decode = _scanners()
    try:
        value = decode(line.decode())
    except (ValueError, KeyError, RecursionError):
        return b""
    inside = _escaped(line, _JSON_ESCAPES, is_quoted=False).rstrip(b" ")[:-1]
    # An empty object needs no comma.
    return around.priority + inside + (around.fields if value else around.fields[1:])


class _Between:
    """Stands in a parsed list where one line ended and the next began."""


_made: list[tuple[_Scan, Callable[[str], object]]] = []


def _scanners() -> tuple[_Scan, Callable[[str], object]]:
    """Return two readers: of a list in which -Infinity is `_Between`, and of strict JSON (NaN is a KeyError)."""
    if not _made:
        from json import JSONDecoder  # noqa: PLC0415  most observers see no JSON

        ours: dict[str, type[_Between]] = {"-Infinity": _Between}
        nothing: dict[str, None] = {}
        list_of_lines = JSONDecoder(parse_constant=ours.__getitem__)
        strict = JSONDecoder(parse_constant=nothing.__getitem__)
        # What json.load does before it looks for white space; without a name in the library's stubs.
        scan: _Scan = list_of_lines.scan_once  # type: ignore[attr-defined]
        _made.append((scan, strict.decode))
    return _made[0]
