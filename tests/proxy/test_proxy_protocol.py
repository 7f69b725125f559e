"""The PROXY protocol: what the specification writes is read, all else is one error."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, strategies

from launcher.proxy import Address, Header, HeaderError, Need, parse, tlvs
from launcher.proxy.proxy_protocol import SIGNATURE
from tests.proxy.headers import addresses_of, checked, spelled, v1_headers, v2, v2_headers

V4_BLOCK = bytes([203, 0, 113, 9, 10, 0, 0, 1]) + (4711).to_bytes(2, "big") + (443).to_bytes(2, "big")
CLIENT, SERVER = Address("203.0.113.9", 4711), Address("10.0.0.1", 443)


@given(v1_headers(), strategies.binary(max_size=20))
def test_a_line_is_read(written: tuple[bytes, Header], rest: bytes) -> None:
    """Version 1, whatever comes behind."""
    assert parse(written[0] + rest, "v1") == written[1]


@given(v2_headers(), strategies.binary(max_size=20))
def test_a_binary_header_is_read(written: tuple[bytes, Header], rest: bytes) -> None:
    """Version 2, whatever comes behind."""
    assert parse(written[0] + rest, "v2") == written[1]


@given(v1_headers())
def test_every_truncation_of_a_line_needs_more(written: tuple[bytes, Header]) -> None:
    """And never more than there is."""
    for end in range(len(written[0])):
        found = parse(written[0][:end], "v1")

        assert isinstance(found, Need)
        assert 1 <= found.at_least <= len(written[0]) - end


@given(v2_headers())
def test_every_truncation_of_a_binary_header_needs_more(written: tuple[bytes, Header]) -> None:
    """Exactly the rest, once the length is known."""
    for end in range(len(written[0])):
        found = parse(written[0][:end], "v2")

        assert found == Need((16 if end < 16 else len(written[0])) - end)


@given(
    strategies.binary(max_size=200),
    strategies.sampled_from([b"", b"PROXY TCP4 ", b"PROXY ", SIGNATURE, SIGNATURE + b"!"]),
)
def test_any_bytes_are_a_header_an_error_or_too_few(data: bytes, start: bytes) -> None:
    """And what was an error once stays one, however much more comes."""
    for version in ("v1", "v2"):
        is_bad = False
        for end in range(len(start + data) + 1):
            try:
                parse((start + data)[:end], version)
            except HeaderError:
                is_bad = True
            else:
                assert not is_bad


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", 56),
        (b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n", 104),
        (b"PROXY UNKNOWN\r\n", 15),
        (b"PROXY UNKNOWN " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n", 107),
        (b"PROXY UNKNOWN \xff\0 whatever\r\n", 27),
    ],
)
def test_lines_of_the_specification(line: bytes, expected: int) -> None:
    """§2.1, with its own counts."""
    found = parse(line + b"GET / HTTP/1.1\r\n", "v1")

    assert isinstance(found, Header)
    assert found.consumed == expected == len(line)


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\n",
        b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXYTCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rGET / HTTP/1.1\r\n",
        b"PROXY UNKNOWN\n\r\n",
        b"PROXY UNKNOWN 1\n2\r\n",
        b"PROXY UNKNOWN \rGET / HTTP/1.1\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 \xb2 2\r\n",
        b"PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n",
        b"PROXY TCP6 fe80::1%lo ::1 1 2\r\n",
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",  # 108 bytes
        b"PROXY " + b"x" * 101,
        SIGNATURE + b"\x20\0\0\0",  # version 2 is not asked for
    ],
)
def test_a_line_that_is_almost_right_is_refused(line: bytes) -> None:
    """§2.1: anything that does not match exactly."""
    with pytest.raises(HeaderError):
        parse(line, "v1")


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",  # version 1 is not asked for
        b"GET / HTTP/1.1\r\n",
        SIGNATURE + b"\x11\x11\0\x0c" + V4_BLOCK,  # version 1 in the version's place
        SIGNATURE + b"\x22\x11\0\x0c" + V4_BLOCK,  # an unassigned command
        SIGNATURE + b"\x21\x41\0\x0c" + V4_BLOCK,  # an unassigned family
        SIGNATURE + b"\x21\x13\0\x0c" + V4_BLOCK,  # an unassigned transport
        # mastercactapus/proxyprotocol #1: UDP over IPv4 with no room for its addresses took a whole server down.
        SIGNATURE + b"\x21\x12\0\0",
        SIGNATURE + b"\x21\x11\0\x0b" + V4_BLOCK,
        SIGNATURE + b"\x21\x21\0\x0c" + V4_BLOCK,
        SIGNATURE + b"\x21\x31\0\x0c" + V4_BLOCK,
        v2(0x11, V4_BLOCK + b"\x04"),  # values that are cut off
        v2(0x11, V4_BLOCK + b"\x04\0"),
        v2(0x11, V4_BLOCK + b"\x04\0\x01"),
        v2(0x11, V4_BLOCK + b"\x03\0\x04abcd"),  # a wrong checksum
        v2(0x11, V4_BLOCK + b"\x03\0\x00"),
        v2(0x11, V4_BLOCK + b"\x03\0\x05\0\0\0\0\0"),
        v2(0x11, V4_BLOCK + b"\x05\0\x81" + bytes(129)),  # too long a unique ID
        v2(0x11, V4_BLOCK + b"\x02\0\x01\xff"),  # not UTF-8
        v2(0x11, V4_BLOCK + b"\x20\0\x04\0\0\0\0"),  # SSL without its head
        v2(0x11, V4_BLOCK + b"\x20\0\x07\0\0\0\0\0\x21\0"),  # SSL with a value that is cut off
    ],
)
def test_a_binary_header_that_is_almost_right_is_refused(header: bytes) -> None:
    """§2.2: receivers must drop what is unassigned, partial or damaged."""
    with pytest.raises(HeaderError):
        parse(header, "v2")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (v2(0x11, V4_BLOCK), Header(28, CLIENT, SERVER)),
        (
            v2(0x21, IPv6Address("::ffff:203.0.113.9").packed * 2 + bytes(4)),
            Header(52, Address("203.0.113.9"), Address("203.0.113.9")),
        ),
        (v2(0x11, V4_BLOCK, command=0x20), Header(28)),  # LOCAL: whatever stands in the block
        (v2(0xFF - 0xCF, b"junk", command=0x20), Header(20)),
        (v2(0x00, b""), Header(16)),
        (v2(0x00, b"\x03\0"), Header(18)),  # without a family nobody knows where values would begin
        (v2(0x01, b"xx"), Header(18)),
        (v2(0x10, V4_BLOCK), Header(28)),
        (v2(0x12, V4_BLOCK), Header(28)),  # a datagram's client is not this connection's
        (
            v2(0x31, b"/run/a".ljust(108, b"\0") + b"\0abc".ljust(108, b"\0")),
            Header(232, Address("unix:/run/a"), Address("unix:@abc")),
        ),
        (v2(0x31, b"x" * 108 + bytes(108)), Header(232, Address("unix:" + "x" * 108), Address("unix:"))),
        (v2(0x32, bytes(216)), Header(232)),
    ],
)
def test_binary_headers_of_the_specification(header: bytes, expected: Header) -> None:
    """§2.2: commands, families and transports."""
    assert parse(header + b"x", "v2") == expected


def test_the_longest_header_is_read() -> None:
    """16 bytes, and 65535."""
    header = v2(0x11, V4_BLOCK + b"\x04\xff\xf0" + bytes(65520))

    assert parse(header[:-1], "v2") == Need(1)
    found = parse(header, "v2")
    assert isinstance(found, Header)
    assert found.consumed == 16 + 65535


def test_values_are_found_by_their_kind() -> None:
    """Authority, ALPN, unique ID and SSL with what is inside of it, under a checksum."""
    ssl = bytes([1]) + (0).to_bytes(4, "big") + b"\x21\0\x07TLSv1.3" + b"\x22\0\x04anna"
    values = b"\x01\0\x02h2\x02\0\x0cshop.example\x04\0\0\x05\0\x03id1\x20" + len(ssl).to_bytes(2, "big") + ssl
    found = parse(checked(0x11, V4_BLOCK, values), "v2")

    assert isinstance(found, Header)
    assert (found.find(tlvs.ALPN), found.authority, found.find(tlvs.UNIQUE_ID)) == (b"h2", "shop.example", b"id1")
    assert found.ssl == tlvs.Ssl(1, 0, (tlvs.Tlv(tlvs.SSL_VERSION, b"TLSv1.3"), tlvs.Tlv(tlvs.SSL_CN, b"anna")))
    assert found.find(0xEA) is None


def test_a_header_without_values_says_so() -> None:
    """No SSL is None, no authority the empty text."""
    assert (Header(28).ssl, Header(28).authority) == (None, "")


@given(v2_headers(), strategies.integers(0), strategies.integers(1, 255))
def test_a_damaged_header_with_a_checksum_is_never_believed(
    written: tuple[bytes, Header], place: int, damage: int
) -> None:
    """Any byte behind the head: CRC32c finds every error burst of up to 32 bits."""
    header = bytearray(written[0])
    if not any(tlv.kind == tlvs.CRC32C for tlv in written[1].tlvs):
        return
    start = len(header) - sum(3 + len(tlv.value) for tlv in written[1].tlvs)
    header[16 + place % (start - 16)] ^= damage

    with pytest.raises(HeaderError):
        parse(bytes(header), "v2")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"", 0),
    ],
)
def test_the_checksum_is_that_of_rfc_3720(data: bytes, expected: int) -> None:
    """Appendix B.4, and the check value of the catalogue of CRCs."""
    assert tlvs.crc32c(data) == expected


def test_an_unknown_version_is_the_callers_mistake() -> None:
    """`auto` does not exist."""
    with pytest.raises(KeyError):
        parse(b"", "auto")


def test_the_oracle_spells_like_the_parser() -> None:
    """Guards the generators themselves."""
    assert spelled(IPv6Address("::ffff:1.2.3.4")) == spelled(IPv4Address("1.2.3.4")) == "1.2.3.4"
    assert addresses_of(0x11, V4_BLOCK) == (CLIENT, SERVER)
