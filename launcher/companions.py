"""
Which settings mean something only beside others.

Owns these rules and their sentences: what would be accepted and then ignored is refused.
Must never look at the machine; what a setting means by itself, its own reader knows.
"""

from __future__ import annotations

from launcher.addresses import TCP, Address
from launcher.errors import Problem

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from launcher.setting import Parsed

# Without one of these nothing is done before a command starts.
_PREPARING = ("config", "env-file", "template", "export-secret")
# name → those of which it needs one
_NEEDS: dict[str, tuple[str, ...]] = {"template-check": ("template",)}
_NEEDS_OF_COMMANDS: dict[str, tuple[str, ...]] = {
    "boot-timeout": _PREPARING,
    "secrets-dir": ("config", "template", "export-secret"),
    "watch": _PREPARING,
}


def problems(given: Mapping[str, Parsed], places: Mapping[str, str], *, is_command: bool) -> Iterator[Problem]:
    """Say what is in vain; `given` has the value of each setting that was written, `places` where that was."""
    asked = {name: value for name, value in given.items() if value != "off"}
    needs = {**_NEEDS, **(_NEEDS_OF_COMMANDS if is_command else {})}
    for name, others in needs.items():
        if name in asked and asked.keys().isdisjoint(others):
            whom = "on a command " if name in _NEEDS_OF_COMMANDS else ""
            yield Problem(places[name], f"has no effect {whom}without {_listed(others)}", "Leave it out")
    if "introspect-token-file" in asked and not _answers_over_tcp(given, is_command=is_command):
        reason = "has no effect without --introspect HOST:PORT: who may use the unix socket sees everything"
        yield Problem(places["introspect-token-file"], reason, "Leave it out")
    if asked.get("log-format") == "console" and asked.get("log", "stdout") != "stdout":
        reason = f"'console' is for people at a terminal, and {places['log']} sends the log elsewhere"
        yield Problem(places["log-format"], reason, "Write logfmt or json, or leave it out for the bare message")
    if "parent-death-signal" in asked and "daemon" in asked:
        reason = f"does not go with {places['daemon']}: a daemon has left its parent"
        yield Problem(places["parent-death-signal"], reason, "Leave one of them out")


def _answers_over_tcp(given: Mapping[str, Parsed], *, is_command: bool) -> bool:
    place = given.get("introspect", "off" if is_command else "")
    return place.kind == TCP if isinstance(place, Address) else place != "off"


def _listed(names: tuple[str, ...]) -> str:
    *first, last = (f"--{name}" for name in names)
    return f"{', '.join(first)} or {last}" if first else last
