"""prod-run's own lines, as each sink gets them."""

from __future__ import annotations

import pytest

from launcher.logs.batch import Form, Source
from launcher.logs.formats import Record
from launcher.observer.own import Pen

RECORD = Record(1_769_846_709.25, "error", "rejected", (("generation", 2),), "Traceback:\n  ValueError: <7>no")
SHOP = Source("shop", 0, 7)


@pytest.mark.parametrize(("kind", "lines"), [("console", 3), ("logfmt", 1), ("json", 1)])
def test_in_the_journal_every_line_has_its_priority(kind: str, lines: int) -> None:
    """sd-daemon(3): one without is of level info, and an error's traceback would not be found with it."""
    batch = Pen(SHOP, Form(kind, priority=True)).write(RECORD)
    plain = Pen(SHOP, Form(kind)).write(RECORD)

    assert (batch.severity, batch.taken, plain.taken) == (3, lines, lines)
    assert batch.lines == b"".join(b"<3>" + line for line in plain.lines.splitlines(keepends=True))


def test_to_syslog_a_record_is_one_message() -> None:
    """Its header says when, who and how urgent."""
    batch = Pen(SHOP, Form("message")).write(RECORD)

    assert batch.lines == b"rejected generation=2\x1f    Traceback:\x1f      ValueError: <7>no\n"
    assert (batch.severity, batch.taken) == (3, 1)
