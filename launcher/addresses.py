"""
Where to listen, as people write it.

Owns the reading of `[NAME=]ADDR` and the names of listeners.
Must never resolve a name or open anything: `supervisor.listeners` does.
"""

from __future__ import annotations

from launcher.lean import NamedTuple
from launcher.quantities import NAME_CHARACTERS, BadValueError

TCP, UNIX, FD = "tcp", "unix", "fd"

ANY_IPV4 = "0.0.0.0"  # noqa: S104 - to listen everywhere is what `:PORT` asks for
LARGEST_PORT = 65535
LARGEST_FD = 2**31 - 1
LARGEST_MODE = 0o777
LONGEST_PATH = 107  # bytes; unix(7): sun_path has 108, the last one is a NUL
FORMS = "Write HOST:PORT, :PORT, [IPV6]:PORT, unix:/path or fd:N"


class Address(NamedTuple):
    """One place to listen at; `text` is what was written, without the name."""

    name: str  # empty until `name_all` has given one
    kind: str  # TCP, UNIX or FD
    text: str
    host: str = ""  # TCP: a number or a name, IPv6 without its brackets
    port: int = 0
    is_ipv6: bool = False  # it was written in brackets
    path: str = ""  # UNIX
    mode: int = -1  # UNIX; -1: what the umask leaves
    user: str = ""  # UNIX; empty: as it comes
    group: str = ""
    fd: int = -1  # FD


def parse(written: str) -> Address:
    """
    Read one `[NAME=]ADDR`.

    Raises:
        BadValueError: it is none, with what to write instead.
    """
    name, text = _split_name(written)
    if any(ord(char) < ord(" ") or char == "\x7f" for char in text):
        raise BadValueError(text, "contains control characters")
    if text.startswith("unix:"):
        return _unix(name, text)
    if text.startswith("fd:"):
        return Address(name, FD, text, fd=_number(text.removeprefix("fd:"), LARGEST_FD, "a descriptor"))
    return _tcp(name, text)


def name_all(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    """
    Give the unnamed ones their names: `default`, `default2`, ….

    Raises:
        BadValueError: two have the same name.
    """
    named: list[Address] = []
    unnamed = 0
    for address in addresses:
        unnamed += not address.name
        name = address.name or ("default" if unnamed == 1 else f"default{unnamed}")
        for other in named:
            if other.name == name:
                what = f"is the name of both {other.text} and {address.text}"
                raise BadValueError(name, what, "Give each its own: NAME=ADDRESS")
        named.append(address._replace(name=name))
    return tuple(named)


def _split_name(written: str) -> tuple[str, str]:
    name, equals, text = written.partition("=")
    if not equals or not {":", "/", "[", "?"}.isdisjoint(name):
        return "", written  # the `=` belongs to unix:/path?mode=0660
    if not name or not NAME_CHARACTERS.issuperset(name):
        raise BadValueError(name, "is not a listener's name", "Use letters, digits, dots, hyphens or underscores")
    return name, text


def _tcp(name: str, text: str) -> Address:
    host, colon, port_text = text.rpartition(":")
    if not colon:
        looks_like_port = bool(text) and text.isascii() and text.isdigit()
        raise BadValueError(text, "is not an address", f"Write :{text}" if looks_like_port else FORMS)
    port = _number(port_text, LARGEST_PORT, "a port")
    if host.startswith("[") and host.endswith("]"):
        inner = host[1:-1]
        if ":" not in inner:
            raise BadValueError(host, "is not an IPv6 address", "Only IPv6 addresses stand in brackets")
        return Address(name, TCP, text, host=inner, port=port, is_ipv6=True)
    if ":" in host:
        raise BadValueError(text, "is ambiguous", f"Put the IPv6 address in brackets: [{host}]:{port}")
    if host == "*":
        raise BadValueError(host, "is not a host", f"Write :{port} for all IPv4 addresses, [::]:{port} for all of IPv6")
    if not host.isascii() or not host.isprintable() or not {" ", "/", "[", "]", "@", "="}.isdisjoint(host):
        raise BadValueError(host, "is not a host", FORMS)
    return Address(name, TCP, text, host=host or ANY_IPV4, port=port)


def _unix(name: str, text: str) -> Address:
    path, question, query = text.removeprefix("unix:").partition("?")
    if path.startswith("//"):
        # unix:///run/x.sock, as other programs write it.
        path = "/" + path.lstrip("/")
    if path.startswith("@"):
        raise BadValueError(text, "is an abstract socket", "It would have neither owner nor mode: give it a path")
    if not path or path.endswith("/"):
        raise BadValueError(text, "has no file name", "Write unix:/path/to/name.sock")
    if len(path.encode("utf-8", "surrogateescape")) > LONGEST_PATH:
        raise BadValueError(path, "is too long", f"The kernel takes {LONGEST_PATH} bytes: choose a shorter path")
    found = {"mode": "", "user": "", "group": ""}
    for item in query.split("&") if question else ():
        key, _, value = item.partition("=")
        if key not in found or not value:
            raise BadValueError(item, f"is not an option of {text!r}", "Write ?mode=0660&user=NAME&group=NAME")
        found[key] = value
    mode = _mode(found["mode"]) if found["mode"] else -1
    return Address(name, UNIX, f"unix:{path}", path=path, mode=mode, user=found["user"], group=found["group"])


def _mode(text: str) -> int:
    if not frozenset("01234567").issuperset(text) or int(text, 8) > LARGEST_MODE:
        raise BadValueError(text, "is not a mode", "Write it in octal, such as 0660")
    return int(text, 8)


def _number(text: str, largest: int, what: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > len(str(largest)) or int(text) > largest:
        raise BadValueError(text, f"is not {what}", f"Write a number from 0 to {largest}")
    return int(text)
