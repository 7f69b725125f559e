"""
How an app declares its secrets: `token = launcher.secret(help="…")` in an environ-config class.

Owns the fields made of environ-config's public `var` with another getter and another repr (measured: its own
masking is a trick with stack frames, which a converter, `%r` or an f-string undo).  Must never read a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import environ

from launcher.appconfig.lookup import look_up
from launcher.appconfig.masked import MASK, RefusedSecretError, Secret, shielded
from launcher.appconfig.urls import Url

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Validator = Callable[[Any, attrs.Attribute[Any], Any], Any]


def secret(
    default: Any = attrs.NOTHING,
    *,
    converter: Callable[[Any], Any] | None = None,
    validator: Validator | Sequence[Validator] | None = None,
    name: str | None = None,
    help: str | None = None,  # noqa: A002  environ-config's name for it
    as_str: bool = False,
) -> Any:
    """
    Declare a secret; the attribute is a `Secret`, or None if that is its default.

    Args:
        default: what it is where none is found; a value here is in the code, and warned about.
        converter: gets the text; the `Secret` holds what it returns.
        validator: gets the value itself, as attrs' validators do.
        name: the variable's whole name, and the first name of a file that is looked for.
        help: one line for those who have to set it.
        as_str: the attribute is the bare value, for drivers that insist; only the class's repr hides it.
    """

    def convert(value: Any) -> Any:
        if value is None or isinstance(value, Secret):
            return value.reveal() if as_str and value is not None else value
        made = value if converter is None else shielded(converter, value)
        return made if as_str else Secret(made)

    return _field(default, convert, _on_the_value(validator), name, help)


def url(
    default: Any = attrs.NOTHING,
    *,
    schemes: Sequence[str] = (),
    validator: Validator | Sequence[Validator] | None = None,
    name: str | None = None,
    help: str | None = None,  # noqa: A002  environ-config's name for it
) -> Any:
    """
    Declare a URL with a password in it; the attribute is a `Url`, or None if that is its default.

    One whose path is the secret (a webhook) is better declared with `secret`: the printed form shows the path.

    Args:
        default: what it is where none is found.
        schemes: those that are accepted; none: all.
        validator: gets the `Url`, as attrs' validators do.
        name: the variable's whole name, and the first name of a file that is looked for.
        help: one line for those who have to set it.
    """
    accepted = (schemes,) if isinstance(schemes, str) else tuple(schemes)

    def convert(value: Any) -> Any:
        if value is None:
            return None
        made = value if isinstance(value, Url) else Url(value)
        if accepted and made.scheme not in accepted:
            # Not the scheme that it has: `hunter2://` may be a password in the wrong place.
            message = f"the URL's scheme is not {' or '.join(accepted)}"
            raise RefusedSecretError(message)
        return made

    return _field(default, convert, _on_the_value(validator, bare=False), name, help)


def _field(
    default: Any, convert: Callable[[Any], Any], validator: Validator | None, name: str | None, words: str | None
) -> Any:
    given = {} if default is attrs.NOTHING else {"default": default}
    field = environ.var(converter=convert, validator=validator, name=name, help=words, **given)
    field.metadata["environ_config"].callback = look_up
    field.repr = lambda value: repr(value) if value is None or isinstance(value, Secret) else MASK
    return field


def _on_the_value(validator: Validator | Sequence[Validator] | None, *, bare: bool = True) -> Validator | None:
    """Let a validator see the value and nobody see its error."""
    if validator is None:
        return None
    validators = (validator,) if callable(validator) else tuple(validator)

    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        shown = value.reveal() if bare and isinstance(value, Secret) else value
        for each in validators if value is not None else ():
            shielded(each, instance, attribute, shown)

    return check
