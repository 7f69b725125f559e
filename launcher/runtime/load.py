"""
From `MODULE:ATTRIBUTE` to something that can be called.

Owns the import of the app, the questions about its target's signature, and the sentences for what can
be wrong with either.  Must never call the target, but for a factory, which is asked for the target.
"""

from __future__ import annotations

import importlib
import os
import sys

from launcher.api import Worker
from launcher.errors import Problem, TargetError
from launcher.lean import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

AUTO, CALLABLE, WSGI, ASGI = "auto", "callable", "wsgi", "asgi"  # what --interface takes

_OF_WSGI = 2  # application(environ, start_response): PEP 3333 fixes their number, not their names
_OF_ASGI = ["scope", "receive", "send"]
_CO_COROUTINE = 0x80  # of an `async def`: inspect.CO_COROUTINE


class Target(NamedTuple):
    """What was imported, and how it wants to be called."""

    function: Callable[..., Any]
    worker_parameter: str  # empty: it takes no Worker
    is_async: bool
    config_parameter: str = ""  # empty: it does not take its configuration by itself
    positional: tuple[str, ...] = ()  # which of the two it takes, but not by name
    interface: str = CALLABLE

    def call(self, worker: Worker[Any]) -> object:
        """Call it with what it takes."""
        given = {self.worker_parameter: worker, self.config_parameter: worker.config}
        given.pop("", None)
        in_order = [given.pop(name) for name in self.positional]
        return self.function(*in_order, **given)


class ImportFailedError(TargetError):
    """The app's own code raised while it was imported; `detail` is its traceback, cut to its frames."""

    def __init__(self, problem: Problem, detail: str) -> None:
        super().__init__(problem)
        self.detail = detail


_FOLDER = os.path.dirname(Target.call.__code__.co_filename)  # of this module, as tracebacks name it


def load(target: str, interface: str = AUTO, *, is_factory: bool = False) -> Target:
    """
    Import the module of a target and look at its attribute, or at what that returns.

    Raises:
        LauncherError: with one sentence that a stranger can act on.
    """
    found = find(target)
    attribute = target.partition(":")[2]
    _require_callable(target, found, repr(attribute))
    if is_factory:
        try:
            found = found()
        except BaseException as error:
            raise _failed(target, error, f"calling {attribute}()") from error
        _require_callable(target, found, f"what {attribute}() returned")
    return _examine(target, found, interface)


def _require_callable(target: str, found: object, called: str) -> None:
    if not callable(found):
        reason = f"{called} is {_article(type(found).__name__)}, which cannot be called"
        remedy = "Name a function, such as `def main(worker): ...`, or a WSGI or ASGI application"
        raise TargetError(Problem(target, reason, remedy))


def find(target: str) -> Any:
    """
    Import the module of `MODULE:ATTRIBUTE` and return what it names.

    Raises:
        LauncherError: with one sentence that a stranger can act on.
    """
    name, _, attribute = target.partition(":")
    found: Any = _import(name)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise TargetError(_no_attribute(target, found, part)) from None
        except Exception as error:
            raise _failed(target, error, f"looking up {part!r}") from error
    return found


def cut_traceback(error: BaseException) -> str:
    """Write a traceback that begins at the app's first frame, and ends at its last."""
    import traceback  # noqa: PLC0415  1 ms that only a failure has to pay

    shown = traceback.TracebackException(type(error), error, _first_of_the_app(error.__traceback__))
    ours = os.path.dirname(_FOLDER) + os.sep
    while len(shown.stack) > 1 and shown.stack[-1].filename.startswith(ours):
        shown.stack.pop()  # where prod-run found out what is wrong
    return "".join(shown.format()).rstrip()


def _import(name: str) -> Any:
    if name.partition(".")[0] == "launcher":
        reason = "prod-run's own package is called `launcher`, so an app's module of that name is never found"
        raise TargetError(Problem(name, reason, "Rename the module"))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise _failed(name, error, "importing it") from error
        where = f"it was looked for in {sys.path[0]}, in $PYTHONPATH and in {sys.prefix}"
        remedy = "Start in the app's directory, or name it with --chdir or PYTHONPATH"
        if name.endswith(".py"):
            remedy = f"Name the module as `import` does, not its file: {name.removesuffix('.py')}"
        raise TargetError(Problem(name, f"there is no module {error.name!r}; {where}", remedy)) from None
    except BaseException as error:
        raise _failed(name, error, "importing it") from error


def _failed(name: str, error: BaseException, deed: str) -> ImportFailedError:
    reason = f"{deed} raised {type(error).__name__}"
    if isinstance(error, SystemExit):
        reason = f"{deed} called sys.exit({error.code!r})"
    elif str(error):
        reason += f": {str(error).splitlines()[0]}"
    return ImportFailedError(Problem(name, reason, _hidden_by_us(error)), cut_traceback(error))


def _hidden_by_us(error: BaseException) -> str:
    """Explain the one import error that prod-run itself causes."""
    name = error.name if isinstance(error, ImportError) else getattr(getattr(error, "obj", None), "__name__", "")
    theirs = [os.path.join(path or ".", "launcher") for path in sys.path[:1]]
    if (name or "").partition(".")[0] == "launcher" and any(
        os.path.exists(f"{p}.py") or os.path.isdir(p) for p in theirs
    ):
        return "A `launcher` lies in the app's directory: prod-run's package of that name hides it, rename it"
    return ""


