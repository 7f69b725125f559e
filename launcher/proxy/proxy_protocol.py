"""
The PROXY protocol, versions 1 and 2, as the first bytes of a connection.

Owns both grammars (proxy-protocol.txt of HAProxy).  The caller says which version it is: a receiver that guesses lets
a client choose.  Must never read on behind the header, and never wait: bytes in, a value out.
"""

from __future__ import annotations

from launcher.lean import NamedTuple
from launcher.proxy import tlvs as values
from launcher.proxy.nodes import UNIX, Address, canonical, from_bytes, port
from launcher.proxy.tlvs import HeaderError, Ssl, Tlv

V1, V2 = "v1", "v2"
LONGEST_V1 = 107  # bytes, CR and LF included (§2.1)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

_V1_START = b"PROXY "
_SHORTEST_V1 = len(b"PROXY UNKNOWN\r\n")
_V1_FIELDS = 6
_V2_HEAD = 16
_LOCAL, _PROXY = 0x20, 0x21  # version 2 in the high half
_INET, _INET6, _UNIX = 1, 2, 3
_STREAM, _DGRAM = 1, 2
_SIZES = {_INET: 4, _INET6: 16, _UNIX: 108}  # bytes of one address


class Need(NamedTuple):
    """The header goes on: at least this many more bytes belong to it."""

    at_least: int


class Header(NamedTuple):
    """
    A whole header, of `consumed` bytes.

    `source` is the client and `destination` where it connected to; both are None when the proxy speaks for itself
    (a health check) or does not say: the connection's own addresses hold then.
    """

    consumed: int
    source: Address | None = None
    destination: Address | None = None
    tlvs: tuple[Tlv, ...] = ()

    def find(self, kind: int) -> bytes | None:
        """Return the first value of a kind."""
        return next((tlv.value for tlv in self.tlvs if tlv.kind == kind), None)

    @property
    def authority(self) -> str:
        """The name that the client asked for (SNI), or ""."""
        return values.text(self.find(values.AUTHORITY) or b"")

    @property
    def ssl(self) -> Ssl | None:
        """What the proxy says about the client's TLS, or None: the client came without, or nothing is said."""
        value = self.find(values.SSL)
        return None if value is None else values.ssl(value)


def parse(data: bytes, version: str) -> Need | Header:
    """
    Read the header at the start of `data`, which may be cut off anywhere and may go on behind it.

    Raises:
        HeaderError: whatever comes, this will be no header of this version.
    """
    return _VERSIONS[version](data)


def _parse_v1(data: bytes) -> Need | Header:
    if not _V1_START.startswith(data[: len(_V1_START)]):
        message = "it does not begin with PROXY"
        raise HeaderError(message)
    end = data.find(b"\r\n", 0, LONGEST_V1)
    line = data[:end] if end >= 0 else data[:LONGEST_V1].removesuffix(b"\r")
    if b"\r" in line or b"\n" in line:
        message = "a lone CR or LF is in it"
        raise HeaderError(message)
    if end >= 0:
        return _line(line)
    if len(data) >= LONGEST_V1:
        message = f"it does not end within {LONGEST_V1} bytes"
        raise HeaderError(message)
    return Need(max(_SHORTEST_V1 - len(data), 1 if data.endswith(b"\r") else 2))


def _line(line: bytes) -> Header:
    consumed = len(line) + 2
    # What follows UNKNOWN is to be ignored (§2.1).
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return Header(consumed)
    fields = line.decode("latin-1").split(" ")
    if len(fields) != _V1_FIELDS or fields[1] not in {"TCP4", "TCP6"}:
        message = "it is not PROXY TCP4|TCP6|UNKNOWN with two addresses and two ports"
        raise HeaderError(message)
    _, family, source, destination, source_port, destination_port = fields
    is_ipv6 = family == "TCP6"
    return Header(
        consumed, _v1_address(source, source_port, is_ipv6), _v1_address(destination, destination_port, is_ipv6)
    )


def _v1_address(text: str, port_text: str, is_ipv6: bool) -> Address:  # noqa: FBT001  as the line says
    host, number = canonical(text), port(port_text)
    if not host or (":" in text) != is_ipv6 or number < 0 or port_text != str(number):
        message = "an address or a port in it is none"
        raise HeaderError(message)
    return Address(host, number)


def _parse_v2(data: bytes) -> Need | Header:
    if not SIGNATURE.startswith(data[: len(SIGNATURE)]):
        message = "it does not begin with the signature of version 2"
        raise HeaderError(message)
    command = data[12] if len(data) > 12 else _LOCAL  # noqa: PLR2004  the 13th byte of §2.2
    family, transport = divmod(data[13], 16) if len(data) > 13 else (0, 0)  # noqa: PLR2004  the 14th
    if command not in {_LOCAL, _PROXY} or family > _UNIX or transport > _DGRAM:
        message = "it has an unknown version, command, family or transport"
        raise HeaderError(message)
    if len(data) < _V2_HEAD:
        return Need(_V2_HEAD - len(data))
    end = _V2_HEAD + int.from_bytes(data[14:_V2_HEAD], "big")
    size = _SIZES.get(family, 0)
    start = _V2_HEAD + 2 * size + (4 if family in {_INET, _INET6} else 0)
    if command == _PROXY and end < start:
        message = "it is too short for its addresses"
        raise HeaderError(message)
    if len(data) < end:
        return Need(end - len(data))
    # §2.2: the block of LOCAL is to be discarded, and without a family nobody knows where values would begin.
    if command == _LOCAL or not family:
        return Header(end)
    found = values.read(bytes(data[:end]), start)
    if transport != _STREAM:
        return Header(end, tlvs=found)  # not this connection's: as if unspecified, which §2.2 allows
    source, destination = _v2_addresses(bytes(data[_V2_HEAD:start]), size)
    return Header(end, source, destination, found)


def _v2_addresses(block: bytes, size: int) -> tuple[Address, Address]:
    source, destination, ports = block[:size], block[size : 2 * size], block[2 * size :]
    if not ports:
        return Address(_unix(source)), Address(_unix(destination))
    return (
        Address(from_bytes(source), int.from_bytes(ports[:2], "big")),
        Address(from_bytes(destination), int.from_bytes(ports[2:], "big")),
    )


def _unix(path: bytes) -> str:
    # unix(7): a name that begins with a NUL is abstract; it is shown with an @, as ss(8) does.
    name = b"@" + path[1:].rstrip(b"\0") if path[:1] == b"\0" and path.strip(b"\0") else path.partition(b"\0")[0]
    return UNIX + name.decode("utf-8", "surrogateescape")


_VERSIONS = {V1: _parse_v1, V2: _parse_v2}
