"""
Python's logging for an app that did not configure it.

Owns `logging.lastResort`, which Python asks where no handler was found, and the root level until the app sets one or
brings a handler.  Must never add a handler to any logger: `basicConfig()` would silently do nothing.
"""

from __future__ import annotations

import logging
import sys

from launcher.logs.fields import Entry, shown
from launcher.runtime import records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LEVELS = (
    (logging.CRITICAL, "critical"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
)
# They give handlers to their own loggers: the servers' access logs (--server-option), Django's defaults at its set-up.
_OF_THEIR_OWN = ("django", "gunicorn", "uvicorn")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _OurLevel(int):
    """A level that can be told from the same one set by the app."""

    __slots__ = ()


class LastResort(logging.Handler):
    """Writes records that found no handler as prod-run's own lines; loggers' levels decide which."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, whatever it holds."""
        try:
            records.write(entry(record))
        except Exception:  # noqa: BLE001  what logging does in every handler
            self.handleError(record)


def install(level: str) -> None:
    """Take the place of Python's last resort, and let through what is at least of this level."""
    logging.lastResort = LastResort()
    root = logging.root
    if root.level != logging.WARNING or root.handlers:
        return  # it was set before us, by a site's own start-up
    ours = _OurLevel(next((number for number, name in _LEVELS if name == level), logging.DEBUG))
    root.level = ours
    add = logging.Logger.addHandler

    def add_handler(self: logging.Logger, hdlr: logging.Handler) -> None:
        """Add the app's first handler, to whichever logger: from now on everything is as it would be without us."""
        if _is_choice(self, hdlr):
            if logging.Logger.addHandler is add_handler:
                logging.Logger.addHandler = add  # type: ignore[method-assign]
            if root.level is ours:
                root.setLevel(logging.WARNING)
        add(self, hdlr)

    logging.Logger.addHandler = add_handler  # type: ignore[method-assign]


def _is_choice(logger: logging.Logger, handler: logging.Handler) -> bool:
    """Say whether somebody configures logging with this, and no library merely minds itself."""
    if logger is not logging.root and type(handler) is logging.NullHandler:
        return False
    # Flask brings it with the first use of `app.logger`, which may be the first error after days.
    is_flask = handler is getattr(sys.modules.get("flask.logging"), "default_handler", None)
    return not is_flask and logger.name.partition(".")[0] not in _OF_THEIR_OWN


def entry(record: logging.LogRecord) -> Entry:
    """Read a record of Python's."""
    given = vars(record)
    exc = records.formatted(*record.exc_info) if record.exc_info and record.exc_info[0] else record.exc_text or ""
    return Entry(
        record.created,
        next((name for number, name in _LEVELS if record.levelno >= number), "debug"),
        str(record.name),
        _message(record),
        {name: item for name, item in given.items() if name not in _STANDARD},
        tuple(_context(record)),
        exc,
        str(record.stack_info or ""),
    )


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  a mistake in a log call costs its form, not the line
        return f"{shown(record.msg)} with arguments that do not fit: {shown(record.args)}"


def _context(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    if record.threadName and record.threadName != "MainThread":
        yield "thread", record.threadName
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return
    try:
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            yield "trace_id", f"{span.trace_id:032x}"
            yield "span_id", f"{span.span_id:016x}"
    except Exception:  # noqa: BLE001, S110  a tracer of the app's that is half set up costs no log line
        pass
