"""
The type-length-values of a PROXY protocol v2 header.

Owns their cutting, the checks that the specification asks for (§2.2.3, §2.2.5, §2.2.6) and CRC32c.
Must never refuse a type that it does not know.
"""

from __future__ import annotations

from launcher.lean import NamedTuple

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator

ALPN, AUTHORITY, CRC32C, NOOP, UNIQUE_ID, SSL, NETNS = 0x01, 0x02, 0x03, 0x04, 0x05, 0x20, 0x30
SSL_VERSION, SSL_CN, SSL_CIPHER, SSL_SIG_ALG, SSL_KEY_ALG = 0x21, 0x22, 0x23, 0x24, 0x25

LONGEST_UNIQUE_ID = 128

_HEAD = 3  # bytes: the type, and the length of the value
_CRC_SIZE = 4
_SSL_HEAD = 5
_CASTAGNOLI = 0x82F63B78  # the polynomial 0x1EDC6F41 of RFC 3720 §12.1, its bits reversed
_crc_table: list[int] = []  # made when the first checksum comes


class HeaderError(ValueError):
    """It is no header of the version that was said, or one that the specification forbids."""


class Tlv(NamedTuple):
    """One value; `kind` is a number of §2.2 of the specification."""

    kind: int
    value: bytes


class Ssl(NamedTuple):
    """What the proxy says about the client's TLS connection."""

    client: int  # bits: 1 TLS, 2 a certificate on this connection, 4 one in this session
    verify: int  # 0: the certificate is good
    tlvs: tuple[Tlv, ...] = ()  # SSL_VERSION, SSL_CN, …


def read(header: bytes, start: int) -> tuple[Tlv, ...]:
    """
    Read all values of a whole header, the first of which begins at `start`.

    Raises:
        HeaderError: one is cut off, has a wrong size, or the checksum is another.
    """
    found = []
    for place, tlv in _cut(header, start):
        found.append(tlv)
        if tlv.kind == CRC32C:
            _check_crc(header, place, tlv.value)
        elif tlv.kind == UNIQUE_ID and len(tlv.value) > LONGEST_UNIQUE_ID:
            message = f"its unique ID is longer than {LONGEST_UNIQUE_ID} bytes"
            raise HeaderError(message)
        elif tlv.kind == AUTHORITY:
            text(tlv.value)
        elif tlv.kind == SSL:
            ssl(tlv.value)
    return tuple(found)


def text(value: bytes) -> str:
    """Decode UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        message = "its authority is not UTF-8"
        raise HeaderError(message) from None


def ssl(value: bytes) -> Ssl:
    """Read the value of an SSL type, which holds values of its own."""
    if len(value) < _SSL_HEAD:
        message = "its SSL value is cut off"
        raise HeaderError(message)
    return Ssl(value[0], int.from_bytes(value[1:_SSL_HEAD], "big"), tuple(tlv for _, tlv in _cut(value, _SSL_HEAD)))


def crc32c(data: bytes) -> int:
    """Compute the checksum of RFC 4960, appendix B."""
    if not _crc_table:
        for number in range(256):
            rest = number
            for _ in range(8):
                rest = rest >> 1 ^ (_CASTAGNOLI if rest & 1 else 0)
            _crc_table.append(rest)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _crc_table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _cut(data: bytes, place: int) -> Iterator[tuple[int, Tlv]]:
    """Cut `data` from `place` to its end; each value comes with the place where it begins."""
    while place < len(data):
        begin = place + _HEAD
        end = begin + int.from_bytes(data[place + 1 : begin], "big")
        if begin > len(data) or end > len(data):
            message = "a value in it is cut off"
            raise HeaderError(message)
        yield begin, Tlv(data[place], data[begin:end])
        place = end


def _check_crc(header: bytes, place: int, value: bytes) -> None:
    zeroed = header[:place] + bytes(_CRC_SIZE) + header[place + _CRC_SIZE :]
    if len(value) != _CRC_SIZE or int.from_bytes(value, "big") != crc32c(zeroed):
        message = "its checksum is wrong"
        raise HeaderError(message)
