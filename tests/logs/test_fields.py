"""What one record of an app's logging looks like in each form, and what no record can do to a log."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from launcher.appconfig.redact import Redactor
from launcher.logs import fields
from launcher.logs.batch import Form, Source
from launcher.logs.fields import Entry
from tests.logs.logfmt import parsed

AT = 1_769_846_709.25  # 2026-01-31T08:05:09.250Z
SOURCE = Source("shop", 3, 4711, 0, "1.2")
KINDS = ("console", "logfmt", "json", "message")
TEXTS = st.text(st.characters(codec=None), max_size=40)  # lone surrogates, line separators and controls included
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.integers(), inner, max_size=3),
    max_leaves=6,
)
NAMES = TEXTS | st.sampled_from(sorted(fields.RESERVED)) | st.just("x_pid") | st.just("x_level")
ENTRIES = st.builds(
    Entry,
    st.just(AT),
    st.sampled_from(["critical", "error", "warning", "info", "debug"]),
    TEXTS,
    TEXTS,
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.just(()) | st.just((("thread", "a b"),)),
    TEXTS,
    TEXTS,
)
PAID = Entry(AT, "info", "shop.till", "paid", {"order": 17, "by": "Zoë B", "items": [1, {"a": None}]})
FAILED = Entry(AT, "error", "shop", "failed", {}, (("thread", "T 1"),), 'Traceback:\n  File "x"\nValueError: no')


def written(entry: Entry, kind: str, mask: Any = None) -> str:
    """Return a record as it is written in a form."""
    form = Form(kind)
    return fields.line(entry, fields.prefix(SOURCE, form), form, mask)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON pairs, none of which comes twice."""
    found = dict(pairs)
    assert len(found) == len(pairs), "a key twice"
    return found


def mended(text: str) -> str:
    """Join the halves of a sign."""
    # Two surrogates side by side are one sign to whoever reads JSON.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@pytest.mark.parametrize(
    ("entry", "kind", "line"),
    [
        (
            PAID,
            "console",
            '2026-01-31T08:05:09.250Z info    [0/3] shop.till: paid order=17 by="Zoë B" items="[1, {\'a\': None}]"\n',
        ),
        (
            PAID,
            "logfmt",
            (
                "time=2026-01-31T08:05:09.250Z level=info app=shop version=1.2 slot=0 generation=3 pid=4711 "
                'logger=shop.till message="paid" order=17 by="Zoë B" items="[1, {\'a\': None}]"\n'
            ),
        ),
        (
            PAID,
            "json",
            (
                '{"time":"2026-01-31T08:05:09.250Z","level":"info","app":"shop","version":"1.2","slot":0,"generation":3,'
                '"pid":4711,"logger":"shop.till","message":"paid","order":17,"by":"Zoë B","items":[1,{"a":null}]}\n'
            ),
        ),
        (PAID, "message", 'shop.till: paid order=17 by="Zoë B" items="[1, {\'a\': None}]"\n'),
        (
            FAILED,
            "console",
            (
                '2026-01-31T08:05:09.250Z error   [0/3] shop: failed thread="T 1"\n'
                '    Traceback:\n      File "x"\n    ValueError: no\n'
            ),
        ),
        (
            FAILED,
            "logfmt",
            (
                "time=2026-01-31T08:05:09.250Z level=error app=shop version=1.2 slot=0 generation=3 pid=4711 "
                'logger=shop message="failed" thread="T 1" exc="Traceback:\\n  File \\"x\\"\\nValueError: no"\n'
            ),
        ),
        (
            FAILED,
            "message",
            'shop: failed thread="T 1"\n    Traceback:\n      File "x"\n    ValueError: no\n',
        ),
    ],
)
def test_a_record_in_each_form(entry: Entry, kind: str, line: str) -> None:
    """The same record for people, for programs, and for a sink whose header says the rest."""
    assert written(entry, kind) == line


def test_a_zygote_has_no_slot() -> None:
    """What is not known is left out; on a console it is a dash."""
    source = Source("shop", 3, 4711)

    assert fields.prefix(source, Form("console")) == "[-/3]"
    assert fields.prefix(source, Form("logfmt")) == "app=shop generation=3 pid=4711"
    assert fields.prefix(source, Form("json")) == '"app":"shop","generation":3,"pid":4711'


def test_colours_are_for_the_level_and_the_place() -> None:
    """As prod-run's own lines have them; a critical record is red too."""
    form = Form("console", colour=True)
    line = fields.line(PAID._replace(level="critical"), fields.prefix(SOURCE, form), form)

    assert line.startswith("2026-01-31T08:05:09.250Z \x1b[1;31mcritical\x1b[0m \x1b[2m[0/3]\x1b[0m shop.till: paid")


@given(ENTRIES)
@example(PAID._replace(message='x"}\n{"level":"error', extras={"pid": 1, "x_pid": 2, '"': '","pid":3,"'}))
def test_every_record_is_one_json_object(entry: Entry) -> None:
    """Any text, names and values: one line, each key once, and ours are ours."""
    line = written(entry, "json")
    found = json.loads(line, object_pairs_hook=once, parse_constant=pytest.fail)

    assert line.count("\n") == 1
    assert line[:-1].isprintable()
    assert (found["level"], found["app"], found["slot"], found["pid"]) == (entry.level, "shop", 0, 4711)
    assert (found["logger"], found["message"]) == (mended(entry.logger), mended(entry.message))
    assert mended(entry.exc) == found.get("exc", "")
    assert len(found) == 9 + len(entry.extras) + len(entry.context) + bool(entry.exc) + bool(entry.stack)


