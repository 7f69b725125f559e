"""
A plain command that nothing was asked for but to be run: `prod-run -- COMMAND`, as transparent as tini or dumb-init.

Owns the start of the command, which comes before the exec of its supervisor, so that nothing has to be carried
across: neither its environment nor its directory nor its descriptors.
Must never be the way of a command with a setting that needs more than its signals passed on.
"""

from __future__ import annotations

import os
import sys

from launcher.lean import NamedTuple
from launcher.lean_posix import signal
from launcher.prctl import SET_CHILD_SUBREAPER, SET_PDEATHSIG, prctl
from launcher.supervisor import execution, terminal
from launcher.supervisor.execution import Caller, Environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from launcher.settings import Settings

MARK = "--"  # as in command_settings, which is not loaded for this alone
DRAIN_TIMEOUT = 25.0  # seconds: the default of --drain-timeout
# What this way of running knows how to do, and what it does anyway.
_KNOWN = ("chdir", "drain-timeout", "log-level", "parent-death-signal", "rewrite", "success-exit-status")
_DONE_ANYWAY = {"control": "off", "introspect": "off", "log": "stdout", "restart": "never", "workers": "1"}
_OURS = (
    *(b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"WATCHDOG_PID"),
    *(b"LISTEN_PID", b"LISTEN_PIDFDID", b"LISTEN_FDS", b"LISTEN_FDNAMES"),
)
_PREFIX = b"PROD_RUN_"
_TEMPLATES = b"PROD_RUN_TEMPLATE_"  # what an outer prod-run made for its worker, which this one may be

# Appended, not inserted: nothing there may stand for a standard module.
_BOOT = """\
import sys
sys.path += filter(None, sys.argv[1:3])
from launcher.supervisor.command import main
main(sys.argv[3:])  # prod-run
"""


class Wishes(NamedTuple):
    """What can be asked of a command that runs alone."""

    argv: tuple[bytes, ...]
    name: str
    drain_timeout: float = DRAIN_TIMEOUT  # seconds
    rewrites: tuple[tuple[int, int], ...] = ()
    successes: tuple[int, ...] = ()  # exit codes that count as 0
    is_talkative: bool = False


def caller(mask: set[int], closed: tuple[int, ...] = ()) -> Caller:
    """Note how the caller had its signals; `mask` is what was blocked before anything was."""
    ignored = (number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN)
    # CPython ignores these two itself, so nobody can say what the caller did.
    return Caller(tuple(mask), tuple(n for n in ignored if n not in (signal.SIGPIPE, signal.SIGXFSZ)), closed)


def is_bare(words: list[str], environ: Mapping[str, str]) -> bool:
    """Say whether a command line asks for nothing but a command: no flag, no variable, no manager above."""
    told = (name for name in environ if name.startswith(("PROD_RUN_", "NOTIFY_", "LISTEN_", "WATCHDOG_")))
    return words[:1] == [MARK] and len(words) > 1 and next(told, None) is None


