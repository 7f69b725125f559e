"""
From texts to an instance of the app's class, or to every reason why there is none.

Owns conversion and validation: each class is made from the inside out, as environ-config would make it,
and where one refuses, its variables are asked one by one.  So converters run once when all is well.
Must never write a secret's value into a reason.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import attrs

from launcher.appconfig.finding import DEFAULT, MISSING
from launcher.appconfig.masked import RefusedSecretError, name_of
from launcher.appconfig.schema import Group
from launcher.appconfig.urls import hide_passwords
from launcher.errors import Problem
from launcher.quantities import BadValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from launcher.appconfig.finding import Looked
    from launcher.appconfig.schema import Leaf

_LONGEST_REASON = 300
BROKEN: Final = object()


class Filling(NamedTuple):
    """What is known while a tree is filled."""

    looked: Mapping[int, Looked]  # by the id of the leaf: what is in one cannot be hashed
    hidden: frozenset[str]  # variables whose values are secret
    mask: Callable[[str], str]  # hides their values in the text of an error about another variable
    problems: list[Problem]

    def of(self, leaf: Leaf) -> Looked:
        """Return what looking for it gave."""
        return self.looked[id(leaf)]


class _Failure(NamedTuple):
    """What the app's code raised."""

    kind: str
    reason: str
    remedy: str
    place: str  # "check in shop/config.py, line 3"
    may_be_shown: bool


def fill(group: Group, filling: Filling) -> object:
    """
    Make an instance of a class and of all in it.

    Returns:
        The instance; None for an optional group of which nothing is set; BROKEN if there are problems.
    """
    if is_absent(group, filling):
        return None
    values: dict[str, Any] = {}
    broken = False
    for member in group.members:
        if isinstance(member, Group):
            value = fill(member, filling)
            broken |= value is BROKEN
            values[_name(member)] = value
            continue
        looked = filling.of(member)
        if looked.problem:
            filling.problems.append(_in_its_group(member, looked))
            broken = True
        elif not isinstance(looked.value, attrs.Factory):  # type: ignore[arg-type]
            values[_name(member)] = looked.value
    if not broken:
        aliases = {_name(member): member.attribute.alias for member in group.members if member.attribute}
        instance, failure = _attempt(group.cls, **{aliases[name] or name: value for name, value in values.items()})
        if failure is None:
            return instance
    found = _ask_each(group, values, filling)
    if not broken and not found:
        # The class as a whole refuses (__attrs_post_init__), or a converter changed its mind.
        reason = f"{failure.kind} from {failure.place}"
        found = [Problem(group.cls.__qualname__, reason, "No variable alone is at fault")]
    filling.problems.extend(found)
    return BROKEN


def is_absent(group: Group, filling: Filling) -> bool:
    """Say whether this is an optional group that lacks something, and of which nothing at all is set."""
    if not group.is_optional or not _lacks_something(group, filling):
        return False
    return all(filling.of(leaf).state in {MISSING, DEFAULT} for leaf in group.leaves())


def _lacks_something(group: Group, filling: Filling) -> bool:
    return any(
        not member.is_optional and _lacks_something(member, filling)
        if isinstance(member, Group)
        else filling.of(member).state == MISSING
        for member in group.members
    )


def _in_its_group(leaf: Leaf, looked: Looked) -> Problem:
    problem = looked.problem
    assert problem  # noqa: S101  the caller has looked
    if looked.state == MISSING and leaf.only_if:
        return problem._replace(reason=f"missing, while another {leaf.only_if}… is set")
    return problem


def _ask_each(group: Group, values: Mapping[str, Any], filling: Filling) -> list[Problem]:
    """Convert and validate what is there, one by one."""
    problems: list[Problem] = []
    leaves = [member for member in group.members if not isinstance(member, Group) and _name(member) in values]
    made = SimpleNamespace()
    for member in group.members:
        if isinstance(member, Group) and values[_name(member)] is not BROKEN:
            setattr(made, _name(member), values[_name(member)])
    for leaf in leaves:
        convert = leaf.attribute.converter
        value, failure = _attempt(_convert, convert, values[_name(leaf)], made, leaf.attribute)
        if failure:
            problems.append(_refusal(leaf, failure, convert, filling))
        else:
            setattr(made, _name(leaf), value)
    incomplete = len(vars(made)) < len(group.members)
    for leaf in leaves:
        validator = leaf.attribute.validator
        if validator is None or not hasattr(made, _name(leaf)):
            continue
        _, failure = _attempt(validator, made, leaf.attribute, getattr(made, _name(leaf)))
        # A validator that compares with a variable which has a problem itself has nothing to say.
        if failure and not (incomplete and failure.kind == "AttributeError"):
            problems.append(_refusal(leaf, failure, validator, filling))
    return problems


def _convert(converter: Any, value: Any, made: SimpleNamespace, attribute: attrs.Attribute[Any]) -> Any:
    if isinstance(converter, attrs.Converter):
        return cast("Any", converter)(value, made, attribute)
    return converter(value) if converter else value


def _refusal(leaf: Leaf, failure: _Failure, deed: object, filling: Filling) -> Problem:
    looked = filling.of(leaf)
    reason, remedy = failure.reason, failure.remedy
    if leaf.variable in filling.hidden and not failure.may_be_shown:
        reason, remedy = f"{failure.kind} from {name_of(deed)}", ""
    # Masked before it is cut, or the first half of a value would stay.
    reason = _in_one_line(filling.mask(reason))
    origin = "the default" if looked.state == DEFAULT else looked.origin
    remedy = remedy or (f"Correct it: {leaf.help}" if leaf.help else "")
    return Problem(leaf.variable, f"{reason} (from {origin})", remedy)


def _attempt(deed: Callable[..., Any], *args: Any, **named: Any) -> tuple[Any, Any]:
    """Call the app's code; return its result, and its failure or None."""
    try:
        return deed(*args, **named), None
    except (Exception, SystemExit) as error:  # noqa: BLE001  whatever the app's code raises is reported
        return None, _failure(error)


def _failure(error: BaseException) -> _Failure:
    kind, remedy = type(error).__name__, ""
    if isinstance(error, RefusedSecretError | BadValueError):
        reason, remedy = error.reason, error.remedy
    else:
        reason = _text(error)
        if not isinstance(error, ValueError) or not reason:
            reason = f"{kind}: {reason}" if reason else kind
    return _Failure(kind, reason, remedy, _place(error.__traceback__), isinstance(error, RefusedSecretError))


def _text(error: BaseException) -> str:
    try:
        # Validators of attrs put the attribute, with all its options, behind the sentence.
        return error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    except Exception:  # noqa: BLE001  a __str__ that fails
        return ""


def _in_one_line(text: str) -> str:
    line = hide_passwords(" ".join(text.split()))
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + "…"


def _place(frames: TracebackType | None) -> str:
    while frames and frames.tb_next:
        frames = frames.tb_next
    if frames is None:
        return "nowhere"
    code = frames.tb_frame.f_code
    return f"{code.co_name} in {os.path.basename(code.co_filename)}, line {frames.tb_lineno}"


def _name(member: Leaf | Group) -> str:
    assert member.attribute  # noqa: S101  only the root has none, and nobody asks for its name
    return member.attribute.name
