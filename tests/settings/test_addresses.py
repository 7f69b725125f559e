"""Where to listen, as people write it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies

from launcher.addresses import Address, name_all, parse
from launcher.quantities import BadValueError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8000", Address("", "tcp", "127.0.0.1:8000", host="127.0.0.1", port=8000)),
        ("localhost:0", Address("", "tcp", "localhost:0", host="localhost", port=0)),
        (":80", Address("", "tcp", ":80", host="0.0.0.0", port=80)),
        ("[::]:80", Address("", "tcp", "[::]:80", host="::", port=80, is_ipv6=True)),
        ("[fe80::1%lo]:80", Address("", "tcp", "[fe80::1%lo]:80", host="fe80::1%lo", port=80, is_ipv6=True)),
        ("web=:80", Address("web", "tcp", ":80", host="0.0.0.0", port=80)),
        ("unix:/run/x.sock", Address("", "unix", "unix:/run/x.sock", path="/run/x.sock")),
        ("unix:///run/x.sock", Address("", "unix", "unix:/run/x.sock", path="/run/x.sock")),
        ("unix:x.sock", Address("", "unix", "unix:x.sock", path="x.sock")),
        (
            "web=unix:/run/x.sock?mode=0660&user=www&group=7",
            Address("web", "unix", "unix:/run/x.sock", path="/run/x.sock", mode=0o660, user="www", group="7"),
        ),
        ("unix:/run/x.sock?mode=660", Address("", "unix", "unix:/run/x.sock", path="/run/x.sock", mode=0o660)),
        ("fd:3", Address("", "fd", "fd:3", fd=3)),
        ("a.b_c-1=fd:0", Address("a.b_c-1", "fd", "fd:0", fd=0)),
    ],
)
def test_every_form_is_understood(text: str, expected: Address) -> None:
    """The forms of the table of settings."""
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("8000", "'8000' is not an address|Write :8000"),
        ("localhost", "'localhost' is not an address|Write HOST:PORT"),
        ("", "'' is not an address|Write HOST:PORT"),
        ("host:", "'' is not a port|Write a number from 0 to 65535"),
        ("host:http", "'http' is not a port|0 to 65535"),
        ("host:65536", "'65536' is not a port|0 to 65535"),
        ("host:-1", "'-1' is not a port|0 to 65535"),
        ("host:8_0", "'8_0' is not a port|0 to 65535"),
        ("host:٣", "is not a port|0 to 65535"),
        ("::1:8000", "'::1:8000' is ambiguous|Put the IPv6 address in brackets: [::1]:8000"),
        ("[127.0.0.1]:80", "'[127.0.0.1]' is not an IPv6 address|brackets"),
        ("*:80", "'*' is not a host|Write :80"),
        ("http://host:80", "is ambiguous|"),
        ("a b:80", "'a b' is not a host|"),
        ("unix:", "'unix:' has no file name|Write unix:/path"),
        ("unix:/run/", "has no file name|Write unix:/path"),
        ("unix:@x", "'unix:@x' is an abstract socket|give it a path"),
        ("unix:/" + "x" * 107, "is too long|The kernel takes 107 bytes"),
        ("unix:/x?mode=0990", "'0990' is not a mode|in octal"),
        ("unix:/x?mode=7777", "'7777' is not a mode|in octal"),
        ("unix:/x?color=red", "'color=red' is not an option|mode=0660"),
        ("unix:/x?mode=", "'mode=' is not an option|mode=0660"),
        ("unix:/x\ty", "contains control characters|"),
        ("fd:", "'' is not a descriptor|"),
        ("fd:-1", "'-1' is not a descriptor|"),
        ("we b=:80", "'we b' is not a listener's name|Use letters"),
        ("=:80", "'' is not a listener's name|Use letters"),
    ],
)
def test_a_bad_address_says_what_to_write(text: str, sentence: str) -> None:
    """What is wrong, and what to do."""
    reason, _, remedy = sentence.partition("|")

    with pytest.raises(BadValueError) as caught:
        parse(text)

    assert reason in caught.value.reason
    assert remedy in caught.value.remedy


def test_unnamed_addresses_are_numbered() -> None:
    """`default`, `default2`, …; named ones do not count."""
    named = name_all(tuple(map(parse, (":1", "web=:2", ":3", ":4"))))

    assert [address.name for address in named] == ["default", "web", "default2", "default3"]


@pytest.mark.parametrize("texts", [("web=:1", "web=:2"), ("default=:1", ":2")])
def test_no_two_listeners_share_a_name(texts: tuple[str, ...]) -> None:
    """Not even by way of a default."""
    with pytest.raises(BadValueError, match="is the name of both :1 and :2"):
        name_all(tuple(map(parse, texts)))


@given(strategies.text(max_size=30))
def test_any_text_is_an_address_or_a_clear_sentence(text: str) -> None:
    """No input makes the parser fail in another way."""
    try:
        address = parse(text)
    except BadValueError:
        return

    assert address.kind in {"tcp", "unix", "fd"}
    assert "\t" not in address.text
