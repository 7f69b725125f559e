"""
The process that imports an app once and forks its workers.

Owns PREPARING (DESIGN §3.5) and the fork.  Must never start a thread, never run the target, and never
outlive the supervisor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from typing import TYPE_CHECKING

from launcher import protocol
from launcher.errors import Exit, LauncherError
from launcher.runtime import forkable, load, titles
from launcher.runtime.start import FIRST_LISTENER, Order, Signals, flush, leave, receive, refuse, sendable

if TYPE_CHECKING:
    from typing import NoReturn

    from launcher.runtime.load import Target
    from launcher.runtime.worker import Birth


def run(order: Order) -> NoReturn:
    """Prepare the generation, then fork workers until told to end; in a worker, run it."""
    titles.show(order.name, f"zygote] generation {order.generation} importing")
    target = prepare(order)
    titles.show(order.name, f"zygote] generation {order.generation}")
    birth = _serve(order)
    from launcher.runtime import worker  # noqa: PLC0415  already loaded: before the freeze, by prepare()

    # From here on this is a worker, on the shallow stack of the zygote's main function.
    worker.run_forked(order, target, birth)


def prepare(order: Order) -> Target:
    """Do everything that is done once for a generation, and report; never returns if it fails."""
    import launcher.runtime.worker  # noqa: F401, PLC0415  so that no worker imports it anew

    us = os.getpid()
    target = import_target(order)
    if os.getpid() != us:
        leave(0)  # the module forked, and this is the child: a second one must not answer orders
    found = forkable.obstacles()
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
    """Fork on request; returns only in a new worker."""
    while True:
        message, descriptors = receive(order.channel)
        if message is None or message.verb == "end":
            leave(0)
        if message.verb == "close-listeners":
            for index in range(len(order.listener_names)):
                with contextlib.suppress(OSError):  # the app may have closed it
                    os.close(FIRST_LISTENER + index)
        elif message.verb == "spawn":
            birth = _spawn(order, message, descriptors)
            if birth:
                return birth
            for fd in descriptors:
                os.close(fd)


def _spawn(order: Order, message: protocol.Message, descriptors: list[int]) -> Birth | None:
    """
    Fork a worker, and answer the order whatever happens.

    Returns:
        In the new worker its birth, in the zygote None.
    """
    from launcher.runtime.worker import Birth  # noqa: PLC0415

    ticket = message.number("ticket")
    flush()
    try:
        pid = _fork_twice()
    except OSError as error:
        say(order, protocol.encode("spawn-failed", ticket=ticket, reason=f"the zygote cannot fork: {error.strerror}"))
        return None
    if pid == 0:
        return Birth.of(message, descriptors)
    say(order, protocol.encode("spawned", ticket=ticket, pid=pid))
    return None


def _fork_twice() -> int:
    """
    Fork so that the supervisor becomes the parent: a subreaper adopts only orphans.

    Returns:
        The PID of the grandchild, in the grandchild itself 0.

    Raises:
        OSError: there is none.
    """
    reading, writing = os.pipe()
    middle = -1
    try:
        middle = _plain_fork()
        if middle == 0:
            os.close(reading)
            return _fork_and_end(writing)
        os.close(writing)
        writing = -1
        answer = os.read(reading, 32)
    finally:
        if middle != 0:
            for fd in (reading, writing):
                if fd >= 0:
                    os.close(fd)
    with contextlib.suppress(ChildProcessError):  # the app's own SIGCHLD handler was quicker
        os.waitpid(middle, 0)
    number = int(answer or b"0")
    if number <= 0:
        raise OSError(-number, os.strerror(-number) if number else "the process in the middle was killed")
    return number


def _fork_and_end(writing: int) -> int:
    """Fork again and end, with a word on the pipe: the PID, or the negative error number."""
    try:
        child = _plain_fork()
    except OSError as error:
        child = -(error.errno or 0)
    if child == 0:
        os.close(writing)
        return 0
    with contextlib.suppress(OSError):  # whatever happens, there must not be two zygotes
        os.write(writing, b"%d" % child)
    os._exit(0)


def _plain_fork() -> int:
    Signals.is_our_fork = True
    try:
        with warnings.catch_warnings():
            # 3.12 warns of threads, which were looked for already and are the user's decision (--preload always).
            warnings.simplefilter("ignore", DeprecationWarning)
            return os.fork()
    finally:
        Signals.is_our_fork = False
