"""
From settings to the supervisor's program: everything that is settled before the exec, and the exec.

Owns the order of it, and what crosses: environment, descriptors, signals (DESIGN §2.1).
Must never start the target, and never come back once the exec has worked.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial

from launcher import (
    command,
    introspect_listeners,
    kernel,
    metrics_directory,
    privileges,
    runtime_directory,
    whereabouts,
)
from launcher.handoff import Handoff, is_kept
from launcher.lean import NamedTuple
from launcher.logs.batch import Form
from launcher.supervisor import interpreter, listeners, pidfile
from launcher.supervisor.descriptor_store import Store

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from launcher.addresses import Address
    from launcher.handoff import Listener
    from launcher.privileges import Account
    from launcher.runtime_directory import Claim
    from launcher.settings import Settings
    from launcher.supervisor.execution import Caller
    from launcher.whereabouts import Places

# `-I -S` knows no site-packages.  Appended, not inserted: nothing there may stand for a standard module.
_BOOT = """\
import sys
sys.path += filter(None, sys.argv[1:3])
from launcher.supervisor.main import main
main(int(sys.argv[3]))  # prod-run
"""


def launch(  # noqa: PLR0917  once from the command line, once from its daemon
    settings: Settings,
    environ: Mapping[str, str],
    tell: Callable[[str], None],
    how: Caller,
    readiness_fd: int = -1,
    caller: int = 0,
) -> NoReturn:
    """
    Become the supervisor; `tell` prints one line for people, `how` is for a plain command.

    A daemon's `caller` is the process that was started, and it waits at `readiness_fd`.

    Raises:
        UnavailableError: an address, directory or name cannot be had.
        SystemRefusedError: the kernel is too old, or refuses what prod-run cannot do without.
    """
    parent = os.getppid()
    kernel.require()
    account = privileges.account(settings)
    if settings.service.umask >= 0:
        os.umask(settings.service.umask)
    death_signal = settings.command.parent_death_signal
    if settings.command.words and command.is_alone(settings, environ):
        if settings.chdir:  # else it may be in a directory that is gone, as it might without prod-run
            whereabouts.enter(settings, environ, sys.argv[0])
        if death_signal:
            command.die_with_parent(death_signal, parent)
        command.run_alone(command.wishes(settings), how)
    places = whereabouts.enter(settings, environ, sys.argv[0])
    kernel.require_death_signal()
    undo: list[Callable[[], None]] = []
    try:
        started = caller or os.getpid()
        taken = take(settings, environ, places, account, tell, undo, started)
        if death_signal:
            command.die_with_parent(death_signal, parent)
        handoff = told(settings, environ, places, taken, how, pid=started)._replace(readiness_fd=readiness_fd)
        let_through((), ())  # nothing that our caller leaked is the app's
        zygote = interpreter.start(handoff, 1, minimal_environment(environ)) if handoff.is_prepared else None
        handoff_fd = kernel.sealed("prod-run-handoff", handoff._replace(zygote=zygote).encode())
        fds = (handoff.lock_fd, handoff.pidfile_fd, readiness_fd, handoff.environ_fd, handoff_fd, *(zygote or ())[2:])
        let_through(tuple(fd for fd in fds if fd >= 0), (*handoff.listeners, *handoff.stored, *handoff.introspect))
        replace_program(handoff_fd, environ)
    except BaseException:
        for step in undo:
            step()
        raise


class Taken(NamedTuple):
    """What the service has of the system."""

    listeners: tuple[Listener, ...]
    store: Store
    held: Held
    claim: Claim
    introspect: tuple[Listener, ...]
    token_file: str
    metrics: str  # the directory of the app's metrics


def take(  # noqa: PLR0917  one call
    settings: Settings,
    environ: Mapping[str, str],
    places: Places,
    account: Account | None,
    tell: Callable[[str], None],
    undo: list[Callable[[], None]],
    pid: int,
) -> Taken:
    """
    Open and make everything that may need a privilege, then drop all of them.

    Systemd speaks to the process `pid`.  What is to be done if the start comes to nothing is put into `undo`.

    Raises:
        UnavailableError: it cannot be had.
    """
    inherited = listeners.activated(environ, pid)
    store = Store(
        environ.get("NOTIFY_SOCKET", ""), listeners.stored(environ, pid), is_open=environ.get("FDSTORE", "0") != "0"
    )
    addresses = resolved((*settings.bind, *((settings.introspect,) if settings.introspect else ())))
    addresses = privileges.owned(addresses, account)
    acting_in = partial(privileges.acting_in, account)
    opened = listeners.open_all(addresses[: len(settings.bind)], inherited, acting_in, store)
    undo += [partial(listeners.close, listener) for listener in opened]
    if opened:
        store.drop_rest()
    if store.problem:
        tell(f"systemd keeps no socket over a restart: it cannot be told: {store.problem}")
    held = hold(settings, account, places.directory)
    if held.fd >= 0:
        undo.append(partial(pidfile.let_go, *held))
    uid = os.geteuid()
    candidates = runtime_directory.candidates(settings.name, environ, uid, account)
    claim = runtime_directory.claim(
        settings.name, candidates, uid, is_explicit=settings.is_name_explicit, account=account
    )
    introspect = introspect_listeners.open_all(
        addresses[len(settings.bind) :],
        claim.directory,
        tell,
        is_explicit=settings.is_introspect_explicit,
        acting_in=acting_in,
    )
    undo += [partial(listeners.close, listener) for listener in introspect]
    privileges.drop(account, os.environ)  # nothing after this line is root's
    token_file = introspect_listeners.token_file(settings, places.directory)
    has_metrics = introspect and not settings.command.words  # a command's own choice is left alone
    metrics = metrics_directory.make(claim.directory, environ) if has_metrics else metrics_directory.Made()
    for note in filter(None, (claim.note, metrics.note)):
        tell(note)
    return Taken(tuple(opened), store, held, claim, introspect, token_file, metrics.path)


def told(
    settings: Settings, environ: Mapping[str, str], places: Places, taken: Taken, how: Caller, *, pid: int
) -> Handoff:
    """Write down all that the supervisor has to know; systemd speaks to the process `pid`."""
    open_files = kernel.raise_open_files()
    kernel.become_subreaper()
    form = log_form(settings.log, settings.log_format, environ)
    is_command = bool(settings.command.words)
    is_observed = not is_command or settings.command.is_captured
    return Handoff(
        target=settings.target,
        arguments=settings.arguments,
        name=taken.claim.name,
        workers=settings.workers,
        max_surge=settings.max_surge,
        interface=settings.interface,
        preload="never" if is_command else settings.preload,
        restart=settings.restart,
        boot_timeout=settings.boot_timeout,
        drain_delay=settings.drain_delay,
        drain_timeout=settings.drain_timeout,
        stall_timeout=settings.stall_timeout,
        max_rss=settings.max_rss,
        max_age=settings.max_age,
        control=control_path(settings.control, taken.claim.directory, places.directory),
        notify_socket=environ.get("NOTIFY_SOCKET", ""),
        watchdog=watchdog(environ, pid),
        log=settings.log,
        log_kind=form.kind,
        log_colour=form.colour,
        log_priority=form.priority if is_observed else is_journal(2, environ.get("JOURNAL_STREAM", "")),
        log_level=settings.log_level,
        log_capture=settings.log_capture and is_observed,
        directory=places.directory,
        interpreter=places.interpreter,
        runtime_directory=taken.claim.directory,
        lock_fd=taken.claim.lock_fd,
        environ_fd=kernel.sealed("prod-run-environ", command.packed() if is_command else caller_environment()),
        open_files=open_files,
        umask=settings.service.umask,
        listeners=taken.listeners,
        config=settings.config,
        env_files=settings.env_files,
        secrets_dirs=settings.secrets_dirs,
        templates=settings.templates,
        template_check=settings.template_check,
        watch=settings.watch,
        is_factory=settings.is_factory,
        server_options=settings.server_options,
        ingress=settings.ingress,
        restart_of_web=settings.restart_of_web,
        is_workers_given=settings.is_workers_given,
        has_store=taken.store.is_open,
        stored=tuple(taken.store.rest),
        introspect=taken.introspect,
        introspect_token_file=taken.token_file,
        metrics_directory=taken.metrics,
        settings=tuple(settings.rows) if taken.introspect else (),
        pidfile=taken.held.path,
        pidfile_fd=taken.held.fd,
        before=settings.before,
        command=settings.command.words,
        is_prepared=not is_command or command.is_prepared(settings),
        is_observed=is_observed,
        signal_mask=how.mask,
        ignored_signals=how.ignored,
        rewrites=settings.command.rewrites,
        successes=settings.command.successes,
        export_secrets=settings.command.export_secrets,
    )


class Held(NamedTuple):
    """The pidfile and the descriptor that keeps it locked; -1: there is none."""

    path: str
    fd: int


def hold(settings: Settings, account: Account | None, directory: str) -> Held:
    """
    Take the pidfile, if there is to be one; where only root can write, it stays root's.

    Raises:
        UnavailableError: it is held, or not safe.
    """
    if not settings.service.pidfile:
        return Held("", -1)
    path = os.path.join(directory, settings.service.pidfile)
    called = privileges.where(settings, "pidfile")
    with privileges.acting_in(account, path):
        return Held(path, pidfile.take(path, called, privileges.trusted(account)))


def control_path(written: str, runtime_directory: str, directory: str) -> str:
    """Say where prod-ctl's socket is to be; empty: nowhere."""
    if written == "off":
        return ""
    if written:
        return os.path.join(directory, written)
    return f"{runtime_directory}/control.sock" if runtime_directory else ""


