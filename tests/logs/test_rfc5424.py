"""How a line becomes a syslog message."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.logs import rfc5424
from launcher.logs.batch import INNER_NEWLINE, Source

SHOP = Source("shop", 7, 123, 3)
WHEN = 1_769_846_709.25  # 2026-01-31T08:05:09.250Z

# RFC 5424 §6, as far as prod-run uses it.
NAME = r"[!-~]"
VALUE = r'(?:[^"\\\]]|\\["\\\]])*'
GRAMMAR = re.compile(
    rf"<(\d{{1,3}})>1 (\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z) ({NAME}{{1,255}}) ({NAME}{{1,48}}) ({NAME}{{1,128}}) - "
    rf'(-|\[prod-run@32473(?: slot="\d+")? generation="\d+"(?: version="{VALUE}")?\]) '
)


def test_a_line_of_a_worker() -> None:
    """Every field has its place."""
    head = rfc5424.header(14, WHEN, "host.example", SHOP)

    assert rfc5424.messages(head, b"hello\n", is_local=False) == [
        b'<14>1 2026-01-31T08:05:09.250Z host.example shop 123 - [prod-run@32473 slot="3" generation="7"] hello'
    ]


@pytest.mark.parametrize(
    ("source", "procid", "data"),
    [
        (Source("shop", 7, 123), "123", '[prod-run@32473 generation="7"]'),
        (Source("shop", 7, 0), "-", '[prod-run@32473 generation="7"]'),
        (Source("shop", 0, 1), "1", "-"),
        (Source("shop", 7, 1, 0, "1.2"), "1", '[prod-run@32473 slot="0" generation="7" version="1.2"]'),
        (
            Source("shop", 7, 1, 0, 'a"b]c\\d\n'),
            "1",
            '[prod-run@32473 slot="0" generation="7" version="a\\"b\\]c\\\\d_"]',
        ),
    ],
)
def test_what_is_not_known_is_left_out(source: Source, procid: str, data: str) -> None:
    """A zygote has no slot, prod-run's own records have no generation, and a version can be anything."""
    head = rfc5424.header(14, WHEN, "h", source).decode()

    assert head == f"<14>1 2026-01-31T08:05:09.250Z h shop {procid} - {data} "


def test_a_line_for_dev_log() -> None:
    """The form that syslog(3) writes: no year, no host, the day padded with a blank."""
    head = rfc5424.local_header(11, (2026, 2, 3, 4, 5, 6), SHOP)

    assert rfc5424.messages(head, b"hello\n", is_local=True) == [b"<11>Feb  3 04:05:06 shop[123]: hello"]
    assert rfc5424.local_header(11, (2026, 12, 31, 23, 59, 59), Source("x y", 0, 0)) == b"<11>Dec 31 23:59:59 x_y: "


@pytest.mark.parametrize(("is_local", "newline"), [(True, b"#012"), (False, b"\n")])
def test_newlines_within_a_record_stay_in_its_message(*, is_local: bool, newline: bytes) -> None:
    """The local form has no way to carry them, and writes them as every syslogd does."""
    lines = f"Traceback:{INNER_NEWLINE}  File{INNER_NEWLINE}Error\nnext\n".encode()

    made = rfc5424.messages(b"H ", lines, is_local=is_local)

    assert made == [b"H Traceback:" + newline + b"  File" + newline + b"Error", b"H next"]


def test_only_more_than_ascii_begins_with_a_bom() -> None:
    """RFC 5424 §6.4; a JSON line in plain ASCII can be read as JSON."""
    lines = "plain\nzwölf\n".encode()

    assert rfc5424.messages(b"H ", lines, is_local=False) == [b"H plain", b"H \xef\xbb\xbfzw\xc3\xb6lf"]
    assert rfc5424.messages(b"H ", lines, is_local=True) == [b"H plain", "H zwölf".encode()]


def test_no_nul_gets_out() -> None:
    """Receivers in C end there, and lose what comes after it."""
    assert rfc5424.messages(b"H ", b"a\0b\n", is_local=False) == [b"H a\\x00b"]


def test_an_empty_line_and_an_unfinished_one_are_messages() -> None:
    """Each stands for something that was written."""
    assert rfc5424.messages(b"H ", b"\nx", is_local=False) == [b"H ", b"H x"]
    assert rfc5424.messages(b"H ", b"", is_local=False) == []


def test_a_frame_is_counted_in_bytes() -> None:
    """Not in characters, and newlines count."""
    assert rfc5424.counted("ö\nx".encode()) == "4 ö\nx".encode()


@given(st.text(alphabet="aö中🎈", min_size=10, max_size=200), st.integers(min_value=20, max_value=100))
def test_a_cut_is_at_a_characters_border_with_a_mark(text: str, size: int) -> None:
    """What fits is untouched."""
    message = text.encode("utf-8", "replace")

    made = rfc5424.cut(message, size)

    assert len(made) <= size
    made.decode()  # raises in the middle of a character
    kept = made.removesuffix(rfc5424.CUT)
    assert made == message if len(message) <= size else message.startswith(kept) and made.endswith(rfc5424.CUT)
    assert len(message) <= size or len(kept) > size - len(rfc5424.CUT) - 4


@given(st.text(max_size=300), st.text(max_size=60), st.text(max_size=200), st.integers(0, 191), st.integers(0, 9))
def test_no_name_breaks_the_grammar(host: str, app: str, version: str, priority: int, generation: int) -> None:
    """Whatever a host, an app or a version is called."""
    head = rfc5424.header(priority, WHEN, host, Source(app, generation, 5, 1, version)).decode()

    assert GRAMMAR.fullmatch(head)
    assert head.isprintable()
    local = rfc5424.local_header(priority, (2026, 1, 1, 0, 0, 0), Source(app, 1, 5)).decode()
    assert re.fullmatch(rf"<{priority}>Jan  1 00:00:00 [!-~]{{1,48}}\[5\]: ", local)
