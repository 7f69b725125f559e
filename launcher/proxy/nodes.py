"""
Addresses as proxies write them.

Owns one spelling for each IP address, ports, `address:port`, and what may stand in a Host header.
Must never import `ipaddress`, which every worker and every request would pay for; the C library knows
the grammar as well, and is stricter (no leading zeros, no `%interface`).
"""

from __future__ import annotations

from launcher.lean import NamedTuple
from launcher.lean_posix import socket

UNIX = "unix:"  # stands for the address of whoever connects over a unix socket

LARGEST_PORT = 65535
LONGEST_PORT = 5  # digits
LONGEST_HOST = 255 + 6  # a name, a colon and a port

_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, RFC 4291 §2.5.5.2
_DIGITS = frozenset("0123456789")
_NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_")


class Address(NamedTuple):
    """One end of a connection: an IP address or `unix:…`, and a port, 0 if it is not known or there is none."""

    host: str
    port: int = 0


def canonical(text: str) -> str:
    """
    Return the one spelling of an IP address, or "" if it is none.

    An IPv4-mapped address becomes the IPv4 address that it is, so that no list has to name a client twice.
    """
    try:
        if ":" in text:
            return from_bytes(socket.inet_pton(socket.AF_INET6, text))
        socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):  # ValueError: a NUL inside, or no text that could be encoded
        return ""
    return text


def from_bytes(packed: bytes) -> str:
    """Spell an address of 4 or 16 bytes."""
    packed = packed.removeprefix(_MAPPED)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)  # noqa: PLR2004  bytes of IPv4


def port(text: str) -> int:
    """Read a port; -1 if it is none."""
    if not text or len(text) > LONGEST_PORT or not _DIGITS.issuperset(text):
        return -1
    number = int(text)
    return number if number <= LARGEST_PORT else -1


def node(text: str) -> Address | None:
    """Read `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]` or `[2001:db8::1]:80`; None if it is nothing of these."""
    if text.startswith("["):
        inner, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in inner or (rest and not rest.startswith(":")):
            return None
        host, colon, port_text = canonical(inner), rest[:1], rest[1:]
    else:
        host, colon, port_text = text.partition(":")
        host = canonical(host)
    number = port(port_text) if colon else 0
    return Address(host, number) if host and number >= 0 else None


def is_host(text: str) -> bool:
    """Say whether a text may become a Host header: a name or an address, and a port if need be."""
    if len(text) > LONGEST_HOST:
        return False
    if text.startswith("["):
        return node(text) is not None
    name, colon, port_text = text.partition(":")
    return bool(name) and _NAME.issuperset(name) and (not colon or port(port_text) >= 0)
