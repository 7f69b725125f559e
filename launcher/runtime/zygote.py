"""
The process that imports an app once and forks its workers.

Owns PREPARING (DESIGN §3.5) and the fork.  Must never start a thread, never run the target, and never
outlive the supervisor.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import warnings

from launcher import protocol
from launcher.errors import ConfigError, Exit
from launcher.lean_posix import socket
from launcher.runtime import forkable, records, shown, titles, worker
from launcher.runtime import prepare as preparing
from launcher.runtime.load import CALLABLE
from launcher.runtime.moved import Files
from launcher.runtime.start import Order, Signals, flush, leave, receive, refuse, sendable
from launcher.runtime.worker import Birth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from launcher.runtime.load import Target
    from launcher.runtime.prepare import Prepared
    from launcher.runtime.watching import Watched

    Spawn = tuple[protocol.Message, list[int]]

AT_ONCE = 16  # workers of one process in the middle: the first of them waits for the last, and each has 5 descriptors


def run(order: Order) -> NoReturn:
    """Prepare the generation, then fork workers until told to end; in a worker, run it."""
    titles.show(order.name, f"zygote] generation {order.generation} importing")
    files = Files()
    try:
        prepared = prepare(order, files)
        titles.show(order.name, f"zygote] generation {order.generation}")
        order, birth = _serve(order, prepared, files)
    except _Unheard as unheard:
        files.end()
        leave(unheard.code)
    # From here on this is a worker, on the shallow stack of the zygote's main function.
    worker.run_forked(order, prepared, birth)


class _Unheard(Exception):  # noqa: N818  not an error of anybody's
    """Nobody hears us: this process is to end with `code`."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


def prepare(order: Order, files: Files) -> Prepared:
    """Do everything that is done once for a generation, and report; never returns if it fails."""
    recorded = None
    if order.inputs:
        from launcher.runtime import snapshot  # noqa: PLC0415  only where something was loaded

        recorded = snapshot.decode(order.inputs)
    prepared = preparing.prepare(order.wanted, recorded)
    target = prepared.target
    if prepared.problems or (target is None and not order.wanted.is_command):
        refuse(order, prepared.exit_code, prepared.reason(), _detail(prepared))
    for warning in () if recorded else prepared.warnings:
        records.say("warning", f"{warning.name}: {warning.reason}")
    found = forkable.obstacles() if target else []
    if target:
        worker.announce_listeners(order)
    bind, workers = _of_web(order, target) if target else ("", 0)
    inputs = _sealed(order, prepared) if (prepared.snapshot or not target) and not recorded else -1
    version = records.learn_version(order.wanted.target) if target else ""
    records.protect(prepared)
    forkable.freeze()
    if prepared.staged:
        problems = files.move(prepared.staged)
        if problems:
            failed = prepared._replace(problems=tuple(problems))
            refuse(order, Exit.CONFIG, failed.reason(), _detail(failed))
    files.private, files.paths = prepared.private, tuple(prepared.templates.values())
    message = protocol.encode(
        "prepared",
        takes_worker=bool(target and target.worker_parameter),
        files=prepared.files,
        unforkable=sendable(", ".join(found), 2000),
        shared=sendable(", ".join(forkable.shared() if target else ()), 2000),
        zygote_stays=bool(prepared.templates) or order.watch,
        version=version,
        interface=target.interface if target else CALLABLE,
        bind=bind,
        workers=workers,
        placed=tuple(item.path for item in files.placed),
        kept=tuple(item.kept for item in files.placed),
    )
    if config := shown.message(prepared):
        say(order, config)
    say(order, message, inputs)
    return prepared


def _of_web(order: Order, target: Target) -> tuple[str, int]:
    """Return the address and the number of workers that a web application has if nobody says; empty and 0: none."""
    if target.interface == CALLABLE:
        return "", 0
    from launcher.runtime import servers  # noqa: PLC0415  loaded with the application

    try:
        return "" if order.listener_names else servers.address(os.environ), servers.workers(os.environ)
    except ConfigError as error:
        refuse(order, error.exit_code, error.problems[0].sentence)


