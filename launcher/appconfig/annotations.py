"""
Which configuration a target asks for, by its annotations.

Owns the reading of `def main(config: Config)` and `def main(worker: Worker[Config])`.  Must never raise:
an annotation that cannot be understood says nothing.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def find_class(target: Callable[..., Any]) -> type | None:
    """Return the environ-config class that a target's parameters name, or None."""
    return next((cls for _, annotation in _annotations(target) for cls in _classes_in(annotation)), None)


def find_parameter(target: Callable[..., Any]) -> str:
    """Return the name of the parameter that takes the configuration itself; empty if there is none."""
    return next((name for name, annotation in _annotations(target) if _is_declaration(annotation)), "")


def _annotations(target: Callable[..., Any]) -> tuple[tuple[str, object], ...]:
    if "environ" not in sys.modules:
        return ()  # nobody can have declared a class; attrs would cost this app 30 ms
    try:
        parameters = inspect.signature(target).parameters.values()
        return tuple((parameter.name, _resolved(parameter.annotation, target)) for parameter in parameters)
    except Exception:  # noqa: BLE001  besides what is written in C: a proxy raises whatever it likes when looked at
        return ()


def _resolved(annotation: object, target: Callable[..., Any]) -> object:
    """Turn an annotation given as text into what it names, where that can be known."""
    if not isinstance(annotation, str):
        return annotation
    function = inspect.unwrap(target.func if isinstance(target, functools.partial) else target)
    if not inspect.isroutine(function):
        function = function.__init__ if inspect.isclass(function) else type(function).__call__
    function = getattr(function, "__func__", function)
    closure = getattr(function, "__closure__", None) or ()
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    known = {
        # `if TYPE_CHECKING: from launcher import Worker` leaves only the text: any generic stands in for it.
        "Worker": tuple,
        **getattr(function, "__globals__", {}),
        **{name: cell.cell_contents for name, cell in zip(names, closure, strict=False) if _is_filled(cell)},
    }
    try:
        return typing.get_type_hints(SimpleNamespace(__annotations__={"it": annotation}), known)["it"]
    except Exception:  # noqa: BLE001  whatever evaluating a stranger's text raises, it names no class
        return annotation


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _classes_in(annotation: object) -> Iterator[type]:
    if _is_declaration(annotation):
        yield typing.cast("type", annotation)
    for inner in typing.get_args(annotation):
        yield from _classes_in(inner)


def _is_declaration(annotation: object) -> bool:
    from launcher.appconfig.schema import is_declaration  # noqa: PLC0415  imports attrs

    return is_declaration(annotation)
