"""What a printed line looks like in each form, and what no line can do."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from launcher.logs import raw
from launcher.logs.batch import Form, Source

SOURCE = Source("shop", 1, 123, slot=0, version="1.2")
ZYGOTE = Source("shop", 1, 0)
TIME = "2026-01-31T08:05:09.250Z"
OURS = '"app":"shop","version":"1.2","slot":0,"generation":1,"pid":123'
KINDS = ("console", "logfmt", "json", "message")
# Bytes that matter more than others, often.
DATA = st.one_of(
    st.binary(max_size=80),
    st.text(st.sampled_from('a"\\ \t\r\x1b\x1e\x1f\x7f\x85\u00a0\u2028é€\U000e0001\ud800'), max_size=40).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    ),
    st.text(st.sampled_from('{}[]",:a1 \t\r\n\\'), max_size=40).map(str.encode),
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
# Pieces of JSON that only together would be well-formed.
TORN = st.sampled_from(
    [
        b'{"a":1}',
        b"{}",
        b"{ }",
        b'{"a":1},{"b":2}',
        b'{"a":1},5,{"b":2}',
        b'{"c":[1',
        b'{"c":[{}',
        b"{}]}",
        b"2]}",
        b'{"a":1}\t\r',
        b' {"a":1}',
        b'{"a":-Infinity}',
        b'{"a":NaN}',
        b'{"a":1},-Infinity,{"b":2}',
        b"{'a': 1}",
        b'{"a":"\xe2\x80\xa8\x7f"}',
        b"[]",
        b'{"a":"\xff"}',
        b'{"a":\t1,\r"b":"\\n"}',
        b"{" * 2000,
        b"[" * 2000,
        b'{"a":' + b"1" * 5000 + b"}",
        b"",
        b"text",
    ]
)


def written(data: bytes, kind: str, *, source: Source = SOURCE, stream: str = "stdout", **more: bool) -> str:
    """Write lines in a form that has neither colour nor priorities."""
    around = raw.look(source, Form(kind), stream, 6, **more)
    return raw.lines(data, around, TIME).decode()


def enriched(line: bytes) -> dict[str, object] | None:
    """Read a line as the strictest reader of JSON objects would."""
    if not line.startswith(b"{"):
        return None
    try:
        value = json.loads(line.decode(), parse_constant={}.__getitem__)
    except (ValueError, KeyError, RecursionError):
        return None
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (
            "logfmt",
            f'time={TIME} level=info app=shop version=1.2 slot=0 generation=1 pid=123 stream=stdout message="it \\"is\\""\n',
        ),
        ("json", f'{{"time":"{TIME}","level":"info",{OURS},"stream":"stdout","message":"it \\"is\\""}}\n'),
        ("console", f'{TIME} info    [0/1] it "is"\n'),
        ("message", 'it "is"\n'),
    ],
)
def test_a_line_says_who_printed_it(kind: str, line: str) -> None:
    """Each form has the text, and all but the bare one when, how urgent, who and where."""
    assert written(b'it "is"\n', kind) == line


def test_what_is_not_known_is_left_out() -> None:
    """A zygote has no slot, an app without a version has none, and a process may not have its number yet."""
    assert written(b"x\n", "logfmt", source=ZYGOTE, stream="stderr") == (
        f'time={TIME} level=info app=shop generation=1 stream=stderr message="x"\n'
    )
    assert json.loads(written(b"x\n", "json", source=ZYGOTE)).keys().isdisjoint({"slot", "version", "pid"})
    assert written(b"x\n", "console", source=ZYGOTE) == f"{TIME} info    [-/1] x\n"


def test_a_line_without_its_end_says_so_to_programs() -> None:
    """`partial` is a field, and nothing that people or a syslog header see."""
    assert 'stream=stdout partial=true message="x"' in written(b"x\n", "logfmt", partial=True)
    assert json.loads(written(b"x\n", "json", partial=True))["partial"] is True
    assert written(b"x\n", "console", partial=True) == written(b"x\n", "console")


def test_colour_and_priority() -> None:
    """On a terminal the level is coloured as prod-run's own; for a journal each line begins with <N>."""
    colour = raw.look(SOURCE, Form("console", colour=True), "stdout", 3)
    journal = raw.look(SOURCE, Form("console", priority=True), "stdout", 3)

    assert raw.lines(b"x\n", colour, TIME).decode() == f"{TIME} \x1b[1;31merror  \x1b[0m \x1b[2m[0/1]\x1b[0m x\n"
    assert raw.record(b"x\ny", journal, TIME).decode() == f"<3>{TIME} error   [0/1] x\n<3>    y\n"
    for kind in ("json", "logfmt"):
        around = raw.look(SOURCE, Form(kind, priority=True), "stdout", 6)
        out = raw.lines(b'{"a":1}\n{"b":2}\nx\n{}\n', around, TIME).splitlines()
        assert [line[:3] for line in out] == [b"<6>"] * 4
        assert raw.lines(b'{"a":1}\n{"b":2}\n', around, TIME).splitlines() == out[:2]


