"""
The program `prod-ctl`: talk to a running prod-run.

Owns its verbs and the text that people see; `supervisor.control` is the other end.
Must never need more than the standard library: it is run in probes, in images without a shell.
"""

from __future__ import annotations

import os
import socket
import sys

from launcher import protocol
from launcher.errors import Exit, LauncherError, Problem, UnavailableError, UsageError, explain
from launcher.lean import NamedTuple

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

LATER = ("upgrade",)
VERBS = ("status", "reload", "scale", "stop", "stacks", "events", "health", "top", "logs")
HELP = """\
Usage: prod-ctl [--socket PATH] [--json] VERB

Talk to a running prod-run.  Without --socket, to the only one that this user runs.

Verbs:
  status                say how it is: generations, workers
  reload [--wait] [--timeout SECONDS]
                        reload; --wait: until it is committed and rolled out, or failed
  scale N|+N|-N         have so many workers, until it is stopped
  stop [--now]          drain and stop; --now: kill
  stacks [SLOT]         write the Python stacks of all workers, or of one, to prod-run's log
  events [--past]       what happened, the last 500 events and then live, as JSON lines
  health                say whether it is ready; for probes
  top [--once]          all workers in one table, live (q ends it); --once: one table
  logs [-f] [SLOT]      the last lines of the log, of all or of one worker; -f: and what comes
  upgrade               not in this version

Options:
  --socket PATH         the control socket; also the variable PROD_CTL_SOCKET
  --json                answer for programs

Exit codes: 0 done or committed, 1 rejected, rolled back or not ready, 2 wrong command line,
69 nobody there, 75 timed out or pre-empted.
"""
OPTIONS = {
    "reload": ("--wait", "--timeout"),
    "stop": ("--now",),
    "events": ("--past",),
    "top": ("--once",),
    "logs": ("--follow",),
}
ARGUMENTS = {"scale": (1, 1), "stacks": (0, 1), "logs": (0, 1)}
TAKE_SLOTS = ("stacks", "logs")
THROUGH_THE_OBSERVER = ("top", "logs")
_HELP = frozenset(("--help", "-h"))


class Request(NamedTuple):
    """What was asked for on the command line."""

    verb: str
    words: tuple[str, ...]
    flags: frozenset[str]
    path: str
    timeout: float | None  # seconds


class Row(NamedTuple):
    """One line of an answer."""

    kind: str
    facts: dict[str, str]


def main() -> NoReturn:
    """Run `prod-ctl`; comes back only as an exit."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except LauncherError as error:
        text = str(error) if isinstance(error, UsageError) else explain("cannot reach prod-run", error.problems)
        print(f"prod-ctl: {text}", file=sys.stderr)
        code = error.exit_code
    except BrokenPipeError:  # `prod-ctl events | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = Exit.DONE
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def run(argv: list[str]) -> int:
    """Do what the words say; return the exit code."""
    if not argv or argv[0] == "help" or not _HELP.isdisjoint(argv):
        print(HELP, end="")
        return Exit.DONE if argv else Exit.USAGE
    if argv[0] == "--version":
        from launcher import __version__  # noqa: PLC0415

        print(f"prod-ctl {__version__} (Python {'.'.join(map(str, sys.version_info[:3]))})")
        return Exit.DONE
    request = understand(argv)
    connection = connect(request.path or find_socket(os.environ, os.geteuid()))
    connection.settimeout(request.timeout)
    try:
        if request.verb in THROUGH_THE_OBSERVER:
            path = private_path(connection)
            connection.close()  # it is one of 64 that others may need
            return _watch(path, request)
        return talk(connection, request)
    except TimeoutError:
        print(f"prod-ctl: no result within {request.timeout:g} s; prod-run goes on", file=sys.stderr)
        return Exit.TEMPORARY


def understand(argv: list[str]) -> Request:
    """
    Sort the words.

    Raises:
        UsageError: some of them are wrong.
    """
    words: list[str] = []
    flags: set[str] = set()
    path, timeout = os.environ.get("PROD_CTL_SOCKET", ""), None
    rest = iter(argv)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in ("--socket", "--timeout"):
            value = value if equals else next(rest, "")
            if not value:
                raise UsageError(Problem(name, "its value is missing", f"Write {name} VALUE"))
            path = value if name == "--socket" else path
            timeout = _seconds(value) if name == "--timeout" else timeout
        elif word.startswith("-") and not word[1:].isdecimal():
            flags.add("--follow" if word == "-f" else word)
        else:
            words.append(word)
    verb, *arguments = words or [""]
    _check(verb, arguments, flags)
    if timeout is None and "--wait" not in flags and verb not in ("events", "stop"):
        timeout = 10.0  # a supervisor that answers later than that is not well
    return Request(verb, tuple(arguments), frozenset(flags), path, timeout)


def _check(verb: str, arguments: list[str], flags: set[str]) -> None:
    if verb in LATER:
        raise UsageError(Problem(verb, "not in this version"))
    if verb not in VERBS:
        from launcher.settings import suggestion  # noqa: PLC0415

        reason = "there is no such verb" if verb else "no verb was given"
        raise UsageError(Problem(verb, reason, suggestion(verb, (*VERBS, *LATER)) or "See `prod-ctl --help`"))
    usual = () if verb == "logs" else ("--json",)  # lines come as they are
    for flag in sorted(flags - {*usual, *OPTIONS.get(verb, ())}):
        raise UsageError(Problem(flag, f"{verb!r} has no such option", "See `prod-ctl --help`"))
    least, most = ARGUMENTS.get(verb, (0, 0))
    if not least <= len(arguments) <= most:
        expected = "no argument" if not most else "one argument" if least else "at most one argument"
        raise UsageError(Problem(verb, f"it takes {expected}", "See `prod-ctl --help`"))
    if verb in TAKE_SLOTS and not "".join(arguments or ["0"]).isdecimal():
        raise UsageError(Problem(arguments[0], "it is no worker's slot", "Write a number, as `prod-ctl status` has it"))


def _seconds(text: str) -> float:
    from launcher.quantities import BadValueError, positive_duration  # noqa: PLC0415

    is_bare = text.isascii() and text.replace(".", "", 1).isdecimal()
    try:
        return positive_duration(f"{text}s" if is_bare else text)
    except BadValueError as error:
        raise UsageError(Problem("--timeout", error.reason, error.remedy)) from None


def find_socket(environ: os._Environ[str] | dict[str, str], uid: int) -> str:
    """
    Find the control socket of the only prod-run that this user could mean.

    Raises:
        UnavailableError: there is none, or several.
    """
    bases = [f"{environ['XDG_RUNTIME_DIR']}/prod-run"] if environ.get("XDG_RUNTIME_DIR") else []
    bases.append("/run/prod-run")  # root's, and of those whom root made another user by --user
    bases.append(f"/tmp/prod-run-{uid}")  # noqa: S108  made 0700 by prod-run, which checks its owner
    places = [environ["RUNTIME_DIRECTORY"].partition(":")[0]] if environ.get("RUNTIME_DIRECTORY") else []
    for base in bases:
        try:
            places += [f"{base}/{name}" for name in sorted(os.listdir(base))]
        except OSError:
            continue
    # Once each: systemd names /run/prod-run/shop, which stands in /run/prod-run too.
    found = [path for path in dict.fromkeys(f"{place}/control.sock" for place in places) if _is_live(path)]
    if len(found) == 1:
        return found[0]
    reason = f"{len(found)} of them run here: {', '.join(found)}" if found else "no running prod-run was found"
    raise UnavailableError(Problem("", reason, "Name one with --socket PATH"))


def _is_live(path: str) -> bool:
    try:
        connect(path).close()
    except UnavailableError:
        return False
    return True


def connect(path: str) -> socket.socket:
    """
    Connect to a control socket.

    Raises:
        UnavailableError: nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(10.0)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        reason = f"no running prod-run answers there: {error.strerror or error}"
        raise UnavailableError(Problem(path, reason, "Is it running, and as this user?")) from None
    return connection


