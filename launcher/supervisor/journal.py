"""
What prod-run itself says, on its way to the observer.

Owns the words of one event as a message, and who else hears it.
Must never wait: the observer's end does not.
"""

from __future__ import annotations

import time

from launcher import protocol
from launcher.logs import formats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.supervisor.observer import Observer
    from launcher.supervisor.unobserved import Unobserved

Fields = tuple[tuple[str, object], ...]

MOST_DETAIL = 20_000  # characters, of at most four bytes each: all of a record goes into one message
MOST_VALUE = 4_000


class Journal:
    """One event, one line."""

    __slots__ = ("_level", "listeners", "observer")

    def __init__(self, observer: Observer | Unobserved, level: str) -> None:
        self._level = level
        self.observer = observer
        self.listeners: list[Callable[[formats.Record], None]] = []

    def log(self, level: str, event: str, fields: Fields = (), detail: str = "", *, words_of: int = 0) -> None:
        """
        Say one thing; whoever listens hears it whatever the level.

        `words_of` is the ticket of a process whose last words on stderr belong to it.
        """
        record = formats.Record(time.time(), level, event, fields, detail)
        for listener in self.listeners:
            listener(record)
        if formats.is_at_least(level, self._level):
            self.observer.say(encoded(record, words_of))


def encode(level: str, event: str, fields: Fields = ()) -> bytes:
    """Turn one event, now, into a message for the observer."""
    return encoded(formats.Record(time.time(), level, event, fields))


def encoded(record: formats.Record, words_of: int = 0) -> bytes:
    """Turn a record into a message for the observer; what is a number stays one."""
    return protocol.encode(
        "log",
        time=record.time,
        level=record.level,
        event=record.event,
        names=tuple(f"{_kind(value)}{name}" for name, value in record.fields),
        values=tuple(protocol.shorten(formats.text_of(value), MOST_VALUE) for _, value in record.fields),
        detail=protocol.shorten(record.detail, MOST_DETAIL),
        words_of=words_of,
    )


def as_text(data: bytes) -> str:
    """Write a message back for people, where there is no observer to do it."""
    message = protocol.decode(data)
    names = [name[1:] for name in message.texts("names")]
    fields = tuple(zip(names, message.texts("values"), strict=True))
    time_and_words = message.seconds("time"), message.text("level"), message.text("event")
    return formats.console(formats.Record(*time_and_words, fields, message.text("detail")))


def _kind(value: object) -> str:
    return "n" if isinstance(value, int | float) and not isinstance(value, bool) else "t"
