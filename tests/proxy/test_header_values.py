"""Both families of forwarding headers: what is valid is read, whatever else comes is harmless."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, strategies

from launcher.proxy import Address, forwarded, x_forwarded
from launcher.proxy.nodes import canonical, is_host, node
from launcher.proxy.trust import parse
from launcher.proxy.walking import Hop, Seen

TRUST = parse("10.0.0.0/8,fd00::/8")
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABC0123456789!#$%&'*+-.^_`|~"

addresses = strategies.ip_addresses(v=4) | strategies.ip_addresses(v=6)
ports = strategies.integers(0, 65535)
names = strategies.text("abcxyz", min_size=1).filter(lambda name: name not in {"for", "by", "host", "proto"})
quotable = strategies.text([*map(chr, range(32, 127)), "\t", "ä"])


def spelled(address: IPv4Address | IPv6Address) -> str:
    """Return what `canonical` is to make of an address."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return canonical(str(address))


def quoted(text: str) -> str:
    """Write a quoted-string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@strategies.composite
def elements(draw: strategies.DrawFn) -> tuple[str, Hop]:
    """Make a valid element, and what is to be read of it."""
    address, port = draw(addresses), draw(strategies.none() | ports)
    text = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    text += f":{port}" if port is not None else ""
    scheme = draw(strategies.sampled_from(["", "http", "HTTPS", "ws", "wss"]))
    host = draw(strategies.sampled_from(["", "shop.example", "shop.example:8080", "[2001:db8::1]:80", "192.0.2.1"]))
    pairs = [("for", text), ("proto", scheme), ("host", host), (draw(names), draw(quotable))]
    written = []
    for name, value in draw(strategies.permutations(pairs)):
        must_quote = not value or not set(CHARACTERS).issuperset(value)
        if value or name == pairs[3][0]:
            written.append(f"{name}={quoted(value) if must_quote or draw(strategies.booleans()) else value}")
    element = ";".join(written)
    return element, Hop(element, Address(spelled(address), port or 0), scheme.lower(), host)


@given(
    strategies.lists(strategies.lists(elements(), max_size=3), max_size=3),
    strategies.sampled_from([",", ", ", " ,\t, "]),
)
def test_what_was_written_is_read(lists: list[list[tuple[str, Hop]]], comma: str) -> None:
    """Any valid chain in any number of fields, from right to left."""
    texts = [comma.join(element for element, _ in fields) for fields in lists]

    assert list(forwarded.hops(texts)) == [hop for fields in reversed(lists) for _, hop in reversed(fields)]


@given(strategies.text(strategies.characters(max_codepoint=255)), strategies.lists(elements(), min_size=1, max_size=2))
def test_nothing_to_the_left_reaches_our_own_elements(forged: str, own: list[tuple[str, Hop]]) -> None:
    """A proxy appends with a comma; whatever a client has put before it stays before it."""
    texts = [", ".join([forged, *(element for element, _ in own)])]
    hops = forwarded.hops(texts)

    assert [next(hops) for _ in own] == [hop for _, hop in reversed(own)]


@given(strategies.lists(strategies.text('for=by;,:"\\[]._1a \t\0é', max_size=40), max_size=3), strategies.booleans())
def test_any_text_is_read_without_an_error(texts: list[str], everyone: bool) -> None:  # noqa: FBT001
    """And what is believed has the shape that an app relies on."""
    trust = parse("*") if everyone else TRUST
    for read, name in (
        (forwarded.read, "forwarded"),
        (x_forwarded.read, "x-forwarded-for"),
        (x_forwarded.read, "x-forwarded-host"),
    ):
        seen = read({name: texts}, trust)

        assert seen.client is None or canonical(seen.client.host) == seen.client.host
        assert seen.scheme == ""
        assert seen.host == "" or is_host(seen.host)


@pytest.mark.parametrize(
    "element",
    [
        "for=192.0.2.1:80",  # a colon is no token: RFC 7239 §6
        "for=[2001:db8::1]",
        'for="2001:db8::1"',
        'for="[192.0.2.1]"',
        'for="192.0.2.1:65536"',
        'for="192.0.2.1:"',
        'for="[2001:db8::1]80"',
        'for="[fe80::1%eth0]"',
        "for=",
        "for",
        "=192.0.2.1",
        "for = 192.0.2.1",
        "for=192.0.2.1;for=192.0.2.2",
        "for=_",
        "for=_a!",
        "for=unknowns",
        "for=localhost",
        'for="192.0.2.1',
        'for=192.0.2.1"',
        'for="192.0.2.1""',
        'for="192.0.2.1"x',
        'for="192.0.2.1\\"',
        'for="192.0.2.1\n"',
        "for=192.0.2.1;\0=x",
    ],
)
def test_a_malformed_element_ends_the_walk(element: str) -> None:
    """The nearest hop that is known is the client then; nothing behind is read."""
    seen = forwarded.read({"forwarded": [f"for=6.6.6.6, {element}, for=10.0.0.2;proto=https"]}, TRUST)

    assert seen == Seen(Address("10.0.0.2"), "https", "", (("forwarded", "for=10.0.0.2;proto=https"),))


@pytest.mark.parametrize(
    "node", ["unknown", "UNKNOWN", "_hidden", "_SEVKISEK", '"_gazonk:80"', '"unknown:_p"', '"_a:_b"']
)
def test_a_hidden_hop_ends_the_walk(node: str) -> None:
    """What it says of scheme and host counts, for a trusted proxy has said it."""
    seen = forwarded.read({"forwarded": [f"for=6.6.6.6, for={node};host=shop.example, for=10.0.0.2"]}, TRUST)

    assert (seen.client, seen.host) == (Address("10.0.0.2"), "shop.example")
    assert seen.headers == (("forwarded", f"for={node};host=shop.example, for=10.0.0.2"),)


def test_examples_of_the_rfc() -> None:
    """RFC 7239 §4 and §7.4."""
    field = 'For="[2001:db8:cafe::17]:4711", for=192.0.2.60;proto=http;by=203.0.113.43, for=198.51.100.17'
    found = [(hop.address, hop.scheme) for hop in forwarded.hops([field]) if hop]

    assert found == [
        (Address("198.51.100.17"), ""),
        (Address("192.0.2.60"), "http"),
        (Address("2001:db8:cafe::17", 4711), ""),
    ]


def test_two_backslashes_are_one_and_escape_nothing() -> None:
    """The mark behind them ends the value."""
    found = list(forwarded.hops([r'for=192.0.2.1;x="a\\", for="192.0.2.2";x="\\\\\""']))

    assert [hop and hop.address for hop in found] == [Address("192.0.2.2"), Address("192.0.2.1")]


def test_a_hidden_port_leaves_the_address() -> None:
    """RFC 7239 §6.3."""
    assert [hop and hop.address for hop in forwarded.hops(['for="192.0.2.1:_p"'])] == [Address("192.0.2.1")]


@given(strategies.lists(strategies.tuples(addresses, strategies.none() | ports), min_size=1, max_size=5))
def test_the_right_most_stranger_is_the_client(chain: list[tuple[IPv4Address | IPv6Address, int | None]]) -> None:
    """Written bare, or in brackets with a port; the oracle walks by itself."""
    texts = []
    for address, port in chain:
        bracketed = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        texts.append(str(address) if port is None else f"{bracketed}:{port}")
    strangers = [n for n, (address, _) in enumerate(chain) if not TRUST.is_trusted(str(address))]
    client = strangers[-1] if strangers else 0

    seen = x_forwarded.read({"x-forwarded-for": [",".join(texts)]}, TRUST)

    assert seen.client == Address(spelled(chain[client][0]), chain[client][1] or 0)
    assert seen.headers == (("x-forwarded-for", ", ".join(texts[client:])),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shop.example", True),
        ("shop_1.example:8080", True),
        ("192.0.2.1:80", True),
        ("[2001:db8::1]", True),
        ("[2001:db8::1]:80", True),
        ("", False),
        (":80", False),
        ("shop.example:", False),
        ("shop.example:65536", False),
        ("shop.example:80:80", False),
        ("shop.example/", False),
        ("shop example", False),
        ("shop.example\r\nset-cookie: x", False),
        ("a@b", False),
        ("2001:db8::1", False),
        ("[evil]", False),
        ("x" * 300, False),
    ],
)
def test_only_a_host_becomes_the_host(text: str, expected: bool) -> None:  # noqa: FBT001
    """What an app builds links from."""
    assert is_host(text) is expected


def test_a_node_keeps_its_port() -> None:
    """For apps that tell clients behind one address apart."""
    assert node("[2001:db8::1]:443") == Address("2001:db8::1", 443)
