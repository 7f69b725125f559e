"""
What environ-config calls to get a secret declared with `launcher.secret` or `launcher.url`.

Owns that call, and the surroundings of an app that runs without prod-run.  The rules of where a secret
may come from are in `sources`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from environ.exceptions import MissingSecretError

from launcher.appconfig.sources import Surroundings, find_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_SECRETS_DIR = "/run/secrets"


def look_up(environ: Mapping[str, str], metadata: Mapping[str, Any], prefixes: tuple[str, ...], name: str) -> str:
    """
    Find a secret when a class is filled by environ-config alone, as in `Config.from_environ()`.

    Raises:
        MissingSecretError: it is nowhere; environ-config then takes the default.
        SourceError: it is named, but cannot be read.
    """
    own_name = metadata["environ_config"].name
    wanted = variable(own_name, prefixes, name)
    found = find_secret(wanted, file_names(own_name, prefixes, name), surroundings(environ), ini=ini(prefixes))
    if found is None:
        raise MissingSecretError(wanted)
    return found.value


def surroundings(environ: Mapping[str, str]) -> Surroundings:
    """Return where values come from without prod-run: these variables and the platform's directories."""
    secrets_dirs = (DEFAULT_SECRETS_DIR,) if os.path.isdir(DEFAULT_SECRETS_DIR) else ()
    return Surroundings(environ, {}, secrets_dirs, environ.get("CREDENTIALS_DIRECTORY", ""))


def variable(own_name: str | None, prefixes: tuple[str, ...], name: str) -> str:
    """Name the variable as environ-config does."""
    return own_name if own_name is not None else "_".join((*prefixes, name)).upper()


def file_names(own_name: str | None, prefixes: tuple[str, ...], name: str) -> tuple[str, ...]:
    """Name the files that may hold a secret: with the app's prefix, and as environ-config does, without."""
    names = (own_name, "_".join((*prefixes, name)).lower(), "_".join((*prefixes[1:], name)).lower())
    return tuple(dict.fromkeys(candidate for candidate in names if candidate))


def ini(prefixes: tuple[str, ...]) -> tuple[str, str]:
    """Name the section of an INI file that may hold secrets, and the variable that names the file."""
    return "secrets", "_".join((*prefixes[:1], "SECRETS_INI")).upper()
