"""
What a target sees of prod-run: its Worker.

Owns what an app may ask and be told, in words of its own.  Must never start a thread, never block without being
asked to, and never fail because the supervisor is gone: an app stays runnable without prod-run.
"""

from __future__ import annotations

import struct
import sys
import time

from launcher import checks, protocol
from launcher.checks import Wish
from launcher.link import Link, wait_until_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from mmap import mmap
    from typing import Any, Generic, TypeVar

    from launcher.lean_posix import socket
    from launcher.runtime.health import Checks

    ConfigT = TypeVar("ConfigT")
else:
    # `typing` takes 10 ms, which an app that does without should not have to pay.
    ConfigT = None

    class Generic:
        """The part of typing.Generic that `Worker[Config]` needs."""

        __class_getitem__ = classmethod(type(list[int]))


_HEARTBEAT = struct.Struct("=d")  # monotonic seconds; 8 aligned bytes are written at once
_current: list[Worker[Any]] = []  # of this process: one at most


class _Sockets(dict[str, "socket.socket"]):
    """The sockets by their names; without `--bind` there is none, and the author of `worker.sockets["web"]` is told."""

    def __missing__(self, name: str) -> socket.socket:
        there = f"there are {', '.join(self)}" if self else "there is none"
        message = f"{name}: no socket is called that ({there}); start prod-run with --bind [NAME=]ADDRESS"
        raise KeyError(message)


class Worker(Generic[ConfigT]):
    """
    One worker, as its target sees it.

    Attributes:
        slot: which of the workers this is, from 0; a replacement has the slot of the one before.
        generation: counts the reloads, from 1.
        sockets: the listening, non-blocking sockets by their names in `--bind`.
        stopping: an event like threading.Event, set when this worker is to stop.
        config: the configuration that was loaded for this generation; None if no class was found.
        templates: the paths of the files that were made for this generation, by the names of their templates.
    """

    config: ConfigT
    templates: Mapping[str, str]

    def __init__(
        self,
        *,
        slot: int = 0,
        generation: int = 1,
        sockets: Mapping[str, socket.socket] | None = None,
        link: Link | None = None,
        heartbeat: tuple[mmap, int] | None = None,
        config: Any = None,
        templates: Mapping[str, str] | None = None,
    ) -> None:
        self.slot = slot
        self.generation = generation
        self.sockets: Mapping[str, socket.socket] = _Sockets(sockets or {})
        self._link = link or Link()
        self.stopping = self._link.stopping
        self._heartbeat = heartbeat
        self.config = config
        self.templates = dict(templates or {})
        self._said_ready = False
        self._wishes: list[Wish] = []  # what was asked for with check()
        self._checks: Checks | None = None

    def ready(self) -> None:
        """
        Say "I could serve", and return when this worker may.

        Before its generation is committed that is when all its workers are ready; afterwards at once.

        Raises:
            SystemExit: the generation was rejected, or prod-run stops: no client will come.
            RuntimeError: called inside a running event loop; use `await worker.ready_async()`.
        """
        if _in_event_loop():
            message = "worker.ready() would block the event loop: use `await worker.ready_async()`"
            raise RuntimeError(message)
        self._say_ready()
        link = self._link
        while not self._may_serve():
            wait_until_readable((link.fileno(), link.stopping.fileno(), link.serving.fileno()), None)

    async def ready_async(self) -> None:
        """Do the same as `ready()` in an event loop."""
        import asyncio  # noqa: PLC0415  only async apps pay for it

        self._say_ready()
        if self._may_serve():
            return
        waits = [asyncio.ensure_future(event.wait_async()) for event in (self._link.serving, self.stopping)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        self._may_serve()

    def stopped_accepting(self) -> None:
        """Say that no new connection will be accepted here; to be called once, after `stopping` is set."""
        self._link.say("stopped-accepting")

    def status(self, text: str) -> None:
        """Say in a few words how this worker is; operators see it."""
        # A lone surrogate could not be sent; its question mark is as good.
        self._link.mention("status", text=protocol.shorten(text.encode("utf-8", "replace").decode(), 200))

    def heartbeat(self) -> None:
        """Say "I am alive"; only needed with `--stall-timeout`.  A write to a shared page, no system call."""
        if self._heartbeat:
            page, offset = self._heartbeat
            _HEARTBEAT.pack_into(page, offset, time.monotonic())

    def check(self, name: str, function: Callable[[], object], timeout: float = 2.0, required: bool = False) -> None:  # noqa: FBT001, FBT002  public API
        """
        Have something that the app depends on looked at every ten seconds, in one worker of all, in a thread.

        Args:
            name: up to 40 letters, digits, - and _; operators see it.
            function: raises, or returns False, if it is bad; may be async if this is called in an event loop.
            timeout: seconds; a run that takes longer has failed, and is not begun again before it has ended.
            required: prod-run is not ready while the last result is bad, or before there is one.

        Raises:
            ValueError, TypeError: the name or the time limit is none, or there are that name or 32 checks already.
        """
        wish = Wish(name, function, float(timeout), bool(required))
        checks.look_at(wish, tuple(each.name for each in self._wishes))
        self._wishes.append(wish)
        if not self._link.is_supervised:
            return  # of a zygote: its workers take it over
        if self._checks is None:
            from launcher.runtime import health  # noqa: PLC0415  only who has checks pays for threads

            self._checks = health.Checks(self._link, health.duty(self._heartbeat[0] if self._heartbeat else None))
        self._checks.add(wish)

    @classmethod
    def current(cls) -> Worker[Any]:
        """
        Return the Worker of this process, for code that is not given it.

        While the app is imported that is one whose checks every worker takes over, and good for nothing else.
        """
        if not _current:
            _current.append(cls())
        return _current[0]

    def _become_current(self) -> None:
        wishes = _current[0]._wishes if _current else []
        _current[:] = [self]
        for wish in wishes:
            self.check(*wish)

    def _say_ready(self) -> None:
        if not self._said_ready:
            self._said_ready = True
            self._link.show("ready")
            self._link.say("ready")

    def _may_serve(self) -> bool:
        if self._link.serving.is_set():
            return True
        if self._link.stopping.is_set():
            raise SystemExit(0)
        return False


def _in_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None
