"""
From `MODULE:ATTRIBUTE` to something that can be called.

Owns the import of the app, the questions about its target's signature, and the sentences for what can
be wrong with either.  Must never call the target.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.api import Worker
from launcher.errors import LauncherError, Problem, TargetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_WSGI = 2  # application(environ, start_response): PEP 3333
_ASGI = 3  # application(scope, receive, send)


class Target(NamedTuple):
    """What was imported, and how it wants to be called."""

    function: Callable[..., Any]
    worker_parameter: str  # empty: it takes no Worker
    is_async: bool


class ImportFailedError(TargetError):
    """The app's own code raised while it was imported; `detail` is its traceback, cut to its frames."""

    def __init__(self, problem: Problem, detail: str) -> None:
        super().__init__(problem)
        self.detail = detail


def load(target: str) -> Target:
    """
    Import the module of a target and look at its attribute.

    Raises:
        LauncherError: with one sentence that a stranger can act on.
    """
    name, _, attribute = target.partition(":")
    module = _import(name)
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise TargetError(_no_attribute(target, found, part)) from None
    if not callable(found):
        reason = f"{attribute!r} is {_article(type(found).__name__)}, which cannot be called"
        raise TargetError(Problem(target, reason, "Name a function, such as `def main(worker): ...`"))
    return _examine(target, found)


def cut_traceback(error: BaseException) -> str:
    """Write a traceback that begins at the app's first frame."""
    return "".join(traceback.format_exception(type(error), error, _first_of_the_app(error.__traceback__))).rstrip()


def _import(name: str) -> Any:  # noqa: ANN401
    if name.partition(".")[0] == "launcher":
        reason = "prod-run's own package is called `launcher`, so an app's module of that name is never found"
        raise TargetError(Problem(name, reason, "Rename the module"))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise _failed(name, error) from error
        where = "it was looked for in " + ", ".join(path or os.getcwd() for path in sys.path[:2]) + ", …"
        remedy = "Start in the app's directory, or name it with --chdir or PYTHONPATH"
        raise TargetError(Problem(name, f"there is no module {error.name!r}; {where}", remedy)) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> ImportFailedError:
    reason = f"importing it raised {type(error).__name__}"
    if isinstance(error, SystemExit):
        reason = f"importing it called sys.exit({error.code!r})"
    elif str(error):
        reason += f": {str(error).splitlines()[0]}"
    return ImportFailedError(Problem(name, reason, _hidden_by_us(error)), cut_traceback(error))


def _hidden_by_us(error: BaseException) -> str:
    """Explain the one import error that prod-run itself causes."""
    ours = isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "launcher"
    if ours and any(os.path.exists(os.path.join(path or ".", "launcher.py")) for path in sys.path[:1]):
        return "A `launcher.py` lies in the app's directory: prod-run's package of that name hides it, rename it"
    return ""


def _no_attribute(target: str, found: object, part: str) -> Problem:
    names = [name for name in dir(found) if not name.startswith("_")]
    near = difflib.get_close_matches(part, names, 1)
    place = getattr(found, "__file__", None) or type(found).__name__
    remedy = f"Did you mean {near[0]!r}?" if near else "Name a function that is defined there"
    return Problem(target, f"there is no {part!r} in {place}", remedy)


def _examine(target: str, function: Callable[..., Any]) -> Target:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return Target(function, "", is_async=False)  # written in C: nothing is known, nothing is passed
    call = function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__
    is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(function)
    needed = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    taking = [p for p in signature.parameters.values() if _is_worker(p.annotation)]
    others = [parameter.name for parameter in needed if parameter not in taking]
    if others:
        raise _cannot_fill(target, others, count=len(needed), is_async=is_async, is_annotated=bool(taking))
    return Target(function, taking[0].name if taking else "", is_async)


def _cannot_fill(
    target: str, others: list[str], *, count: int, is_async: bool, is_annotated: bool
) -> TargetError | UsageError:
    if not is_annotated and (count == _WSGI or (count == _ASGI and is_async)):
        kind = "a WSGI" if count == _WSGI else "an ASGI"
        return UsageError(Problem(target, f"it looks like {kind} application: not in this version"))
    names = ", ".join(repr(name) for name in others)
    remedy = "Annotate it, as in `def main(worker: launcher.Worker)`, or give it a default"
    return TargetError(Problem(target, f"prod-run does not know what to pass for {names}", remedy))


def _is_worker(annotation: object) -> bool:
    if isinstance(annotation, str):
        # `if TYPE_CHECKING: from launcher import Worker` leaves only the text.
        return annotation.strip("'\" ").partition("[")[0] in ("Worker", "launcher.Worker")
    return annotation is Worker or getattr(annotation, "__origin__", None) is Worker


def _first_of_the_app(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if not file.startswith((_OWN, "<frozen importlib")) and not file.endswith("importlib/__init__.py"):
            break
        frames = frames.tb_next
    return frames


def _article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def in_one_line(error: LauncherError) -> str:
    """Put the problem of a target into one sentence."""
    problem = error.problems[0]
    return f"{problem.name}: {problem.reason}{'. ' + problem.remedy if problem.remedy else ''}"
