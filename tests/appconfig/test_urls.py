"""A URL as one secret: what is taken, what is refused, what is shown."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies

from launcher.appconfig.masked import RefusedSecretError
from launcher.appconfig.urls import Url, hide_passwords


def test_the_parts_are_those_that_a_driver_needs() -> None:
    """User and password are decoded, the scheme is in lower case, the database has no slash before it."""
    url = Url("Postgres://shop:p%40ss%2Fw%C3%B6rd+1@Db.internal:5432/orders%20eu?sslmode=require&x=")

    assert (url.scheme, url.user, url.password) == ("postgres", "shop", "p@ss/wörd+1")
    assert (url.host, url.port, url.path, url.database) == ("Db.internal", 5432, "/orders eu", "orders eu")
    assert url.query == {"sslmode": "require", "x": ""}


@pytest.mark.parametrize(
    ("text", "user", "password", "host", "port"),
    [
        ("redis://:pw@cache", None, "pw", "cache", None),
        ("https://key@errors/7", "key", None, "errors", None),
        ("https://errors", None, None, "errors", None),
        ("amqp://u:@h", "u", "", "h", None),
        ("amqp://u:a:b@[fe80::1]:5672", "u", "a:b", "fe80::1", 5672),
        ("postgres://u:a@b@h", "u", "a@b", "h", None),
        ("postgres://u:p@%2Frun%2FPG/db", "u", "p", "/run/PG", None),
        ("http://h:", None, None, "h", None),
    ],
)
def test_parts_may_be_left_out(text: str, user: str | None, password: str | None, host: str, port: int | None) -> None:
    """None is what is not there; empty is what is there and empty."""
    url = Url(text)

    assert (url.user, url.password, url.host, url.port) == (user, password, host, port)
    assert url.reveal() == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://u:p%40ss@h:1/db?sslmode=require", "postgres://u:***@h:1/db?sslmode=require"),
        ("redis://:pw@h", "redis://:***@h"),
        ("https://key@h/7", "https://key@h/7"),
        ("postgres://h/db?user=u&password=p%40&sslPassword=q", "postgres://h/db?user=u&password=***&sslPassword=***"),
        ("https://h/x#f", "https://h/x"),
    ],
)
def test_the_printed_form_hides_only_the_password(text: str, shown: str) -> None:
    """An operator sees which database it is."""
    url = Url(text)

    assert url.redacted == repr(url) == str(url) == f"{url}" == f"{url!r}" == shown


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hunter2", "has no scheme"),
        ("hunter2:x", "has no scheme"),
        ("//u:hunter2@h", "has no scheme"),
        ("postgres://", "has no host"),
        ("postgres://u:hunter2@/db", "has no host"),
        ("postgres://u:hunter2@:5432/db", "has no host"),
        ("postgres:///hunter2", "has no host"),
        ("postgres://u:hunter2@h:pg/db", "has a port that is no number"),
        ("postgres://u:hunter2@h:65536/db", "has a port that is no number"),
        ("postgres://u:hunter2@h:٣/db", "has a port that is no number"),
        ("postgres://u:hunter2/3@h/db", "has an @ behind its host"),
        ("postgres://u:1/hunter2@h/db", "has an @ behind its host"),
        ("postgres://u:1#hunter2@h/db", "has an @ behind its host"),
        ("postgres://u:1?hunter2@h/db", "has an @ behind its host"),
        ("postgres://u:hunter2%FF@h/db", "is not UTF-8"),
        ("postgres://u:hunter2@[h/db", "ValueError from urlsplit"),
        ("postgres://u:hunter2\u2100@h/db", "ValueError from urlsplit"),
        ("postgres://u:hunter2 @h/db", "blanks or control characters"),
        ("postgres://u:hunter2@h/db\n", "blanks or control characters"),
    ],
)
def test_what_is_no_url_is_refused_without_showing_it(text: str, reason: str) -> None:
    """No part of the text is in the error, nor behind it."""
    with pytest.raises(RefusedSecretError) as caught:
        Url(text)

    error = caught.value
    assert reason in error.reason
    assert "hunter2" not in error.reason + error.remedy + str(error)
    assert error.__context__ is None
    assert error.__cause__ is None


@given(strategies.text(max_size=20), strategies.text(max_size=20))
@example("1/", "")
@example("1#", "")
@example("", "@h/x?y=")
def test_no_password_gets_into_the_printed_form(before: str, after: str) -> None:
    """Whatever stands between the first colon and the last @, it is hidden, or the URL is refused."""
    try:
        shown = Url(f"postgres://u:{before}canary{after}@h/db").redacted
    except RefusedSecretError as error:
        shown = error.reason + error.remedy

    assert "canary" not in shown


def test_a_password_in_a_plain_variable_is_hidden_too() -> None:
    """Not everybody declares a URL as one."""
    assert hide_passwords("of 'amqp://u:p/1@h/x' and http://h/y") == "of 'amqp://u:***@h/x' and http://h/y"
