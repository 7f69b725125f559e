"""
What app authors import.

Owns the public names.  Must never import anything at once: the supervisor is in this package too, and
pays for every module that it does not use.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.api import Worker as Worker
    from launcher.appconfig.convert import boolean as boolean
    from launcher.appconfig.convert import csv as csv
    from launcher.appconfig.convert import duration as duration
    from launcher.appconfig.convert import size as size
    from launcher.appconfig.current import config as config
    from launcher.appconfig.declare import secret as secret
    from launcher.appconfig.declare import url as url
    from launcher.appconfig.masked import Secret as Secret
    from launcher.appconfig.urls import Url as Url
    from launcher.errors import ConfigError as ConfigError
    from launcher.errors import LauncherError as LauncherError

__version__ = "26.1.0.dev0"
_HOMES = {
    "ConfigError": "launcher.errors",
    "LauncherError": "launcher.errors",
    "Secret": "launcher.appconfig.masked",
    "Url": "launcher.appconfig.urls",
    "Worker": "launcher.api",
    "boolean": "launcher.appconfig.convert",
    "config": "launcher.appconfig.current",
    "csv": "launcher.appconfig.convert",
    "duration": "launcher.appconfig.convert",
    "secret": "launcher.appconfig.declare",
    "size": "launcher.appconfig.convert",
    "url": "launcher.appconfig.declare",
}
__all__ = [
    "ConfigError",
    "LauncherError",
    "Secret",
    "Url",
    "Worker",
    "boolean",
    "config",
    "csv",
    "duration",
    "secret",
    "size",
    "url",
]

# What prod-run does just before an app asks for `launcher.config` first: where the values come from is said
# then, so that an app which never asks does not pay for it.
before_config: list[Callable[[], None]] = []


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module  # noqa: PLC0415

    while name == "config" and before_config:
        before_config.pop()()
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
