"""
The address of a web application to which nobody gave one.

Owns its opening, late: only its first zygote can tell that the target is such an application, and what $PORT says
(the supervisor never reads the app's environment).  Everybody else gets listening sockets from the start.
Must never resolve a name: the address is a number.
"""

from __future__ import annotations

from launcher import protocol
from launcher.errors import Exit, UnavailableError
from launcher.lean_posix import socket
from launcher.supervisor import events as on
from launcher.supervisor import interpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.handoff import Handoff, Listener
    from launcher.supervisor.descriptor_store import Store
    from launcher.supervisor.journal import Journal


def open_once(
    facts: on.Prepared, handoff: Handoff, channel: socket.socket, journal: Journal
) -> tuple[tuple[Listener, ...], on.Prepared | on.Refused]:
    """
    Listen where a generation wants to, if nobody does, and give the sockets to its zygote.

    Returns:
        The listeners, and what has become of the event: what cannot be had is a refusal, and the zygote ends.
    """
    opened = handoff.listeners
    event: on.Prepared | on.Refused = facts
    try:
        if not opened:  # or two zygotes of one generation came one after the other
            opened = _open(facts.bind, handoff, journal)
        message = protocol.encode("listeners", listeners=tuple(listener.name for listener in opened))
        interpreter.send(channel, message, [listener.fd for listener in opened])
    except UnavailableError as error:
        channel.send(protocol.encode("end"), socket.MSG_DONTWAIT)
        event = on.Refused(facts.ticket, error.exit_code, error.problems[0].sentence)
    except OSError as error:
        event = on.Refused(facts.ticket, Exit.OS_ERROR, f"its zygote cannot be given sockets: {error.strerror}")
    return opened, event


def drop(handoff: Handoff) -> None:
    """Close what systemd had kept for an application that listens nowhere any more."""
    _store(handoff).drop_rest()


def _open(place: str, handoff: Handoff, journal: Journal) -> tuple[Listener, ...]:
    from launcher import addresses  # noqa: PLC0415  only web applications without --bind need these two
    from launcher.supervisor import listeners  # noqa: PLC0415

    opened = listeners.open_all(addresses.name_all((addresses.parse(place),)), store=_store(handoff))
    for listener in opened:
        journal.log("info", "listening", (("name", listener.name), ("address", listener.address)))
    return opened


def _store(handoff: Handoff) -> Store:
    from launcher.supervisor.descriptor_store import Store  # noqa: PLC0415

    return Store(handoff.notify_socket, handoff.stored, is_open=handoff.has_store, patience=0.0)