def _detail(prepared: Prepared) -> str:
    return prepared.report() if len(prepared.problems) > 1 else prepared.detail


def _sealed(order: Order, prepared: Prepared) -> int:
    from launcher.runtime import snapshot  # noqa: PLC0415  only where something was loaded

    try:
        if order.wanted.is_command:
            from launcher.runtime import exporting  # noqa: PLC0415  only commands need it

            return snapshot.sealed(exporting.environment(prepared.exports))
        return snapshot.sealed(prepared.snapshot.encode()) if prepared.snapshot else -1
    except OSError as error:
        refuse(order, Exit.OS_ERROR, f"the operating system refused memfd_create(2): {error.strerror}")


def say(order: Order, message: bytes, descriptor: int = -1) -> None:
    """
    Send to the supervisor.

    Raises:
        _Unheard: that is impossible.
    """
    packed = descriptor.to_bytes(4, sys.byteorder, signed=True)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)] if descriptor >= 0 else []
    try:
        order.channel.sendmsg([message], ancillary)
        if descriptor >= 0:
            os.close(descriptor)
    except ConnectionError:
        raise _Unheard(Exit.DONE) from None  # nobody is interested any more
    except OSError as error:
        is_closed = error.errno in (errno.EBADF, errno.ENOTSOCK)
        why = "the app closed descriptors that it did not open" if is_closed else error.strerror
        records.say("error", f"cannot speak to the supervisor: {why}")
        raise _Unheard(Exit.SOFTWARE if is_closed else Exit.OS_ERROR) from None


def _serve(order: Order, prepared: Prepared, files: Files) -> tuple[Order, Birth]:
    """Do what the supervisor orders; returns only in a new worker, with what the order has become."""
    readable = select.poll()
    readable.register(order.channel, select.POLLIN)
    watched: Watched | None = None
    while True:
        watched = _mind(order, watched) if watched else None
        spawns, message, descriptors = _take_orders(order, readable)
        birth = _spawn(order, spawns) if spawns else None
        if birth:
            files.close()
            if watched:
                watched.close()
            return order, birth
        if message is None or message.verb == "end":
            files.end()
            leave(0)
        if message.verb == "committed":
            files.confirm()
            watched = watched or (_watch(order, prepared) if order.watch else None)
        if message.verb == "restore":
            files.restore(message.texts("placed"), message.texts("kept"), message.seconds("until"))
            say(order, protocol.encode("restored", errand=message.seconds("until") if message.texts("placed") else 0.0))
        if message.verb == "close-listeners":
            for fd in order.listener_fds:
                _close(fd)  # the app may have closed it
        if message.verb == "listeners":
            # Wherever they are: the app may have the lower numbers by now, and nobody looks for these by number.
            order = order._replace(listener_names=message.texts("listeners"), listener_fds=tuple(descriptors))


def _take_orders(order: Order, readable: select.poll) -> tuple[list[Spawn], protocol.Message | None, list[int]]:
    """Wait for an order; return the workers that are ordered by now, and the last message with its descriptors."""
    spawns: list[Spawn] = []
    message, descriptors = receive(order.channel)
    while message is not None and message.verb == "spawn":
        spawns.append((message, descriptors))
        if len(spawns) == AT_ONCE or not readable.poll(0):
            break
        message, descriptors = receive(order.channel)
    return spawns, message, descriptors


def _mind(order: Order, watched: Watched) -> Watched | None:
    """Pass on what changed until the supervisor says something; None if nobody watches any more."""
    while not _is_addressed(order, watched):
        paths = watched.read()
        if paths is None:
            records.say("error", "the process of --watch ended: nothing is watched until the next reload")
            watched.close()
            return None
        if paths:
            say(order, protocol.encode("changed", paths=sendable(", ".join(paths), 2000)))
    return watched


