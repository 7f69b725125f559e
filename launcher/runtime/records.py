"""
What a process of the app says in prod-run's own form.

Owns the form that the supervisor ordered, the pen (descriptor 2), and what becomes a record without the app's doing:
uncaught exceptions, warnings, and, as soon as the app imports it, `logging` without a configuration.
Must never import `logging`, `threading` or `traceback` before somebody needs them (15 ms and 1.3 MB together), never
give a logger a handler, and never raise.

Without a mark (nobody captures our output) the same lines go out as they are.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time
import warnings
from _thread import RLock

from launcher.lean import NamedTuple
from launcher.logs.batch import SEVERITIES, Form, Source, finished
from launcher.runtime.on_import import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from types import TracebackType

    from launcher.appconfig.load import Loaded
    from launcher.logs.fields import Entry
    from launcher.protocol import Message
    from launcher.runtime.prepare import Prepared

    Uncaught = tuple[type[BaseException], BaseException | None, TracebackType | None]

LOGGER = "prod-run"  # of what nobody logged
STDERR = 2
_LONGEST_VERSION = 64
_PATIENCE = 1.0  # seconds
_AGAIN = 0.005  # seconds


class Speaker(NamedTuple):
    """Who this process is, and how it is to write."""

    source: Source
    form: Form
    level: str  # of records that are wanted; one of batch.SEVERITIES
    mark: str  # empty: nobody reads marks
    prefix: str = ""  # of each line; empty: not written yet


class _Voice:
    """The speaker, which a fork changes, and how secrets are taken out of what it says."""

    speaker: Speaker  # set by `begin`, before anything can be said
    is_prepared = False
    loads: tuple[Loaded, ...] = ()  # whose secrets are taken out
    mask: tuple[tuple[Loaded, ...], Callable[[str], str] | None] = (), None  # for these loads
    former_showwarning = warnings.showwarning


class _Pen:
    """What is on its way to descriptor 2; pieces that a full pipe made must not mix with another record's."""

    lock = RLock()
    lines: list[bytes] = []  # noqa: RUF012  there is one descriptor 2
    is_writing = False


def begin(order: Message) -> None:
    """Speak as the supervisor ordered from now on; before the first import of the app."""
    form = Form(order.text("log_kind"), colour=order.flag("log_colour"))
    form = form if order.text("mark") else _without_capture(form)
    source = Source(order.text("name"), order.number("generation"), os.getpid())
    _Voice.speaker = Speaker(source, form, order.text("log_level"), order.text("mark"))
    os.register_at_fork(after_in_child=_after_fork)
    sys.excepthook = _on_uncaught
    sys.unraisablehook = _on_unraisable
    warnings.showwarning = _on_warning
    when_imported({"logging": _take_last_resort, "threading": _take_threads})


def become(slot: int, mark: str) -> None:
    """Be the worker of this slot (-1: none yet), whose output is read under this mark."""
    source = _Voice.speaker.source._replace(slot=slot, pid=os.getpid())
    _Voice.speaker = _Voice.speaker._replace(source=source, mark=mark, prefix="")


def learn_version(target: str) -> str:
    """Note, and return, what the app's top package says of its version; empty if it does not."""
    package = sys.modules.get(target.partition(":")[0].partition(".")[0])
    version = getattr(package, "__version__", "")
    if isinstance(version, str) and version.isprintable():
        source = _Voice.speaker.source._replace(version=version[:_LONGEST_VERSION])
        _Voice.speaker = _Voice.speaker._replace(source=source, prefix="")
    return _Voice.speaker.source.version


def protect(prepared: Prepared) -> None:
    """Take the secrets of a prepared app out of every record from now on."""
    _Voice.is_prepared = True
    for loaded in prepared.loads:
        protect_also(loaded)
    if "logging" in sys.modules:
        _mask()  # once, for all workers


