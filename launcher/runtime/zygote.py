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
from launcher.errors import Exit, LauncherError
from launcher.runtime import forkable, load, titles, worker
from launcher.runtime.start import FIRST_LISTENER, Order, Signals, flush, leave, receive, refuse, sendable
from launcher.runtime.worker import Birth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from launcher.runtime.load import Target

    Spawn = tuple[protocol.Message, list[int]]

AT_ONCE = 16  # workers of one process in the middle: the first of them waits for the last, and each has 5 descriptors


def run(order: Order) -> NoReturn:
    """Prepare the generation, then fork workers until told to end; in a worker, run it."""
    titles.show(order.name, f"zygote] generation {order.generation} importing")
    target = prepare(order)
    titles.show(order.name, f"zygote] generation {order.generation}")
    birth = _serve(order)
    # From here on this is a worker, on the shallow stack of the zygote's main function.
    worker.run_forked(order, target, birth)


def prepare(order: Order) -> Target:
    """Do everything that is done once for a generation, and report; never returns if it fails."""
    us = os.getpid()
    target = import_target(order)
    if os.getpid() != us:
        leave(0)  # the module forked, and this is the child: a second one must not answer orders
    found = forkable.obstacles()
    worker.announce_listeners(order)
    forkable.freeze()
    say(
        order,
        protocol.encode(
            "prepared",
            takes_worker=bool(target.worker_parameter),
            files=forkable.module_files(),
            unforkable=sendable(", ".join(found), 2000),
        ),
    )
    return target


def import_target(order: Order) -> Target:
    """Import the target; if it cannot be had, say why and end."""
    try:
        return load.load(order.target, order.interface)
    except LauncherError as error:
        refuse(order, error.exit_code, load.in_one_line(error), getattr(error, "detail", ""))


def say(order: Order, message: bytes) -> None:
    """Send to the supervisor; ends this process if that is impossible."""
    try:
        order.channel.send(message)
    except ConnectionError:
        leave(0)  # nobody is interested any more
    except OSError as error:
        is_closed = error.errno in (errno.EBADF, errno.ENOTSOCK)
        why = "the app closed descriptors that it did not open" if is_closed else error.strerror
        print(f"cannot speak to the supervisor: {why}", file=sys.stderr)
        leave(Exit.SOFTWARE if is_closed else Exit.OS_ERROR)


def _serve(order: Order) -> Birth:
    """Do what the supervisor orders; returns only in a new worker."""
    readable = select.poll()
    readable.register(order.channel, select.POLLIN)
    while True:
        spawns: list[Spawn] = []
        message, descriptors = receive(order.channel)
        while message is not None and message.verb == "spawn":
            spawns.append((message, descriptors))
            if len(spawns) == AT_ONCE or not readable.poll(0):
                break
            message, descriptors = receive(order.channel)
        birth = _spawn(order, spawns) if spawns else None
        if birth:
            return birth
        if message is None or message.verb == "end":
            leave(0)
        if message.verb == "close-listeners":
            for index in range(len(order.listener_names)):
                _close(FIRST_LISTENER + index)  # the app may have closed it


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
