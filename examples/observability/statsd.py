"""
statsd in a pre-forked app: one UDP socket, which all workers may share.

    STATSD=127.0.0.1:8125 prod-run --chdir examples/observability --workers 2 statsd:main

A datagram is sent whole or not at all, so a socket that is made at import may be used by every fork of it
(prod-run preloads all the same).  Nobody waits for an answer, and a receiver that is away costs nothing.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from launcher import Worker


class Statsd:
    """Counts by datagrams."""

    def __init__(self, address: str, prefix: str) -> None:
        host, _, port = address.rpartition(":")
        self._prefix = prefix
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect((host, int(port)))

    def count(self, name: str, by: int = 1, **tags: object) -> None:
        """Count; tags are written in DogStatsD's way."""
        words = ",".join(f"{tag}:{value}" for tag, value in tags.items())
        text = f"{self._prefix}.{name}:{by}|c" + (f"|#{words}" if words else "")
        try:
            self._socket.send(text.encode())
        except OSError:
            pass  # nobody listens, or the queue is full: no request waits for a number


statsd = Statsd(os.environ.get("STATSD", "127.0.0.1:8125"), "shop")


def main(worker: Worker) -> None:
    """Pay one order, then wait for the end."""
    worker.ready()
    statsd.count("paid", slot=worker.slot, currency="eur")
    worker.stopping.wait()
