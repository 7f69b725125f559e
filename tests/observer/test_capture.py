"""Whatever a process prints, and in whatever pieces it comes, the log has all of it, in order and attributed."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from itertools import pairwise
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from launcher.logs.batch import RECORD, Batch, Form, Source, finished
from launcher.logs.raw import CUT
from launcher.observer import whole_lines
from launcher.observer.capture import PARTIAL_IDLE, PARTIAL_LONGEST, TRACEBACK_IDLE, Capture
from launcher.observer.whole_lines import LONGEST

SOURCE = Source("shop", 1, 123, slot=0)
MARK = "0123456789abcdef"
PIECE = 64 * 1024  # what a pipe takes
KINDS = ("console", "logfmt", "json", "message")
LINES = st.one_of(
    st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")),
    st.sampled_from(
        [
            b"",
            b"  x",
            b'{"a":1}',
            b"{}",
            b'{"a"',
            b"Traceback (most recent call last):",
            b'  File "x.py"',
            b"ValueError: x",
        ]
        + [
            b"During handling of the above exception, another exception occurred:",
            b"\x1e6x",
            "aé€".encode(),
            b"\xe2\x82",
        ]
        + [finished(MARK, severity, '{"own":1}').rstrip("\n").encode() for severity in (3, 6)]
    ),
)


class Pipe:
    """A process's pipe: `say` is the process, `capture` the observer."""

    def __init__(self, kind: str = "json", stream: str = "stderr", **form: bool) -> None:
        reading, self.writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(self.writing, False)
        self.took: list[int] = []
        self.taken = 0
        self.capture = Capture(reading, stream, SOURCE, Form(kind, **form), mark=MARK, took=self.took.append)

    def say(self, data: bytes) -> None:
        """Write as the process would, all of it."""
        assert os.write(self.writing, data) == len(data)

    def heard(self, data: bytes, now: float = 0.0) -> bytes:
        """Let the process say something, and read all that comes of it."""
        out = b""
        while data:
            self.say(data[:PIECE])
            data = data[PIECE:]
            out += self.lines(self.capture.read(now))
        return out

    def lines(self, batches: list[Batch]) -> bytes:
        """Count what the batches stand for, and return their lines."""
        self.taken += sum(batch.taken for batch in batches)
        assert all(batch.source == self.capture.source for batch in batches)
        assert all(batch.taken >= 0 for batch in batches)
        assert all(batch.number in {-1, batch.lines.count(b"\n")} for batch in batches)
        assert self.taken <= sum(self.took)
        return b"".join(batch.lines for batch in batches)

    def end(self) -> bytes:
        """End the process and read to the end."""
        os.close(self.writing)
        self.writing = -1
        out = self.lines(self.capture.read(0.0))
        assert self.capture.ended
        return out

    def close(self) -> None:
        """Close what is open."""
        os.close(self.capture.fileno())
        if self.writing >= 0:
            os.close(self.writing)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Give the pipe of a stderr as JSON, and take it back."""
    made = Pipe()
    yield made
    made.close()


def heard_in_pieces(data: bytes, cuts: list[int], kind: str, stream: str = "stderr") -> bytes:
    """Return what comes of all of `data`, read in pieces."""
    pipe = Pipe(kind, stream)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    try:
        out = b"".join(pipe.heard(data[start:end]) for start, end in pairwise(edges)) + pipe.end()
        assert pipe.taken == sum(pipe.took) == data.count(b"\n")
        assert pipe.capture.deadline() is None
    finally:
        pipe.close()
    return out


def messages(out: bytes) -> list[str]:
    """Return the text of each JSON line, `(own)` for the others."""
    return [json.loads(line).get("message", "(own)") for line in out.splitlines()]


@pytest.fixture(autouse=True)
def _one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.observer.capture.time", lambda: 1_769_846_709.25)


@given(
    lines=st.lists(LINES, max_size=12),
    rest=LINES,
    cuts=st.lists(st.integers(0, 300)),
    kind=st.sampled_from(KINDS),
    stream=st.sampled_from(["stdout", "stderr"]),
)
@example([b"Traceback (most recent call last):", b"  x", b"", b"", b"y"], b"z", [36, 39, 40, 41], "json", "stderr")
def test_pieces_change_nothing(lines: list[bytes], rest: bytes, cuts: list[int], kind: str, stream: str) -> None:
    """The log is the same however the pipe cuts the output, and every newline is accounted for."""
    data = b"".join(line + b"\n" for line in lines) + rest

    assert heard_in_pieces(data, cuts, kind, stream) == heard_in_pieces(data, [], kind, stream)


@given(lines=st.lists(LINES, max_size=12), cuts=st.lists(st.integers(0, 300)))
@example([f"{MARK}ABCDEF".encode()], [])  # Hypothesis finds constants such as this one in the modules that are loaded
def test_every_line_comes_out_once_and_in_order(lines: list[bytes], cuts: list[int]) -> None:
    """All that was printed is in the log, each line once, as JSON that can be read."""
    out = heard_in_pieces(b"".join(line + b"\n" for line in lines), cuts, "json")

    said: list[str] = []
    for row in map(json.loads, out.splitlines()):
        if "message" in row:
            said += row["message"].split("\n")
        else:
            said.append("(JSON)")
        assert row.get("pid") == 123 or "own" in row
    wanted = [line.decode("utf-8", "backslashreplace") for line in lines]
    assert said == ["(JSON)" if line in {'{"a":1}', "{}"} or f"{RECORD}{MARK}" in line else line for line in wanted]


def test_a_finished_record_passes_as_it_is(pipe: Pipe) -> None:
    """The mark and the severity are taken off, nothing else; records and other lines keep their order."""
    pipe.say(
        (
            finished(MARK, 6, '{"own":1}') * 2 + finished(MARK, 3, '{"own":2}') + "raw\n" + finished(MARK, 7, "{}")
        ).encode()
    )
    batches = pipe.capture.read(0.0)

    assert [(batch.severity, batch.taken) for batch in batches] == [(6, 2), (3, 1), (6, 1), (7, 1)]
    assert batches[0].lines == b'{"own":1}\n{"own":1}\n'
    assert [json.loads(batches[2].lines)["message"], batches[3].lines] == ["raw", b"{}\n"]


def test_each_severity_is_a_batch(pipe: Pipe) -> None:
    """A sink that is told severities gets those of the records, in their order."""
    pipe.say("".join(finished(MARK, severity, str(severity)) for severity in (6, 3, 3)).encode())

    assert [(batch.severity, batch.lines, batch.taken) for batch in pipe.capture.read(0.0)] == [
        (6, b"6\n", 1),
        (3, b"3\n3\n", 2),
    ]


@pytest.mark.parametrize("mark", ["", "0123", MARK.upper()])
def test_without_the_mark_a_record_is_text(pipe: Pipe, mark: str) -> None:
    """An app that prints what looks like a finished record is quoted, its RS escaped."""
    line = finished(mark, 3, '{"level":"error"}')

    assert messages(pipe.heard(line.encode())) == [line[:-1]]


def test_a_process_without_a_mark_has_no_finished_records() -> None:
    """No mark is not the empty mark."""
    reading, writing = os.pipe()
    os.write(writing, b"\x1e6x\n\n\nx\n")
    capture = Capture(reading, "stdout", SOURCE, Form("message"), mark="", took=lambda _: None)

    assert [batch.lines for batch in capture.read(0.0)] == [b"\\u001e6x\n\n\nx\n"]
    os.close(reading)
    os.close(writing)


def test_a_record_begins_a_line_whatever_stands_before(pipe: Pipe) -> None:
    """A progress bar without a newline does not spoil the record that follows it."""
    own = finished(MARK, 6, '{"own":1}').encode()

    assert messages(pipe.heard(b"50%" + own + b"\n" + own + own)) == ["50%", "(own)", "", "(own)", "(own)"]
    assert pipe.taken == sum(pipe.took) == 4


def test_a_record_that_lost_its_end_is_text(pipe: Pipe) -> None:
    """A finished record over the cap, or of a process that died writing it, is quoted; its mark is not shown."""
    out = pipe.heard(finished(MARK, 3, "x" * LONGEST).encode() + finished(MARK, 3, '{"a').rstrip("\n").encode())
    out += pipe.end()
    rows = [json.loads(line) for line in out.splitlines()]

    assert rows[0]["message"] == "x" * (LONGEST - len(MARK) - 2) + CUT.decode()
    assert [(row["level"], row.get("partial")) for row in rows] == [("error", None), ("error", True)]
    assert MARK not in out.decode()


def test_a_partial_line_waits_a_while(pipe: Pipe) -> None:
    """A prompt without a newline is shown after 250 ms; its end, when it comes, is a line of its own."""
    assert pipe.heard(b"name? ", now=10.0) == b""
    assert pipe.capture.deadline() == 10.0 + PARTIAL_IDLE
    assert pipe.capture.expire(10.2) == []
    out = pipe.lines(pipe.capture.expire(10.0 + PARTIAL_IDLE))
    assert (json.loads(out)["message"], json.loads(out)["partial"]) == ("name? ", True)
    assert pipe.capture.deadline() is None
    assert messages(pipe.heard(b"Bob\nx\n")) == ["Bob", "x"]
    assert pipe.taken == 2


def test_a_line_that_never_pauses_does_not_wait_for_its_end(pipe: Pipe) -> None:
    """A progress bar is shown every 5 s, and what is drawn for hours is not one line that has to be cut."""
    pipe.heard(b"begun", now=-4.0)
    pipe.heard(b" whole\nx", now=0.125)
    shown = []
    for eighth in range(2, 100):
        pipe.heard(b"x", now=eighth / 8)
        shown += [(eighth / 8, text) for text in messages(pipe.lines(pipe.capture.expire(eighth / 8)))]
    assert shown == [(0.125 + PARTIAL_LONGEST, "x" * 41), (0.25 + 2 * PARTIAL_LONGEST, "x" * 41)]

    assert messages(pipe.heard(b"\n", now=12.5)) == ["x" * 17]
    assert pipe.capture.deadline() is None
    assert pipe.taken == sum(pipe.took) == 2


def test_a_newline_that_comes_late_is_no_empty_line(pipe: Pipe) -> None:
    """When only the newline was missing it is counted, and not shown."""
    pipe.heard(b"50%")
    assert messages(pipe.lines(pipe.capture.expire(1.0))) == ["50%"]
    assert pipe.heard(b"\n") == b""
    assert (pipe.taken, sum(pipe.took)) == (0, 1)
    assert pipe.end() == b""
    assert pipe.taken == 1


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_half_a_record_waits_for_its_rest(pipe: Pipe, size: int) -> None:
    """Its writer always ends it; the machine may only be busy, and half of it would have lost its form."""
    record = finished(MARK, 6, '{"own":"' + 20_000 * "x" + '"}').encode()
    pipe.heard(record[:size])

    assert pipe.capture.deadline() is None
    assert pipe.capture.expire(1000.0) == []
    assert pipe.heard(record[size:]).count(b"\n") == 1
    assert pipe.taken == 1


def test_half_a_character_waits_for_its_rest(pipe: Pipe) -> None:
    """A partial line ends with a whole character, unless the rest never comes."""
    for part in ("é", "€", "😀"):
        data = part.encode()
        pipe.heard(b"a" + data[:-1])
        assert messages(pipe.lines(pipe.capture.expire(1.0))) == ["a"]
        assert pipe.capture.deadline() == 1.0 + PARTIAL_IDLE
        assert messages(pipe.heard(data[-1:] + b"\n")) == [part]
    pipe.heard(b"\xe2\x82")
    assert messages(pipe.lines(pipe.capture.expire(1.0))) == ["\\xe2\\x82"]
    assert pipe.capture.deadline() is None


def test_nothing_held_back_means_nothing_to_wait_for(pipe: Pipe) -> None:
    """A silent process costs its observer no system call."""
    assert pipe.capture.read(1.0) == []
    assert pipe.capture.deadline() is None
    pipe.heard(b"whole\n", now=1.0)
    assert pipe.capture.deadline() is None
    assert pipe.capture.expire(100.0) == []


def test_one_call_reads_one_piece(pipe: Pipe) -> None:
    """A chatty process holds the loop for 128 KiB at most, and its newlines are told before they are worked on."""
    fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, 4 * PIECE)
    pipe.say((b"x" * 1023 + b"\n") * 256)

    assert [sum(batch.taken for batch in pipe.capture.read(0.0)) for _ in range(3)] == [128, 128, 0]
    assert pipe.took == [128, 128]


@pytest.mark.parametrize("more", [1, PIECE, 5 * PIECE])
def test_an_endless_line_is_cut_once_and_marked(pipe: Pipe, more: int) -> None:
    """A line over 64 KiB loses its end, says so, and costs the next line nothing."""
    out = pipe.heard(b"x" * (LONGEST + more) + b"\n" + b"y" * LONGEST + b"\nnext\n")

    assert messages(out) == ["x" * LONGEST + CUT.decode(), "y" * LONGEST, "next"]
    assert pipe.taken == sum(pipe.took) == 3


@pytest.mark.parametrize("size", [10_000, LONGEST - 20, LONGEST, 3 * PIECE])
@pytest.mark.parametrize("step", [PIECE, 1000])
def test_a_record_is_whole_whatever_was_drawn_before(pipe: Pipe, size: int, step: int) -> None:
    """A progress bar over 64 KiB, or one that only makes the record's line too long, is cut; the record is not."""
    own = finished(MARK, 3, json.dumps({"own": "x" * 59_000})).encode()
    data = b"%" * size + own + own + b"next\n"
    out = b"".join(pipe.heard(data[at : at + step]) for at in range(0, len(data), step))

    assert out.splitlines()[1:3] == [own[len(MARK) + 2 : -1]] * 2
    assert messages(out)[0] == "%" * min(size, LONGEST) + (CUT.decode() if size > LONGEST else "")
    assert messages(out)[3:] == ["next"]
    assert pipe.taken == sum(pipe.took) == 3


