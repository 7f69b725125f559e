"""
The directory and the interpreter of the service, as its caller named them.

Owns the reading of `$PWD`, `--chdir` and `argv[0]`; symlinks are kept, since a reload follows them anew (DESIGN §2.1).
Must never open an app's file.
"""

from __future__ import annotations

import os
import sys

from launcher.errors import Problem, UnavailableError
from launcher.lean import NamedTuple

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.settings import Settings


class Places(NamedTuple):
    """Where to run and with which interpreter; symlinks are kept, since a reload follows them anew."""

    directory: str
    interpreter: str


def enter(settings: Settings, environ: Mapping[str, str], script: str) -> Places:
    """
    Go to the directory of `--chdir`, and find what the supervisor shall resolve anew for each generation.

    Raises:
        UnavailableError: the directory cannot be entered.
    """
    start = starting_directory(environ)
    directory = start
    if settings.chdir:
        directory = os.path.join(start, settings.chdir)
        if ".." not in directory.split("/"):
            directory = os.path.normpath(directory)  # but not a/../b: `a` may be a link
        try:
            os.chdir(directory)
        except (OSError, ValueError) as error:
            reason = f"cannot enter {directory}: {getattr(error, 'strerror', None) or error}"
            where = next(row.origin.partition(" ")[2] for row in settings.rows if row.name == "chdir")
            raise UnavailableError(Problem(where, reason, "Name a directory that this user may enter")) from None
    elif not directory:
        reason = "the current directory no longer exists"
        raise UnavailableError(Problem("", reason, "Start prod-run from another one, or give --chdir"))
    return Places(directory, interpreter_beside(os.path.join(start, script), sys.executable))


def starting_directory(environ: Mapping[str, str]) -> str:
    """Name the current directory as the caller did, symlinks included; empty if it is gone."""
    said = environ.get("PWD", "")
    try:
        if os.path.isabs(said) and os.path.samefile(said, "."):
            return said
        return os.getcwd()
    except OSError:
        pass
    try:
        return os.getcwd()  # $PWD is stale
    except OSError:
        return ""


def interpreter_beside(script: str, executable: str) -> str:
    """
    Name the `python` beside the script as it was called, if that is the interpreter that runs now.

    A shebang names the release directory; `/srv/current/bin/prod-run` was called, and `current` will move.
    """
    folder = os.path.dirname(script)
    beside = os.path.join(folder, "python")
    try:
        is_same = os.path.samefile(folder, os.path.dirname(executable))
    except OSError:
        return executable
    return beside if is_same and os.path.exists(beside) else executable
