"""
The app's configuration, loaded at once: every value with its origin, every problem with its remedy.

Owns `load`.  Must never change os.environ, and never raise for what is wrong with the configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from launcher import settings
from launcher.appconfig import schema
from launcher.appconfig.filling import Filling, fill, is_absent
from launcher.appconfig.finding import DEFAULT, FOUND, Asked, Looked, look
from launcher.appconfig.masked import MASK, Secret
from launcher.appconfig.redact import Redactor, is_too_short
from launcher.appconfig.urls import hide_passwords
from launcher.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from launcher.appconfig.schema import Group, Leaf
    from launcher.appconfig.sources import Surroundings

NOT_SET = "not set"
_SHORT = ("too short to be masked: a text that holds it is shown as it is", "Give it a longer value")


class Row(NamedTuple):
    """One variable, as it may be shown."""

    name: str
    value: str  # a secret's never
    origin: str  # as in a problem; "default", "missing", "cannot be read", or "not set" in an absent group
    is_secret: bool
    help: str


class Loaded(NamedTuple):
    """What loading a class gave."""

    instance: Any  # None if there are problems
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    rows: tuple[Row, ...]
    secrets: Mapping[str, Secret[str]]  # by the name of the variable that may hold it


def load(cls: type, places: Surroundings) -> Loaded:
    """
    Fill an environ-config class, and find everything that is wrong with its variables.

    Args:
        cls: a class made by `environ.config`.
        places: where values may come from.
    """
    places = places.pinned()  # all files are of one moment
    root = schema.tree(cls, places.environ)
    leaves = tuple(root.leaves())
    asked = Asked(places.environ)
    looked = {id(leaf): look(leaf, places, asked) for leaf in leaves}
    hidden = frozenset(leaf.variable for leaf in leaves if leaf.is_secret)
    secrets = _secrets(leaves, looked)
    mask = Redactor({name: value.reveal() for name, value in secrets.items()}).mask
    filling = Filling(looked, hidden, mask, [])
    instance = fill(root, filling)
    rows = tuple(row._replace(value=mask(row.value)) for row in _rows(root, filling))
    declared = tuple(leaf.variable for leaf in leaves)
    warnings = [found.warning for found in looked.values() if found.warning]
    warnings += _unknown(schema.prefix(cls), asked.names, declared, places)
    given = {
        leaf.variable for leaf in leaves if looked[id(leaf)].state == FOUND
    }  # what stands in the code is no secret
    short = [name for name, value in secrets.items() if name in given and is_too_short(value.reveal())]
    warnings += [Problem(name, *_SHORT) for name in short]
    problems = _in_order(filling.problems, rows)
    return Loaded(None if problems else instance, problems, tuple(warnings), rows, secrets)


def _rows(group: Group, filling: Filling, *, absent: bool = False) -> Iterable[Row]:
    absent = absent or is_absent(group, filling)
    for member in group.members:
        if isinstance(member, schema.Group):
            yield from _rows(member, filling, absent=absent)
            continue
        looked = filling.of(member)
        is_secret = member.variable in filling.hidden
        value, origin = (
            ("", NOT_SET) if absent else (_shown(looked, is_secret=is_secret), looked.origin or looked.state)
        )
        yield Row(member.variable, value, origin, is_secret, member.help)


def _shown(looked: Looked, *, is_secret: bool) -> str:
    if looked.state not in {FOUND, DEFAULT} or looked.value is None:
        return ""
    if is_secret:
        return MASK
    # Who declares postgres://u:p@h with environ.var did not mean it to be shown either.
    return "" if isinstance(looked.value, attrs.Factory) else hide_passwords(str(looked.value))  # type: ignore[arg-type]


def _secrets(leaves: Iterable[Leaf], looked: Mapping[int, Looked]) -> dict[str, Secret[str]]:
    values = {leaf.variable: looked[id(leaf)].value for leaf in leaves if leaf.is_secret}
    # environ-config leaves the newline at a file's end, which would hide the value from a search.
    return {name: Secret(value.rstrip("\r\n")) for name, value in values.items() if isinstance(value, str)}


def _unknown(prefix: str, known: set[str], declared: tuple[str, ...], places: Surroundings) -> list[Problem]:
    """Find what was probably meant for the app, but is not one of its variables."""
    if not prefix:
        return []
    return [
        Problem(
            name,
            f"the app declares no such variable (from {places.origin(name)})",
            _suggestion(name, declared, prefix) or "Unset it, or see `prod-run --help-config`",
        )
        for name, value in sorted(places.environ.items())
        if name.startswith(prefix)
        and name not in known
        and not name.startswith("PROD_RUN_")
        and not settings.is_service_link(name, value)
    ]


def _suggestion(name: str, declared: tuple[str, ...], prefix: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  5 ms that only a mistake costs

    # Without the prefix, which would make all of them alike.
    known = {variable.removeprefix(prefix): variable for variable in declared}
    near = get_close_matches(name.removeprefix(prefix), known, n=1)
    return f"Did you mean {known[near[0]]}?" if near else ""


def _in_order(problems: list[Problem], rows: tuple[Row, ...]) -> tuple[Problem, ...]:
    """Put problems into the order of declaration, whatever the order in which they were found."""
    position = {row.name: index for index, row in reversed(list(enumerate(rows)))}
    return tuple(sorted(problems, key=lambda problem: position.get(problem.name, len(rows))))
