"""
The unix socket through which `prod-ctl` talks to a running prod-run.

Owns the socket, its clients and the words they may say; one request is one datagram (unix(7): SEQPACKET), an
answer is some datagrams of `rows` and an `end`.  Must never wait for a client: who does not read is cut off.
"""

from __future__ import annotations

import os
import sys

from launcher import memory, protocol
from launcher.errors import Exit
from launcher.lean_posix import socket
from launcher.signals import Ask
from launcher.supervisor import events as on
from launcher.supervisor import status
from launcher.supervisor.history import result_of
from launcher.supervisor.stopping import Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.logs.formats import Record
    from launcher.supervisor.loop import Watcher
    from launcher.supervisor.machine import Machine

MOST_CLIENTS = 64  # the oldest that has asked nothing yet makes room
BACKLOG = 1024  # a client with a time limit is refused when this is full (connect(2): EAGAIN)
MOST_WORKERS = 4096  # as --workers has it; to load `quantities` for this would cost the supervisor more
REMEMBERED = 500  # records that `events` begins with
MOST_DETAIL = 4000  # characters of a traceback
DETAILED = 10  # the last of them, with tracebacks: all together have to fit into a socket's buffer
PACK = 16 * 1024  # bytes of rows in one datagram, before they are escaped
RESULTS = {
    "committed": Exit.DONE,
    "rejected": Exit.REJECTED,
    "rolled-back": Exit.REJECTED,
    "pre-empted": Exit.TEMPORARY,
}
_CREDENTIALS = 12  # struct ucred: pid, uid, gid (unix(7))