def private_path(connection: socket.socket) -> str:
    """
    Ask where the private introspection socket is.

    Raises:
        UnavailableError: there is none.
    """
    connection.send(protocol.encode("introspection"))
    message = protocol.decode(connection.recv(protocol.LARGEST * 2))
    if message.verb != "end" or message.number("code") != Exit.DONE:
        raise UnavailableError(Problem("", "".join(message.texts("text")), "Start it with --introspect"))
    return message.text("text")


def _watch(path: str, request: Request) -> int:
    if request.verb == "logs":
        from launcher import private_socket  # noqa: PLC0415  `health` does without

        return private_socket.show_log(path, "".join(request.words), follow="--follow" in request.flags)
    from launcher import top  # noqa: PLC0415  the same

    return top.run(path, once="--once" in request.flags, is_json="--json" in request.flags)


def talk(connection: socket.socket, request: Request) -> int:
    """Send the request and show what comes; return the exit code."""
    fields: dict[str, protocol.Field] = {
        "wait": "--wait" in request.flags,
        "now": "--now" in request.flags,
        "follow": "--past" not in request.flags,
    }
    if request.verb == "scale":
        fields["workers"] = request.words[0]
    if request.verb == "stacks":
        fields["slot"] = request.words
    try:
        connection.send(protocol.encode(request.verb, **fields))
    except ConnectionError:
        return _ended(request, [])
    is_json = "--json" in request.flags or request.verb == "events"
    shown: list[Row] = []
    while True:
        try:
            datagram = connection.recv(protocol.LARGEST * 2)
        except ConnectionError:  # it threw the request away unread (unix(7))
            datagram = b""
        if not datagram:
            return _ended(request, shown)
        message = protocol.decode(datagram)
        if message.verb == "end":
            text = message.text("text")
            if text and not (is_json and shown):
                print(_json({"text": text}) if is_json else text)
            return message.number("code")
        for row in _rows(message):
            shown.append(row)
            print(_json({"event": row.kind, **row.facts}) if is_json else _line(row), flush=True)


def _ended(request: Request, shown: list[Row]) -> int:
    if request.verb == "stop":
        return Exit.DONE  # that is what was asked for
    print("prod-ctl: prod-run ended before it answered", file=sys.stderr)
    return Exit.DONE if shown and request.verb == "events" else Exit.TEMPORARY


def _rows(message: protocol.Message) -> Iterator[Row]:
    for text in message.texts("row"):
        row = protocol.decode(text.encode("utf-8", "surrogateescape"))
        facts = (fact.partition("=") for fact in row.texts("facts"))
        yield Row(row.text("kind"), {name: value for name, _, value in facts})


def _line(row: Row) -> str:
    detail = row.facts.get("detail", "")
    facts = "  ".join(f"{name} {value}" for name, value in row.facts.items() if name not in ("detail", "time", "level"))
    indented = "".join(f"\n    {line}" for line in detail.splitlines())
    return f"{row.kind:<22}{facts}{indented}"


def _json(content: dict[str, str]) -> str:
    import json  # noqa: PLC0415  `health` does without

    return json.dumps(content, ensure_ascii=False)
