"""The table: all rows, in the order of the page."""

from __future__ import annotations

from tests.init import rows_exit, rows_options, rows_reaping, rows_signals, rows_state, rows_terminal

SECTIONS = (
    ("The end", rows_exit.ROWS),
    ("Signals", rows_signals.ROWS),
    ("Orphans and parents", rows_reaping.ROWS),
    ("What the command finds", rows_state.ROWS),
    ("On a terminal", rows_terminal.ROWS),
    ("Its own words", rows_options.ROWS),
)
ROWS = tuple(row for _, rows in SECTIONS for row in rows)
