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
EMPTYING = 2.0  # seconds that the last worker accepts what is queued, however much more comes, if there is no limit
LINGER = 2.5  # seconds that a kept-alive connection may send a request more, to be answered with close
_PART = 0.5  # of the time until the drain limit that it does so; the rest is for answering
_FAREWELL, _SHARE = 2.0, 0.2  # seconds before the drain limit, and of a short one this part, to say good-bye in


def last_words(began: float, until: float) -> float:
    """
    Return when what may last for ever has to be ended, if a worker is to be gone at its drain limit.

    All in monotonic seconds; `until` is 0 if nobody told the limit, and then the linger is the limit.
    """
    return until - min(_FAREWELL, _SHARE * (until - began)) if until else began + LINGER


def may_come(sockets: Iterable[socket.socket], began: float, until: float) -> bool:
    """
    Say whether the last worker should go on accepting, having begun to leave at `began`; `until` as above.

    The supervisor has had the kernel drop new handshakes, so what is left is what was queued, and what had begun.
    A worker that has as many connections as it may takes the next one only when one has ended.
    """
    lasted = time.monotonic() - began
    most = _PART * (until - began) if until else EMPTYING
    return lasted < SETTLING or (lasted < most and is_queued(sockets))


def is_queued(sockets: Iterable[socket.socket]) -> bool:
    """Say whether a connection waits to be accepted."""
    poll = select.poll()
    for sock in sockets:
        if sock.fileno() >= 0:
            poll.register(sock, select.POLLIN)
    return any(what & select.POLLIN for _, what in poll.poll(0))
