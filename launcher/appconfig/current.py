"""
The configuration of this process: what `launcher.config(Class)` returns.

Owns one instance for each class.  Under prod-run the zygote says where values come from (`surround`), and
puts in what it has loaded (`provide`); an app that runs alone loads at the first call.
Must never change os.environ.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar, overload

from launcher.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.appconfig.load import Loaded
    from launcher.appconfig.sources import Surroundings

T = TypeVar("T")

_instances: dict[type, Any] = {}
_loads: list[Loaded] = []
_places: list[Surroundings] = []  # at most one
_listeners: list[Callable[[Loaded], None]] = []  # at most one


@overload
def config(cls: type[T], /) -> T: ...
@overload
def config(cls: None = None, /) -> Any: ...
def config(cls: type | None = None, /) -> Any:
    """
    Return the configuration, loaded once for each class.

    Args:
        cls: a class made by `environ.config`; may be left out where exactly one was loaded.

    Raises:
        ConfigError: with everything that is wrong.
    """
    if cls is None:
        return _the_only_one()
    if cls not in _instances:
        loaded = _load(cls)
        for tell in _listeners:  # of one with problems too: its secrets are in sight all the same
            tell(loaded)
        if loaded.problems:
            raise ConfigError(*loaded.problems)
        _loads.append(loaded)
        _instances.setdefault(cls, loaded.instance)  # another thread may have been faster
    return _instances[cls]


def provide(cls: type, instance: object) -> None:
    """Let `config(cls)` return this instance."""
    _instances[cls] = instance


def withdraw(cls: type) -> None:
    """Forget the instance of a class."""
    _instances.pop(cls, None)


def surround(places: Surroundings, tell: Callable[[Loaded], None] | None = None) -> None:
    """
    Let classes that the app asks for itself be loaded from here, instead of from os.environ.

    Args:
        places: where values may come from.
        tell: called with each that was loaded, before the app has it.
    """
    _places[:] = [places]
    _listeners[:] = [tell] if tell else []


def loads() -> tuple[Loaded, ...]:
    """Return what the app itself has loaded by calling `config(Class)`: its secrets, rows and warnings."""
    return tuple(_loads)


def _load(cls: type) -> Loaded:
    from launcher.appconfig.load import load  # noqa: PLC0415  imports attrs and environ-config
    from launcher.appconfig.lookup import surroundings  # noqa: PLC0415  the same

    return load(cls, _places[0] if _places else surroundings(dict(os.environ)))


def _the_only_one() -> Any:
    if len(_instances) == 1:
        return next(iter(_instances.values()))
    names = " and ".join(cls.__qualname__ for cls in _instances)
    reason = f"{names} were loaded" if names else "no configuration class was loaded"
    raise ConfigError(Problem("launcher.config()", reason, "Name the one that is meant: launcher.config(Config)"))
