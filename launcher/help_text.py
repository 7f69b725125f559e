"""
What prod-run prints about itself: `--help`, `--help-all`, `--show-config`, the table in the docs.

Owns the layout; all words about settings come from `settings_table`.
Must never print: texts in, text out.
"""

from __future__ import annotations

from launcher.settings_table import BUILT, MODES

TYPE_CHECKING = False

if TYPE_CHECKING:
    from launcher.setting import Setting
    from launcher.settings import Row

_USAGE = """\
Usage: prod-run [OPTIONS] MODULE:ATTRIBUTE [ARGS]...
       prod-run [OPTIONS] -- COMMAND [ARGS]...

Run a Python target in every worker: `prod-run --workers 4 shop.web:main`.
What follows the target belongs to it.  After `--` stands any command: `prod-run -- nginx -g 'daemon off;'`.
"""

_NOTES = """\
Each setting is also a variable, PROD_RUN_WORKERS for --workers; a flag beats it, an empty one counts as unset.
Durations are written 500ms, 30s, 5m, 1h; a number without a unit is refused.
Exit codes: 0 stopped as asked or done, 2 wrong command line, 69 an address, directory or name cannot be had,
70 the target did not start, 71 the system refused, 78 wrong configuration.
"""

_INDENT = 34  # columns, to the right of the flags

_BOLD, _DIM, _PLAIN = "\033[1m", "\033[2m", "\033[0m"


def short(width: int = 100) -> str:
    """Write `--help`: the settings that are built and often needed."""
    usual = tuple(setting for setting in BUILT if not setting.is_rare)
    modes = ["Instead of a start:", *_options(MODES, width)]
    return "\n".join([_USAGE, "Options:", *_options(usual, width), "", *modes, "", _NOTES.rstrip()])


def full(width: int = 100) -> str:
    """Write `--help-all`: every setting, also the seldom needed ones."""
    rare = tuple(setting for setting in BUILT if setting.is_rare)
    return "\n".join([short(width), "", "Seldom needed:", *_options(rare, width)])


def show_config(rows: tuple[Row, ...], *, is_coloured: bool) -> str:
    """Write the table of `--show-config`: name, value, origin."""
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = []
    for name, value, origin in rows:
        cells = f"{name:<{widths[0]}}", f"{value:<{widths[1]}}", origin
        paint = (_BOLD, "", _DIM if origin == "default" else "") if is_coloured else ("", "", "")
        lines.append("  ".join(f"{p}{cell}{_PLAIN if p else ''}" for p, cell in zip(paint, cells, strict=True)))
    return "\n".join(lines)


def reference() -> str:
    """Write the docs' table of settings, in Markdown."""
    lines = ["| flag | variable | default | meaning |", "|---|---|---|---|"]
    for setting in BUILT + MODES:
        flag = f"`{_flag(setting)}`".replace("|", "\\|")
        variable = f"`{setting.variable}`" if setting.variable else "-"
        default = setting.shown_default or "-"
        lines.append(f"| {flag} | {variable} | {default} | {setting.meaning} |")
    return "\n".join(lines)


def _flag(setting: Setting) -> str:
    names = f"{setting.short}, {setting.flag}" if setting.short else setting.flag
    return f"{names} {setting.form}" if setting.form else names


def _options(settings: tuple[Setting, ...], width: int) -> list[str]:
    lines = []
    for setting in settings:
        default = setting.shown_default
        text = f"{setting.meaning} (default: {default})" if default else setting.meaning
        first, *rest = _wrapped(text, width - _INDENT)
        flag = _flag(setting)
        lines += (
            [f"  {flag}", f"{'':{_INDENT}}{first}"] if len(flag) > _INDENT - 4 else [f"  {flag:<{_INDENT - 2}}{first}"]
        )
        lines += [f"{'':{_INDENT}}{line}" for line in rest]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    # textwrap would compile a dozen regular expressions for this.
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines
