"""
The settings of a plain command: `prod-run -- COMMAND`.

Owns their rows of the table, the reading of signals and exit codes, which other settings do not go with a command,
and the defaults that are a command's own.
Must never look at the machine.
"""

from __future__ import annotations

from launcher.errors import Problem
from launcher.lean import NamedTuple
from launcher.lean_posix import signal
from launcher.quantities import LONGEST_NAME, NAME_CHARACTERS, BadValueError, whole
from launcher.setting import Setting

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from launcher.setting import Parsed

MARK = "--"
MOST_CODES = 255
# What only a Python target has.
_OF_TARGETS = (
    *("interface", "factory", "server-option", "preload", "stall-timeout", "before"),
    *("proxy-headers", "proxy-protocol", "trust", "tls-cert", "tls-key", "tls-client-ca"),
)
_OF_COMMANDS = ("rewrite", "export-secret")
_UNWATCHED = (("introspect", "off"), ("log", "stdout"))
_UNTOUCHABLE = (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD)


class Command(NamedTuple):
    """What is asked of a command; no words: the target is a Python one."""

    words: tuple[str, ...] = ()
    rewrites: tuple[tuple[int, int], ...] = ()  # 0: dropped
    successes: tuple[int, ...] = ()  # exit codes that count as 0, of Python targets too
    parent_death_signal: int = 0  # 0: none; of prod-run itself
    export_secrets: tuple[str, ...] = ()
    is_captured: bool = False  # its output goes through the observer


def signal_number(text: str) -> int:
    """Read a signal: `TERM`, `SIGTERM`, `15` or `RTMIN+3`."""
    name, plus, more = text.upper().removeprefix("SIG").partition("+")
    number = getattr(signal, f"SIG{name}", None) if "_" not in name and name else None
    if name.isdecimal() and not plus:
        number = int(name) if len(name) < 4 else None  # noqa: PLR2004
    elif name == "RTMIN" and more.isdecimal():
        number = signal.SIGRTMIN + int(more)
    if not isinstance(number, int) or number not in signal.valid_signals():
        raise BadValueError(text, "is not a signal", "Write TERM, SIGTERM or 15")
    return int(number)


def rewrite(text: str) -> str:
    """Read `SIGNAL:SIGNAL` into `15:3`; a 0 drops the signal."""
    came, colon, sent = text.partition(":")
    if not colon:
        raise BadValueError(text, "is not SIGNAL:SIGNAL", "Write TERM:QUIT, or TERM:0 to drop it")
    number = signal_number(came)
    if number in _UNTOUCHABLE:
        raise BadValueError(came, "never comes: it is the kernel's or prod-run's own", "Name another signal")
    return f"{number}:{0 if sent == '0' else signal_number(sent)}"


def exit_codes(text: str) -> str:
    """Read `143,3,SIGHUP` into `143,3,129`."""
    codes = []
    for item in text.replace(",", " ").split():
        is_number = item.lstrip("-").isdecimal()
        codes.append(whole(item, 0, MOST_CODES, "exit codes") if is_number else 128 + signal_number(item))
    if not codes:
        raise BadValueError(text, "names no exit code", "Write 143, or 143,SIGHUP")
    return ",".join(map(str, codes))


def variable(text: str) -> str:
    """Read the name of a variable."""
    if not (text.isascii() and text.isidentifier()):
        raise BadValueError(text, "is not a variable's name", "Write it like DATABASE_URL")
    return text


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "rewrite",
        "SIGNAL:SIGNAL",
        "",
        "pass another signal on to the command than the one that came; 0 drops it; may be given several times, in the "
        "variable separated by blanks",
        read=rewrite,
        default_words="none; TSTP, TTIN and TTOU become STOP",
        is_repeatable=True,
        is_rare=True,
    ),
    Setting(
        "success-exit-status",
        "CODE|SIGNAL,…",
        "",
        "exit codes, and signals, that count as exit code 0; may be given several times, in the variable separated by "
        "blanks",
        read=exit_codes,
        default_words="0",
        is_repeatable=True,
        is_rare=True,
    ),
    Setting(
        "parent-death-signal",
        "SIGNAL",
        "",
        "have prod-run itself sent this signal when its own parent dies",
        read=signal_number,
        default_words="none",
        is_rare=True,
    ),
    Setting(
        "export-secret",
        "NAME",
        "",
        "put this secret, wherever it is found, into the command's environment, where whoever may look at the process "
        "can read it; may be given several times, in the variable separated by blanks",
        read=variable,
        default_words="none",
        is_repeatable=True,
        is_rare=True,
    ),
)


def command(words: tuple[str, ...], texts: Mapping[str, tuple[Parsed, ...]]) -> Command:
    """Make the value of the words after `--` and of what was read, by the settings' names."""
    pairs = (str(pair).partition(":") for pair in texts.get("rewrite", ()))
    (number,) = texts.get("parent-death-signal", ())[-1:] or (0,)
    assert isinstance(number, int)  # noqa: S101  the table and its reader belong together
    return Command(
        words,
        tuple((int(came), int(sent)) for came, _, sent in pairs),
        tuple(int(code) for text in texts.get("success-exit-status", ()) for code in str(text).split(",")),
        number,
        tuple(map(str, texts.get("export-secret", ()))),
        is_captured="log-format" in texts or any(texts.get(name, (plain,))[-1] != plain for name, plain in _UNWATCHED),
    )


def words_of(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command's own words; none if the target is a Python one."""
    return words[1:] if words[:1] == (MARK,) else ()


def name_of(word: str) -> str:
    """Make an instance's name of a command: its base name, cut and cleaned."""
    base = word.rpartition("/")[2]
    return (
        "".join(letter if letter in NAME_CHARACTERS else "-" for letter in base)[:LONGEST_NAME].strip(".") or "command"
    )


def problems(places: Mapping[str, str], *, is_command: bool) -> Iterable[Problem]:
    """Say which settings do not go with what is to be run; `places` has where each was written."""
    wrong, what = (_OF_TARGETS, "a Python target") if is_command else (_OF_COMMANDS, "a command: prod-run -- COMMAND")
    return (Problem(places[name], f"only goes with {what}", "Leave it out") for name in wrong if name in places)


def defaults(name: str, workers: int, *, listens: bool) -> dict[str, tuple[Parsed, str, str]]:
    """Return the defaults of a command that are not a Python target's: value, words, origin."""
    restart = "always" if listens else "on-failure" if workers > 1 else "never"
    why = "since something listens" if listens else "of several copies" if workers > 1 else "of one copy"
    return {
        "restart": (restart, "", f"default, {why}"),
        "name": (name_of(name), "", "the command"),
        "introspect": ("off", "", "default of a command"),
        "log-level": ("warning", "", "default of a command"),
    }
