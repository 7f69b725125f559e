"""
The shape of everything on the page that has rows.

Owns sections and tables: headings that a screen reader names, and labels that stand beside each cell on a phone.
Pure.
"""

from __future__ import annotations

from launcher.observer.page.markup import Markup, escape, join, tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST = 200  # rows of one table
_CLASSES = {"n": ' class="n"', "w": ' class="w"'}

Row = tuple[str, ...]


def section(name: str, title: str, *content: str, about: str = "") -> Markup:
    """Write a part of the page with its heading."""
    heading = tag("h2", title, tag("small", about) if about else "", id=name)
    return tag("section", heading, *content, aria_labelledby=name)


def table(
    name: str, headings: Sequence[str], rows: Iterable[Row], nothing: str, *, kinds: str = "", hidden: int = 0
) -> Markup:
    """
    Write a table, its first column the name of the row.

    `kinds` has a letter for each column: `n` for figures, to the right, and `w` for what may take several lines.
    Columns in which no row has anything are left out; without a row `nothing` is said.
    `hidden` rows were left out before.
    """
    listed = list(rows)
    if not listed:
        return tag("p", nothing, class_="none")
    shown = listed[:MOST]
    hidden += len(listed) - len(shown)
    kept = [index for index in range(len(headings)) if any(row[index] for row in shown)]
    classes = [_CLASSES.get(kinds[index : index + 1], "") for index in range(len(headings))]
    labels = [escape(heading) for heading in headings]
    head = "".join(f'<th scope="col"{classes[index]}>{labels[index]}</th>' for index in kept)
    body = "".join([_row(row, kept, classes, labels) for row in shown])
    more = tag("p", f"{hidden} more are not shown.", class_="none") if hidden else ""
    return join(Markup(f'<table id="{name}-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'), more)


def _row(row: Row, kept: list[int], classes: list[str], labels: list[Markup]) -> str:
    first, *others = kept
    # An empty cell has no label: on a phone it is not shown at all.
    cells = "".join(
        [
            f'<td{classes[index]} data-label="{labels[index]}">{join(row[index])}</td>' if row[index] else "<td></td>"
            for index in others
        ]
    )
    return f'<tr><th scope="row"{classes[first]} data-label="{labels[first]}">{join(row[first])}</th>{cells}</tr>'
