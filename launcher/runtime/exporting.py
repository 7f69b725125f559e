"""
Secrets that a plain command is to have in its environment, since it knows no other way (--export-secret).

Owns the finding of one by its name: declared in the class of --config, or wherever secrets are looked for.
Must never show a value.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from launcher.appconfig.sources import SourceError, find_secret
from launcher.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.appconfig.load import Loaded
    from launcher.appconfig.sources import Surroundings


class Exports(dict[str, str]):
    """The values by name, and what is wrong with the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[Problem] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self)})"


def find(names: tuple[str, ...], loads: tuple[Loaded, ...], places: Surroundings) -> Exports:
    """Find each secret; what is declared has been found already, and its problem is known."""
    exports = Exports()
    for name in names:
        declared = [loaded.secrets[name] for loaded in loads if name in loaded.secrets]
        if declared:
            exports[name] = declared[0].reveal()
        elif not any(row.name == name for loaded in loads for row in loaded.rows):
            _look(name, places, exports)
    return exports


def environment(exports: Mapping[str, str]) -> bytes:
    """Return what the copies of a command find, as NUL-separated NAME=value; nobody but they will read it."""
    added = {os.fsencode(name): os.fsencode(value) for name, value in exports.items()}
    return b"\0".join(b"%b=%b" % pair for pair in {**os.environb, **added}.items())


def _look(name: str, places: Surroundings, exports: Exports) -> None:
    try:
        found = find_secret(name, (name, name.lower()), places)
    except SourceError as error:
        exports.problems.append(error.problem)
        return
    if found is None:
        remedy = f"Set {name}_FILE to the path of a file that holds it, or put it into a directory of --secrets-dir"
        exports.problems.append(Problem(name, "missing, and --export-secret asks for it", remedy))
    else:
        exports[name] = found.value
