"""
From a declared variable to its text, and where that came from.

Owns the question "is it there, and may it be read?" for every kind of declaration, and the sentences for
what is not.  Must never convert a value, and never write one into a sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import attrs
from environ.exceptions import MissingEnvValueError, MissingSecretError

from launcher.appconfig import theirs
from launcher.appconfig.masked import name_of
from launcher.appconfig.sources import SourceError, find_secret
from launcher.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.appconfig.schema import Leaf
    from launcher.appconfig.sources import Surroundings

FOUND, DEFAULT, MISSING, FAILED = "found", "default", "missing", "cannot be read"


class Looked(NamedTuple):
    """What looking for one variable gave."""

    state: str  # FOUND, DEFAULT, MISSING, FAILED
    value: Any = None
    origin: str = ""
    warning: Problem | None = None
    problem: Problem | None = None


class Asked(dict[str, str]):
    """The variables, and the names of those that somebody asked for: the ones that are no misspelling."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(variables)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a variable, or the default."""
        self.names.add(name)
        return super().get(name, default)


def look(leaf: Leaf, places: Surroundings, asked: Asked) -> Looked:
    """Look for one variable, wherever it may be."""
    if leaf.is_ours:
        asked.names.update((leaf.variable, f"{leaf.variable}_FILE", leaf.ini[1]))
        return _look_for_secret(leaf, places)
    if leaf.entry.callback is not None:
        return _look_as_they_do(leaf, places, asked)
    asked.names.add(leaf.variable)
    if leaf.variable in places.environ:
        return Looked(FOUND, places.environ[leaf.variable], places.origin(leaf.variable))
    return _absent(leaf, places)


def _look_for_secret(leaf: Leaf, places: Surroundings) -> Looked:
    try:
        found = find_secret(leaf.variable, leaf.file_names, places, ini=leaf.ini)
    except SourceError as error:
        return Looked(FAILED, problem=error.problem)
    if found is None:
        return _absent(leaf, places)
    warning = Problem(leaf.variable, found.warning) if found.warning else None
    return Looked(FOUND, found.value, found.origin, warning)


def _look_as_they_do(leaf: Leaf, places: Surroundings, asked: Asked) -> Looked:
    """Call the getter of environ-config's own secrets, or of anybody's."""
    entry, attribute = leaf.entry, leaf.attribute
    before = set(asked.names)
    try:
        value = theirs.getter(leaf, places)(asked, attribute.metadata, leaf.prefixes, attribute.name)
    except (MissingSecretError, MissingEnvValueError):
        value = attrs.NOTHING
    except Exception as error:  # noqa: BLE001  measured: TypeError and NoSectionError for an INI file
        return Looked(FAILED, problem=_broken_source(leaf, error, asked.names - before))
    if value is attrs.NOTHING or value is entry.default:
        refused = _refused(leaf.place)
        return Looked(FAILED, problem=Problem(leaf.variable, *refused)) if refused else _absent(leaf, places)
    return Looked(FOUND, value, leaf.place or places.origin(leaf.variable), theirs.warning(leaf))


def _refused(path: str) -> tuple[str, str] | None:
    """Say why a file cannot be read; environ-config takes every such file for absent."""
    if not path.startswith("/"):
        return None
    try:
        with open(path, "rb"):
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}", "Let prod-run's user read it"


def _broken_source(leaf: Leaf, error: Exception, names: set[str]) -> Problem:
    source = type(getattr(leaf.entry.callback, "__self__", None)).__name__
    source = source if source != "NoneType" else name_of(leaf.entry.callback)
    kind = f"{type(error).__name__} from {source}"
    if isinstance(error, OSError) and error.strerror:
        kind = f"{error.strerror}: {error.filename}"
    looked_at = f"It asked for {' and '.join(sorted(names))}" if names else f"See where its {source} looks"
    return Problem(leaf.variable, f"cannot be read: {kind}", looked_at)


def _absent(leaf: Leaf, places: Surroundings) -> Looked:
    if leaf.is_required:
        return Looked(MISSING, problem=Problem(leaf.variable, "missing", _remedy(leaf, places)))
    default = leaf.entry.default
    warning = None
    if leaf.is_secret and default and not isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        warning = Problem(leaf.variable, "not given: the secret that stands in the code is used", _remedy(leaf, places))
    return Looked(DEFAULT, default, "default", warning)


def _remedy(leaf: Leaf, places: Surroundings) -> str:
    remedy = f"Put it into {leaf.place}" if leaf.place else "Set it"
    if leaf.is_ours:
        files = [f"{folder}/{leaf.file_names[0]}" for folder in (*places.secrets_dirs, places.credentials) if folder]
        remedy = f"Set {leaf.variable}_FILE to the path of a file that holds it"
        remedy += f", or put it into {' or '.join(files)}" if files else ""
    return f"{remedy}: {leaf.help}" if leaf.help else remedy
