"""
prod-run's own lines, in the form of the sink.

Owns the way from the supervisor's message to a batch.  Pure: no clock, nothing is written.
"""

from __future__ import annotations

from launcher.lean import NamedTuple
from launcher.logs import formats
from launcher.logs.batch import INNER_NEWLINE, SEVERITIES, Batch, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher import protocol
    from launcher.logs.batch import Form


class Pen(NamedTuple):
    """Who writes, and how."""

    source: Source  # generation 0: prod-run itself
    form: Form

    def write(self, record: formats.Record) -> Batch:
        """Write one event."""
        severity = SEVERITIES.get(record.level, SEVERITIES["error"])
        text = self._text(record)
        if self.form.priority:
            text = "".join(f"<{severity}>{line}" for line in text.splitlines(keepends=True))
        lines = text.encode("utf-8", "backslashreplace")
        return Batch(self.source, severity, lines, lines.count(b"\n"))

    def _text(self, record: formats.Record) -> str:
        match self.form.kind:
            case "console":
                return formats.console(record, colour=self.form.colour)
            case "json":
                return formats.json(record, self.source.app)
            case "message":
                return formats.message(record).rstrip("\n").replace("\n", INNER_NEWLINE) + "\n"
            case _:
                return formats.logfmt(record)


def record_of(message: protocol.Message, words: str, form: Form) -> formats.Record:
    """
    Read an event back; `words` are the last ones of the process that it is about.

    A person has them in sight already, in the lines before; a program gets them with the event.
    """
    names = [name[1:] for name in message.texts("names")]
    kinds = [name[:1] for name in message.texts("names")]
    values: list[object] = [
        _number(text) if kind == "n" else text for kind, text in zip(kinds, message.texts("values"), strict=True)
    ]
    fields = tuple(zip(names, values, strict=True))
    if words and form.kind != "console":
        fields = (*fields, ("stderr", "\n".join(_plain(line, form.kind) for line in words.split("\n"))))
    return formats.Record(
        message.seconds("time"), message.text("level"), message.text("event"), fields, message.text("detail")
    )


def _plain(line: str, kind: str) -> str:
    """Take a record of the app's logging out of its form: within another record that would be escaped twice."""
    try:
        if kind == "json" and line.startswith('{"time":'):
            import json  # noqa: PLC0415  deaths are rare

            facts = json.loads(line)
        elif kind == "logfmt" and line.startswith("time=") and " message=" in line:
            import json  # noqa: PLC0415
            import re  # noqa: PLC0415

            pairs = re.findall(r'([^\s="]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)', line)
            facts = {name: json.loads(text) if text.startswith('"') else text for name, text in pairs}
        else:
            return line
        said = f"{facts.get('level', '')} {facts.get('logger', '')}: {facts['message']}"
        return f"{said}\n{facts['exc']}" if "exc" in facts else said
    except (ValueError, KeyError):
        return line


def _number(text: str) -> int | float | str:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text
