"""The introspection port through what happens to the service, and through what is done to the port."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.processes.asking import ANYWHERE, OBEDIENT, SIMPLE, ask, codes, observer_of, private, wait_until_served
from tests.processes.running import Running, status, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def running(start: Callable[..., Running], app: Callable[..., Path]) -> Running:
    """Two workers, and a port for everybody."""
    app(SIMPLE)
    one = start("-w", 2, *ANYWHERE, "app:main")
    wait_until_served(one)
    return one


def calm(pid: int) -> str:
    """Wait until a process has slept for a second; return how often it has gone to sleep."""
    seen, since = "", 0.0

    def is_calm() -> bool:
        nonlocal seen, since
        now, woken = time.monotonic(), status(pid)["voluntary_ctxt_switches"]
        if woken != seen:
            seen, since = woken, now
        return now - since > 1.0

    until(is_calm, "calm")
    return seen


# ── the life cycle ──


def test_what_each_probe_sees_from_start_to_end(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Start, slow boot, reload, rejected reload, crash loop, recovery, drain."""
    app(OBEDIENT)
    (tmp_path / "slow").touch()
    one = start("--drain-delay", "60s", *ANYWHERE, "app:main")
    seen = {}

    def see(when: str, *expected: int) -> None:
        until(lambda: codes(one) == expected, f"{when}: {expected}, not {codes(one)}")
        seen[when] = ask(one, "/readyz?verbose").text

    one.wait_for(event="preparing")
    see("a slow boot", 200, 503, 503)
    (tmp_path / "slow").unlink()
    one.wait_for(event="committed")
    see("serving", 200, 200, 200)
    (tmp_path / "slow").touch()
    one.send(signal.SIGHUP)
    one.wait_for(event="preparing", generation=2)
    until(lambda: "generation 2 preparing" in ask(one, "/status").json["sentence"], "a pushed snapshot")
    see("a reload under way", 200, 200, 200)
    (tmp_path / "slow").unlink()
    one.wait_for(event="committed", generation=2)
    (tmp_path / "bad").touch()
    assert one.reload()["event"] == "rejected"
    until(lambda: "[!]reload" in ask(one, "/readyz?verbose").text, "the warning")
    see("a rejected reload", 200, 200, 200)
    (tmp_path / "bad").unlink()
    (tmp_path / "crash").touch()
    for pid in one.workers():
        os.kill(pid, signal.SIGKILL)
    see("a crash loop", 200, 503, 200)
    (tmp_path / "crash").unlink()
    see("recovered", 200, 200, 200)
    one.send(signal.SIGTERM)
    see("draining", 200, 503, 200)

    assert seen["a slow boot"].startswith("[-]generation failed: none is committed yet\n")
    assert "[!]reload failed: the last one failed: kept generation 2: reason withheld\n" in seen["a rejected reload"]
    assert "[-]workers failed: no worker is ready\n" in seen["a crash loop"]
    assert "[+]workers ok\n[-]shutdown failed: draining\n" in seen["draining"]
    assert len(one.workers()) == 1  # it still serves
    one.send(signal.SIGQUIT)
    assert one.wait() == 0


def test_probes_answer_while_every_worker_stands_still(running: Running, tmp_path: Path) -> None:
    """Nobody asks a worker; and one that is stopped is said to be."""
    for pid in running.workers():
        os.kill(pid, signal.SIGSTOP)

    assert codes(running) == (200, 200, 200)
    stacks = ask(private(tmp_path), "/workers/1/stacks")
    assert (stacks.code, "no stacks: the process is stopped by a signal" in stacks.text) == (503, True)
    for pid in running.workers():
        os.kill(pid, signal.SIGCONT)


STUCK = """
import ctypes, os
from launcher import Worker

def main(worker: Worker):
    worker.check("itself", lambda: None)
    worker.ready()
    print("holding", flush=True)
    ctypes.PyDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1)  # keeps the GIL, and never returns
"""