def watchdog(environ: Mapping[str, str], pid: int) -> float:
    """Return the seconds within which systemd wants a sign of life (sd_watchdog_enabled(3)); 0 if it does not."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdecimal() else 0.0


def log_form(log: str, chosen: str, environ: Mapping[str, str]) -> Form:
    """Say how log lines are to look; colours are for a terminal whose user did not refuse them (no-color.org)."""
    if log != "stdout":
        return Form(chosen if chosen in ("logfmt", "json") else "message")
    is_terminal = os.isatty(1)
    kind = chosen or ("console" if is_terminal else "logfmt")
    colour = kind == "console" and is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return Form(kind, colour, priority=is_journal(1, environ.get("JOURNAL_STREAM", "")))


def is_journal(fd: int, stream: str) -> bool:
    """Say whether this is the stream that systemd.exec(5) describes by $JOURNAL_STREAM: device:inode."""
    found = os.fstat(fd)
    return stream == f"{found.st_dev}:{found.st_ino}"


def minimal_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Keep what must be there before the first line runs."""
    return {name: value for name, value in environ.items() if is_kept(name)}


def caller_environment() -> bytes:
    """Write the complete environment as NUL-separated NAME=value."""
    return b"\0".join(b"%b=%b" % pair for pair in os.environb.items())


