"""
A worker: from its birth to its exit code.

Owns the adoption by the supervisor, the descriptors and signals a worker begins with, and the call of
the target.  Must never catch what the target raises except to say it and turn it into an exit code.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import select
import sys

from launcher import libc, protocol
from launcher.api import Worker
from launcher.errors import Exit
from launcher.lean import NamedTuple
from launcher.lean_posix import signal, socket
from launcher.link import Link
from launcher.runtime import multiprocess, records, titles
from launcher.runtime import prepare as preparing
from launcher.runtime.start import Order, Signals, die_with, ignore, leave, receive, sendable
from launcher.signals import STACKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, NoReturn

    from launcher.runtime.load import Target
    from launcher.runtime.prepare import Prepared

_BY_SIGTERM = 0  # exit code of a target that was asked to end
_MOST_REASON, _MOST_DETAIL = 500, 16_000  # characters in one message


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
    mark: str  # of this worker's own records; empty: nobody reads marks

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
            message.text("mark"),
        )


def run_forked(order: Order, prepared: Prepared, birth: Birth) -> NoReturn:
    """Live as a worker that a zygote forked."""
    _run(order, lambda: prepared, birth)


def run_anew(order: Order) -> NoReturn:
    """Live as a worker in a fresh interpreter that imports for itself."""
    message, descriptors = receive(order.channel)
    if message is None:
        os._exit(0)
    # What a fork is sent, a fresh interpreter has had from its start.
    own = [os.dup(fd) for fd in (order.channel.fileno(), 1, 2)]
    birth = Birth.of(message, [*own, *descriptors])

    def imported() -> Prepared:
        recorded = None
        if order.inputs:
            from launcher.runtime import snapshot  # noqa: PLC0415  only where something was loaded

            recorded = snapshot.decode(order.inputs)
        prepared = preparing.prepare(order.wanted, recorded)
        if prepared.problems:
            detail = (len(prepared.problems) == 1 and prepared.detail) or prepared.report()
            print(detail, file=sys.stderr, flush=True)
            _say(birth, protocol.encode("raised", **_told(prepared.reason(), detail)))
            raise SystemExit(1)
        _compare(birth, message.texts("code"), prepared.files)
        return prepared

    _run(order, imported, birth)


def _compare(birth: Birth, code: tuple[str, ...], files: str) -> None:
    """End this process if it imported other files than the first workers of its generation; one of those tells."""
    if not code:
        _say(birth, protocol.encode("imported", files=files))
    elif files not in code:
        print(f"code on disk differs from what generation {birth.generation} runs: reload", file=sys.stderr, flush=True)
        raise SystemExit(1)


def _run(order: Order, prepare: Callable[[], Prepared], birth: Birth) -> NoReturn:
    try:
        if not order.is_worker:  # but a zygote's fork
            _wait_for_adoption(order.supervisor, birth.channel)
            die_with(order.supervisor)
            os.setpgid(0, 0)
        else:
            announce_listeners(order)
        order.channel.close()  # a worker has one of its own
        _say_hello(birth)
        records.become(-1, birth.mark)
        multiprocess.become(birth.heartbeat_offset // 8)
        # While the answer is on its way; and what a spare has done by now, its first request does not wait for.
        worker, link = _settle(order, birth)
        worker.slot = _hear_of_slot(birth)
        if worker.slot == protocol.INIT_TASK:
            _run_task(order, prepare, birth)
        records.become(worker.slot, birth.mark)
        _say(birth, protocol.encode("armed"))  # from now on its stacks are of interest
    except OSError as error:
        print(f"the operating system refused: {error.strerror}", file=sys.stderr)
        leave(Exit.OS_ERROR)
    link.show("starting")
    prepared = prepare()
    if order.is_worker:
        records.learn_version(order.wanted.target)
    records.protect(prepared)
    link.mask = records.masked
    worker.config, worker.templates = prepared.config, dict(prepared.templates)
    worker._become_current()
    sys.exit(_call(prepared, worker, link))


def _run_task(order: Order, prepare: Callable[[], Prepared], birth: Birth) -> NoReturn:
    """Run the init task in place of the target."""
    from launcher.runtime import before  # noqa: PLC0415  one process of a generation

    titles.show(order.name, f"before] generation {birth.generation}")
    prepared = prepare()
    records.protect(prepared)
    sys.exit(before.run(order.before, birth.channel))


def _say_hello(birth: Birth) -> None:
    for fd, place in ((birth.stdout, 1), (birth.stderr, 2)):
        os.dup2(fd, place)
        os.close(fd)
    _say(birth, protocol.encode("hello", pid=os.getpid()))


def _say(birth: Birth, message: bytes) -> None:
    try:
        birth.channel.send(message)
    except ConnectionError:
        os._exit(0)  # given up in the meantime


def _told(reason: str, detail: str) -> dict[str, str]:
    return {"reason": sendable(reason, _MOST_REASON), "detail": sendable(detail, _MOST_DETAIL)}


def _hear_of_slot(birth: Birth) -> int:
    """Wait to be needed; ends this process if it is not."""
    message, _ = receive(birth.channel)
    if message is None or message.verb != "go":
        os._exit(0)  # nobody needs it any more, and no app code has run in it
    return message.number("slot")


def _settle(order: Order, birth: Birth) -> tuple[Worker[Any], Link]:
    """Make what the target sees, but for the slot."""
    if "LISTEN_FDS" in os.environ:
        os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["NOTIFY_SOCKET"] = birth.notify_address
    _arm(birth.stacks)
    page = mmap.mmap(birth.heartbeat, 0)
    os.close(birth.heartbeat)
    link = Link(
        birth.channel,
        lambda state: titles.show(order.name, f"worker {worker.slot}] generation {birth.generation} {state}"),
    )
    worker: Worker[Any] = Worker(
        generation=birth.generation,
        sockets={name: _listener(fd) for name, fd in zip(order.listener_names, order.listener_fds, strict=True)},
        link=link,
        heartbeat=(page, birth.heartbeat_offset),
    )
    return worker, link


def _arm(stacks: int) -> None:
    """Have the stacks of all threads written on STACKS, by a handler that needs no GIL."""
    has_own_stack = faulthandler.is_enabled()
    # The pipe does not block (pipe2(2)): a worker that is asked twice must not hang in its own stacks.
    faulthandler.register(STACKS, file=stacks, all_threads=True, chain=False)
    if not has_own_stack:
        # With it comes an alternate stack of 8 KiB for every Python handler, and half a dozen signals at once
        # overflow it: the worker dies of SIGSEGV (measured on 3.11 to 3.13).  sigaltstack(2): off again.
        libc.drop_signal_stack()


def _call(prepared: Prepared, worker: Worker[Any], link: Link) -> int:
    """Run the target to its end and return the exit code."""
    target = prepared.target
    assert target  # noqa: S101  or there would be problems
    if not target.worker_parameter:
        link.say("entered")
    try:
        if target.is_async:
            result = _call_async(target, worker, link)
        else:
            _on_sigterm(link, None if target.worker_parameter else _exit)
            result = target.call(worker)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001  whatever it is, it is the app's, and ends here
        records.report(error)
        _tell(link, error)
        return 1
    if callable(result) and not target.worker_parameter:
        reason = f"the target returned what can be called ({type(result).__name__}): to run that, add --factory"
        print(reason, file=sys.stderr, flush=True)
        _say_why(link, reason, "")
        return 1
    return result if isinstance(result, int) else 0


def _tell(link: Link, error: BaseException) -> None:
    """Say why this process ends: a reload may be rejected for it, and somebody waits for the result."""
    _say_why(link, *records.told(error))


def _say_why(link: Link, reason: str, detail: str) -> None:
    try:
        link.say("raised", **_told(reason, detail))
    except RuntimeError:
        pass  # the app has closed the channel


def _call_async(target: Target, worker: Worker[Any], link: Link) -> object:
    import asyncio  # noqa: PLC0415  only async apps pay for it

    async def call() -> object:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        cancel = None
        if not target.worker_parameter and task:
            cancel = lambda: loop.call_soon_threadsafe(task.cancel)  # noqa: E731
        _on_sigterm(link, cancel)
        return await target.call(worker)  # type: ignore[misc]

    try:
        return asyncio.run(call())
    except asyncio.CancelledError:
        if link.stopping.is_set():
            return _BY_SIGTERM
        raise


def _on_sigterm(link: Link, then: Callable[[], object] | None) -> None:
    """Have SIGTERM set `stopping`, then end the target if it does not look at that."""
    former = signal.getsignal(signal.SIGTERM)
    is_the_apps = callable(former) and former is not ignore

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        link.listen()  # the order with the reason came before the signal
        link.stopping.set()
        if callable(former) and is_the_apps:
            former(number, frame)  # installed by the app when it was imported
        elif then:
            then()

    Signals.handlers.append(on_sigterm)
    signal.signal(signal.SIGTERM, on_sigterm)
    if then and not is_the_apps and link.stopping.is_set():
        then()  # the signal came before this handler


def _exit() -> NoReturn:
    raise SystemExit(_BY_SIGTERM)


def _wait_for_adoption(supervisor: int, channel: socket.socket) -> None:
    """Wait until the process in the middle is gone and the supervisor is our parent."""
    while (parent := os.getppid()) != supervisor:
        # PDEATHSIG must not be set before: it would fire at the end of the process in the middle.
        try:
            middle = os.pidfd_open(parent)
        except ProcessLookupError:
            continue
        poll = select.poll()
        poll.register(middle, select.POLLIN)
        poll.register(channel, 0)  # only its end: the supervisor may die first, and init adopt us
        if os.getppid() == parent and any(fd == channel.fileno() for fd, _ in poll.poll()):
            os._exit(0)
        # The other is readable once it is a zombie, and then its children have been given away.
        os.close(middle)


def _listener(fd: int) -> socket.socket:
    import socket  # noqa: PLC0415  the whole one, which the app knows; loaded before the fork, by prepare()

    sock = socket.socket(fileno=fd)
    sock.setblocking(False)  # the descriptor is so already, the object does not know (socketmodule.c)
    return sock


def announce_listeners(order: Order) -> None:
    """Say in the environment what sd_listen_fds(3) looks for, but for the PID; a zygote does it for its workers."""
    if order.listener_names:
        os.environ["LISTEN_FDS"] = str(len(order.listener_names))
        os.environ["LISTEN_FDNAMES"] = ":".join(order.listener_names)
