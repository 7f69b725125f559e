"""
The answer of `--check-config` and `--show-config`, for people and for machines.

Owns the layout and the names of the JSON's keys, which stay.  Must never print: a report in, text out.
"""

from __future__ import annotations

from launcher.settings import Row

TYPE_CHECKING = False

if TYPE_CHECKING:
    from launcher.check import Finding, Report

_BOLD, _RED, _YELLOW, _GREEN, _PLAIN = "\033[1m", "\033[31m", "\033[33m", "\033[32m", "\033[0m"


def text(report: Report, *, is_coloured: bool) -> str:
    """Write the sections that have something in them, and the verdict."""
    names = [finding.name for finding in (*report.problems, *report.notes)]
    width = max(map(len, (*names, *report.not_checked)), default=0)
    parts = [
        _section("problems", _RED, [_line(finding, width) for finding in report.problems]),
        _section("traceback", _RED, report.traceback.splitlines()),
        _section("notes", _YELLOW, [_line(finding, width) for finding in report.notes]),
        _section("not checked", _YELLOW, [f"{name:<{width}}  {_why(name, report)}" for name in report.not_checked]),
    ]
    count = len(report.problems)
    verdict = f"{_RED}{report.target}: {count} problem{'s'[: count > 1]}, would not start{_PLAIN}"
    if not count:
        limits = ", as far as it was checked" if report.not_checked else ""
        verdict = f"{_GREEN}{report.target}: the configuration is good{limits}{_PLAIN}"
    written = "\n\n".join((*filter(None, parts), verdict))
    return written if is_coloured else _without_colour(written)


def as_json(report: Report) -> str:
    """Write one object; a key is always there."""
    import json  # noqa: PLC0415  3 ms

    return json.dumps(
        {
            "ok": not report.problems,
            "target": report.target,
            "problems": [finding._asdict() for finding in report.problems],
            "notes": [finding._asdict() for finding in report.notes],
            "not_checked": list(report.not_checked),
            "settings": [row._asdict() for row in report.settings],
            "variables": [
                {"name": row.name, "value": row.value, "origin": row.origin, "secret": row.is_secret}
                for row in report.variables
            ],
            "traceback": report.traceback,
        },
        indent=2,
    )


def table(report: Report, *, is_coloured: bool) -> str:
    """Write the settings and the variables, each with its value and origin."""
    from launcher import help_text  # noqa: PLC0415  only this needs it

    rows = (*report.settings, *(Row(row.name, row.value, row.origin) for row in report.variables))
    lines = help_text.show_config(rows, is_coloured=is_coloured).splitlines()
    if report.variables:
        lines.insert(len(report.settings), "")
    if report.problems:
        names = ", ".join(dict.fromkeys(finding.name for finding in report.problems))
        lines += ["", f"Something is wrong with {names}: see prod-run --check-config {report.target}"]
    return "\n".join(lines)


def _section(name: str, colour: str, lines: list[str]) -> str:
    return "\n".join((f"{_BOLD}{colour}{name}{_PLAIN}", *(f"  {line}".rstrip() for line in lines))) if lines else ""


def _line(finding: Finding, width: int) -> str:
    sentence = f"{finding.reason}. {finding.remedy}" if finding.remedy else finding.reason
    return f"{finding.name:<{width}}  {sentence}"


def _why(name: str, report: Report) -> str:
    return "its import needs the secrets" if name == report.target else "a secret, not given here"


def _without_colour(written: str) -> str:
    for code in (_BOLD, _RED, _YELLOW, _GREEN, _PLAIN):
        written = written.replace(code, "")
    return written
