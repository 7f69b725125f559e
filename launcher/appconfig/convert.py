"""
Converters for the app's variables: `environ.var(converter=launcher.duration)`.

Owns what a text may look like for each.  Must never import environ-config: these cost the standard library
only.  A value that is no text is left as it is, because environ-config converts defaults too.
"""

from __future__ import annotations

from typing import TypeVar

from launcher import quantities
from launcher.quantities import BadValueError

T = TypeVar("T")


def duration(value: str | T) -> float | T:
    """
    Read `500ms`, `30s`, `5m` or `1h` into seconds.

    Raises:
        BadValueError: it is none; a number needs its unit.
    """
    return quantities.duration(value.strip()) if isinstance(value, str) else value


def size(value: str | T) -> int | T:
    """
    Read `512M` or `1G` into bytes; the units are powers of 1024.

    Raises:
        BadValueError: it is none.
    """
    return quantities.size(value.strip()) if isinstance(value, str) else value


def boolean(value: str | T) -> bool | T:
    """
    Read true, false, yes, no, on, off, 1 or 0; capitals do not matter.

    Raises:
        BadValueError: it is another word; `environ.bool_var` takes each of those for False.
    """
    if not isinstance(value, str):
        return value
    word = value.strip().lower()
    if word in quantities.ON:
        return True
    if word in quantities.OFF:
        return False
    raise BadValueError(value, "is neither true nor false", "Write true or false")


def csv(value: str | T) -> tuple[str, ...] | T:
    """Read `a, b,c` into a tuple of texts, without the blanks around them; empty ones are left out."""
    if not isinstance(value, str):
        return value
    return tuple(item for item in map(str.strip, value.split(",")) if item)
