"""
The app as a plain program, for process managers: `plain.py port 8000` or `plain.py fd 7`.

Owns its listening socket if it is given a port: every copy binds it with SO_REUSEPORT.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

import shop
from serving import serve


def listen(how: str, number: int) -> socket.socket:
    """Return the socket that was inherited, or one of our own on a shared port."""
    if how == "fd":
        return socket.socket(fileno=number)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", number))
    listener.listen(2048)
    return listener


def main() -> None:
    """Serve until SIGTERM."""
    stopping = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    signal.signal(signal.SIGTERM, lambda *_: os.eventfd_write(stopping, 1))
    listener = listen(sys.argv[1], int(sys.argv[2]))
    shop.begin()
    serve(listener, stopping, shop.answer)


if __name__ == "__main__":
    main()