def _is_addressed(order: Order, watched: Watched) -> bool:
    """Wait for the supervisor or for what is watched; say whether it is the supervisor."""
    either = select.poll()
    either.register(order.channel, select.POLLIN)
    either.register(watched, select.POLLIN)
    return any(fd == order.channel.fileno() for fd, _ in either.poll())


def _watch(order: Order, prepared: Prepared) -> Watched | None:
    """Look from now on, as the generation that serves, at what it was made of."""
    from launcher.runtime import watching  # noqa: PLC0415  only --watch needs it

    known = prepared.snapshot.files if prepared.snapshot else {}
    paths = (*known, *prepared.reads)
    if not paths:
        records.say("warning", "--watch: there is no env file, secret file or template to watch")
        return None
    try:
        return watching.start(order, paths, known)
    except OSError as error:
        records.say("error", f"--watch: nothing is watched until the next reload: {error.strerror}")
        return None


def _spawn(order: Order, spawns: list[Spawn]) -> Birth | None:
    """
    Fork workers, and answer each order whatever happens.

    Returns:
        In a new worker its birth, in the zygote None.
    """
    flush()
    try:
        mine, answers = _fork_twice(len(spawns), order)
    except OSError as error:
        mine, answers = -1, [-(error.errno or 0)] * len(spawns)
    for index, (message, descriptors) in enumerate(spawns):
        ticket = message.number("ticket")
        if index != mine:
            for fd in descriptors:
                os.close(fd)
        if mine >= 0:
            continue
        if answers[index] > 0:
            say(order, protocol.encode("spawned", ticket=ticket, pid=answers[index]))
        else:
            why = os.strerror(-answers[index]) if answers[index] else "the process in the middle was killed"
            say(order, protocol.encode("spawn-failed", ticket=ticket, reason=f"the zygote cannot fork: {why}"))
    return Birth.of(*spawns[mine]) if mine >= 0 else None


def _fork_twice(count: int, order: Order) -> tuple[int, list[int]]:
    """
    Fork so that the supervisor becomes the parent of all: a subreaper adopts only orphans.

    One process in the middle makes them all, so that each costs one fork, not two.

    Returns:
        In the zygote -1 and for each the PID, or the negative error number, or 0; in a new process its index.

    Raises:
        OSError: there are none.
    """
    reading, writing = os.pipe()
    middle = -1
    try:
        middle = _plain_fork()
        if middle == 0:
            os.close(reading)
            # Before there is anybody else, so that nobody ever takes a fork for its zygote.
            titles.show(order.name, f"spare] generation {order.generation}")
            return _fork_and_end(count, writing), []
        os.close(writing)
        writing = -1
        text = b""
        # Not to its end: the new processes hold it too, until they come to run.
        while text.count(b"\n") < count and (piece := os.read(reading, 4096)):
            text += piece
    finally:
        if middle != 0:
            for fd in (reading, writing):
                if fd >= 0:
                    os.close(fd)
    try:
        os.waitpid(middle, 0)
    except ChildProcessError:
        pass  # the app's own SIGCHLD handler was quicker
    answers = [int(line) for line in text.split()]
    return -1, answers + [0] * (count - len(answers))


def _fork_and_end(count: int, writing: int) -> int:
    """Fork again and end, with a line for each on the pipe: its PID, or the negative error number."""
    for index in range(count):
        try:
            child = _plain_fork()
        except OSError as error:
            child = -(error.errno or 0)
        if child == 0:
            os.close(writing)
            return index
        try:
            os.write(writing, b"%d\n" % child)
        except OSError:
            break  # the zygote is gone
    os._exit(0)  # whatever happens, there must not be two zygotes


def _plain_fork() -> int:
    Signals.is_our_fork = True
    try:
        if sys.version_info < (3, 12):
            return os.fork()
        with warnings.catch_warnings():
            # 3.12 warns of threads, which were looked for already and are the user's decision (--preload always).
            warnings.simplefilter("ignore", DeprecationWarning)
            return os.fork()
    finally:
        Signals.is_our_fork = False


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        pass
