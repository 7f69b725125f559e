"""No request is lost when prod-run stops: neither in flight nor queued."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from tests.processes.running import LIMIT, Running, children_of, is_alive, until

if TYPE_CHECKING:
    from collections.abc import Callable

# The example with a pool of ten threads: it accepts no more than it can serve.
POOLED = """
import threading
import hello
from launcher import Worker

ROOM = threading.Semaphore(10)
take, serve = hello.accept, hello.serve

def accept(*arguments):
    ROOM.acquire()
    if take(*arguments):
        return True
    ROOM.release()
    return False

def serve_and_make_room(*arguments):
    try:
        serve(*arguments)
    finally:
        ROOM.release()

hello.accept, hello.serve = accept, serve_and_make_room

def main(worker: Worker):
    hello.main(worker)
"""


def test_what_is_in_flight_and_what_is_queued_is_answered(
    start: Callable[..., Running], hello: Callable[..., Path], app: Callable[..., Path]
) -> None:
    """20 requests of 2 s in flight and 20 connections in the queue at SIGTERM: 40 answers, exit code 0."""
    hello()
    app(POOLED, "pooled")
    running = start("-w", 2, "-b", "127.0.0.1:0", "pooled:main")
    running.wait_for(event="committed")
    address = running.address()
    in_flight = [_ask(address, "/slow/2") for _ in range(20)]
    until(lambda: _queued(address) == 0, "20 requests in flight")
    queued = [_ask(address, "/") for _ in range(20)]
    until(lambda: _queued(address) == 20, "20 connections in the queue")
    family = children_of(running.pid)
    running.send(signal.SIGTERM)
    answers = [_answer(connection) for connection in (*in_flight, *queued)]

    assert ["hello from" in answer for answer in answers] == [True] * 40
    assert running.wait() == 0
    assert not any(map(is_alive, family))
    assert not any(line.get("level") in ("warning", "error") for line in running.lines), running.text()


def test_a_kept_connection_is_told_to_close(start: Callable[..., Running], hello: Callable[..., Path]) -> None:
    """A client that keeps its connection gets one more answer, with `Connection: close`."""
    hello()
    running = start("-w", 1, "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")
    with socket.create_connection(running.address(), LIMIT) as kept:
        kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        before = kept.recv(65536)
        worker = next(iter(running.workers()))
        running.send(signal.SIGTERM)
        until(lambda: not _listens(worker, running.address()), "the worker stopped accepting")
        kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        after = kept.recv(65536)

    assert b"Connection: keep-alive" in before
    assert b"Connection: close" in after
    assert running.wait() == 0


def _ask(address: tuple[str, int], path: str) -> socket.socket:
    connection = socket.create_connection(address, LIMIT)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return connection


def _answer(connection: socket.socket) -> str:
    with connection:
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer.decode()


def _queued(address: tuple[str, int]) -> int:
    """Return how many connections wait to be accepted: the receive queue of a listener (ss(8))."""
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = row.split()
        if state == "0A" and int(local.split(":")[1], 16) == address[1]:
            return int(queues.split(":")[1], 16)
    return -1


def _listens(pid: int, address: tuple[str, int]) -> bool:
    """Say whether a process still holds the listening socket."""
    held = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            held.add(os.readlink(fd))
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = row.split()
        if words[3] == "0A" and int(words[1].split(":")[1], 16) == address[1]:
            return f"socket:[{words[9]}]" in held
    return False
