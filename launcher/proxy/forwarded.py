"""
The `Forwarded` header of RFC 7239.

Owns its grammar, read from the right: what a client has put to the left, such as a quotation mark that it never
closes, cannot reach the element that our own proxy has appended.  Must never decide whom to believe: `walking` does.
"""

from __future__ import annotations

from launcher.proxy.nodes import is_host, node, port
from launcher.proxy.walking import SCHEMES, Hop, Seen, walk

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from launcher.proxy.nodes import Address
    from launcher.proxy.trust import Trust

NAME = "forwarded"

_TOKEN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~")
_OBFUSCATED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_BLANKS = " \t"


class _MalformedError(ValueError):
    """Not what the grammar allows; never leaves this module."""


def read(headers: Mapping[str, Sequence[str]], trust: Trust) -> Seen:
    """Say what to believe of a request whose peer is trusted; several fields are one list."""
    client, believed = walk(hops(headers.get(NAME, ())), trust)
    if not believed:
        return Seen()
    kept = ", ".join(hop.text for hop in reversed(believed))
    return Seen(client, believed[-1].scheme, believed[-1].host, ((NAME, kept),))


def hops(fields: Sequence[str]) -> Iterator[Hop | None]:
    """Return the elements from right to left, read as they are asked for; at a malformed one None, and the end."""
    try:
        for field in reversed(fields):
            for element in _split(field, ","):
                if element:
                    yield _hop(element)
    except _MalformedError:
        yield None


def _hop(element: str) -> Hop:
    pairs: dict[str, str] = {}
    for pair in _split(element, ";"):
        if not pair:
            continue
        name, equals, value = pair.partition("=")
        name = name.lower()
        # RFC 7239 §4: each parameter at most once, in any case.
        if not (name and equals) or name in pairs or not _TOKEN.issuperset(name):
            raise _MalformedError
        pairs[name] = _value(value)
    scheme, host = pairs.get("proto", "").lower(), pairs.get("host", "")
    return Hop(
        element,
        _address(pairs["for"]) if "for" in pairs else None,
        scheme if scheme in SCHEMES else "",
        host if is_host(host) else "",
    )


def _address(text: str) -> Address | None:
    """Read a node (§6): an address, or None for one that is hidden."""
    head, _, tail = text.rpartition(":")
    if head and _is_obfuscated(tail):
        text = head  # a port may be hidden by itself
    found = node(text)
    if found is not None:
        return found
    name, colon, port_text = text.partition(":")
    if (name.lower() == "unknown" or _is_obfuscated(name)) and (not colon or port(port_text) >= 0):
        return None
    raise _MalformedError


def _is_obfuscated(text: str) -> bool:
    return len(text) > 1 and text[0] == "_" and _OBFUSCATED.issuperset(text)


def _value(text: str) -> str:
    """Read a token or a quoted-string."""
    if not text.startswith('"'):
        if not text or not _TOKEN.issuperset(text):
            raise _MalformedError
        return text
    if _opening(text, len(text) - 1) != 0 or not text.replace("\t", " ").isprintable():
        raise _MalformedError
    characters = iter(text[1:-1])
    return "".join(next(characters) if char == "\\" else char for char in characters)


def _split(text: str, separator: str) -> Iterator[str]:
    """Cut at each separator outside of quotes, from right to left; blanks around the pieces are left out."""
    end = len(text)
    mark, quote = text.rfind(separator), text.rfind('"')
    while mark >= 0:
        if quote > mark:
            place = _opening(text, quote)
            quote = text.rfind('"', 0, place)
            mark = mark if mark < place else text.rfind(separator, 0, place)
        else:
            yield text[mark + 1 : end].strip(_BLANKS)
            end = mark
            mark = text.rfind(separator, 0, mark)
    yield text[:end].strip(_BLANKS)


def _opening(text: str, closing: int) -> int:
    """Find the quotation mark that opens what the one at `closing` closes; a mark behind a lone backslash is text."""
    if closing < 1 or text[closing] != '"' or _is_escaped(text, closing):
        raise _MalformedError
    place = text.rfind('"', 0, closing)
    while place >= 0 and _is_escaped(text, place):
        place = text.rfind('"', 0, place)
    if place < 0:
        raise _MalformedError
    return place


def _is_escaped(text: str, place: int) -> bool:
    start = place
    while start > 0 and text[start - 1] == "\\":
        start -= 1
    return (place - start) % 2 == 1
