"""
The program `prod-ctl`: talk to a running prod-run.

Owns its verbs; none of them is built in this version, and each says so.
Must never need more than the standard library: it is run in probes.
"""

from __future__ import annotations

import sys

from launcher.errors import Exit

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import NoReturn

VERBS = ("status", "reload", "scale", "stop", "upgrade", "stacks", "top", "logs", "events", "health")

HELP = f"""\
Usage: prod-ctl [--socket PATH] VERB

Talk to a running prod-run.  Not in this version: signals do it (SIGHUP reloads, SIGTERM stops).

Verbs: {", ".join(VERBS)}
"""


def main() -> NoReturn:
    """Run `prod-ctl`; comes back only as an exit."""
    code, text = answer(sys.argv[1:])
    stream = sys.stderr if code else sys.stdout
    try:
        stream.write(text.rstrip("\n") + "\n")
        stream.flush()
    except OSError:
        code = code or Exit.OS_ERROR
    sys.exit(code)


def answer(words: list[str]) -> tuple[int, str]:
    """Say what to print, and the exit code: 0 for help and version, 2 for everything else so far."""
    from launcher import __version__  # noqa: PLC0415

    rest = list(words)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in {"--help", "-h"}:
            return Exit.DONE, HELP
        if option == "--version":
            return Exit.DONE, f"prod-ctl {__version__} (Python {'.'.join(map(str, sys.version_info[:3]))})"
        if option == "--socket":
            if not rest:
                return Exit.USAGE, "prod-ctl: --socket: its value is missing. Write --socket PATH"
            rest.pop(0)
        elif not option.startswith("--socket="):
            return Exit.USAGE, f"prod-ctl: {option}: there is no such option. See `prod-ctl --help`"
    if not rest:
        return Exit.USAGE, f"prod-ctl: no verb was given. Write one of {', '.join(VERBS)}"
    if rest[0] in VERBS:
        return Exit.USAGE, f"prod-ctl: {rest[0]}: not in this version. Send a signal instead: SIGHUP, SIGTERM"
    from launcher.settings import suggestion  # noqa: PLC0415

    near = suggestion(rest[0], VERBS) or f"Write one of {', '.join(VERBS)}"
    return Exit.USAGE, f"prod-ctl: {rest[0]}: there is no such verb. {near}"