def protect_also(loaded: Loaded) -> None:
    """Take the secrets of one more class out of every record from now on."""
    if loaded.secrets and not any(known is loaded for known in _Voice.loads):
        _Voice.loads = (*_Voice.loads, loaded)


def is_prepared() -> bool:
    """Say whether PREPARING is over in this process, and in what it was forked from."""
    return _Voice.is_prepared


def masked(text: str) -> str:
    """Take the app's secrets out of a text."""
    mask = _mask()
    return mask(text) if mask else text


def report(error: BaseException) -> None:
    """Say an exception that ends the app's code, as the app wants it said if it set sys.excepthook."""
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except Exception:  # noqa: BLE001  the app's own hook fails
        _on_uncaught(type(error), error, error.__traceback__)


def told(error: BaseException) -> tuple[str, str]:
    """Return an exception in one line, and its traceback in the app's frames; both without secrets."""
    from launcher.runtime import load  # noqa: PLC0415  only a failure has to pay

    return masked(_named(type(error), error)), masked(load.cut_traceback(error))


def write(entry: Entry) -> None:
    """Write one record, whole."""
    from launcher.logs import fields  # noqa: PLC0415  nothing to say, nothing to load

    speaker = _Voice.speaker
    if not speaker.prefix or speaker.source.pid != os.getpid():  # or it is a child of the app's own
        source = speaker.source._replace(pid=os.getpid())
        speaker = speaker._replace(source=source, prefix=fields.prefix(source, speaker.form))
        _Voice.speaker = speaker
    text = fields.line(entry, speaker.prefix, speaker.form, _mask())
    if speaker.mark:
        text = finished(speaker.mark, SEVERITIES[entry.level], text)
    elif speaker.form.priority:
        text = "".join(f"<{SEVERITIES[entry.level]}>{line}" for line in text.splitlines(keepends=True))
    _send(text.encode())


def formatted(kind: type[BaseException], error: BaseException | None, frames: TracebackType | None) -> str:
    """Write a traceback in full."""
    import traceback  # noqa: PLC0415  only a failure has to pay

    try:
        return "".join(traceback.format_exception(kind, error, frames)).rstrip("\n")
    except Exception as second:  # noqa: BLE001  the app's exceptions may refuse to be looked at
        return f"{kind.__name__}, whose traceback cannot be written: {type(second).__name__}"


def _without_capture(form: Form) -> Form:
    """Return the form for prod-run's own stderr, which is ours: it may be another thing than its stdout, or syslog."""
    try:
        found = os.fstat(STDERR)
    except OSError:  # closed: nobody hears it
        return form
    return Form(
        "logfmt" if form.kind == "message" else form.kind,
        colour=form.colour and os.isatty(STDERR),
        priority=os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}",  # systemd.exec(5)
    )


def _mask() -> Callable[[str], str] | None:
    loads = _Voice.loads
    known, mask = _Voice.mask
    if known is not loads:  # compared, not dropped: another thread may be making one of fewer secrets
        from launcher.appconfig.redact import Redactor  # noqa: PLC0415  re and json

        mask = Redactor({name: value.reveal() for item in loads for name, value in item.secrets.items()}).mask
        _Voice.mask = loads, mask
    return mask


def _after_fork() -> None:
    """Forget what other threads of the parent were about to write: it is the parent's."""
    _Pen.lock, _Pen.lines, _Pen.is_writing = RLock(), [], False


# ── the pen ─────────────────────────────────────────────────────────────────────────────────────────


def _send(line: bytes) -> None:
    with _Pen.lock:
        _Pen.lines.append(line)
        if _Pen.is_writing:
            return  # a signal's handler logs in the middle of a record: after it
        _Pen.is_writing = True
        try:
            while _Pen.lines:
                _put(_Pen.lines.pop(0))
        except OSError:
            pass  # closed by the app, or nobody is left who reads: where could it be said?
        finally:
            _Pen.is_writing = False


