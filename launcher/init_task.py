"""
What `--before` may hold: a command, or MODULE:FUNCTION.

Owns the grammar.  Pure: text in, value out.
"""

from __future__ import annotations

import shlex

from launcher import quantities
from launcher.quantities import BadValueError


def command(text: str) -> tuple[str, ...]:
    """
    Return the words of a command, which no shell will read; none if it is MODULE:FUNCTION.

    Raises:
        BadValueError: it is neither.
    """
    try:
        quantities.target(text)
    except BadValueError:
        pass
    else:
        return ()
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise BadValueError(text, "cannot be split into words", f"Close what is open: {error}") from error
    if not words or not words[0] or "\0" in text:
        raise BadValueError(
            text, "is no command", "Write a command, such as 'alembic upgrade head', or shop.db:migrate"
        )
    return words
