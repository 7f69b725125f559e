"""The ring of the last lines: what is kept, for how long, and what of it is found."""

from __future__ import annotations

import pytest

from launcher.logs.batch import INNER_NEWLINE, SEVERITIES, Batch, Form, Source
from launcher.observer import tail
from launcher.observer.tail import MOST, Found, Tail, Wanted, understand

LOGFMT = Form("logfmt")


def added(ring: Tail, *texts: str, slot: int = 0, level: str = "info") -> Tail:
    """Put in one batch."""
    data = "".join(f"{text}\n" for text in texts).encode()
    source = Source("app", 1, 100 + slot, slot)
    ring.add(Batch(source, SEVERITIES[level], data, data.count(b"\n")), 0.0)
    return ring


def found(ring: Tail, *options: str) -> list[str]:
    """Read as a query would."""
    wanted = understand(options)
    assert isinstance(wanted, Wanted)
    return ring.read(wanted).text.decode().splitlines()


def test_the_newest_lines_are_found_the_oldest_first() -> None:
    """Not more than were asked for."""
    ring = added(added(Tail(LOGFMT, 1), "a", "b"), "c", "d", "e")

    assert found(ring) == ["a", "b", "c", "d", "e"]
    assert found(ring, "lines=2") == ["d", "e"]
    assert found(ring, "lines=4") == ["b", "c", "d", "e"]
    assert found(ring, "lines=0") == []


def test_lines_can_be_chosen_by_slot_and_severity() -> None:
    """Both at once too."""
    ring = added(added(added(Tail(LOGFMT, 1), "a"), "b", slot=1), "c", slot=1, level="error")

    assert found(ring, "slot=1") == ["b", "c"]
    assert found(ring, "level=warning") == ["c"]
    assert found(ring, "slot=0", "level=warning") == []
    assert found(ring, "slot=1", "lines=1") == ["c"]


def test_a_position_leads_to_what_came_after_it() -> None:
    """Nothing twice and nothing left out, however many."""
    ring = added(Tail(LOGFMT, 1), "a", "b")
    position = ring.read(Wanted()).position

    assert ring.read(Wanted(position)) == Found(b"", position, 0)
    added(ring, *map(str, range(500)))
    assert found(ring, f"since={position}") == list(map(str, range(500)))


@pytest.mark.parametrize("position", ["2.1", "nonsense", "1.-5", "1.²", f"1.{'9' * 5000}"])
def test_a_position_of_another_observer_leads_to_the_beginning(position: str) -> None:
    """Its counts mean nothing here."""
    assert found(added(Tail(LOGFMT, 1), "a", "b"), f"since={position}") == ["a", "b"]


def test_the_ring_is_bounded_and_says_what_is_gone() -> None:
    """By bytes; one that is larger than all leaves nothing."""
    ring = added(Tail(LOGFMT, 1), "first")
    position = ring.read(Wanted()).position
    for number in range(2000):
        added(ring, f"{number:04} " + "x" * 995)
    answer = ring.read(Wanted(position))
    kept = answer.text.count(b"\n")

    assert MOST / 2 < len(answer.text) <= MOST
    assert answer.missed == 2000 - kept
    assert answer.text.startswith(b"%04d" % answer.missed)
    for _ in range(10_000):
        added(ring, "")
    assert len(ring._entries) * tail._OVERHEAD <= MOST
    added(ring, "x" * MOST)
    assert ring.read(Wanted()).text == b""
    assert added(ring, "after").read(Wanted()).text == b"after\n"


def test_what_only_the_sink_needs_is_taken_away() -> None:
    """The priorities of a journal, the colours of a terminal."""
    assert found(added(Tail(Form("logfmt", priority=True), 1), "<6>a", "<6>b")) == ["a", "b"]
    assert found(added(Tail(Form("console", colour=True), 1), "\x1b[2m[0/1]\x1b[0m a")) == ["[0/1] a"]


def test_what_a_syslog_header_says_stands_before_its_lines() -> None:
    """Who and when; a record's further lines are indented, and its line counts once."""
    ring = added(Tail(Form("message"), 1), f"one{INNER_NEWLINE}two", "three", slot=3, level="error")
    ring.add(Batch(Source("app", 0, 1), SEVERITIES["info"], b"committed\n", 1), 0.0)
    first, further, second, own = found(ring)

    assert first.endswith("Z error   [3/1] one")
    assert further == "    two"
    assert second.endswith("Z error   [3/1] three")
    assert own.endswith("Z info    committed")
    assert ring.read(Wanted()).position == "1.3"


@pytest.mark.parametrize("option", ["lines=x", "lines=", "lines=-1", "slot=²", "slot=12345678", "level=loud", "level"])
def test_a_query_that_is_none_is_refused(option: str) -> None:
    """With a sentence."""
    assert " is " in str(understand((option,)))