def is_alone(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Say whether a command can run alone: one copy, and nothing that a whole supervisor is needed for."""
    if environ.get("NOTIFY_SOCKET") or environ.get("LISTEN_PID") == str(os.getpid()):
        return False
    return all(
        row.origin.startswith(("default", "the command"))
        or row.name in _KNOWN
        or _DONE_ANYWAY.get(row.name) == row.value
        for row in settings.rows
    )


def bare(words: list[str]) -> Wishes:
    """Take a command line that `is_bare`."""
    return Wishes(tuple(map(os.fsencode, words[1:])), words[1].rpartition("/")[2])


def wishes(settings: Settings) -> Wishes:
    """Take what `is_alone`."""
    asked = settings.command
    return Wishes(
        tuple(map(os.fsencode, asked.words)),
        settings.name,
        settings.drain_timeout,
        asked.rewrites,
        asked.successes,
        is_talkative=settings.log_level in ("debug", "info"),
    )


def environment() -> list[tuple[bytes, bytes]]:
    """
    Return what the command is to find: the caller's, less what is meant for prod-run.

    As the kernel has it: CPython drops doubles, and sets LC_CTYPE in the C locale (PEP 538).
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            pairs = execution.read_environment(file.read())
    except OSError:
        pairs = list(os.environb.items())
    return [
        (name, value)
        for name, value in pairs
        if name not in _OURS and (not name.startswith(_PREFIX) or name.startswith(_TEMPLATES))
    ]


def packed() -> bytes:
    """Return that environment as NUL-separated NAME=value."""
    return b"\0".join(b"%b=%b" % pair for pair in environment())


def is_prepared(settings: Settings) -> bool:
    """Say whether a command's environment or files must be made before each generation."""
    return bool(settings.config or settings.env_files or settings.templates or settings.command.export_secrets)


def run_alone(wishes: Wishes, how: Caller) -> NoReturn:
    """
    Start the command, and become its supervisor.

    Raises:
        OSError: the system refuses to start it.
        SystemRefusedError: the system refuses the supervisor; then nothing is left of the command.
    """
    supervisor = os.getpid()
    _care_for_orphans(supervisor)
    # Else the kernel reaps, and no exit code is seen (wait(2)); the command gets back what it was.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    is_in_foreground = terminal.is_wanted_at_once((*how.ignored, *how.mask)) and terminal.foreground() == os.getpgrp()
    environ = Environment(environment())

    def become() -> NoReturn:
        execution.die_with(supervisor)
        if is_in_foreground:
            terminal.take()
        for fd in how.closed:
            os.close(fd)
        execution.restore_signals(how)
        execution.run(wishes.argv, environ, _say)

    pid = execution.fork(become)
    if is_in_foreground:
        terminal.hand_to(pid)
    try:
        _become_supervisor(wishes, pid)
    except OSError as error:
        # Without a supervisor it must not go on; nor may our caller take this for a command that was never started.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        terminal.take_from(pid)
        from launcher import kernel  # noqa: PLC0415

        raise kernel.refused(error, f"execve({sys.executable})") from None


def die_with_parent(number: int, parent: int) -> None:
    """
    Have prod-run itself sent a signal when its own parent dies (prctl(2)); it is then passed on as any other.

    `parent` is who that was at the start.  The kernel forgets it when ids change: to be called after that.
    """
    prctl(SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)  # it died before that line


def _care_for_orphans(pid: int) -> None:
    if pid != 1 and not prctl(SET_CHILD_SUBREAPER, 1):
        from launcher import kernel  # noqa: PLC0415

        kernel.become_subreaper()  # which finds the words for what is refused


def _become_supervisor(wishes: Wishes, pid: int) -> NoReturn:
    import launcher  # noqa: PLC0415

    package = os.path.dirname(os.path.dirname(os.path.abspath(launcher.__file__)))
    titles = next((f"{path}/setproctitle" for path in sys.path if os.path.isdir(f"{path}/setproctitle")), "")
    no_bytecode = ("-B",) if sys.dont_write_bytecode else ()
    facts = (
        f"pid={pid}",
        f"name={wishes.name}",
        f"drain={wishes.drain_timeout}",
        f"rewrites={','.join(f'{one}:{other}' for one, other in wishes.rewrites)}",
        f"successes={','.join(map(str, wishes.successes))}",
        f"journal={int(_is_journal())}",
        f"talkative={int(wishes.is_talkative)}",
    )
    # What our caller let through is the command's; were it ours too, nobody would see the end of a pipe.
    for fd in _open_descriptors():
        os.set_inheritable(fd, False)
    from launcher.handoff import is_kept  # noqa: PLC0415

    environ = {name: value for name, value in os.environ.items() if is_kept(name)}
    arguments = (sys.executable, "-I", "-S", *no_bytecode, "-c", _BOOT, package, titles, *facts)
    os.execve(sys.executable, arguments, environ)


def _open_descriptors() -> list[int]:
    try:
        present = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        present = list(range(1024))
    found = []
    for fd in present:
        try:
            found += [fd] if fd > 2 and os.get_inheritable(fd) else []  # noqa: PLR2004
        except OSError:
            continue  # the one that listed the directory
    return found


def _is_journal() -> bool:
    """Say whether stderr is the stream that systemd.exec(5) describes by $JOURNAL_STREAM: device:inode."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _say(text: str) -> None:
    mark = "<3>" if _is_journal() else ""
    try:
        os.write(2, os.fsencode(f"{mark}prod-run: {text}\n"))
    except OSError:
        pass
