"""
The app's variables, for those who have to set them: as text, Markdown or a commented `.env` file.

Owns `FORMS`.  Must never read a value from anywhere, nor show the default of a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from launcher.appconfig import schema
from launcher.lean import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from launcher.appconfig.schema import Leaf


class Variable(NamedTuple):
    """One variable, in words."""

    name: str
    needed: str  # "required", "default 3", …
    help: str
    found_in: str  # for a secret: where it is looked for
    default: str  # as it could be written; empty: none, or a secret's


def variables(cls: type) -> tuple[Variable, ...]:
    """Return the variables of a class in the order of declaration."""
    return tuple(_variable(leaf) for leaf in schema.tree(cls, {}).leaves())


def text(cls: type) -> str:
    """Describe them in aligned columns."""
    rows = variables(cls)
    name_width = max((len(row.name) for row in rows), default=0)
    width = max((len(row.needed) for row in rows), default=0)
    lines: list[str] = []
    for row in rows:
        lines.append(f"{row.name:<{name_width}}  {row.needed:<{width}}  {row.help}".rstrip())
        if row.found_in:
            lines.append(f"{'':<{name_width}}  looked for in {row.found_in}")
    return "\n".join(lines) + "\n"


def markdown(cls: type) -> str:
    """Describe them in a table for a README."""
    lines = ["| variable | | meaning |", "|---|---|---|"]
    for row in variables(cls):
        meaning = f"{row.help} (looked for in {row.found_in})" if row.found_in else row.help
        cells = (f"`{row.name}`", row.needed, meaning.strip())
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def env_file(cls: type) -> str:
    """Describe them as an env file in which every line is a comment: nothing is set until somebody sets it."""
    parts: list[str] = []
    for row in variables(cls):
        lines = [f"# {row.help}"] if row.help else []
        lines.append(f"# {row.needed}" + (f"; looked for in {row.found_in}" if row.found_in else ""))
        lines.append(f"#{row.name}={_quoted(row.default)}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


FORMS: Mapping[str, Callable[[type], str]] = {"text": text, "markdown": markdown, "env": env_file}


def _variable(leaf: Leaf) -> Variable:
    default = leaf.entry.default
    needed = "optional"
    if leaf.is_required:
        needed = f"required with any {leaf.only_if}…" if leaf.only_if else "required"
    elif not (leaf.is_secret or default is None or isinstance(default, attrs.Factory)):  # type: ignore[arg-type]
        needed = f"default {_in_one_line(default)}"
    writable = default if isinstance(default, str) and not leaf.is_secret else ""
    return Variable(
        leaf.variable, f"secret, {needed}" if leaf.is_secret else needed, leaf.help, _found_in(leaf), writable
    )


def _found_in(leaf: Leaf) -> str:
    if leaf.place:
        return leaf.place
    if not leaf.is_ours:
        return ""
    files = " or ".join(leaf.file_names)
    return f"{leaf.variable}_FILE, {leaf.variable}, files called {files}, {leaf.ini[1]}"


def _in_one_line(default: object) -> str:
    return repr(default) if isinstance(default, str) else " ".join(str(default).split())


def _quoted(value: str) -> str:
    if value.isascii() and all(char.isalnum() or char in "._-/:@%+," for char in value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    # A line break would end the comment.
    return "'" + escaped + "'" if escaped.isprintable() else ""
