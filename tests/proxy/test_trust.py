"""Whose word counts."""

from __future__ import annotations

import ipaddress
import subprocess
import sys

import pytest
from hypothesis import given, strategies

from launcher.errors import ConfigError
from launcher.proxy.trust import parse


@pytest.mark.parametrize(
    ("text", "peer", "expected"),
    [
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8, 192.0.2.7", "192.0.2.7", True),
        ("10.0.0.0/8 192.0.2.7", "192.0.2.8", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),  # a dual-stack listener reports IPv4 peers like this
        ("10.0.0.0/8", "::ffff:a01:203", True),
        ("::ffff:10.0.0.0/104", "10.1.2.3", True),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("2001:DB8:0:0::1", "2001:db8::1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("::1", "127.0.0.1", False),
        ("127.0.0.1", "::1", False),
        ("0.0.0.0/1", "127.0.0.1", True),
        ("unix:", "unix:", True),
        ("127.0.0.1", "unix:", False),
        ("unix:", "127.0.0.1", False),
        ("unix:", "", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "localhost", False),
        ("127.0.0.1", "127.0.0.1\0", False),
        ("127.0.0.1", "127.0.0.01", False),
        ("127.0.0.1", "\udcff", False),
        ("", "127.0.0.1", False),
        ("*", "203.0.113.9", True),
        (" * ", "unix:", True),
        ("*", "?", True),
    ],
)
def test_a_peer_is_trusted_when_the_list_holds_it(text: str, peer: str, expected: bool) -> None:  # noqa: FBT001
    """Twice, since the second answer is remembered."""
    trust = parse(text)

    assert trust.is_trusted(peer) is expected
    assert trust.is_trusted(peer) is expected


def test_everyone_may_connect_but_no_hop_is_believed() -> None:
    """With `*` the client is what the nearest proxy wrote, not the left-most that a client can forge."""
    assert not parse("*").is_trusted_hop("127.0.0.1")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("10.0.0.0/8,*", "'*' stands in a list|write it alone"),
        ("*,*", "'*' stands in a list|write it alone"),
        ("10.*", "'10.*' stands in a list|write it alone"),
        ("0.0.0.0/0", "'0.0.0.0/0' is everyone|write * alone"),
        ("::/0", "'::/0' is everyone|write * alone"),
        ("::ffff:0:0/96", "is everyone|write * alone"),
        ("10.0.0.1/8", "has bits set behind its prefix|Write 10.0.0.0/8"),
        ("2001:db8::1/32", "has bits set behind its prefix|Write 2001:db8::/32"),
        ("10.0.0.0/33", "has no prefix length|from 0 to 32"),
        ("10.0.0.0/", "has no prefix length|from 0 to 32"),
        ("10.0.0.0/255.0.0.0", "has no prefix length|from 0 to 32"),
        ("10.0.0.0/٣", "has no prefix length|from 0 to 32"),
        ("::1/129", "has no prefix length|from 0 to 128"),
        ("::ffff:10.0.0.0/90", "has no prefix length|from 96 to 128"),
        ("localhost", "'localhost' is not an address|Write addresses and networks"),
        ("10.0.0", "'10.0.0' is not an address|"),
        ("010.0.0.1", "'010.0.0.1' is not an address|"),  # CVE-2021-29921: octal for some, decimal for others
        ("10.0.0.1:80", "'10.0.0.1:80' is not an address|"),
        ("[::1]", "'[::1]' is not an address|"),
        ("fe80::1%eth0", "names an interface|Write fe80::1"),
        ("unix:/run/nginx.sock", "names a path|Write unix:"),
    ],
)
def test_an_entry_that_cannot_be_meant_says_what_to_write(text: str, sentence: str) -> None:
    """What is wrong, and what to do."""
    reason, _, remedy = sentence.partition("|")

    with pytest.raises(ConfigError) as caught:
        parse(text, "PROD_RUN_TRUST")

    problem = caught.value.problems[0]
    assert problem.name == "PROD_RUN_TRUST"
    assert reason in problem.reason
    assert remedy in problem.remedy


def test_all_bad_entries_are_reported_at_once() -> None:
    """Not only the first one."""
    with pytest.raises(ConfigError) as caught:
        parse("lo, 10.0.0.0/8, 1.2.3.4/5, *")

    assert [problem.reason.split("'")[1] for problem in caught.value.problems] == ["lo", "1.2.3.4/5", "*"]


@given(
    strategies.ip_addresses(v=4) | strategies.ip_addresses(v=6),
    strategies.data(),
    strategies.ip_addresses(v=4) | strategies.ip_addresses(v=6),
)
def test_networks_are_those_of_the_standard_library(
    base: ipaddress.IPv4Address | ipaddress.IPv6Address,
    data: strategies.DataObject,
    other: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """`ipaddress` is the oracle, with IPv4-mapped addresses taken as what they are."""
    if isinstance(base, ipaddress.IPv6Address) and base.ipv4_mapped:
        base = base.ipv4_mapped
    bits = data.draw(strategies.integers(1, base.max_prefixlen))
    network = ipaddress.ip_network(f"{base}/{bits}", strict=False)
    inside = network[data.draw(strategies.integers(0, network.num_addresses - 1))]
    trust = parse(str(network))
    mapped = other.ipv4_mapped if isinstance(other, ipaddress.IPv6Address) else None

    assert trust.is_trusted(str(inside))
    assert trust.is_trusted(str(other)) is ((mapped or other) in network)


@given(strategies.text(max_size=30))
def test_any_text_is_a_list_or_a_clear_error(text: str) -> None:
    """No input makes the parser fail in another way."""
    try:
        trust = parse(text)
    except ConfigError:
        return

    assert not trust.is_trusted(text) or text


def test_what_is_remembered_is_for_one_address() -> None:
    """Not for those that begin like it."""
    trust = parse("10.0.0.1, 2001:db8::7")

    assert [trust.is_trusted(peer) for peer in ("10.0.0.1", "10.0.0.10", "2001:db8::7", "2001:db8::71")] == [
        True,
        False,
    ] * 2


def test_what_is_remembered_is_bounded() -> None:
    """A million clients do not grow a worker."""
    trust = parse("10.0.0.0/8")

    for number in range(5000):
        trust.is_trusted_hop(f"192.0.{number // 256}.{number % 256}")

    assert len(trust._known) <= 1024


def test_the_package_is_cheap_to_import() -> None:
    """Every worker pays for it."""
    code = "import sys; import launcher.proxy; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    plain = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout.split()

    assert {"ipaddress", "re", "typing", "socket"} & (set(loaded) - set(plain)) == set()
