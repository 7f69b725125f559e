"""What one event looks like to people and to programs, and what no event can do to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from launcher.logs import formats
from launcher.logs.formats import Record
from tests.logs.logfmt import parsed

AT = 1_769_846_709.25  # 2026-01-31T08:05:09.250Z
RETIRED = Record(AT, "info", "retired", (("generation", 1), ("workers", 4), ("after", formats.duration(2.3149))))
TEXTS = st.text(st.characters(codec=None), max_size=40)  # lone surrogates, line separators and controls included


def test_people_see_time_level_verb_then_facts() -> None:
    """The console line is the event as it is spoken of, after an aligned time and level."""
    assert formats.console(RETIRED) == ("2026-01-31T08:05:09.250Z info    retired generation=1 workers=4 after=2.31s\n")


def test_programs_see_keys_and_values_only() -> None:
    """The logfmt line has the same facts, and time, level and event as keys too."""
    assert formats.logfmt(RETIRED) == (
        "time=2026-01-31T08:05:09.250Z level=info event=retired generation=1 workers=4 after=2.31s\n"
    )


@pytest.mark.parametrize("level", formats.LEVELS)
def test_verbs_stand_in_one_column(level: str) -> None:
    """Whatever the level, coloured or not, the verb begins at the same place."""
    plain = formats.console(Record(AT, level, "retired"))
    coloured = formats.console(Record(AT, level, "retired"), colour=True)

    assert plain.index("retired") == len("2026-01-31T08:05:09.250Z warning ")
    assert coloured.count("\x1b") == 2
    assert coloured.index("\x1b[0m retired") > 0


def test_a_pipe_sees_no_colour() -> None:
    """Without `colour` there is no escape sequence, even if a value brings one."""
    record = Record(AT, "error", "failed\x1b[2J", (("reason", "\x1b[31mred\x1b[0m"),), detail="\x1b[31mred")

    assert "\x1b" not in formats.console(record) + formats.logfmt(record)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ("plain", "plain"),
        ("/srv/app-1.2:main", "/srv/app-1.2:main"),
        ("grün", "grün"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("a=b", '"a=b"'),
        ("C:\\new", "C:\\new"),
        ("C:\\new dir", '"C:\\\\new dir"'),
        ("one\ntwo\r\t\x00", '"one\\ntwo\\r\\t\\u0000"'),
        ("\u2028", '"\\u2028"'),
        ("\udce9", '"\\udce9"'),
        ("\U000e0001", '"\\udb40\\udc01"'),
        (b"caf\xc3\xa9\xff", "café\\xff"),
        (7, "7"),
        (2.5, "2.5"),
        (3.0, "3"),
        (True, "true"),
        (None, "-"),
        ((1, "a b"), '"1,a b"'),
    ],
)
def test_a_value_is_bare_or_quoted(item: object, text: str) -> None:
    """What is unambiguous stays readable; spaces, quotes, equals signs and invisible signs are quoted."""
    assert formats.value(item) == text


@given(event=TEXTS, facts=st.dictionaries(st.sampled_from(["reason", "path", "level"]), TEXTS), detail=TEXTS)
@example(event="x\nerror forged", facts={"path": "a\nlevel=error"}, detail="d\n2026 error forged")
def test_no_value_can_forge_a_line_or_a_fact(event: str, facts: dict[str, str], detail: str) -> None:
    """Programs read back exactly what was meant; people see one line, and below it only indented ones."""
    record = Record(AT, "info", event, tuple(facts.items()), detail)
    line = formats.logfmt(record)
    first, *others = formats.console(record).removesuffix("\n").split("\n")

    wanted = {"time": formats.timestamp(AT), "level": "info", "event": event}
    wanted |= {("x_level" if key == "level" else key): text for key, text in facts.items()}
    wanted |= {"detail": detail} if detail else {}
    assert {key: _mended(text) for key, text in parsed(line.removesuffix("\n")).items()} == {
        key: _mended(text) for key, text in wanted.items()
    }
    assert line.encode().count(b"\n") == 1
    assert first.encode().decode().isprintable()
    assert all(not other or (other.startswith("    ") and other.isprintable()) for other in others)


def _mended(text: str) -> str:
    # Two surrogates side by side are one sign to whoever reads JSON.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def test_a_detail_stands_indented_below_its_line() -> None:
    """A traceback stays readable on a console, and one field for programs."""
    record = Record(AT, "error", "rejected", detail="Traceback:\n\tFile x\n\nValueError: no\n")

    assert formats.console(record).split("\n")[1:] == [
        "    Traceback:",
        "        File x",
        "",
        "    ValueError: no",
        "",
    ]
    assert parsed(formats.logfmt(record).rstrip("\n"))["detail"] == record.detail


def test_a_name_that_is_no_name_cannot_break_the_line() -> None:
    """Keys have no spaces, quotes or equals signs, whatever the name was."""
    record = Record(AT, "info", "loaded", (("my key=", 1), ("", 2), ("a.b-c", 3)))

    assert formats.console(record).endswith(" loaded my_key_=1 _=2 a.b-c=3\n")


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
@example(951_782_400_000)
@example(-1)
def test_times_are_the_calendars(milliseconds: int) -> None:
    """Every millisecond of the years 1 to 9999 is written as the calendar has it."""
    wanted = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    written = formats.timestamp(milliseconds / 1000)

    assert abs(datetime.fromisoformat(written) - wanted) <= timedelta(milliseconds=1)
    assert len(written) == len("2026-01-31T08:05:09.250Z")


def test_levels_are_compared_by_urgency() -> None:
    """A threshold lets through its own level and what is more urgent; an unknown level is never hidden."""
    assert [level for level in formats.LEVELS if formats.is_at_least(level, "warning")] == ["warning", "error"]
    assert all(formats.is_at_least(level, "debug") for level in formats.LEVELS)
    assert formats.is_at_least("critical", "error")
