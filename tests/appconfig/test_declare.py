"""Declarations of an app's author, and what they never show."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import pprint
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import environ
import pytest

from launcher.appconfig import convert
from launcher.appconfig.declare import secret, url
from launcher.appconfig.masked import MASK, Secret
from launcher.appconfig.urls import Url
from launcher.quantities import BadValueError
from tests.appconfig.canary import CANARY, leaks


def make(field: Any, text: str, variable: str = "APP_IT") -> Any:
    """Make a configuration with one declared field, by environ-config alone."""
    cls = environ.config(type("Config", (), {"it": field}))
    return environ.to_config(cls, {variable: text})


def shown_by(config: Any) -> dict[str, str]:
    """Show a configuration in every way that people and tools have."""
    it = config.it
    record = logging.LogRecord("app", 20, __file__, 1, "%s %r %s", (config, it, {"it": it}), None)
    return {
        "repr": repr(config) + str(config) + f"{config}" + f"{config!r}" + "%r %s" % (config, config),  # noqa: UP031
        "field": repr(it) + str(it) + f"{it} {it!r} {it!s} {it:>40}" + "{} {!r}".format(it, it),  # noqa: UP032
        "percent": "%r %s %10s" % (it, it, it),  # noqa: UP031
        "containers": repr([it]) + str({"it": it}) + repr((it, {it})),
        "asdict": repr(attrs.asdict(config)) + repr(attrs.astuple(config)),
        "pprint": pprint.pformat(config) + pprint.pformat(attrs.asdict(config)),
        "json": json.dumps(attrs.asdict(config), default=str) + json.dumps(attrs.asdict(config), default=repr),
        "log": logging.Formatter().format(record),
        "copy": repr(copy.copy(it)) + repr(copy.deepcopy(config)) + repr(copy.deepcopy([it])),
        "slots": repr([getattr(it, name) for name in Secret.__slots__]) + repr(it.__getstate__()),
    }


def misused(it: Any) -> dict[str, str]:
    """Misuse a secret, and show what comes of it, with the variables of every frame."""
    deeds = {
        "pickle": lambda: pickle.dumps(it),
        "json": lambda: json.dumps(it),
        "number": lambda: int(it),
        "sum": lambda: it + "x",
        "format": lambda: "%d" % it,  # noqa: UP031
        "item": lambda: it[0],
        "attribute": lambda: it.nonsense,
    }
    shown = {}
    for name, deed in deeds.items():
        with pytest.raises((TypeError, AttributeError, ValueError)) as caught:
            deed()
        shown[name] = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    return shown


KINDS = {
    "plain": (secret, CANARY, CANARY),
    "converted": (lambda: secret(converter=lambda text: tuple(json.loads(text))), json.dumps([CANARY]), CANARY),
    "default": (lambda: secret(CANARY), "", CANARY),
    "url": (url, f"postgres://u:{quote(CANARY, safe='')}@h/db", CANARY),
    "url's query": (url, f"postgres://h/db?password={quote(CANARY, safe='')}", CANARY),
}


def of_kind(kind: str) -> tuple[Any, str]:
    """Make a configuration with a secret of one kind, and return the value to search for."""
    declare, text, value = KINDS[kind]
    return make(declare(), text, "APP_IT" if text else "APP_OTHER"), value


@pytest.mark.parametrize("kind", KINDS)
def test_no_way_to_show_a_configuration_shows_a_secret(kind: str) -> None:
    """Formatting, copies, containers, asdict, logs: none of them has the value in any form."""
    config, value = of_kind(kind)

    assert {way: leaks(text, value) for way, text in shown_by(config).items() if leaks(text, value)} == {}


@pytest.mark.parametrize("kind", KINDS)
def test_no_misuse_of_a_secret_shows_it(kind: str) -> None:
    """Neither the error, nor what a crash reporter prints of the frames."""
    config, value = of_kind(kind)

    assert {way: leaks(text, value) for way, text in misused(config.it).items() if leaks(text, value)} == {}


@pytest.mark.parametrize("kind", KINDS)
def test_only_reveal_gives_the_value(kind: str) -> None:
    """The search above would find what is there."""
    config, value = of_kind(kind)

    assert leaks(repr(config.it.reveal()), value)


def test_a_bare_secret_is_hidden_by_its_class() -> None:
    """`as_str` is for drivers that insist on a str; the class's own repr hides it, and nothing else can."""
    config = make(secret(as_str=True, converter=str.strip), f" {CANARY} ")

    assert config.it == CANARY
    assert type(config.it) is str
    assert repr(config) == str(config) == f"{config!r}" == f"Config(it={MASK})"


