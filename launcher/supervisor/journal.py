"""
What prod-run itself says, and what its children write, on their way out.

Owns the one writer of our stdout, the form of our own lines, and who else hears them.
Must never wait: the writer does not.
"""

from __future__ import annotations

import os
import time

from launcher.logs import formats
from launcher.logs.stdout import Stdout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Journal:
    """One event, one line; and the lines of others as they are."""

    __slots__ = ("_is_terminal", "_level", "listeners", "output")

    def __init__(self, fd: int, level: str) -> None:
        self._is_terminal = os.isatty(fd)
        self._level = level
        self.output = Stdout(fd, notice=self._notice)
        self.listeners: list[Callable[[formats.Record], None]] = []

    def log(self, level: str, event: str, fields: tuple[tuple[str, object], ...] = (), detail: str = "") -> None:
        """Say one thing; whoever listens hears it whatever the level."""
        record = formats.Record(time.time(), level, event, fields, detail)
        for listener in self.listeners:
            listener(record)
        if formats.is_at_least(level, self._level):
            self.output.write(self._written(record))

    def _written(self, record: formats.Record) -> bytes:
        line = formats.console(record, colour=True) if self._is_terminal else formats.logfmt(record)
        return line.encode()

    def _notice(self, lines: int) -> bytes:
        return self._written(formats.Record(time.time(), "warning", "dropped output", (("lines", lines),)))
