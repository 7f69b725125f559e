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
    first = next(iter(_without_socket(words)), "")
    if first in {"--help", "-h"}:
        return Exit.DONE, HELP
    if first == "--version":
        from launcher import __version__  # noqa: PLC0415

        return Exit.DONE, f"prod-ctl {__version__} (Python {'.'.join(map(str, sys.version_info[:3]))})"
    return Exit.USAGE, f"prod-ctl: {_complaint(first)}"


def _without_socket(words: list[str]) -> list[str]:
    rest = list(words)
    while rest and (rest[0].startswith("--socket=") or (rest[0] == "--socket" and len(rest) > 1)):
        rest = rest[1:] if "=" in rest[0] else rest[2:]
    return rest


def _complaint(first: str) -> str:
    one_of = f"Write one of {', '.join(VERBS)}"
    if not first:
        return f"no verb was given. {one_of}"
    if first == "--socket":
        return "--socket: its value is missing. Write --socket PATH"
    if first.startswith("-"):
        return f"{first}: there is no such option. See `prod-ctl --help`"
    if first in VERBS:
        return f"{first}: not in this version. Send a signal instead: SIGHUP, SIGTERM"
    from launcher.settings import suggestion  # noqa: PLC0415

    return f"{first}: there is no such verb. {suggestion(first, VERBS) or one_of}"
