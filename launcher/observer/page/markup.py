"""
HTML that cannot be broken out of.

Owns the only way from text to markup: every text is escaped unless this module made it.
Pure.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_SIGNS = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord('"'): "&quot;", ord("'"): "&#39;"}
# Control characters have no look and a meaning for some program: shown by their pictures.  So are the marks that turn
# the direction of what follows: a text from outside is not to move ours.
_SIGNS |= {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: "\u2421"}
_SIGNS |= dict.fromkeys((*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\ufffd")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """Turn text into what looks like it, in an element and in a quoted attribute."""
    return Markup(text.translate(_SIGNS))


def tag(name: str, /, *content: str, **attributes: str) -> Markup:
    """Write an element; `class_` is `class`, other underscores are hyphens, and empty attributes are left out."""
    return Markup(f"{_begin(name, attributes)}{join(*content)}</{name}>")


def void(name: str, /, **attributes: str) -> Markup:
    """Write an element that has no end."""
    return _begin(name, attributes)


def join(*content: str) -> Markup:
    """Put pieces together, each escaped unless it is markup."""
    return Markup("".join([each if type(each) is Markup else escape(each) for each in content]))


def between(separator: str, pieces: Iterable[str]) -> Markup:
    """Put pieces together with something between them."""
    return Markup(escape(separator).join([join(each) for each in pieces]))


def _begin(name: str, attributes: dict[str, str]) -> Markup:
    if not attributes:
        return Markup(f"<{name}>")
    pairs = [f' {key.strip("_").replace("_", "-")}="{escape(text)}"' for key, text in attributes.items() if text]
    return Markup(f"<{name}{''.join(pairs)}>")
