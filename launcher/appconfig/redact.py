"""
Hiding secrets in texts that somebody will see.

Owns the forms in which a value can turn up (as it is, percent-encoded, base64, escaped as in JSON, `repr` or HTML)
and the word that takes its place.  Must never keep a text, or fail on one.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

LEAST_CHARACTERS = 6  # a shorter value would be found in the middle of words, and shred the text

# The user information of a URL goes to the last @ before the path; a password with a bare / is met too.
_URL_PASSWORD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#:]*:([^/?#]*)|[^:@]*:([^@]*))@")

# What html.escape, markupsafe and XML libraries write.
_HTML = {
    "&": ("&amp;",),
    "<": ("&lt;",),
    ">": ("&gt;",),
    '"': ("&quot;", "&#34;"),
    "'": ("&#x27;", "&#39;", "&apos;"),
}


class Redactor:
    """
    Hides values; made once from all secrets by name, used on every text that leaves the process.

    Values below six characters are left alone.  Of a URL the password is hidden on its own too, of a value of
    several lines each line.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        pieces = [(piece, name) for name, value in values.items() for piece in _pieces(value)]
        # Of two that begin alike the shorter would leave the longer one's end: the longest comes first.
        pieces.sort(key=lambda pair: len(pair[0]), reverse=True)
        names: dict[str, str] = {}
        for piece, name in pieces:
            for pattern in _patterns(piece):
                names.setdefault(pattern, name)
        self._any = re.compile(_joined(names)) if names else None
        self._each = [(re.compile(pattern), name) for pattern, name in names.items()]

    def mask(self, text: str) -> str:
        """Return a text with `<secret NAME>` in place of each value."""
        if self._any is None:
            return text
        shown: list[str] = []
        at = end = 0
        while found := self._any.search(text, at):
            # One may begin inside another and end behind it: then both are one gap.
            if found.start() >= end:
                shown += (text[end : found.start()], f"<secret {self._name(found[0])}>")
            at, end = found.start() + 1, max(end, found.end())
        return "".join((*shown, text[end:]))

    def mask_bytes(self, data: bytes) -> bytes:
        """Return bytes, UTF-8 for the most part, with `<secret NAME>` in place of each value."""
        return self.mask(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def _name(self, found: str) -> str:
        return next((name for pattern, name in self._each if pattern.fullmatch(found)), "")


def is_too_short(value: str) -> bool:
    """Say whether a value, or the password in it if it is a URL, is left alone for being short."""
    url = _URL_PASSWORD.match(value)
    parts = [value, urllib.parse.unquote(url[1] or url[2] or "")] if url else [value]
    return any(0 < len(part) < LEAST_CHARACTERS for part in parts)


def _pieces(value: str) -> Iterator[str]:
    """Yield all that must not be seen of a value, the value first."""
    lines = [value, *value.splitlines()]
    url = _URL_PASSWORD.match(value)
    if url:
        password = url[1] or url[2] or ""
        lines += [password, urllib.parse.unquote(password)]
    return (line for line in dict.fromkeys(lines) if len(line) >= LEAST_CHARACTERS)


def _patterns(piece: str) -> Iterator[str]:
    """Yield a pattern for each form of a piece, those that begin like another before it."""
    raw = piece.encode("utf-8", "surrogatepass")
    for encoded in (base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()):
        yield re.escape(encoded)
        yield re.escape(encoded.rstrip("="))
    escaped = {json.dumps(piece), json.dumps(piece, ensure_ascii=False), ascii(piece), repr(piece), repr(raw)[1:]}
    yield from (re.escape(quoted[1:-1]) for quoted in sorted(escaped, key=len, reverse=True))
    rest = "".join(f"(?:{'|'.join(_encodings(char))})" for char in piece[1:])
    yield from (first + rest for first in _encodings(piece[0]))


def _joined(patterns: Iterable[str]) -> str:
    """Join patterns by what they begin with, which is a literal always: `re` then skips to one, and tries few."""
    groups: dict[str, list[str]] = {}
    for pattern in patterns:
        first = pattern[:2] if pattern.startswith("\\") else pattern[0]
        groups.setdefault(first, []).append(pattern.removeprefix(first))
    return "|".join(f"{first}(?:{'|'.join(rest)})" for first, rest in groups.items())


def _encodings(char: str) -> list[str]:
    """List the patterns of a character: as it is, percent-encoded (encoders differ in which they encode), in HTML."""
    if char.isascii() and char.isalnum():
        return [char]
    hexadecimal = "".join(f"%{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))
    # RFC 3986 2.1: upper and lower case digits are the same.
    either_case = "".join(f"[{digit.upper()}{digit}]" if digit.isalpha() else digit for digit in hexadecimal)
    # Encoded first: after a raw % the 25 of an encoded one would be left.
    return [either_case, *_HTML.get(char, ()), re.escape(char), *([r"\+"] if char == " " else [])]
