"""
What the drains of all servers have in common.

Owns the times, and the one question that is asked of a listening socket.
Must never accept.
"""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

BACKLOG = 2048  # as the supervisor has it: listen(2) on a shared socket changes it for everybody
EMPTYING = 2.0  # seconds that the last worker accepts what is queued, however much more comes
LINGER = 2.5  # seconds that a kept-alive connection may send a request more, to be answered with close


def is_queued(sockets: Iterable[socket.socket]) -> bool:
    """Say whether a connection waits to be accepted."""
    poll = select.poll()
    for sock in sockets:
        if sock.fileno() >= 0:
            poll.register(sock, select.POLLIN)
    return any(what & select.POLLIN for _, what in poll.poll(0))