class Client:
    """One connection, and what it waits for."""

    __slots__ = ("awaited", "is_following", "is_waiting", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.awaited = 0  # the generation whose result it waits for
        self.is_following = False  # it wants every record from now on
        self.is_waiting = False  # it wants to hear of the end

    @property
    def is_idle(self) -> bool:
        """Say whether it has nothing to get."""
        return not (self.awaited or self.is_following or self.is_waiting)


class Control:
    """The server for `prod-ctl`; everything it learns enters the machine as an event."""

    __slots__ = (
        "_clients",
        "_file",
        "_listener",
        "_machine",
        "_now",
        "_private",
        "_records",
        "_verbs",
        "_watcher",
        "path",
    )

    def __init__(
        self, path: str, machine: Machine, watcher: Watcher, now: Callable[[], float], *, private: str = ""
    ) -> None:
        """`private` is the path of the introspection port's unix socket, if there is one."""
        self.path = path
        self._private = private
        self._machine = machine
        self._watcher = watcher
        self._now = now
        self._clients: dict[int, Client] = {}
        self._records: list[Record] = []
        self._file = (0, 0)  # which one is ours
        self._listener: socket.socket | None = None
        self._verbs: dict[str, Callable[[Client, protocol.Message], list[on.Event]]] = {
            "status": self._on_status,
            "health": self._on_health,
            "reload": self._on_reload,
            "scale": self._on_scale,
            "stop": self._on_stop,
            "stacks": self._on_stacks,
            "events": self._on_events,
            "introspection": self._on_introspection,
        }

    def open(self) -> None:
        """
        Listen; the directory is ours alone, so a socket that is there already is a dead one's.

        Raises:
            OSError: a read-only file system, say; prod-run goes on without.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        before = os.umask(0o177)
        try:
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass
            listener.bind(self.path)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(before)
        self._file = _identity(self.path)
        self._listener = listener
        self._watcher.watch(listener.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening and remove the socket's file, unless another has come in its place."""
        if self._listener is not None:
            self._listener.close()
        try:
            if _identity(self.path) == self._file:
                os.unlink(self.path)
        except OSError:
            pass  # somebody else did, or the file system is read-only by now

    def tell(self, record: Record) -> None:
        """Pass a record on to those who follow, and a result to those who wait for it."""
        record = record._replace(detail=protocol.shorten(record.detail, MOST_DETAIL))
        self._records.append(record)
        if len(self._records) > DETAILED and self._records[-DETAILED - 1].detail:
            self._records[-DETAILED - 1] = self._records[-DETAILED - 1]._replace(detail="")
        if len(self._records) > REMEMBERED + REMEMBERED // 5:
            del self._records[:-REMEMBERED]
        result = RESULTS.get(result_of(record))
        facts = dict(record.fields)
        for client in list(self._clients.values()):
            if client.is_following:
                self._show(client, [_row(record)])
            if client.awaited and result is not None and facts.get("generation") == client.awaited:
                self._show(client, [_row(record)])
                self._end(client, result)

    # ── clients ─────────────────────────────────────────────────────────────────────────────────

    def _accept(self) -> list[on.Event]:
        listener = self._listener
        events: list[on.Event] = []
        while listener is not None:
            try:
                sock = socket.socket(fileno=listener._accept()[0])  # type: ignore[attr-defined]
            except OSError:
                break
            sock.setblocking(False)
            if _uid_behind(sock) not in (0, os.geteuid()):
                sock.close()
                continue
            events += self._make_room()
            client = Client(sock)
            self._clients[sock.fileno()] = client
            self._watcher.watch(sock.fileno(), lambda client=client: self._read(client))  # type: ignore[misc]
        return events

    def _make_room(self) -> list[on.Event]:
        """Drop a client that wants nothing if there are too many; what it has asked by now is answered first."""
        events: list[on.Event] = []
        for client in list(self._clients.values()):
            if len(self._clients) < MOST_CLIENTS:
                return events
            if client.is_idle:
                events += self._read(client)
            if client.is_idle:
                self._drop(client)
        if len(self._clients) >= MOST_CLIENTS:
            self._drop(next(iter(self._clients.values())))
        return events

    def _read(self, client: Client) -> list[on.Event]:
        try:
            datagram = client.socket.recv(protocol.LARGEST)
        except BlockingIOError:
            return []
        except OSError:
            datagram = b""
        if not datagram:
            self._drop(client)
            return []
        try:
            message = protocol.decode(datagram)
            answer = self._verbs.get(message.verb)
            if answer is None:
                self._end(client, Exit.USAGE, f"{message.verb[:40]!r}: not in this version")
                return []
            return answer(client, message)
        except ValueError as error:  # ProtocolError is one
            self._end(client, Exit.USAGE, f"cannot understand the request: {error}")
            return []

    def _say(self, client: Client, message: bytes) -> None:
        try:
            client.socket.send(message, socket.MSG_DONTWAIT)
        except OSError:  # it does not read, or is gone
            self._drop(client)

    def _show(self, client: Client, rows: list[bytes]) -> None:
        """Send rows, many in one datagram: a socket holds few datagrams, however small."""
        pack: list[str] = []
        size = 0
        for row in rows:
            pack.append(row.decode("utf-8", "surrogateescape"))
            size += len(row)
            if size > PACK:
                self._say(client, protocol.encode("rows", row=tuple(pack)))
                pack, size = [], 0
        if pack:
            self._say(client, protocol.encode("rows", row=tuple(pack)))

    def _end(self, client: Client, code: int, text: str = "") -> None:
        client.awaited, client.is_following = 0, False
        self._say(client, protocol.encode("end", code=code, text=text))

    def _drop(self, client: Client) -> None:
        fd = client.socket.fileno()
        if self._clients.pop(fd, None) is not None:
            self._watcher.forget(fd)
            client.socket.close()

    # ── verbs ───────────────────────────────────────────────────────────────────────────────────

    def _on_status(self, client: Client, _: protocol.Message) -> list[on.Event]:
        report = status.report(self._machine, self._now())
        rows = [protocol.encode("row", kind=log.event, facts=_facts(log.fields)) for log in report]
        room = memory.room()
        if room:
            facts = (("limit", memory.written(room.limit)), ("use", memory.written(room.use)))
            rows.insert(1, protocol.encode("row", kind="status of memory", facts=_facts(facts)))
        self._show(client, rows)
        self._end(client, Exit.DONE)
        return []

    def _on_health(self, client: Client, _: protocol.Message) -> list[on.Event]:
        is_ready = status.is_ready(self._machine)
        self._end(client, Exit.DONE if is_ready else Exit.REJECTED, status.sentence(self._machine))
        return []

    def _on_reload(self, client: Client, message: protocol.Message) -> list[on.Event]:
        if self._machine.stop:
            self._end(client, Exit.TEMPORARY, "prod-run is stopping")
            return []
        # One under way does not count: what changed since it began may not be in it.
        client.awaited = self._machine.numbers + 1
        if not message.flag("wait"):
            self._end(client, Exit.DONE, "asked for a reload")
        return [on.Asked(Ask.RELOAD, "prod-ctl")]

    def _on_scale(self, client: Client, message: protocol.Message) -> list[on.Event]:
        if self._machine.stop and self._machine.stop.stage is not Stage.DELAY:
            self._end(client, Exit.TEMPORARY, "prod-run is stopping")
            return []
        text = message.text("workers")
        try:
            number = int(text) + (self._machine.wanted if text[:1] in "+-" else 0)
        except ValueError:
            number = 0
        if not 1 <= number <= MOST_WORKERS:
            self._end(client, Exit.USAGE, f"{text!r} is not a number of workers: write 4, +1 or -1")
            return []
        self._end(client, Exit.DONE, f"{number} workers wanted")
        return [on.ScaleAsked(number, "prod-ctl")]

    def _on_stop(self, client: Client, message: protocol.Message) -> list[on.Event]:
        client.is_waiting = True  # for the end of the connection, which tells that prod-run is over
        return [on.Asked(Ask.STOP_NOW if message.flag("now") else Ask.STOP, "prod-ctl")]

    def _on_stacks(self, client: Client, message: protocol.Message) -> list[on.Event]:
        slots = message.texts("slot")
        slot = int(slots[0]) if slots else -1
        known = sorted({worker.slot for one in self._machine.generations() for worker in one.workers.values()})
        if slots and slot not in known:
            there = ", ".join(map(str, known)) or "none"
            self._end(client, Exit.USAGE, f"there is no worker in slot {slot}: the slots are {there}")
            return []
        self._end(client, Exit.DONE, "the stacks are in prod-run's log")
        return [on.StacksAsked(slot)]

    def _on_introspection(self, client: Client, _: protocol.Message) -> list[on.Event]:
        if self._private:
            self._end(client, Exit.DONE, self._private)
        else:
            self._end(client, Exit.UNAVAILABLE, "there is no private introspection socket")
        return []

    def _on_events(self, client: Client, message: protocol.Message) -> list[on.Event]:
        self._show(client, [_row(record) for record in self._records[-REMEMBERED:]])
        if message.flag("follow"):
            client.is_following = True
        else:
            self._end(client, Exit.DONE)
        return []


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _uid_behind(sock: socket.socket) -> int:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS)
    return int.from_bytes(credentials[4:8], sys.byteorder)


def _row(record: Record) -> bytes:
    fields = (("time", f"{record.time:.3f}"), ("level", record.level), *record.fields)
    if record.detail:
        fields = (*fields, ("detail", record.detail))
    return protocol.encode("row", kind=record.event, facts=_facts(fields))


def _facts(fields: tuple[tuple[str, object], ...]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in fields)
