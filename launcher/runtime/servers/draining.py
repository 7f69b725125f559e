"""
What the drains of all servers have in common.

Owns the times, and the one question that is asked of a listening socket.
Must never accept.
"""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

BACKLOG = 2048  # as the supervisor has it: listen(2) on a shared socket changes it for everybody
SETTLING = 0.1  # seconds that the last worker goes on accepting at least: handshakes are under way
EMPTYING = 2.0  # seconds that the last worker accepts what is queued, however much more comes
LINGER = 2.5  # seconds that a kept-alive connection may send a request more, to be answered with close
_FAREWELL, _SHARE = 2.0, 0.2  # seconds before the drain limit, and of a short one this part, to say good-bye in


def last_words(began: float, until: float) -> float:
    """
    Return when what may last for ever has to be ended, if a worker is to be gone at its drain limit.

    All in monotonic seconds; `until` is 0 if nobody told the limit, and then the linger is the limit.
    """
    return until - min(_FAREWELL, _SHARE * (until - began)) if until else began + LINGER


def may_come(sockets: Iterable[socket.socket], began: float) -> bool:
    """
    Say whether the last worker should go on accepting, having begun to leave at `began` (monotonic seconds).

    The supervisor has had the kernel drop new handshakes, so what is left is what was queued, and what had begun.
    """
    lasted = time.monotonic() - began
    return lasted < EMPTYING and (lasted < SETTLING or is_queued(sockets))


def is_queued(sockets: Iterable[socket.socket]) -> bool:
    """Say whether a connection waits to be accepted."""
    poll = select.poll()
    for sock in sockets:
        if sock.fileno() >= 0:
            poll.register(sock, select.POLLIN)
    return any(what & select.POLLIN for _, what in poll.poll(0))
