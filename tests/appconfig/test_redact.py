"""Hiding secrets: no form of a value survives in any text."""

from __future__ import annotations

import base64
import json
import urllib.parse

import pytest
from hypothesis import given, settings, strategies

from launcher.appconfig.redact import Redactor, is_too_short

FORMS = {
    "raw": str,
    "quote": urllib.parse.quote,
    "quote all": lambda value: urllib.parse.quote(value, safe=""),
    "quote plus": urllib.parse.quote_plus,
    "quote little": lambda value: urllib.parse.quote(value, safe="!'()*;:@&=$,"),
    "quote lower": lambda value: urllib.parse.quote(value, safe="").replace("%2F", "%2f").replace("%C3", "%c3"),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 unpadded": lambda value: base64.b64encode(value.encode()).decode().rstrip("="),
    "base64 url": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    "base64 url unpadded": lambda value: base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
    "json": lambda value: json.dumps(value)[1:-1],
    "json not ascii": lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
    "repr": lambda value: repr(value)[1:-1],
    "ascii": lambda value: ascii(value)[1:-1],
    "repr of bytes": lambda value: repr(value.encode())[2:-1],
}
HARD = [
    "correct horse/battery+staple",
    "a\"b'c\\d\ne\tf",
    "pässwörd-ß€😀",
    "%41%25%2f%%%%",
    "\\\\\\\\\\\\\\",
    "aaaaaaaaaa",
    "a.*b[c](d)|^$",
    " lead and trail ",
    "?????>>>>>~~~~",
]
secrets = strategies.one_of(
    strategies.sampled_from(HARD),
    strategies.text(strategies.characters(exclude_categories=["Cs"]), min_size=6, max_size=40),
    strategies.text("ab/+%\\'\"\n ", min_size=6, max_size=20),
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", HARD)
def test_each_form_is_hidden(value: str, form: str) -> None:
    """In the middle of a line, and though letters stand directly beside it."""
    text = f"zz{FORMS[form](value)}zz"

    assert Redactor({"APP_DB_PASSWORD": value}).mask(text) == "zz<secret APP_DB_PASSWORD>zz"


@settings(max_examples=200)
@given(strategies.lists(secrets, min_size=1, max_size=4), strategies.data())
def test_no_canary_survives(values: list[str], data: strategies.DataObject) -> None:
    """Of several values, which may begin alike or overlap, none is left in a text made of their forms."""
    pieces = strategies.one_of(
        strategies.text(max_size=5),
        strategies.builds(
            lambda value, form: FORMS[form](value),
            strategies.sampled_from(values),
            strategies.sampled_from(list(FORMS)),
        ),
    )
    text = "".join(data.draw(strategies.lists(pieces, max_size=8)))

    masked = Redactor({f"N{number}": value for number, value in enumerate(values)}).mask(text)

    outside = masked.replace("<secret N", "\0")  # what masks add is no canary
    for value in values:
        for form in FORMS.values():
            assert form(value) not in outside or form(value) in "<secret N0>"


def test_the_longer_of_two_that_begin_alike_is_hidden_whole() -> None:
    """Nothing of its end is left."""
    redactor = Redactor({"SHORT": "password", "LONG": "password-and-more"})

    assert redactor.mask("password password-and-more") == "<secret SHORT> <secret LONG>"


def test_two_that_overlap_leave_nothing() -> None:
    """The end of the second is no hint at it."""
    assert Redactor({"A": "abcdefgh", "B": "efghijkl", "C": "ijklmnop"}).mask("-abcdefghijklmnop-") == "-<secret A>-"


def test_a_urls_password_is_hidden_alone_too() -> None:
    """Drivers show it decoded, or with the rest of the URL changed; host and database stay readable then."""
    redactor = Redactor({"APP_DB_URL": "postgresql://shop:p%40ss%2Fword@db:5432/shop"})

    assert redactor.mask("postgresql://shop:p%40ss%2Fword@db:5432/shop") == "<secret APP_DB_URL>"
    assert redactor.mask("password 'p@ss/word' failed") == "password '<secret APP_DB_URL>' failed"
    assert redactor.mask("postgresql://shop:p%40ss%2fword@db/") == "postgresql://shop:<secret APP_DB_URL>@db/"
    assert redactor.mask("no host db:5432 for shop") == "no host db:5432 for shop"


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("redis://:hunter22@r", "hunter22"),
        ("amqp://u:hunter@22@r/vhost", "hunter@22"),
        ("mysql+pymysql://u:hun/ter22@r/x", "hun/ter22"),
        ("http://u:hunter22@[::1]:80/", "hunter22"),
    ],
)
def test_passwords_of_many_urls(url: str, password: str) -> None:
    """Also those that should have been encoded."""
    assert Redactor({"U": url}).mask(f"<{password}>") == "<<secret U>>"


def test_every_line_of_a_long_value_is_hidden() -> None:
    """A private key is shown line by line, if at all."""
    key = "-----BEGIN KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\nab==\n"

    masked = Redactor({"KEY": key}).mask("line 1: MIIEvQIBADAN\r\nline 2: BgkqhkiG9w0B ab==")

    assert masked == "line 1: <secret KEY>\r\nline 2: <secret KEY> ab=="


@pytest.mark.parametrize("value", ["", "a", "12345", "ä" * 5, "a\nb\nc", "x://u:pass@"])
def test_short_values_do_not_shred_the_text(value: str) -> None:
    """A password `a` would give itself away by every hole it makes."""
    redactor = Redactor({"SHORT": value if len(value) < 6 else "", "OTHER": "another-one"})

    assert redactor.mask(text := f"a 12345 {value} äääää") == text


def test_nothing_declared_changes_nothing() -> None:
    """And bytes that are not UTF-8 come through."""
    assert Redactor({}).mask("x") == "x"
    assert Redactor({"A": "hunter22"}).mask_bytes(b"\xff hunter22 \xe4") == b"\xff <secret A> \xe4"


def test_the_registry_shows_nothing_of_itself() -> None:
    """It is in many a traceback's frames."""
    assert "hunter22" not in repr(Redactor({"A": "hunter22"}))


@given(strategies.text())
def test_other_text_is_untouched(text: str) -> None:
    """What has no value in it stays as it is."""
    assert Redactor({"A": "\U0010fffd" * 6}).mask(text) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("hunter", False),
        ("hunte", True),
        ("", False),
        ("pg://user:hunte@host/db", True),
        ("pg://user:hunt%65r@host/db", False),
        ("pg://user:h%75nt%65@host/db", True),
        ("pg://user@host/db", False),
        ("pg://user:@host/db", False),
    ],
)
def test_what_is_too_short_is_known(value: str, expected: bool) -> None:  # noqa: FBT001  a parameter of the test
    """And it is what is left alone."""
    assert is_too_short(value) is expected
    if value and expected:
        secret = value.rpartition("@")[0].rpartition(":")[2] or value
        assert (
            Redactor({"X": value}).mask(f"a {urllib.parse.unquote(secret)} b") == f"a {urllib.parse.unquote(secret)} b"
        )
