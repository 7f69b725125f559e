"""The page of the table, `docs/reference/init-table.md`, printed from its rows."""

from __future__ import annotations

from tests.init import table
from tests.init.row import PROGRAMS, Row

# What the two READMEs tell that is no behaviour, so that nobody looks for its row.
NO_BEHAVIOUR = (
    "why an init is needed",
    "how to install, verify and build tini and dumb-init",
    "the size of their binaries",
    "their authors",
)
HEAD = """# Beside tini and dumb-init

Printed from `tests/init`.
One row for each behaviour that the READMEs and `--help` of tini 0.19.0 and dumb-init 1.2.5 document, and for each that their word *transparent* promises.
Each row is a test that is run with all three programs, their differences included.
A cell shows what is typed before the command: `=` is seen as the row says, `≠` is seen to differ, with the reason, and *none* is that there is no such thing.

prod-run's column is that of `prod-run --` with settings of signals and exit codes only.
A setting that brings the whole supervisor (`--workers`, `--control`, `--env-file`, …) costs some of it, for one copy:
the command has a NOTIFY_SOCKET of its own; descriptors but the standard ones are not passed on, and closed standard ones are open;
and the supervisor stays in its directory.
All other rows are the same, by test.
"""


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for title, rows in table.SECTIONS:
        lines = [f"| behaviour | documented | {' | '.join(PROGRAMS)} |", "|---|---|---|---|---|"]
        lines += [_line(row) for row in rows]
        parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    parts.append(f"What the READMEs tell beside that is no behaviour: {', '.join(NO_BEHAVIOUR)}.\n")
    return "\n".join(parts)


def _line(row: Row) -> str:
    cells = [_cell(row, program) for program in PROGRAMS]
    return f"| {row.behaviour} | {row.source} | {' | '.join(cells)} |"


def _cell(row: Row, program: str) -> str:
    words = " or ".join(f"`{spelled}`" for spelled in row.spelled(program))
    differing = row.differs.get(program)
    if differing is None:
        return f"= {words}"
    return f"≠ {words}: {differing.why}" if words else f"*none*: {differing.why}"
