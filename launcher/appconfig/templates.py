"""
Which templates there are, as people write them: `--template SRC:DEST[:MODE]` and `--template-check COMMAND`.

Owns the two grammars, a template's name, and what two templates may not share.
Must never look at the machine: text in, value out.
"""

from __future__ import annotations

import posixpath
import shlex
from typing import NamedTuple

from launcher.errors import Problem
from launcher.quantities import BadValueError

GENERATION = "{generation}"
SOURCE = "{src}"
VARIABLE = "PROD_RUN_TEMPLATE_"
LARGEST_MODE = 0o777
SECRET_MODE = 0o640  # no bit beyond these for a file with a secret in it

_SUFFIXES = (".j2", ".tmpl", ".template")
_OCTAL = frozenset("01234567")
_IN_VARIABLES = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_PARTS = (2, 3)


class Template(NamedTuple):
    """One file to be made of another."""

    source: str
    destination: str  # may hold {generation}
    mode: int | None = None  # None: not given

    @property
    def name(self) -> str:
        """What `worker.templates` calls it: its file's name without the suffix that makes it a template."""
        name = posixpath.basename(self.source)
        return next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name) or name

    @property
    def variable(self) -> str:
        """The variable that tells a worker where its generation's file is."""
        return VARIABLE + "".join(char if char in _IN_VARIABLES else "_" for char in self.name.upper())

    @property
    def is_jinja(self) -> bool:
        """Whether its dialect is Jinja's; it is the strict one otherwise."""
        return self.source.endswith(".j2")

    @property
    def is_private(self) -> bool:
        """Whether each generation has a file of its own."""
        return GENERATION in self.destination

    def path(self, generation: int) -> str:
        """Return the file that a generation's bytes go to."""
        return self.destination.replace(GENERATION, str(generation))


def template(text: str) -> Template:
    """Read `SRC:DEST` or `SRC:DEST:MODE`."""
    parts = text.split(":")
    if len(parts) not in _PARTS or not all(parts):
        remedy = "Write SRC:DEST or SRC:DEST:MODE; a path with a colon in it cannot be named here"
        raise BadValueError(text, "is not a template", remedy)
    source, destination = parts[:2]
    if "\0" in text:
        raise BadValueError(text, "holds a NUL byte, as no path can")
    for path in (source, destination):
        if posixpath.basename(path) in {"", ".", ".."}:
            raise BadValueError(path, "has no file name", "Name the file, not its directory")
    if any(brace in destination.replace(GENERATION, "") for brace in "{}"):
        raise BadValueError(destination, "holds braces", f"Only {GENERATION} is known there")
    if posixpath.normpath(source) == posixpath.normpath(destination):
        raise BadValueError(text, "would overwrite the template itself", "Name another DEST")
    return Template(source, destination, _mode(parts[2]) if parts[2:] else None)


def check_command(text: str) -> tuple[str, ...]:
    """Split the words of a command as a shell would; no shell will run them, and `{src}` is the file to look at."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise BadValueError(text, "cannot be split into words", f"Close what is open: {error}") from error
    if not any(SOURCE in word for word in words[1:]):
        remedy = f"Say where the rendered file goes: nginx -t -c {SOURCE}"
        raise BadValueError(text, f"has no {SOURCE} among its arguments", remedy)
    return words


def clashes(templates: tuple[Template, ...]) -> list[Problem]:
    """Find templates that get in each other's way: one DEST for two, or one name where workers look files up by it."""
    found = []
    for position, this in enumerate(templates):
        for other in templates[:position]:
            if posixpath.normpath(other.destination) == posixpath.normpath(this.destination):
                reason = f"is the DEST of two templates, {other.source} and {this.source}"
                found.append(Problem(this.destination, reason, "Give each its own"))
            elif other.variable == this.variable and (other.is_private or this.is_private):
                reason = f"is called {this.variable} in a worker, as {other.source} is"
                found.append(Problem(this.source, reason, "Rename one of the two"))
    return found


def _mode(text: str) -> int:
    if not _OCTAL.issuperset(text) or int(text, 8) > LARGEST_MODE:
        raise BadValueError(text, "is not a mode", "Write it in octal, such as 0640")
    return int(text, 8)
