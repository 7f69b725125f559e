"""
A small web server of the standard library.

Run it with prod-run:

    prod-run --chdir examples --bind 127.0.0.1:8000 --workers 2 hello:main

It shows all that a server has to do so that no request is lost: say when it could serve, accept what is
queued when it is the last, say that it accepts no more, answer what is in flight and tell kept-alive
connections to close.  (A real web application is served by a real server library.)
"""

from __future__ import annotations

import os
import select
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from launcher import Worker

VERSION = "1"
LINGER = 5.0  # seconds that an idle kept-alive connection may still send its next request while we stop


def main(worker: Worker) -> None:
    """Serve until told to stop."""
    listener = worker.sockets["default"]
    connections: set[threading.Thread] = set()
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    worker.ready()
    while not worker.stopping.is_set():
        if poll.poll(100):
            accept(listener, worker, connections)
    if worker.stopping.last:
        while accept(listener, worker, connections):
            pass
    listener.close()
    worker.stopped_accepting()
    for thread in list(connections):
        thread.join()


def accept(listener: socket.socket, worker: Worker, connections: set[threading.Thread]) -> bool:
    """Accept one connection and serve it in a thread of its own; say whether there was one."""
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return False  # another worker was quicker

    def run() -> None:
        try:
            serve(connection, worker)
        except ConnectionError:
            pass  # the client is gone
        finally:
            connection.close()
            connections.discard(threading.current_thread())

    thread = threading.Thread(target=run)
    connections.add(thread)
    thread.start()
    return True


def serve(connection: socket.socket, worker: Worker) -> None:
    """Answer requests on one connection until one side wants to close it."""
    received = b""
    while True:
        while b"\r\n\r\n" not in received:
            piece = receive(connection, worker)
            if not piece:
                return
            received += piece
        head, _, received = received.partition(b"\r\n\r\n")
        path = head.split(b" ", 2)[1].decode()
        if path.startswith("/slow/"):
            time.sleep(float(path.removeprefix("/slow/")))
        is_last = worker.stopping.is_set() or b"\r\nconnection: close" in head.lower()
        body = f"hello from version {VERSION} generation {worker.generation} slot {worker.slot} pid {os.getpid()}\n"
        answer = (
            "HTTP/1.1 200 OK\r\n"
            "Content-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"Connection: {'close' if is_last else 'keep-alive'}\r\n"
            f"\r\n{body}"
        )
        connection.sendall(answer.encode())
        if is_last:
            return


def receive(connection: socket.socket, worker: Worker) -> bytes:
    """Wait for a request; while stopping, not for ever."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    stop_waiting = float("inf")
    while time.monotonic() < stop_waiting:
        if poll.poll(100):
            return connection.recv(65536)
        if worker.stopping.is_set():
            stop_waiting = min(stop_waiting, time.monotonic() + LINGER)
    return b""
