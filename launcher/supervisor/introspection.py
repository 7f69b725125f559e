"""
What the observer is told and asked, so that it can answer whoever asks how prod-run is (DESIGN §7).

Owns the pushes of snapshots (only what changed, and not more often than anybody can read), the answers that show
that the loop turns, and the stacks that a request waits for.
Must never wait; while nothing changes and nobody asks it does nothing at all.
"""

from __future__ import annotations

import os
import sys

from launcher import protocol
from launcher.lean_posix import socket
from launcher.supervisor import events as on
from launcher.supervisor import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.handoff import Handoff, Listener
    from launcher.logs.formats import Record
    from launcher.supervisor.history import History
    from launcher.supervisor.loop import Clock
    from launcher.supervisor.machine import Machine
    from launcher.supervisor.observer import Observer

AT_MOST_EVERY = 0.1  # seconds between two snapshots, unless readiness changed
PACK = 48 * 1024  # bytes of rows in one message, before they are escaped
LONGEST_VALUE = 1000  # characters of a setting
MOST_STACKS = 28_000  # characters, of at most four bytes each, in one message
IN_A_ROW = 5000  # places of workers
_UNACKED = 24  # where tcpi_unacked stands in struct tcp_info: of a listening socket its queue (linux/tcp.h)


class Introspection:
    """The supervisor's side of the port that the observer serves."""

    __slots__ = (
        "_about",
        "_asked",
        "_clock",
        "_configs",
        "_due",
        "_headline",
        "_history",
        "_last",
        "_life",
        "_listeners",
        "_looked_at",
        "_machine",
        "_observer",
        "_places",
    )

    def __init__(
        self,
        machine: Machine,
        observer: Observer,
        clock: Clock,
        history: History,
        about: bytes,
        *,
        listeners: Callable[[], tuple[Listener, ...]],
        places: Callable[[], tuple[int, ...]],
    ) -> None:
        """`about` never changes; `listeners` returns the sockets that are open, `places` those of living workers."""
        self._machine = machine
        self._observer = observer
        self._clock = clock
        self._history = history
        self._about = about
        self._listeners = listeners
        self._places = places
        self._configs: dict[int, bytes] = {}  # by generation
        self._life = 0  # the observer that heard the last one
        self._last: list[bytes] = []
        self._headline: tuple[object, ...] = ()
        self._looked_at = float("-inf")
        self._due: float | None = None  # there may be something new to tell
        self._asked: set[int] = set()  # slots whose stacks a request waits for

    # ── snapshots ───────────────────────────────────────────────────────────────────────────────

    def tend(self, now: float) -> None:
        """Push a snapshot if something changed."""
        observer, machine = self._observer, self._machine
        if not observer.takes_more:
            return  # when it does, it is our turn again
        headline = (status.is_ready(machine), machine.stop is None, machine.current and machine.current.number)
        is_new = observer.lives != self._life
        if now < self._looked_at + AT_MOST_EVERY and headline == self._headline and not is_new:
            self._due = self._looked_at + AT_MOST_EVERY
            return
        self._looked_at, self._headline, self._due = now, headline, None
        rows = [*status.snapshot(machine, self._history, self._clock.skew), *_living(self._places())]
        if is_new:
            self._life = observer.lives
            observer.tell(self._about)
            for told in self._configs.values():
                observer.tell(told)
        if is_new or rows != self._last:
            self._last = rows
            for message in _packed(rows):
                observer.tell(message)

    def deadline(self) -> float | None:
        """Say when `tend` is due even if nothing happens."""
        return self._due

    def configured(self, generation: int, event: on.Configured) -> None:
        """Take what may be shown of a generation's configuration."""
        alive = {each.number for each in self._machine.generations()}
        self._configs = {number: told for number, told in self._configs.items() if number in alive}
        self._configs[generation] = protocol.encode(
            "config", generation=generation, names=event.names, values=event.values, origins=event.origins
        )
        self._observer.tell(self._configs[generation])

    # ── questions ───────────────────────────────────────────────────────────────────────────────

    def answer(self, message: protocol.Message) -> list[on.Event]:
        """Answer what the observer asks; the stacks come later, as a line of the log does."""
        if message.verb == "stacks":
            slot = message.number("slot")
            self._asked.add(slot)
            return [on.StacksAsked(slot)]
        queues = tuple(f"{listener.name}={_backlog(listener)}" for listener in self._listeners())
        self._observer.tell(protocol.encode("alive", backlog=queues))
        return []

    def hear(self, record: Record) -> None:
        """Take a line of the log: what happened is kept, and stacks that were asked for are passed on."""
        self._history.hear(record)
        if self._asked and record.event in ("stacks", "no stacks"):
            facts = dict(record.fields)
            slot = int(str(facts.get("slot", -1)))
            if slot in self._asked:
                self._asked.discard(slot)
                text = protocol.shorten(record.detail, MOST_STACKS)
                self._observer.tell(
                    protocol.encode(
                        "stacks",
                        slot=slot,
                        generation=str(facts["generation"]),
                        pid=str(facts["pid"]),
                        process=str(facts.get("process", "")),
                        text=text,
                    )
                )


def about(handoff: Handoff, started: float) -> bytes:
    """Write what never changes; `started` is a time of the monotonic clock."""
    return protocol.encode(
        "about",
        name=handoff.name,
        started=started,
        supervisor=os.getpid(),
        directory=handoff.directory,
        token_file=handoff.introspect_token_file,
        metrics_directory=handoff.metrics_directory,
        setting_names=tuple(row[0] for row in handoff.settings),
        setting_values=tuple(protocol.shorten(row[1], LONGEST_VALUE) for row in handoff.settings),
        setting_origins=tuple(row[2] for row in handoff.settings),
    )


def _living(places: tuple[int, ...]) -> list[bytes]:
    """Say who lives, in rows that fit a message."""
    return [
        protocol.encode("living", places=tuple(map(str, places[first : first + IN_A_ROW])))
        for first in range(0, len(places), IN_A_ROW)
    ]


def _packed(rows: list[bytes]) -> list[bytes]:
    """Put rows into as few messages as they need; the last one says so."""
    messages: list[bytes] = []
    pack: list[str] = []
    size = 0
    for row in rows:
        if pack and size + len(row) > PACK:
            messages.append(protocol.encode("state", row=tuple(pack), last=False))
            pack, size = [], 0
        pack.append(row.decode("utf-8", "surrogateescape"))
        size += len(row)
    return [*messages, protocol.encode("state", row=tuple(pack), last=True)]


def _backlog(listener: Listener) -> int:
    """Count the connections that nobody has accepted yet; -1 where the kernel does not tell (a unix socket)."""
    sock = socket.socket(fileno=listener.fd)
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED + 4)
        return int.from_bytes(info[_UNACKED : _UNACKED + 4], sys.byteorder)
    except OSError:
        return -1
    finally:
        sock.detach()
