"""
A worker: from its birth to its exit code.

Owns the adoption by the supervisor, the descriptors and signals a worker begins with, and the call of
the target.  Must never catch what the target raises except to say it and turn it into an exit code.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from launcher import protocol
from launcher.api import Link, Worker
from launcher.errors import LauncherError
from launcher.runtime import load, titles
from launcher.runtime.start import FIRST_LISTENER, Order, die_with, ignore, receive

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from launcher.runtime.load import Target

_BY_SIGTERM = 0  # exit code of a target that was asked to end


class Birth(NamedTuple):
    """What a worker is given with the spawn order."""

    generation: int
    channel: socket.socket
    stdout: int
    stderr: int
    stacks: int  # where the stacks of this process are written when asked for
    heartbeat: int  # memfd of the shared page
    heartbeat_offset: int
    notify_address: str

    @classmethod
    def of(cls, message: protocol.Message, descriptors: list[int]) -> Birth:
        """Read a spawn order."""
        channel, stdout, stderr, stacks, heartbeat = descriptors
        return cls(
            message.number("generation"),
            socket.socket(fileno=channel),
            stdout,
            stderr,
            stacks,
            heartbeat,
            message.number("heartbeat_offset"),
            message.text("notify_address"),
        )


def run_forked(order: Order, target: Target, birth: Birth) -> NoReturn:
    """Live as a worker that a zygote forked."""
    _wait_for_adoption(order.supervisor)
    die_with(order.supervisor)
    os.setpgid(0, 0)
    order.channel.close()
    _run(order, lambda: target, birth)


def run_anew(order: Order) -> NoReturn:
    """Live as a worker in a fresh interpreter that imports for itself."""
    message, descriptors = receive(order.channel)
    if message is None:
        os._exit(0)

    def imported() -> Target:
        try:
            return load.load(order.target)
        except LauncherError as error:
            print(getattr(error, "detail", "") or load.in_one_line(error), file=sys.stderr, flush=True)
            raise SystemExit(1) from None

    _run(order, imported, Birth.of(message, descriptors))


def _run(order: Order, target: Callable[[], Target], birth: Birth) -> NoReturn:
    _take_stdio(birth)
    birth.channel.send(protocol.encode("hello", pid=os.getpid()))
    message, _ = receive(birth.channel)
    if message is None or message.verb != "go":
        os._exit(0)  # nobody needs it any more, and no app code has run in it
    slot = message.number("slot")
    _announce_listeners(order, birth)
    page = mmap.mmap(birth.heartbeat, 0)
    os.close(birth.heartbeat)
    link = Link(birth.channel)
    worker: Worker[Any] = Worker(
        slot=slot,
        generation=birth.generation,
        sockets={name: socket.socket(fileno=FIRST_LISTENER + i) for i, name in enumerate(order.listener_names)},
        link=link,
        heartbeat=(page, birth.heartbeat_offset),
    )
    titles.show(order.name, f"worker {slot}] generation {birth.generation}")
    sys.exit(_call(target(), worker, link))


def _call(target: Target, worker: Worker[Any], link: Link) -> int:
    """Run the target to its end and return the exit code."""
    if not target.worker_parameter:
        link.say("entered")
    arguments = {target.worker_parameter: worker} if target.worker_parameter else {}
    try:
        if target.is_async:
            result = _call_async(target, arguments, link)
        else:
            _on_sigterm(link, None if target.worker_parameter else _exit)
            result = target.function(**arguments)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001  whatever it is, it is the app's, and ends here
        print(load.cut_traceback(error), file=sys.stderr, flush=True)
        return 1
    return result if isinstance(result, int) else 0


def _call_async(target: Target, arguments: dict[str, Any], link: Link) -> object:
    import asyncio  # noqa: PLC0415  only async apps pay for it

    async def call() -> object:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        cancel = None
        if not target.worker_parameter and task:
            cancel = lambda: loop.call_soon_threadsafe(task.cancel)  # noqa: E731
        _on_sigterm(link, cancel)
        return await target.function(**arguments)

    try:
        return asyncio.run(call())
    except asyncio.CancelledError:
        if link.stopping.is_set():
            return _BY_SIGTERM
        raise


def _on_sigterm(link: Link, then: Callable[[], object] | None) -> None:
    """Have SIGTERM set `stopping`, then end the target if it does not look at that."""
    former = signal.getsignal(signal.SIGTERM)

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        link.listen()  # the order with the reason came before the signal
        link.stopping.set()
        if callable(former) and former is not ignore:
            former(number, frame)  # installed by the app when it was imported
        elif then:
            then()

    signal.signal(signal.SIGTERM, on_sigterm)

    def forget() -> None:
        # The app's own children end by SIGTERM, as multiprocessing expects.
        if signal.getsignal(signal.SIGTERM) is on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    os.register_at_fork(after_in_child=forget)


def _exit() -> NoReturn:
    raise SystemExit(_BY_SIGTERM)


def _wait_for_adoption(supervisor: int) -> None:
    """Wait until the process in the middle is gone and the supervisor is our parent."""
    while (parent := os.getppid()) != supervisor:
        # PDEATHSIG must not be set before: it would fire at the end of the process in the middle.
        with contextlib.suppress(ProcessLookupError):
            middle = os.pidfd_open(parent)
            poll = select.poll()
            poll.register(middle, select.POLLIN)
            if os.getppid() == parent:
                poll.poll()  # readable once it is a zombie, and then its children have been given away
            os.close(middle)


def _take_stdio(birth: Birth) -> None:
    for fd, place in ((birth.stdout, 1), (birth.stderr, 2)):
        os.dup2(fd, place)
        os.close(fd)


def _announce_listeners(order: Order, birth: Birth) -> None:
    """Say in the environment what sd_listen_fds(3) and sd_notify(3) look for."""
    if order.listener_names:
        os.environ["LISTEN_FDS"] = str(len(order.listener_names))
        os.environ["LISTEN_FDNAMES"] = ":".join(order.listener_names)
        os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["NOTIFY_SOCKET"] = birth.notify_address
