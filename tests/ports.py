"""Ports for servers that a test starts under a number of its choice."""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path

# ip(7): from here on the kernel chooses the ports of clients, of which other tests have thousands at the same time.
CLIENTS_FROM = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
FIRST = 10_240
CHANCE = random.SystemRandom()


def free_port(host: str = "127.0.0.1", kind: int = socket.SOCK_STREAM) -> int:
    """Return a port that nobody has, and that nobody gets who only asks for any."""
    while True:
        port = CHANCE.randrange(FIRST, CLIENTS_FROM) if CLIENTS_FROM > 2 * FIRST else 0
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as sock:
            try:
                sock.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise
            return int(sock.getsockname()[1])
