"""
environ-config's own secrets, read through `Files`.

Owns that their files are read once, as those of `launcher.secret` are: `--watch` knows what they held, and later
processes of a generation get the same.  Must never explain a file that cannot be used: their getter meets it too.
"""

from __future__ import annotations

import configparser
import io
from typing import TYPE_CHECKING, Any

import attrs
from environ import secrets

from launcher.appconfig.secret_files import FileError
from launcher.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from launcher.appconfig.schema import Leaf
    from launcher.appconfig.sources import Surroundings

    Getter = Callable[[Mapping[str, str], Mapping[str, Any], tuple[str, ...], str], Any]


def getter(leaf: Leaf, places: Surroundings) -> Getter:
    """Return what gets a secret that is not ours: its own getter, or one that knows what its file held."""
    callback: Any = leaf.entry.callback
    original: Getter = callback
    if not leaf.file or places.files is None:
        return original
    source = callback.__self__  # it has a file, so it is one of two
    try:
        contents = places.files.read(leaf.file)
        text = _text(contents.data) if contents else None
    except (FileError, UnicodeDecodeError):
        return original

    def get(variables: Mapping[str, str], metadata: Mapping[str, Any], prefixes: tuple[str, ...], name: str) -> Any:
        if source._env_name:
            variables.get(source._env_name)  # it is no misspelling
        if isinstance(source, secrets.DirectorySecrets):
            from environ.secrets._utils import _SecretStr  # noqa: PLC0415  what it returns; it has no public name

            return attrs.NOTHING if text is None else _SecretStr(text)
        if text is None:
            return original(variables, metadata, prefixes, name)
        parser = configparser.RawConfigParser()
        parser.read_string(text)
        return attrs.evolve(source, cfg=parser)._get(variables, metadata, prefixes, name)

    return get


def warning(leaf: Leaf) -> Problem | None:
    """Say that nobody can look at where a secret came from."""
    if leaf.file:
        return None
    source = getattr(leaf.entry.callback, "__self__", None)
    if isinstance(source, secrets.VaultEnvSecrets):
        return None  # the environment
    kind = type(source).__name__ if source is not None else "a getter of its own"
    remedy = "Declare it with launcher.secret()"
    return Problem(leaf.variable, f"read by {kind}: --watch cannot see it change. {remedy}", remedy)


def _text(data: bytes) -> str:
    return io.TextIOWrapper(io.BytesIO(data)).read()  # as Path.read_text() and open() read: locale, line ends