@pytest.mark.parametrize(
    "field",
    [
        lambda: secret(converter=int),
        lambda: secret(converter=convert.duration),
        lambda: secret(validator=attrs.validators.matches_re("[0-9]+")),
        lambda: secret(validator=[attrs.validators.min_len(1), attrs.validators.in_(["a"])]),
        lambda: secret(as_str=True, validator=attrs.validators.in_(["a"])),
        lambda: secret(converter=_exits),
        lambda: secret(converter=_cannot_even_fail),
        lambda: url(schemes=["postgres"]),
    ],
)
def test_a_refused_secret_is_not_in_the_error(field: Any) -> None:
    """Only the kind of the error is left, and nothing is chained to it, also without prod-run."""
    with pytest.raises(ValueError, match=r"Error from|SystemExit from _exits|has blanks") as caught:
        make(field(), CANARY)

    error = caught.value
    text = "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)
    assert leaks(text) == set()
    assert error.__context__ is error.__cause__ is None


def _exits(text: str) -> str:
    raise SystemExit(text)


def _cannot_even_fail(text: str) -> str:
    class StrangeError(Exception):
        def __str__(self) -> str:
            raise RuntimeError(text)

    raise StrangeError(text)


def test_secrets_compare_with_secrets_only() -> None:
    """A bare text is never equal: code that compares the two has forgotten which of them it holds."""
    assert Secret("ü\udcff") == Secret("ü\udcff")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert Secret(5) == Secret(5)
    assert Secret("5") != Secret(5)
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a") != Url("a://a")
    assert (bool(Secret("")), bool(Secret("a"))) == (False, True)


def test_a_secret_can_be_absent_or_given_in_a_test() -> None:
    """None is None; a constructor takes the text or a Secret."""
    cls = environ.config(
        type(
            "Config",
            (),
            {
                "a": secret(None, validator=attrs.validators.min_len(9)),
                "b": url(None),
                "c": secret(None, as_str=True),
                "d": secret("text", converter=str.upper),
            },
        )
    )
    empty = environ.to_config(cls, {})
    filled = cls(a="long enough", b="a://b", c=Secret("x"), d=Secret("as it is"))

    assert (empty.a, empty.b, empty.c, empty.d.reveal()) == (None, None, None, "TEXT")
    assert repr(empty) == f"Config(a=None, b=None, c=None, d={MASK})"
    assert (filled.a.reveal(), filled.b.host, filled.c, filled.d.reveal()) == ("long enough", "b", "x", "as it is")


def test_a_declared_secret_is_found_without_prod_run(tmp_path: Path) -> None:
    """`Config.from_environ()` looks at the same places."""
    (tmp_path / "DB_PW").write_text("from a file\n")
    cls = environ.config(type("Config", (), {"pw": secret(), "named": secret(name="DB_PW")}))

    config = cls.from_environ({"APP_PW_FILE": str(tmp_path / "DB_PW"), "CREDENTIALS_DIRECTORY": str(tmp_path)})

    assert (config.pw.reveal(), config.named.reveal()) == ("from a file", "from a file")
    with pytest.raises(environ.exceptions.MissingSecretError, match="APP_PW"):
        cls.from_environ({"DB_PW": "x", "CREDENTIALS_DIRECTORY": ""})


def test_a_url_accepts_the_schemes_that_are_named() -> None:
    """The scheme that was given is not shown: it may be a password in the wrong place."""
    assert make(url(schemes="redis"), "redis://h").it.host == "h"
    assert make(url(schemes=("a", "redis"), validator=_has_database), "redis://h/0").it.database == "0"
    with pytest.raises(ValueError, match=r"the URL's scheme is not a or redis$"):
        make(url(schemes=("a", "redis")), "hunter2://h")
    with pytest.raises(ValueError, match="ValueError from _has_database"):
        make(url(validator=_has_database), "redis://h")


def _has_database(_instance: object, _attribute: object, value: Url) -> None:
    if not value.database:
        raise ValueError(value)


@pytest.mark.parametrize(
    ("converter", "text", "value"),
    [
        (convert.duration, "1.5m", 90.0),
        (convert.duration, " 500ms ", 0.5),
        (convert.duration, 30.0, 30.0),
        (convert.duration, None, None),
        (convert.size, "512M", 512 * 1024**2),
        (convert.size, 10, 10),
        (convert.boolean, " Yes", True),
        (convert.boolean, "on", True),
        (convert.boolean, "1", True),
        (convert.boolean, "TRUE", True),
        (convert.boolean, "off", False),
        (convert.boolean, "no", False),
        (convert.boolean, "0", False),
        (convert.boolean, "false", False),
        (convert.boolean, True, True),
        (convert.csv, "a, b,,c ,", ("a", "b", "c")),
        (convert.csv, "", ()),
        (convert.csv, ("a",), ("a",)),
    ],
)
def test_converters_read_texts_and_leave_defaults_alone(converter: Any, text: Any, value: Any) -> None:
    """environ-config converts defaults too, so a value that is no text is taken as it is."""
    assert converter(text) == value


@pytest.mark.parametrize(
    ("converter", "text"),
    [
        (convert.duration, "30"),
        (convert.size, "big"),
        (convert.boolean, "tru"),
        (convert.boolean, ""),
        (convert.boolean, "2"),
    ],
)
def test_converters_refuse_what_they_do_not_know(converter: Any, text: str) -> None:
    """`tru` is not False."""
    with pytest.raises(BadValueError):
        converter(text)
