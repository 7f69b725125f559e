"""
The pages of `docs/` that are printed from the code.

`python -m tests.reference` writes them; a test holds them equal.
"""

from __future__ import annotations

from pathlib import Path

from launcher import errors, help_text, signals
from launcher.observer import endpoints, metrics
from tests.init import page

ROOT = Path(__file__).parents[1]


def settings() -> str:
    """Return the page of all settings."""
    return (
        "# Settings\n\n"
        "Printed from `launcher/settings_table.py`.\n"
        "A flag beats its variable, the variable beats the default; `prod-run --show-config` prints each value "
        "and its origin.\n"
        "Durations are written `500ms`, `30s`, `5m`, `1h`.\n\n"
        f"{help_text.reference()}\n"
    )


def signal_table() -> str:
    """Return the table of signals, which stands in the README too."""
    lines = ["| signal | what happens |", "|---|---|"]
    lines += [f"| {signals.name_of(row.signal)} | {row.sentence} |" for row in signals.TABLE]
    return "\n".join(lines)


def signal_page() -> str:
    """Return the page of signals."""
    harmless = ", ".join(signals.name_of(number).removeprefix("SIG") for number in signals.HARMLESS_TO_WORKERS)
    return (
        "# Signals to the supervisor\n\n"
        "Printed from `launcher/signals.py`.\n\n"
        f"{signal_table()}\n\n"
        f"Workers do nothing on {harmless}, unless the app installed a handler of its own.\n"
        "SIGTERM to a worker sets `worker.stopping`; a target that takes no Worker gets SystemExit in its main "
        "thread, or cancellation if it is async.\n"
        "`prod-run -- COMMAND` passes all of these on to the command instead, whatever they mean to it; SIGTERM and "
        "SIGINT start `--drain-timeout` too: see [how to run any command](../how-to/commands.md).\n"
    )


def exit_codes() -> str:
    """Return the page of exit codes."""
    return (
        "# Exit codes of prod-run\n\n"
        f"Printed from `launcher/errors.py`.\n\n{_codes(errors.EXIT_CODES)}\n\n"
        "After the first commit no failure of a worker under `always` or `on-failure` ends prod-run.\n"
        "`--check-config` ends with 0 or 78 (2: it cannot be understood), `--daemon` with the code of the start.\n\n"
        f"# Exit codes of prod-ctl\n\n{_codes(errors.CTL_EXIT_CODES)}\n"
    )


def _codes(rows: tuple[tuple[str, str], ...]) -> str:
    return "\n".join(("| code | meaning |", "|---|---|", *(f"| {code} | {meaning} |" for code, meaning in rows)))


def endpoint_page() -> str:
    """Return the page of what the introspection port answers."""
    lines = ["| path | tier | codes | type | answer |", "|---|---|---|---|---|"]
    lines += [
        f"| `{route.path}` | {'private' if route.is_private else 'public'} | {route.codes} | `{route.kind}` "
        f"| {route.meaning} |"
        for route in endpoints.ROUTES
    ]
    return (
        "# What the introspection port answers\n\n"
        "Printed from `launcher/observer/endpoints.py`.\n"
        "GET and HEAD only (else 405), whatever is not here is 404; the private tier is the unix socket, or TCP with "
        "the token of `--introspect-token-file` (else 401, or 403 without such a file).\n\n" + "\n".join(lines) + "\n"
    )


def metrics_page() -> str:
    """Return the page of prod-run's own metrics."""
    lines = ["| name | type | labels | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{family.full_name}` | {family.kind} | {', '.join(f'`{label}`' for label in family.labels)} "
        f"| {family.help} |"
        for family in metrics.FAMILIES
    ]
    return (
        "# prod-run's own metrics\n\n"
        "Printed from `launcher/observer/metrics.py`.\n"
        "`/metrics` has them beside the app's own, see [How to measure](../how-to/metrics.md); what is not known is "
        "left out.\n"
        "A family of the app's whose name begins with `prod_run_` is left out too.\n\n" + "\n".join(lines) + "\n"
    )


def readme() -> str:
    """Return the README with its table of signals made anew."""
    text = (ROOT / "README.md").read_text()
    begin, end = "<!-- signals: printed from launcher/signals.py -->\n", "\n<!-- end of signals -->\n"
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    assert found and found_end, "the README's marks around its table of signals are gone"  # noqa: PT018
    return f"{before}{begin}{signal_table()}{end}{after}"


PAGES = {
    "docs/reference/settings.md": settings,
    "docs/reference/signals.md": signal_page,
    "docs/reference/exit-codes.md": exit_codes,
    "docs/reference/endpoints.md": endpoint_page,
    "docs/reference/metrics.md": metrics_page,
    "docs/reference/init-table.md": page.page,
    "README.md": readme,
}

if __name__ == "__main__":
    for path, page in PAGES.items():
        (ROOT / path).write_text(page())