@given(ENTRIES)
@example(PAID._replace(message='x" level=error y="', logger="a level=error", extras={"a b=": "c\nlevel=error"}))
def test_every_record_is_one_line_of_pairs(entry: Entry) -> None:
    """The same for logfmt: read back, nothing is more or less than what was meant."""
    line = written(entry, "logfmt")
    found = parsed(line[:-1])

    assert line.count("\n") == 1
    assert line[:-1].isprintable()
    assert (found["level"], found["app"], found["slot"], found["pid"]) == (entry.level, "shop", "0", "4711")
    assert (mended(found["logger"]), mended(found["message"])) == (mended(entry.logger), mended(entry.message))
    assert len(found) == 10 - 1 + len(entry.extras) + len(entry.context) + bool(entry.exc) + bool(entry.stack)


@pytest.mark.parametrize("kind", ["console", "message"])
@given(entry=ENTRIES)
@example(entry=PAID._replace(message="a\n2026-01-31T08:05:09.250Z error [0/3] forged\x1b[31m", exc="b\n2026 forged\r"))
def test_only_the_first_line_is_at_the_margin(kind: str, entry: Entry) -> None:
    """Further lines are indented, so that none of them can pass for a record; no escape reaches a terminal."""
    first, *others = written(entry, kind)[:-1].split("\n")

    assert first.isprintable()
    assert first.startswith("2026-01-31T08:05:09.250Z " if kind == "console" else fields.visible(entry.logger))
    assert all(not other or (other.startswith("    ") and other.isprintable()) for other in others)


class _Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("item", "logfmt", "as_json"),
    [
        (True, "true", True),
        (None, "-", None),
        (1e-9, "1e-09", 1e-9),
        (float("nan"), "nan", "nan"),
        ({1: 2}, '"{1: 2}"', {"1": 2}),
        ({(1, 2): 3}, '"{(1, 2): 3}"', "{(1, 2): 3}"),
        ({"a": _Unshowable()}, '"<dict: its repr failed>"', {"a": "<_Unshowable: its repr failed>"}),
        (_Unshowable(), '"<_Unshowable: its repr failed>"', "<_Unshowable: its repr failed>"),
        (10**5000, '"<int: its repr failed>"', "<int: its repr failed>"),
        (b"\x00", "b'\\x00'", "b'\\x00'"),
    ],
    ids=lambda item: type(item).__name__,
)
def test_values_of_all_kinds(item: object, logfmt: str, as_json: object) -> None:
    """JSON keeps what it has a form for; the rest is a repr, and a repr that fails is said to."""
    entry = PAID._replace(extras={"item": item})

    assert f" item={logfmt}\n" in written(entry, "logfmt")
    assert json.loads(written(entry, "json"))["item"] == as_json


def test_a_circle_is_a_repr() -> None:
    """What contains itself ends somewhere."""
    circle: list[object] = []
    circle.append(circle)

    assert json.loads(written(PAID._replace(extras={"item": circle}), "json"))["item"] == "[[...]]"


@pytest.mark.parametrize("kind", KINDS)
def test_no_record_is_longer_than_the_observer_takes(kind: str) -> None:
    """Long texts lose their middle, thousands of fields are counted, and the line is whole all the same."""
    cut = written(PAID._replace(message="x" * 300_000 + "end"), kind)
    assert len(cut) > fields.LONGEST // 5
    assert "end" in cut
    assert "by" in cut
    for huge in (
        PAID._replace(message="x" * 300_000 + "end"),
        PAID._replace(message="\x00" * 70_000, exc="\U000e0001" * 70_000, stack="é" * 70_000, logger="l" * 70_000),
        PAID._replace(extras={"list": list(range(70_000))}),
        PAID._replace(extras={f"name{n}" * 99: n for n in range(5000)}),
    ):
        line = written(huge, kind)
        assert len(line.encode()) <= fields.LONGEST
        assert "left out" in line or "left_out" in line
        if kind == "json":
            json.loads(line, object_pairs_hook=once)
        if kind == "logfmt":
            parsed(line[:-1])
    assert 'left_out="5000 fields"' in line or '"left_out":"5000 fields"' in line


@pytest.mark.parametrize("kind", KINDS)
def test_secrets_are_masked_wherever_they_stand(kind: str) -> None:
    """In the message, an extra, deep inside one, as a number, in a traceback: and the line stays whole."""
    mask = Redactor({"KEY": 'hunter"2\nx', "PIN": "12345678"}).mask
    secret = 'hunter"2\nx'  # noqa: S105  of nobody
    entry = PAID._replace(
        message=f"got {secret}", extras={"a": secret, "b": {"c": [secret]}, "n": 12345678, "o": 7}, exc=f"E: {secret}"
    )
    line = written(entry, kind, mask)

    assert "hunter" not in line
    assert "12345678" not in line
    assert line.count("<secret ") == 5
    if kind == "json":
        assert json.loads(line)["o"] == 7
    if kind == "logfmt":
        assert parsed(line[:-1])["n"] == "<secret PIN>"