def test_probes_and_stacks_answer_while_every_worker_holds_the_gil(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """No thread of a worker can do anything, a signal's Python handler neither."""
    app(STUCK)
    one = start("-w", 2, "--drain-timeout", "0s", *ANYWHERE, "app:main")
    wait_until_served(one)
    for slot in (0, 1):
        one.wait_for(message="holding", slot=slot)

    assert codes(one) == (200, 200, 200)
    for path in ("/healthz?verbose", "/__heartbeat__", "/__lbheartbeat__", "/metrics", "/status", "/"):
        assert ask(one, path).code == 200
    for slot in (0, 1):
        stacks = ask(private(tmp_path), f"/workers/{slot}/stacks")
        assert (stacks.code, "app.py" in stacks.text) == (200, True)
    assert one.stop() == 0


def test_livez_fails_when_the_supervisor_does_not_answer(running: Running) -> None:
    """Not at once: ten seconds after the question; and it recovers by itself."""
    assert codes(running) == (200, 200, 200)
    running.send(signal.SIGSTOP)
    try:
        assert ask(running, "/livez").code == 200
        until(lambda: ask(running, "/livez").code == 503, "not alive")
        assert ask(running, "/readyz").code == 200
    finally:
        running.send(signal.SIGCONT)

    until(lambda: ask(running, "/livez").code == 200, "alive again")


def test_the_port_answers_again_when_the_observer_was_killed(running: Running) -> None:
    """The listening socket is the supervisor's: who asks meanwhile waits for the next observer."""
    address = running.address("introspect")
    for _ in range(3):
        first = observer_of(running)
        os.kill(first, signal.SIGKILL)
        for _ in range(5):
            with socket.create_connection(address, 30) as client:
                client.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
                answer = b""
                try:
                    while piece := client.recv(65536):
                        answer += piece
                except ConnectionResetError:
                    continue  # the dying one had accepted it
                # Never a false "not ready" from one that does not know yet.
                assert answer == b"" or answer.endswith(b"\r\n\r\nok\n")
        until(lambda before=first: observer_of(running) != before, "another observer")  # type: ignore[misc]
        assert codes(running) == (200, 200, 200)
    assert running.stop() == 0


# ── abuse ──


def test_neither_garbage_nor_crowds_are_noticed_by_the_supervisor(running: Running) -> None:
    """None of it wakes it; the observer lives, and whoever asks properly is answered."""
    address = running.address("introspect")
    observer = observer_of(running)
    running.spare()
    woken = calm(running.pid)
    idle = [socket.create_connection(address) for _ in range(1000)]
    for garbage in (
        os.urandom(5000) + b"\r\n\r\n",
        b"\0" * 20000,
        b"GET / HTTP/1.1\r\nX: " + b"y" * (1 << 20),
        b"\r\n" * 5000,
    ):
        with socket.create_connection(address) as client:
            try:
                client.sendall(garbage)
                assert client.recv(65536)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431")
            except ConnectionError:
                pass  # we were still sending
    slow = [socket.create_connection(address) for _ in range(20)]
    for client in slow:
        client.sendall(b"GET /sta")
    after = status(running.pid)["voluntary_ctxt_switches"]  # before anybody asks properly

    assert codes(running) == (200, 200, 200)
    assert observer_of(running) == observer
    assert after == woken
    for client in (*idle, *slow):
        client.close()
    assert running.stop() == 0


def test_without_descriptors_for_another_workers_pipes_it_begins_anew_with_a_sentence(running: Running) -> None:
    """A limit that is too low costs this observer and no line; until then nobody else notices."""
    observer = observer_of(running)
    taken = {int(name) for name in os.listdir(f"/proc/{observer}/fd")}
    least = next(number for number in itertools.count() if number not in taken)
    resource.prlimit(observer, resource.RLIMIT_NOFILE, (least, least))
    with socket.create_connection(running.address("introspect")):  # cannot be accepted
        running.send(signal.SIGTTIN)
        running.wait_for("the observer ends: no descriptors left for the pipes of another process")

    running.wait_for(event="lost the observer")
    until(lambda: observer_of(running) != observer, "another one")
    until(lambda: codes(running) == (200, 200, 200), "answers")
    assert running.stop() == 0
