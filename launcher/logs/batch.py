"""
What travels from a process's pen to a sink.

Owns the values that capture, formats and sinks agree on: who wrote (`Source`), the form that was chosen (`Form`), some
whole lines (`Batch`), and the mark by which prod-run's own logging in a worker is told from what anybody prints.
Pure, and free of imports that cost.

A line that a worker's own logging wrote is finished when it arrives: RS MARK SEVERITY text, with US for each newline
within.  The mark is random for each process, so that no text that an app prints can pass for such a line.
"""

from __future__ import annotations

from launcher.lean import NamedTuple

SEVERITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}  # syslog(3)

RECORD = "\x1e"  # ASCII RS: a finished record begins
INNER_NEWLINE = "\x1f"  # ASCII US


class Source(NamedTuple):
    """Who wrote: one process of the app."""

    app: str
    generation: int
    pid: int  # 0: not known yet
    slot: int = -1  # -1: a zygote, or a worker that has none yet
    version: str = ""  # of the app; empty: unknown


class Form(NamedTuple):
    """How a line is to look."""

    kind: str  # console | logfmt | json | message (the bare text: syslog's header says the rest)
    colour: bool = False
    priority: bool = False  # sd-daemon(3): each line begins with <N>


class Batch(NamedTuple):
    """Some whole lines of one source and one severity, in the sink's form."""

    source: Source
    severity: int
    lines: bytes  # for the kind `message` a newline within a record is INNER_NEWLINE
    taken: int  # how many newlines of the input they stand for
    number: int = -1  # of the lines, for who would count them otherwise; -1: nobody has


def finished(mark: str, severity: int, text: str) -> str:
    """Write a record that is in its sink's form already, as one line for the observer."""
    return f"{RECORD}{mark}{severity}{text.rstrip(chr(10)).replace(chr(10), INNER_NEWLINE)}\n"


def newlines(data: bytes) -> int:
    """Count the newlines."""
    # A quarter of the time of bytes.count, which looks at each byte by itself.
    return len(data) - len(data.replace(b"\n", b""))
