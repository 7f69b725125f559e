"""
The last lines of the log, for those who ask for them.

Owns the ring of what went to the sink (the same bytes, so nothing that the sink does not have), its bound, and what
of it somebody wants.
Pure.  One entry for each batch: a chatty worker must not cost more because somebody might ask.
"""

from __future__ import annotations

from collections import deque

from launcher.lean import NamedTuple
from launcher.logs import formats, raw
from launcher.logs.batch import INNER_NEWLINE, SEVERITIES, Form

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.logs.batch import Batch, Source

MOST = 512 * 1024  # bytes, with what an entry costs itself
USUAL = 200  # lines
_OVERHEAD = 250  # bytes of an entry with its values
_DIGITS = 6
_PLACES = 18  # digits of a position: int() of a text of thousands raises
_LEVELS = {severity: level for level, severity in SEVERITIES.items()}


class Wanted(NamedTuple):
    """What somebody wants to read."""

    since: str = ""  # a position that an earlier answer gave; empty: the last `lines`
    lines: int = USUAL  # at most, the newest; with `since`: all there are
    slot: int | None = None  # of this worker only
    severity: int = SEVERITIES["debug"]  # of this or worse
    is_following: bool = False  # if there is nothing new, wait


class Found(NamedTuple):
    """What there is of it."""

    text: bytes
    position: str  # for `since`
    missed: int  # lines between `since` and the oldest that is left, of all workers


class _Entry(NamedTuple):
    end: int  # how many lines there were up to here, ever
    time: float  # Unix time
    source: Source
    severity: int
    lines: bytes


class Tail:
    """The ring."""

    __slots__ = ("_end", "_entries", "_form", "_life", "_size")

    def __init__(self, form: Form, life: int) -> None:
        """`form` is the sink's; `life` tells this observer's positions from those of the one before."""
        self._form = form
        self._life = life
        self._entries: deque[_Entry] = deque()
        self._size = 0
        self._end = 0

    def add(self, batch: Batch, time: float) -> None:
        """Keep some lines; `taken` says how many."""
        self._end += batch.taken
        self._entries.append(_Entry(self._end, time, batch.source, batch.severity, batch.lines))
        self._size += len(batch.lines) + _OVERHEAD
        while self._size > MOST:
            self._size -= len(self._entries.popleft().lines) + _OVERHEAD

    def read(self, wanted: Wanted) -> Found:
        """Return what there is, the oldest line first."""
        since, missed = self._begin(wanted.since)
        rows: list[bytes] = []
        for entry in reversed(self._entries):
            if entry.end <= since or (not wanted.since and len(rows) >= wanted.lines):
                break
            if entry.severity <= wanted.severity and wanted.slot in (None, entry.source.slot):
                rows += reversed(self._plain(entry))
        if not wanted.since:
            del rows[wanted.lines :]
        return Found(b"".join(reversed(rows)), f"{self._life}.{self._end}", missed)

    def _begin(self, position: str) -> tuple[int, int]:
        """Say after how many lines to begin, and how many of those after it are gone."""
        life, _, text = position.partition(".")
        is_ours = life == str(self._life) and text.isdecimal() and text.isascii() and len(text) <= _PLACES
        since = int(text) if is_ours else 0
        # An entry's lines are all there or all gone; an empty ring has lost nothing that it ever had.
        oldest = self._end - sum(entry.lines.count(b"\n") for entry in self._entries)
        return since, max(oldest - since, 0) if position else 0

    def _plain(self, entry: _Entry) -> list[bytes]:
        """Take the lines apart, without what only their sink needs, and with what only it would add."""
        data = entry.lines
        if b"\x1b" in data:  # the colours are ours: an app's own escapes were written out
            import re  # noqa: PLC0415  only where prod-run writes to a terminal

            data = re.sub(rb"\x1b\[[0-9;]*m", b"", data)
        rows = [row + b"\n" for row in data[:-1].split(b"\n")]
        if self._form.priority:
            rows = [row.partition(b">")[2] for row in rows]
        if self._form.kind != "message":
            return rows
        before = _place(entry)
        return [before + row.replace(INNER_NEWLINE.encode(), b"\n    ") for row in rows]


def understand(options: tuple[str, ...]) -> Wanted | str:
    """Read a query: `since=POSITION`, `lines=N`, `slot=N`, `level=NAME`, `follow`; or say what is wrong with it."""
    wanted = Wanted()
    for option in options:
        name, _, value = option.partition("=")
        if name in ("lines", "slot") and not (value.isdecimal() and value.isascii() and len(value) <= _DIGITS):
            return f"{name} is a number"
        match name:
            case "since":
                wanted = wanted._replace(since=value)
            case "lines":
                wanted = wanted._replace(lines=int(value))
            case "slot":
                wanted = wanted._replace(slot=int(value))
            case "level" if value in SEVERITIES:
                wanted = wanted._replace(severity=SEVERITIES[value])
            case "level":
                return f"level is one of {', '.join(SEVERITIES)}"
            case "follow":
                wanted = wanted._replace(is_following=True)
    return wanted


def _place(entry: _Entry) -> bytes:
    """Say when and who, as on a console: a syslog receiver learns it from the header."""
    level = _LEVELS.get(entry.severity, "info")
    if entry.source.generation == 0:
        return formats.console(formats.Record(entry.time, level, ""), colour=False).rstrip("\n").encode()
    return formats.timestamp(entry.time).encode() + raw.look(entry.source, Form("console"), "", entry.severity).after
