"""
A stream's lines by what they are.

Owns the order in which finished records, tracebacks and all other lines go out, each with its severity and in the
sink's form, and the traceback that is still growing.
Pure: it must never read or wait.
"""

from __future__ import annotations

from launcher.lean import NamedTuple
from launcher.logs import formats, raw
from launcher.logs.batch import RECORD, SEVERITIES
from launcher.observer import tracebacks
from launcher.observer.whole_lines import heads_first

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.logs.batch import Form, Source

_INFO, _ERROR = SEVERITIES["info"], SEVERITIES["error"]
_RECORD = RECORD.encode()
_CUT = raw.CUT + b"\n"


class Written(NamedTuple):
    """Lines of one severity in the sink's form, and for how many newlines of the input (0: for all there were)."""

    severity: int
    lines: bytes
    newlines: int
    number: int = -1  # of the lines; -1: nobody has counted


class Sorting:
    """One stream; `time` is that of the last reading."""

    def __init__(self, stream: str, form: Form, mark: str) -> None:
        """Sort the lines of `stream` for `form`; without a mark there are no finished records."""
        self.time = formats.timestamp(0)
        self.traceback: tracebacks.Traceback | None = None
        self._stream = stream
        self._form = form
        self._head = f"{RECORD}{mark}".encode() if mark else b""
        self._looks: dict[tuple[Source, int, bool], raw.Look] = {}

    def add(self, lines: bytes, count: int, source: Source) -> list[Written]:
        """Sort whole lines; there are so many."""
        has_records = bool(self._head) and _RECORD in lines and self._head in lines
        if not has_records and not self.traceback and not (self._stream == "stderr" and tracebacks.may_hold(lines)):
            return [Written(_INFO, raw.lines(lines, self._look(source, _INFO), self.time), 0, count)]
        rows = lines[:-1].split(b"\n")
        if has_records:
            size = len(self._head)
            if not self.traceback and len(lines.replace(_RECORD, b"")) == len(lines) - len(rows):
                # One RS for each line: in the ordinary case all are finished records of the same severity.
                heads = {row[: size + 1] for row in rows}
                severity = self._severity(heads.pop())
                if not heads and severity >= 0 and not self._is_cut(lines):
                    return [Written(severity, raw.finished(rows, size + 1, self._form, severity), 0)]
            rows = heads_first(lines, self._head)[:-1].split(b"\n")
        return list(self._one_by_one(rows, source))

    def partial(self, text: bytes, source: Source) -> list[Written]:
        """Give out a line that is not finished."""
        severity = self._severity(text)
        severity = severity if severity >= 0 else _INFO
        around = self._look(source, severity, partial=True)
        lines = raw.lines(self.unmarked(text) + b"\n", around, self.time)
        return [*self.close(source), Written(severity, lines, 0)]

    def close(self, source: Source) -> list[Written]:
        """End the traceback that is growing, if any."""
        if not self.traceback:
            return []
        ended, self.traceback = self.traceback, None
        found = [self._record(ended, source)] if ended.lines else []
        if ended.blanks:
            found.append(self._raw(b"\n" * ended.blanks, _INFO, source, ended.blanks))
        return found

    def held(self) -> int:
        """Return the number of lines that are held back."""
        return len(self.traceback.lines) + self.traceback.blanks if self.traceback else 0

    def begins_record(self, text: bytes) -> bool:
        """Say whether a finished record begins here."""
        return bool(self._head) and (text.startswith(self._head) or self._head.startswith(text))

    def unmarked(self, text: bytes) -> bytes:
        """Return text without the beginnings of finished records: the mark is nobody's business."""
        if not self._head:
            return text
        first, *others = text.split(self._head)
        return first + b"".join(other[1:] for other in others)

    def _one_by_one(self, rows: list[bytes], source: Source) -> Iterator[Written]:
        like: tuple[int, bool] | None = None  # severity, is a finished record
        run: list[bytes] = []
        for line in rows:
            if self.traceback:
                if self.traceback.is_full_with(line):
                    yield self._record(self.traceback, source)
                    self.traceback.begin_again()
                if self.traceback.takes(line):
                    continue
                yield from self.close(source)
            is_start = self._stream == "stderr" and tracebacks.starts(line)
            kind = None if is_start else self._kind(line)
            if kind != like and run and like:
                yield self._run(run, like, source)
                run = []
            like = kind
            if is_start:
                self.traceback = tracebacks.Traceback(line, self.time)
            else:
                run.append(line)
        if run and like:
            yield self._run(run, like, source)

    def _kind(self, line: bytes) -> tuple[int, bool]:
        severity = self._severity(line)
        return (_INFO, False) if severity < 0 else (severity, not self._is_cut(line + b"\n"))

    def _run(self, run: list[bytes], like: tuple[int, bool], source: Source) -> Written:
        severity, is_finished = like
        if not is_finished:
            return self._raw(self.unmarked(b"\n".join(run) + b"\n"), severity, source, len(run))
        return Written(severity, raw.finished(run, len(self._head) + 1, self._form, severity), len(run))

    def _raw(self, lines: bytes, severity: int, source: Source, count: int) -> Written:
        return Written(severity, raw.lines(lines, self._look(source, severity), self.time), count)

    def _record(self, traceback: tracebacks.Traceback, source: Source) -> Written:
        text = b"\n".join(traceback.lines)
        lines = raw.record(text, self._look(source, _ERROR), traceback.time)
        return Written(_ERROR, lines, len(traceback.lines))

    def _severity(self, line: bytes) -> int:
        """Return the severity of the finished record that begins here, -1 if none does."""
        if not self._head or not line.startswith(self._head):
            return -1
        return b"01234567".find(line[len(self._head) : len(self._head) + 1] or b"-")

    def _is_cut(self, lines: bytes) -> bool:
        """Say whether one of these finished records has lost its end, and with it its form."""
        return self._form.kind in {"logfmt", "json"} and _CUT in lines

    def _look(self, source: Source, severity: int, *, partial: bool = False) -> raw.Look:
        key = (source, severity, partial)
        if key not in self._looks:
            self._looks[key] = raw.look(source, self._form, self._stream, severity, partial=partial)
        return self._looks[key]
