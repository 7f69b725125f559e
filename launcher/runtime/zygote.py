"""
The process that imports an app once and forks its workers.

Owns PREPARING (DESIGN §3.5) and the fork.  Must never start a thread, never run the target, and never
outlive the supervisor.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, NoReturn

from launcher import protocol
from launcher.errors import LauncherError
from launcher.runtime import forkable, load, titles
from launcher.runtime.start import Order, receive, refuse

if TYPE_CHECKING:
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

    target = import_target(order)
    found = forkable.obstacles()
    channel = order.channel
    forkable.freeze()
    channel.send(
        protocol.encode(
            "prepared",
            takes_worker=bool(target.worker_parameter),
            files=forkable.module_files(),
            unforkable=protocol.shorten(", ".join(found), 2000),
        )
    )
    return target


def import_target(order: Order) -> Target:
    """Import the target; if it cannot be had, say why and end."""
    try:
        return load.load(order.target)
    except LauncherError as error:
        reason = load.in_one_line(error)
        refuse(order.channel, error.exit_code, reason, getattr(error, "detail", ""))


def _serve(order: Order) -> Birth:
    """Fork on request; returns only in a new worker."""
    while True:
        message, descriptors = receive(order.channel)
        if message is None or message.verb == "end":
            os._exit(0)
        if message.verb == "close-listeners":
            for index in range(len(order.listener_names)):
                os.close(3 + index)
        elif message.verb == "spawn":
            birth = _fork(order, message, descriptors)
            if birth:
                return birth
            for fd in descriptors:
                os.close(fd)


def _fork(order: Order, message: protocol.Message, descriptors: list[int]) -> Birth | None:
    """
    Fork twice, so that the supervisor is the parent: a subreaper adopts only orphans.

    Returns:
        In the new worker its birth, in the zygote None.
    """
    from launcher.runtime.worker import Birth  # noqa: PLC0415

    ticket = message.number("ticket")
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    try:
        middle = _plain_fork()
    except OSError as error:
        os.close(reading)
        os.close(writing)
        order.channel.send(protocol.encode("spawn-failed", ticket=ticket, reason=f"fork: {error.strerror}"))
        return None
    if middle == 0:
        os.close(reading)
        try:
            child = _plain_fork()
        except OSError as error:
            os.write(writing, f"fork: {error.strerror}".encode())
            os._exit(1)
        if child:
            os.write(writing, b"%d" % child)
            os._exit(0)
        os.close(writing)
        return Birth.of(message, descriptors)
    os.close(writing)
    answer = os.read(reading, 200)
    os.close(reading)
    os.waitpid(middle, 0)
    if answer.isdigit():
        order.channel.send(protocol.encode("spawned", ticket=ticket, pid=int(answer)))
    else:
        reason = answer.decode("utf-8", "replace") or "the forked process was killed"
        order.channel.send(protocol.encode("spawn-failed", ticket=ticket, reason=reason))
    return None


def _plain_fork() -> int:
    with warnings.catch_warnings():
        # 3.12 warns of threads, which were looked for already and are the user's decision (--preload always).
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
