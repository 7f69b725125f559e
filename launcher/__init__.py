"""
What app authors import.

Owns the public names.  Must never import anything at once: the supervisor is in this package too, and
pays for every module that it does not use.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.api import Worker as Worker
    from launcher.errors import ConfigError as ConfigError
    from launcher.errors import LauncherError as LauncherError

__version__ = "26.1.0.dev0"
__all__ = ["ConfigError", "LauncherError", "Worker"]

_HOMES = {"ConfigError": "launcher.errors", "LauncherError": "launcher.errors", "Worker": "launcher.api"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
