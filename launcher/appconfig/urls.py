"""
A URL as one secret: one value changes user, password and host together.

Owns its reading and its printed form.  Must never put any part of a text that it refuses into the reason:
where the password ends is just what is unclear then.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from launcher.appconfig.masked import RefusedSecretError, Secret, shielded

if TYPE_CHECKING:
    from collections.abc import Mapping

_HIDDEN = "***"
_ESCAPES = "In user and password write @ as %40, / as %2F, # as %23, ? as %3F"
# libpq takes ?password= and ?sslpassword= as well.
_SECRET_KEY = re.compile(r"pass|pwd|secret|token", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)([^\s/?#:@]*):\S*@")


class Url(Secret[str]):
    """
    A URL whose printed form hides only the password; `reveal()` gives the whole text.

    Attributes:
        scheme: in lower case.
        host: without the brackets of IPv6.
        port: None if it names none.
        user: decoded, as all parts are; None if it names none.
        path: from the slash on.
        database: the path without the slash before it.
        redacted: the printed form.
    """

    __slots__ = ("database", "host", "path", "port", "redacted", "scheme", "user")

    def __init__(self, text: str) -> None:
        """
        Take the text apart.

        Raises:
            RefusedSecretError: it is no URL with a scheme and a host.
        """
        super().__init__(text)
        if any(char.isspace() or not char.isprintable() for char in text):
            raise RefusedSecretError(*_sentence("has blanks or control characters in it", "Percent-encode them"))
        parts = shielded(urlsplit, text)
        if not parts.scheme or "://" not in text:
            raise RefusedSecretError(*_sentence("has no scheme", "Write scheme://user:password@host/path"))
        if "@" in parts.path + parts.query + parts.fragment:
            # postgres://u:12/3@h: to urlsplit the host is `u` and the port 12.
            raise RefusedSecretError(*_sentence("has an @ behind its host", _ESCAPES))
        user, _, address = parts.netloc.rpartition("@")
        user, colon, _ = user.partition(":")
        self.scheme: str = parts.scheme
        self.host: str = _decode(_host(address))
        self.port: int | None = _port(address)
        self.user: str | None = _decode(user) if user else None
        self.path: str = _decode(parts.path)
        self.database: str = self.path.removeprefix("/")
        if not self.host:
            raise RefusedSecretError(*_sentence("has no host", "Write scheme://user:password@host/path"))
        _ = self.password, self.query  # refused now, not when the app asks
        who = f"{user}:{_HIDDEN}@" if colon else parts.netloc.removesuffix(address)
        self.redacted: str = f"{parts.scheme}://{who}{address}{parts.path}{_shown_query(parts.query)}"

    @property
    def password(self) -> str | None:
        """The password, decoded; None if it names none."""
        _, colon, password = urlsplit(self.reveal()).netloc.rpartition("@")[0].partition(":")
        return _decode(password) if colon else None

    @property
    def query(self) -> Mapping[str, str]:
        """What follows the question mark, decoded; of several values for a key the last."""
        return dict(parse_qsl(urlsplit(self.reveal()).query, keep_blank_values=True))

    def __repr__(self) -> str:
        return self.redacted


def hide_passwords(text: str) -> str:
    """Hide the password of every URL in a text that was not declared secret."""
    return _USER_INFO.sub(rf"\1:{_HIDDEN}@", text)


def _host(address: str) -> str:
    # urlsplit().hostname is in lower case, which breaks the path of a socket (%2Fvar%2Frun%2FPG).
    return address[1:].partition("]")[0] if address.startswith("[") else address.partition(":")[0]


def _port(address: str) -> int | None:
    text = address.rpartition("]")[2].partition(":")[2]
    if not text:
        return None
    largest = 65535
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(largest)) and int(text) <= largest):
        raise RefusedSecretError(*_sentence(f"has a port that is no number up to {largest}", _ESCAPES))
    return int(text)


def _decode(part: str) -> str:
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        pass  # its text holds the part
    raise RefusedSecretError(*_sentence("has a percent-encoded part that is not UTF-8", "Encode its UTF-8 bytes"))


def _shown_query(query: str) -> str:
    items = (item.partition("=") for item in query.split("&"))
    shown = "&".join(key + equals + (_HIDDEN if _SECRET_KEY.search(key) else value) for key, equals, value in items)
    return f"?{shown}" if query else ""


def _sentence(what: str, remedy: str) -> tuple[str, str]:
    return f"the URL {what}", remedy