def _put(data: bytes) -> None:
    is_locked = len(data) > select.PIPE_BUF and _Voice.speaker.mark != "" and _lock()
    try:
        while data:
            data = data[_write(data) :]
    finally:
        if is_locked:
            os.lockf(STDERR, os.F_ULOCK, 0)


def _write(data: bytes) -> int:
    try:
        return os.write(STDERR, data)
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
    # asyncio makes a pipe that it is given non-blocking, and so for all its holders.
    full = select.poll()
    full.register(STDERR, select.POLLOUT)
    full.poll()
    return 0


def _lock() -> bool:
    """
    Keep out other processes that share our stderr: children of the app's, which it forked.

    pipe(7): only up to PIPE_BUF bytes are written as one.  One that was stopped while it wrote must not stop us.
    """
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        try:
            os.lockf(STDERR, os.F_TLOCK, 0)
        except (BlockingIOError, PermissionError):  # lockf(3): EAGAIN or EACCES
            time.sleep(_AGAIN)  # noqa: TID251  nothing tells when a lock is free but a wait without end
        except OSError:
            return False  # whatever it is, it cannot be locked
        else:
            return True
    return False


# ── what nobody logged ──────────────────────────────────────────────────────────────────────────────


def say(level: str, message: str) -> None:
    """Write a record of prod-run's own, if its level (one of batch.SEVERITIES) is wanted."""
    if SEVERITIES[level] <= SEVERITIES[_Voice.speaker.level]:
        _say(level, LOGGER, message)


def _say(level: str, logger: str, message: str, exc: str = "", thread: str = "") -> None:
    from launcher.logs.fields import Entry  # noqa: PLC0415

    context = (("thread", thread),) if thread else ()
    write(Entry(time.time(), level, logger, message, {}, context, exc))


def _on_uncaught(kind: type[BaseException], error: BaseException, _frames: TracebackType | None) -> None:
    from launcher.runtime import load  # noqa: PLC0415

    _say("error", LOGGER, f"uncaught {_named(kind, error)}", load.cut_traceback(error))


def _take_threads() -> None:
    sys.modules["threading"].excepthook = _on_uncaught_in_thread  # type: ignore[attr-defined]


def _on_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return  # threading.excepthook(): silently ignored
    name = args.thread.name if args.thread else ""
    exc = formatted(args.exc_type, args.exc_value, args.exc_traceback)
    _say("error", LOGGER, f"uncaught {_named(args.exc_type, args.exc_value)}", exc, name)


def _on_unraisable(args: sys.UnraisableHookArgs) -> None:
    if sys.is_finalizing():  # modules may be half gone
        sys.__unraisablehook__(args)
        return
    from launcher.logs.fields import shown  # noqa: PLC0415

    exc = formatted(args.exc_type, args.exc_value, args.exc_traceback)
    # Of a callback of atexit there is no object; its message has the name.
    what = "" if args.object is None else f": {shown(args.object)}"
    _say("error", LOGGER, f"{args.err_msg or 'Exception ignored in'}{what}", exc)


def _on_warning(  # noqa: PLR0917  the signature of warnings.showwarning
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    logging = sys.modules.get("logging")
    if file is not None or (logging and logging.root.handlers):
        _Voice.former_showwarning(message, category, filename, lineno, file, line)  # type: ignore[arg-type]
    elif SEVERITIES["warning"] <= SEVERITIES[_Voice.speaker.level]:
        _say("warning", "py.warnings", f"{filename}:{lineno}: {category.__name__}: {message}")


def _take_last_resort() -> None:
    if not hasattr(sys.modules["logging"], "lastResort"):
        return  # the app has a module of that name
    from launcher.runtime import last_resort  # noqa: PLC0415  logging is there now

    last_resort.install(_Voice.speaker.level)


def _named(kind: type[BaseException], error: BaseException | None) -> str:
    """Write an exception in one line."""
    try:
        text = str(error).partition("\n")[0]
    except Exception:  # noqa: BLE001  it is the app's
        text = ""
    return f"{kind.__name__}: {text}" if text else kind.__name__