def test_a_cut_never_splits_a_character(pipe: Pipe) -> None:
    """What remains of a cut line is still text."""
    assert messages(pipe.heard(("x" + "é" * LONGEST + "\n").encode())) == [
        "x" + "é" * (LONGEST // 2 - 1) + CUT.decode()
    ]


def test_who_it_is_may_become_known_later(pipe: Pipe) -> None:
    """Lines after the change have the new slot and number, as text and as JSON."""
    first = pipe.heard(b"x\n")
    pipe.capture.source = Source("shop", 2, 456, slot=3)
    second = pipe.heard(b'y\n{"a":1}\n')

    assert [json.loads(line)["slot"] for line in (first + second).splitlines()] == [0, 3, 3]


def test_the_last_words_are_the_last_fifty_lines(pipe: Pipe) -> None:
    """A death record can show what the process said last: the unfinished line too, and no marks."""
    pipe.heard(
        b"".join(b"line %d\n" % number for number in range(100)) + finished(MARK, 3, "a\nb").encode() + b"caf\xe9"
    )

    assert pipe.capture.last_words().split("\n") == [*(f"line {n}" for n in range(53, 100)), "a", "b", "caf\\xe9"]


def test_the_last_words_are_bounded(pipe: Pipe) -> None:
    """Long lines count by size: at most 16 KiB, from the first whole line on; one huge line shows its end."""
    for number in range(40):
        pipe.heard(b"%d " % number + b"x" * 1000 + b"\n")
    words = pipe.capture.last_words()
    pipe.heard(b"x" * 20_000 + b" the reason\n")

    assert words.startswith("24 xxx")
    assert pipe.capture.last_words().endswith("x the reason")
    assert max(len(words), len(pipe.capture.last_words())) <= 16 * 1024


def test_the_last_words_begin_with_a_line(pipe: Pipe) -> None:
    """A line that just fits is there."""
    pipe.heard(b"".join(b"%2d" % number + b"x" * 1021 + b"\n" for number in range(20)))

    assert [line[:2] for line in pipe.capture.last_words().split("\n")] == [f"{number:2}" for number in range(4, 20)]


def test_a_traceback_is_given_out_when_it_stops_growing(pipe: Pipe) -> None:
    """One error record, 100 ms after its last line or when something else is printed."""
    assert messages(pipe.heard(b"a\nTraceback (most recent call last):\n  x\nValueError: y\n", now=1.0)) == ["a"]
    assert (pipe.taken, sum(pipe.took)) == (1, 4)
    assert pipe.capture.deadline() == 1.0 + TRACEBACK_IDLE
    assert pipe.capture.expire(1.05) == []
    [batch] = pipe.capture.expire(1.0 + TRACEBACK_IDLE)

    assert (batch.severity, batch.taken) == (3, 3)
    assert json.loads(batch.lines)["message"] == "Traceback (most recent call last):\n  x\nValueError: y"


PIECES = st.sampled_from(
    [b"a\n", b"\n", b"ab", b"a\nb\nc", b"#6x\n", b"#", b"12345678", b"123456\nb\n", b"1\n2345678901\n3\n"]
)


@given(st.lists(st.none() | PIECES))
def test_the_number_of_whole_lines_is_right_whatever_was_cut_or_given_out_before(pieces: list[bytes | None]) -> None:
    """Newlines of a piece are counted once; where they are not the lines' number, these are counted."""
    with mock.patch.object(whole_lines, "LONGEST", 8):
        subject = whole_lines.WholeLines(remember=False, head=b"#6")
        for piece in pieces:
            if piece is None:
                subject.give(is_last=False)
            else:
                lines, count = subject.add(piece, piece.count(b"\n"))
                assert count == lines.count(b"\n")


@given(st.lists(PIECES).map(b"".join), st.integers(1, 8), st.integers(9, 16))
def test_a_line_is_cut_wherever_in_a_piece_it_stands(data: bytes, few: int, many: int) -> None:
    """Pieces are twice as long as a line may be."""
    with mock.patch.object(whole_lines, "LONGEST", 8):
        found = []
        for size in (few, many):
            subject = whole_lines.WholeLines(remember=False)
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
            found.append(b"".join(subject.add(piece, piece.count(b"\n"))[0] for piece in pieces))
            assert len(subject.partial) <= 8
        assert found[0] == found[1]
