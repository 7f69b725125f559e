"""
The program that init, systemd or a container engine sees.

Owns the assembly: what was handed over, the signals, the machine, its hands and the loop.  Must never
import the app, a third-party module other than setproctitle, or anything that starts a thread.
"""

from __future__ import annotations

import os
import sys
import time

from launcher import handoff as handoffs
from launcher.errors import Exit
from launcher.lean_posix import signal
from launcher.signals import ASK_OF
from launcher.supervisor import terminal
from launcher.supervisor.arrivals import Arrivals
from launcher.supervisor.carry_out import Hands
from launcher.supervisor.control import Control
from launcher.supervisor.journal import Journal
from launcher.supervisor.loop import Clock, Loop, Watcher
from launcher.supervisor.machine import Machine
from launcher.supervisor.pidfile import let_go
from launcher.supervisor.policy import Policy
from launcher.supervisor.readiness import Readiness
from launcher.supervisor.unix_sockets import unlink_if_ours
from launcher.supervisor.unobserved import Unobserved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from launcher.handoff import Handoff
    from launcher.supervisor.observer import Observer


def main(fd: int) -> NoReturn:
    """Supervise until told to end; `fd` is the memfd with the handoff."""
    handoff = readiness = control = loop = None
    reason = ""
    try:
        handoff = _read(fd)
        readiness = Readiness(handoff.readiness_fd) if handoff.readiness_fd >= 0 else None
        loop, control = _assemble(handoff, readiness)
        code = loop.run()
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        reason = f"the operating system refused: {what}{error.strerror or error}"
        _say(reason)
        code = Exit.OS_ERROR
    except Exception as error:  # noqa: BLE001  a fault of ours, too, leaves nobody and nothing behind
        sys.__excepthook__(type(error), error, error.__traceback__)
        reason = f"ended by a fault of its own ({type(error).__name__}: {error}): please report it with the lines above"
        _say(reason)
        code = Exit.SOFTWARE
    if loop and reason:
        loop.abandon()
    for listener in (*handoff.listeners, *handoff.introspect) if handoff else ():
        unlink_if_ours(listener)
    if control:
        control.close()
    if handoff:
        _clear_away(handoff)
    if handoff and handoff.command:
        terminal.is_ours()  # takes it back from a command that is over
    if handoff and handoff.pidfile_fd >= 0:
        let_go(handoff.pidfile, handoff.pidfile_fd)
    if readiness:
        readiness.over(code, reason)
    # Nothing has to be closed or collected: the kernel is quicker.
    os._exit(code)


def _read(fd: int) -> Handoff:
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    os.close(fd)
    handoff = handoffs.decode(data)
    ends = handoff.zygote[2:] if handoff.zygote else ()
    sockets = (listener.fd for listener in (*handoff.listeners, *handoff.stored, *handoff.introspect))
    for inherited in (handoff.environ_fd, handoff.lock_fd, handoff.pidfile_fd, handoff.readiness_fd, *sockets, *ends):
        if inherited >= 0:
            os.set_inheritable(inherited, False)
    return handoff