def test_a_name_with_signs_stays_one_field() -> None:
    """An app's name and version are escaped as values are, in every form that has them."""
    source = Source('a "b"\n=', 1, 1, version='1\\2"\u2028')
    line = json.loads(written(b"x\n", "json", source=source))

    assert (line["app"], line["version"]) == ('a "b" =', '1\\2"\u2028')
    assert 'app="a \\"b\\"\\n=" version="1\\\\2\\"\\u2028"' in written(b"x\n", "logfmt", source=source)
    assert json.loads(written(b'{"a":1}\n', "logfmt", source=source))["app"] == 'a "b" ='


@pytest.mark.parametrize("kind", ["json", "logfmt"])
def test_json_is_enriched_and_not_encoded_again(kind: str) -> None:
    """The app's own bytes stay, our fields stand at the end, where the last one of a name wins."""
    assert written(b'{"a": 1.50, "pid": 1}\n', kind) == f'{{"a": 1.50, "pid": 1,{OURS}}}\n'
    assert written(b"{}\n", kind) == f"{{{OURS}}}\n"
    assert written(b"{ } \r\n", kind) == f"{{ {OURS}}}\n"
    assert written('{"a":"é\u2028\x7f"}\n'.encode(), kind) == f'{{"a":"é\\u2028\\u007f",{OURS}}}\n'


@pytest.mark.parametrize("kind", ["console", "message"])
def test_json_is_text_to_people_and_to_syslog(kind: str) -> None:
    """Where lines are not JSON nothing is put into one."""
    assert written(b'{"a":1}\n', kind).endswith('{"a":1}\n')


@given(torn=st.lists(TORN, min_size=1, max_size=5))
@example([b'{"a":1},{"b":2}', b'{"c":[1', b"2]}"])
@example([b'{"a":1},-Infinity,{"b":2}', b'{"c":[{}', b"{}]}"])
@example([b'{"a":1},5,{"b":2}', b'{"c":[{}', b"{}]}"])
@example([b'{"a":1}', b' {"a":1}'])
@example([b'{"a":1} ', b'{"a":1}'])
def test_lines_cannot_make_up_json_together(torn: list[bytes]) -> None:
    """Each line is judged by itself, though all are read at once."""
    together = written(b"".join(line + b"\n" for line in torn), "json")

    assert together == "".join(written(line + b"\n", "json") for line in torn)
    for line, out in zip(torn, together.splitlines(), strict=True):
        mine, whole = enriched(line), json.loads(out, parse_constant={}.__getitem__)
        if mine is None:
            assert whole["message"] == line.decode("utf-8", "backslashreplace")
        else:
            assert list(whole.items())[: len(mine)] == list(mine.items())
            assert "message" not in whole
            assert whole["pid"] == 123


@given(
    values=st.lists(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4), min_size=1, max_size=4),
    ascii_=st.booleans(),
)
def test_any_json_object_is_enriched_or_wrapped(values: list[dict[str, object]], ascii_: object) -> None:
    """Whatever a library of the app writes as JSON can be read again, with what was in it."""
    dumped = [json.dumps(value, ensure_ascii=bool(ascii_)).encode("utf-8", "backslashreplace") for value in values]
    out = written(b"".join(line + b"\n" for line in dumped), "logfmt")

    for line, text in zip(dumped, out[:-1].split("\n"), strict=True):
        mine = enriched(line)
        assert text.startswith("time=") if mine is None else json.loads(text) == mine | json.loads(f"{{{OURS}}}")


@given(data=DATA.map(lambda data: data + b"\n"), kind=st.sampled_from(KINDS))
def test_no_line_can_forge_another(data: bytes, kind: str) -> None:
    """As many lines come out as went in, all visible, and the text can be read back."""
    lines = data[:-1].split(b"\n")
    out = written(data, kind)
    rows = out[:-1].split("\n")

    assert len(rows) == len(lines)
    assert out.replace("\n", "").replace("\t" if kind == "console" else "\n", "").isprintable()
    assert out == "".join(written(line + b"\n", kind) for line in lines)
    for line, row in zip(lines, rows, strict=True):
        if kind == "json":
            assert json.loads(row)["pid"] == 123
        if kind == "logfmt" and row.startswith("time="):
            assert json.loads(row.partition(" message=")[2]) == line.decode("utf-8", "backslashreplace")


@given(data=DATA, kind=st.sampled_from(KINDS))
def test_a_record_of_many_lines_is_one(data: bytes, kind: str) -> None:
    """A traceback is one line to programs, one message to syslog, and indented to people."""
    out = raw.record(data, raw.look(SOURCE, Form(kind), "stderr", 3), TIME).decode()

    first, *rest = out[:-1].split("\n")
    assert all(line.startswith("    ") for line in rest)
    assert len(rest) == (data.count(b"\n") if kind == "console" else 0)
    if kind == "json":
        assert json.loads(first)["message"] == data.decode("utf-8", "backslashreplace")
        assert json.loads(first)["level"] == "error"
    if kind == "message":
        assert first.count("\x1f") == data.count(b"\n")


def test_finished_records_lose_only_their_heads() -> None:
    """What a worker's logging wrote is passed on as it is; within, it has newlines for people."""
    rows = [b"HEAD6a \x1b[2m\x1fb", b"HEAD6c"]

    assert raw.finished(rows, 5, Form("console", priority=True), 6) == b"<6>a \x1b[2m\n<6>b\n<6>c\n"
    assert raw.finished(rows, 5, Form("message"), 6) == b"a \x1b[2m\x1fb\nc\n"