def let_through(descriptors: tuple[int, ...], opened: tuple[Listener, ...]) -> None:
    """Let 0 to 2, these descriptors and the listeners through the exec, and nothing that the caller leaked."""
    kept = {0, 1, 2, *descriptors, *(listener.fd for listener in opened)}
    try:
        present = {int(name) for name in os.listdir("/proc/self/fd")}
    except OSError:
        present = set(range(1024))  # without /proc; what a shell's default limit allows
    for fd in present | kept:
        try:
            os.set_inheritable(fd, fd in kept)
        except OSError:
            continue  # the one that listed /proc, or a number that is not open


def replace_program(handoff_fd: int, environ: Mapping[str, str]) -> NoReturn:
    """Exec the supervisor; signals stay blocked across, so that none is lost."""
    import launcher  # noqa: PLC0415

    package = os.path.dirname(os.path.dirname(os.path.abspath(launcher.__file__)))
    no_bytecode = ("-B",) if sys.dont_write_bytecode else ()
    # argv[0] must name the interpreter: from it CPython works out sys.executable and where its library is.
    arguments = (sys.executable, "-I", "-S", *no_bytecode, "-c", _BOOT, package, _folder_of_setproctitle())
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        os.execve(sys.executable, (*arguments, str(handoff_fd)), minimal_environment(environ))
    except OSError as error:
        raise kernel.refused(error, f"execve({sys.executable})") from None


def _folder_of_setproctitle() -> str:
    """Find the folder of its C part, which is all that is needed: the package around it imports `logging`."""
    from importlib.machinery import PathFinder  # noqa: PLC0415

    spec = PathFinder.find_spec("setproctitle")
    folders = spec.submodule_search_locations if spec else None
    return folders[0] if folders else ""  # titles are a comfort


def resolved(places: tuple[Address, ...]) -> tuple[Address, ...]:
    """Resolve host names; a resolver may take half a minute, and Ctrl-C must not wait for it."""
    # A blocked signal is kept for the supervisor.  Here the default action, death, is the right answer; but PID 1
    # has none (pid_namespaces(7)) and would lose the signal, so there it waits.
    deadly = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
    names_something = any(place.kind == "tcp" and not _is_numeric(place.host) for place in places)
    if not names_something or os.getpid() == 1:
        return listeners.resolve(places)
    before = [(number, signal.signal(number, signal.SIG_DFL)) for number in deadly]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, deadly)
    try:
        return listeners.resolve(places)
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, deadly)
        for number, handler in before:
            signal.signal(number, handler)


def _is_numeric(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdecimal()
