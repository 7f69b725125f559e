"""
Declared secrets, once they are known: they leave the environment, and every record.

Owns both, for what PREPARING loads and for a class that the app asks for first when it runs already.
Must never load anything, and never raise: an app that has its configuration goes on.
"""

from __future__ import annotations

import os

from launcher.errors import Problem
from launcher.handoff import is_kept
from launcher.runtime import records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from launcher.appconfig.load import Loaded


def scrub(loads: Iterable[Loaded]) -> list[Problem]:
    """Take declared secrets out of the environment (unsetenv(3) included); return names that every process shows."""
    names = [row.name for loaded in loads for row in loaded.rows if row.is_secret]
    for name in names:
        os.environ.pop(name, None)
    reason = "is a name that stays in the environment of every process, so it cannot be secret"
    remedy = "Give it another name: launcher.secret(name=…)"
    return [Problem(name, reason, remedy) for name in names if is_kept(name)]


def take(loaded: Loaded) -> None:
    """Take in what the app has loaded by `launcher.config(Class)`, with problems or without."""
    records.protect_also(loaded)
    if not records.is_prepared():
        return  # the import goes on: PREPARING looks at all that it has loaded, at its end
    for problem in (*loaded.warnings, *scrub((loaded,))):
        records.say("warning", f"{problem.name}: {problem.reason}")