def _no_attribute(target: str, found: object, part: str) -> Problem:
    names = [name for name in dir(found) if not name.startswith("_")]
    import difflib  # noqa: PLC0415  1 ms that only a failure has to pay

    near = difflib.get_close_matches(part, names, 1)
    place = getattr(found, "__file__", None) or _article(type(found).__name__)
    remedy = f"Did you mean {near[0]!r}?" if near else "Name a function that is defined there"
    return Problem(target, f"there is no {part!r} in {place}", remedy)


class _Parameter(NamedTuple):
    """One parameter that can be filled."""

    name: str
    annotation: object
    is_needed: bool
    is_positional: bool = False  # and only so
    is_by_name: bool = False  # and only so


def _examine(target: str, function: Callable[..., Any], interface: str) -> Target:
    try:
        parameters, is_async = _read_plainly(function) or _inspect(function)
    except (TypeError, ValueError):
        # Written in C: nothing is known, nothing is passed.
        return Target(function, "", is_async=False, interface=CALLABLE if interface == AUTO else interface)
    if [p.name for p in parameters if p.is_needed] == _OF_ASGI[:1] and interface in (AUTO, ASGI):
        reason = "takes a scope alone, as applications of ASGI 2 did, which are not served"
        remedy = "Update it, or wrap it in guarantee_single_callable() of asgiref.compatibility"
        raise TargetError(Problem(target, reason, remedy))
    if interface in (WSGI, ASGI):
        return Target(function, "", is_async=False, interface=interface)
    taking = next((p.name for p in parameters if _is_worker(p.annotation)), "")
    config = _config_parameter(function)
    needed = [p for p in parameters if p.is_needed and p.name not in (taking, config)]
    if needed:
        found = _web_interface([p.name for p in needed], is_async=is_async)
        if found and interface == AUTO and not (taking or any(p.is_by_name for p in needed)):
            return Target(function, "", is_async=False, interface=found)
        raise _cannot_fill(target, [p.name for p in needed])
    positional = tuple(p.name for p in parameters if p.is_positional and p.name in (taking, config))
    return Target(function, taking, is_async, config, positional)


def _web_interface(needed: list[str], *, is_async: bool) -> str:
    """Say which interface takes such arguments; empty: none."""
    if needed == _OF_ASGI or (is_async and len(needed) == len(_OF_ASGI)):
        return ASGI
    return WSGI if len(needed) == _OF_WSGI and not is_async else ""


def _config_parameter(function: Callable[..., Any]) -> str:
    if "environ" not in sys.modules:
        return ""  # nobody can have declared a class
    from launcher.appconfig.annotations import find_parameter  # noqa: PLC0415  inspect, 10 ms

    return find_parameter(function)


def _read_plainly(function: Callable[..., Any]) -> tuple[list[_Parameter], bool] | None:
    """Read the parameters of a plain function as inspect.signature() does, which takes 10 ms to import."""
    if type(function) is not type(_examine) or vars(function):
        return None  # decorators leave their traces there: __wrapped__, __signature__
    code, defaults = function.__code__, function.__defaults__ or ()
    if code.co_posonlyargcount or sys.version_info >= (3, 14):  # PEP 649: asking for annotations runs code
        return None
    names = code.co_varnames[: code.co_argcount]
    only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    annotations = function.__annotations__
    positional = [
        _Parameter(name, annotations.get(name), index < len(names) - len(defaults)) for index, name in enumerate(names)
    ]
    by_name = [
        _Parameter(name, annotations.get(name), name not in (function.__kwdefaults__ or ()), is_by_name=True)
        for name in only
    ]
    return [*positional, *by_name], bool(code.co_flags & _CO_COROUTINE)


def _inspect(function: Callable[..., Any]) -> tuple[list[_Parameter], bool]:
    import inspect  # noqa: PLC0415  10 ms that a plain function does not need

    signature = inspect.signature(function)
    call = function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__
    is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(function)
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = [
        _Parameter(p.name, p.annotation, p.default is p.empty, p.kind is p.POSITIONAL_ONLY, p.kind is p.KEYWORD_ONLY)
        for p in signature.parameters.values()
        if p.kind not in collecting
    ]
    return parameters, is_async


def _cannot_fill(target: str, needed: list[str]) -> TargetError:
    names = ", ".join(repr(name) for name in needed)
    remedy = (
        "Annotate it, as in `def main(worker: launcher.Worker)` or `def main(config: Config)`, or give it a default; "
        "if it returns what is to be run, add --factory"
    )
    return TargetError(Problem(target, f"prod-run does not know what to pass for {names}", remedy))


def _is_worker(annotation: object) -> bool:
    if isinstance(annotation, str):
        # `if TYPE_CHECKING: from launcher import Worker` leaves only the text.
        return annotation.strip("'\" ").partition("[")[0] in ("Worker", "launcher.Worker")
    return annotation is Worker or getattr(annotation, "__origin__", None) is Worker


def _first_of_the_app(frames: TracebackType | None) -> TracebackType | None:
    """Skip all up to the last frame of this folder (asyncio's lie between two), and the import system's."""
    ours = _FOLDER + os.sep
    first = frames
    while frames is not None:
        if frames.tb_frame.f_code.co_filename.startswith(ours):
            first = frames.tb_next
        frames = frames.tb_next
    while first is not None and _is_import_system(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    return first


def _is_import_system(file: str) -> bool:
    return file.startswith("<frozen importlib") or file == importlib.__file__


def _article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
