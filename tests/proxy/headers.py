"""Valid PROXY headers, written by another hand than the parser's."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies

from launcher.proxy import Address, Header, tlvs

SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")

ports = strategies.integers(0, 65535)
pairs = strategies.one_of(
    strategies.tuples(*[strategies.ip_addresses(v=4)] * 2), strategies.tuples(*[strategies.ip_addresses(v=6)] * 2)
)
kinds = strategies.sampled_from([tlvs.ALPN, tlvs.NOOP, tlvs.NETNS, 0xE0, 0xFF])
values = strategies.tuples(kinds, strategies.binary(max_size=40)) | strategies.sampled_from(
    [
        (tlvs.AUTHORITY, b"shop.example"),
        (tlvs.UNIQUE_ID, bytes(128)),
        (tlvs.SSL, b"\x07\0\0\0\0"),
        (tlvs.SSL, b"\x07\0\0\0\0\x21\0\x07TLSv1.3"),
    ]
)


def spelled(address: IPv4Address | IPv6Address) -> str:
    """Return the one spelling of an address."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if mapped or isinstance(address, IPv4Address):
        return str(mapped or address)
    packed = address.packed
    # Old IPv4-compatible addresses are spelled with dots by the C library (RFC 5952 §5).
    if packed[:12] == bytes(12) and packed[12:14] != bytes(2):
        return f"::{IPv4Address(packed[12:])}"
    return str(address)


def v2(family: int, rest: bytes, command: int = 0x21) -> bytes:
    """Write a header of version 2 around an address block and values."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


def checked(family: int, block: bytes, rest: bytes) -> bytes:
    """Write one with a checksum before the other values."""
    checksum = tlvs.crc32c(v2(family, block + b"\x03\0\x04" + bytes(4) + rest))
    return v2(family, block + b"\x03\0\x04" + struct.pack("!I", checksum) + rest)


def addresses_of(family: int, block: bytes) -> tuple[Address, Address]:
    """Read an address block of TCP."""
    size, kind = (4, IPv4Address) if family == 0x11 else (16, IPv6Address)
    source, destination = struct.unpack("!HH", block[2 * size :])
    return Address(spelled(kind(block[:size])), source), Address(spelled(kind(block[size : 2 * size])), destination)


@strategies.composite
def v1_headers(draw: strategies.DrawFn) -> tuple[bytes, Header]:
    """Make a line, and what is to be read of it."""
    source, destination = draw(pairs)
    ends = draw(ports), draw(ports)
    if draw(strategies.booleans()):
        line = f"PROXY TCP{source.version} {source} {destination} {ends[0]} {ends[1]}\r\n".encode()
        return line, Header(len(line), Address(spelled(source), ends[0]), Address(spelled(destination), ends[1]))
    line = draw(strategies.sampled_from([b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN a b c d\r\n", b"PROXY UNKNOWN \r\n"]))
    return line, Header(len(line))


@strategies.composite
def v2_headers(draw: strategies.DrawFn) -> tuple[bytes, Header]:
    """Make a binary header, and what is to be read of it."""
    command = draw(strategies.sampled_from([0x20, 0x21, 0x21, 0x21]))
    source, destination = draw(pairs)
    family = 0x11 if source.version == 4 else 0x21
    block = source.packed + destination.packed + struct.pack("!HH", draw(ports), draw(ports))
    found = draw(strategies.lists(values, max_size=4))
    rest = b"".join(struct.pack("!BH", kind, len(value)) + value for kind, value in found)
    expected = [tlvs.Tlv(*value) for value in found]
    if command == 0x20:
        header = v2(family, block + rest, command)
        return header, Header(len(header))
    header = v2(family, block + rest)
    if draw(strategies.booleans()):
        header = checked(family, block, rest)
        start = 16 + len(block) + 3
        expected.insert(0, tlvs.Tlv(tlvs.CRC32C, header[start : start + 4]))
    return header, Header(len(header), *addresses_of(family, block), tuple(expected))
