"""Damaged headers, many of them: each is read or refused, in linear time and with one error."""

from __future__ import annotations

import random
import signal
from typing import TYPE_CHECKING

import pytest

from launcher.proxy import HeaderError, Policy, forwarded, parse, x_forwarded
from launcher.proxy.trust import parse as trust
from tests.proxy.asking import asgi, wsgi
from tests.proxy.headers import checked, v2

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 20_000
SEEDS = (
    b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\nGET / HTTP/1.1\r\n",
    b"PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 4711 443\r\n",
    b"PROXY UNKNOWN\r\n",
    v2(0x11, bytes(12)),
    v2(0x31, bytes(216)),
    checked(0x21, bytes(36), b"\x20\0\x0f\1\0\0\0\0\x21\0\x07TLSv1.3\x05\0\x01x\x02\0\x01x"),
    b'for="[2001:db8::1]:4711";proto=https, for=_hidden;host="a\\"b", for=unknown',
    b"203.0.113.9, ::1, [::1]:80, unknown",
)


@pytest.fixture
def outer_limit() -> Iterator[None]:
    """End a test that would take minutes, within one long call too."""

    def end(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def damaged(chance: random.Random) -> bytes:
    """Damage one of the seeds: bytes changed, cut out, doubled, or two seeds put together."""
    data = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[place : place + chance.randrange(8)]
            case 2:
                data[place:place] = data[:place][-chance.randrange(1, 9) :]
            case _:
                data = data[:place] + chance.choice(SEEDS)[place:]
    return bytes(data)


def test_damaged_headers_are_read_or_refused() -> None:
    """Bounded, and the same in each run."""
    chance = random.Random(6)
    networks = trust("10.0.0.0/8, ::1")
    refused = 0
    for _ in range(ROUNDS):
        data = damaged(chance)
        for version in ("v1", "v2"):
            try:
                parse(data, version)
            except HeaderError:
                refused += 1
        text = data.decode("latin-1")
        forwarded.read({"forwarded": [text]}, networks)
        x_forwarded.read({"x-forwarded-for": [text], "x-forwarded-host": [text]}, networks)

    assert refused > ROUNDS


def test_damaged_headers_never_break_a_request() -> None:
    """Through the middleware, WSGI and ASGI alike, with the same result."""
    chance = random.Random(6)
    for family, name in (("forwarded", "Forwarded"), ("x-forwarded", "X-Forwarded-For")):
        policy = Policy.read(family, "", "10.0.0.0/8")
        for _ in range(300):
            headers = [(name, damaged(chance).decode("latin-1"))]

            assert wsgi(policy, headers)["REMOTE_ADDR"] == asgi(policy, headers)["client"][0]


@pytest.mark.parametrize(
    "text",
    [
        '"' * 65536,
        '\\"' * 32768,
        "\\" * 65536 + '"',
        'for="' * 13000,
        "," * 65536,
        ";" * 65536,
        '";' * 32768,
        "for=10.0.0.1," * 5000,
    ],
)
def test_long_headers_cost_no_more_than_their_length(text: str, outer_limit: None) -> None:
    """64 KiB, which no server takes: milliseconds, where quadratic work would take minutes."""
    networks = trust("10.0.0.0/8")

    forwarded.read({"forwarded": [text, "for=" + text, f'for="{text}"']}, networks)
    x_forwarded.read({"x-forwarded-for": [text]}, networks)