def _assemble(handoff: Handoff, readiness: Readiness | None) -> tuple[Loop, Control | None]:
    watcher = Watcher()
    clock = Clock()
    journal = Journal(_observer(handoff, watcher, clock), handoff.log_level)
    if readiness:
        journal.listeners.append(readiness.hear)
    hands = Hands(handoff, watcher, journal, clock)
    policy = Policy(
        workers=handoff.workers,
        max_surge=handoff.max_surge,
        preload=handoff.preload,
        restart=handoff.restart,
        boot_timeout=handoff.boot_timeout,
        drain_delay=handoff.drain_delay,
        drain_timeout=handoff.drain_timeout,
        stall_timeout=handoff.stall_timeout,
        max_rss=handoff.max_rss,
        max_age=handoff.max_age,
        restart_of_web=handoff.restart_of_web,
        is_workers_given=handoff.is_workers_given,
        listens=bool(handoff.listeners),
        before=handoff.before,
        is_command=bool(handoff.command),
        is_prepared=handoff.is_prepared,
        watch=handoff.watch,
        rewrites=handoff.rewrites,
        successes=handoff.successes,
    )
    machine = Machine(policy, time.monotonic(), _chance)
    if readiness:
        readiness.is_stopping = lambda: machine.stop is not None
    if handoff.introspect:
        _introspect(handoff, machine, hands, clock)
    journal.log("info", "started", (("name", handoff.name), ("target", _what(handoff)), ("pid", os.getpid())))
    for listener in (*handoff.listeners, *handoff.introspect[:1]):
        journal.log("info", "listening", (("name", listener.name), ("address", listener.address)))
    numbers = _of_commands() if handoff.command else tuple(ASK_OF)
    arrivals = Arrivals((*numbers, signal.SIGCHLD), in_order=bool(handoff.command))
    loop = Loop(machine, hands, watcher, clock, arrivals, _title_setter())
    control = None
    if handoff.control:
        private = next((listener.path for listener in handoff.introspect if listener.path), "")
        control = Control(handoff.control, machine, watcher, clock.now, private=private)
        _open_control(control, journal)
    return loop, control


def _observer(handoff: Handoff, watcher: Watcher, clock: Clock) -> Observer | Unobserved:
    if handoff.is_observed:
        from launcher.supervisor.observer import Observer  # noqa: PLC0415  what a command does without, mostly

        return Observer(handoff, watcher, clock.now, _chance)
    return Unobserved(priority=handoff.log_priority)


def _of_commands() -> tuple[int, ...]:
    from launcher.supervisor.copies import PASSED_ON  # noqa: PLC0415  only commands pay for it

    return PASSED_ON


def _what(handoff: Handoff) -> str:
    return handoff.target or " ".join(handoff.command)


def _introspect(handoff: Handoff, machine: Machine, hands: Hands, clock: Clock) -> None:
    from launcher.supervisor.history import History  # noqa: PLC0415  --introspect off costs nothing
    from launcher.supervisor.introspection import Introspection, about  # noqa: PLC0415

    observer = hands.observer
    assert not isinstance(observer, Unobserved)  # noqa: S101  who asks for the one asks for the other
    observer.introspection = Introspection(
        machine,
        observer,
        clock,
        History(),
        about(handoff, time.monotonic()),
        listeners=lambda: hands.listeners,
        places=lambda: hands.places,
    )
    hands.journal.listeners.append(observer.introspection.hear)


def _open_control(control: Control, journal: Journal) -> None:
    try:
        control.open()
    except OSError as error:
        # A read-only file system costs this socket and nothing else.
        journal.log("warning", "no control socket", (("path", control.path), ("reason", error.strerror or str(error))))
    else:
        journal.listeners.append(control.tell)


def _clear_away(handoff: Handoff) -> None:
    """Remove the app's metrics, and a directory called NAME-PID: nobody will ever come for that one again."""
    try:
        if handoff.metrics_directory:
            from launcher import metrics_directory  # noqa: PLC0415  at the end, and not before

            metrics_directory.remove(handoff.metrics_directory)
        if handoff.runtime_directory.endswith(f"-{os.getpid()}"):
            os.unlink(f"{handoff.runtime_directory}/lock")
            os.rmdir(handoff.runtime_directory)
    except OSError:
        pass  # the next start does the one, and the other may lie in root's directory (--user)


def _chance() -> float:
    """Return a number from 0 to 1; `random` would cost a megabyte."""
    return int.from_bytes(os.urandom(2), "little") / 0xFFFF


def _title_setter() -> Callable[[str], None]:
    try:
        from _setproctitle import setproctitle  # noqa: PLC0415  a title is a courtesy
    except ImportError:
        return lambda _: None
    setter: Callable[[str], None] = setproctitle
    return setter


def _say(text: str) -> None:
    print(f"prod-run: {text}", file=sys.stderr, flush=True)
