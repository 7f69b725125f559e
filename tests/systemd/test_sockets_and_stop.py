"""No request is lost by `systemctl stop`, none is refused over `systemctl restart` with a socket unit."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import pytest

from tests.processes.load import Load
from tests.processes.running import until

if TYPE_CHECKING:
    from tests.systemd.conftest import Service

pytestmark = pytest.mark.slow


@pytest.fixture
def activated(service: Service) -> Service:
    """A service whose socket, on TCP, is systemd's."""
    service.settings(PROD_RUN_BIND="")
    service.drop_in("socket")
    host, port = service.address
    service.drop_in("address", f"[Socket]\nListenStream=\nListenStream={host}:{port}\n", of=service.socket)
    # There is no web server in this machine.
    service.drop_in("group", "[Socket]\nSocketGroup=\n", of=service.socket)
    service.systemctl("start", of=service.socket)
    return service


def test_a_stop_loses_no_request(service: Service) -> None:
    """
    KillMode=mixed: workers hear of the stop from the supervisor, after the drain delay.

    Until then clients, which never retry, still come and are answered; then they are told to close.
    """
    service.settings(PROD_RUN_WORKERS=2, PROD_RUN_DRAIN_DELAY="3s")
    service.systemctl("start")
    load = Load(service.address)
    try:
        before = {request.pid for request in load.requests}
        stopping = service.begin("stop")
        service.wait_for(ActiveState="deactivating")
        delayed = load.mark()
        load.settle()
        said = service.show("StatusText")
        load.finish()
    finally:
        load.close()

    assert stopping.wait(60) == 0
    assert said.startswith("waiting: still accepting")
    assert {request.pid for request in load.requests[delayed:]} <= before
    assert [request for request in load.requests if request.fault] == []
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "0")


# Answers when somebody says so: a file is the signal.
SLOW = """
import os, time
from launcher import Worker

def main(worker: Worker):
    listener = worker.sockets["default"]
    listener.setblocking(True)
    worker.ready()
    connection, _ = listener.accept()
    connection.recv(100)
    print("asked", flush=True)
    while not os.path.exists(GATE):
        time.sleep(0.05)
    connection.sendall(b"answered")
    connection.close()
    worker.stopping.wait()
"""


def test_a_stop_waits_for_what_is_in_flight(service: Service) -> None:
    """`systemctl stop` returns when the request is answered that was being worked on."""
    gate = service.machine.path(f"/srv/{service.name}/gate")
    service.app(SLOW.replace("GATE", repr(f"/srv/{service.name}/gate")))
    service.settings("app:main", PROD_RUN_DRAIN_TIMEOUT="60s")
    service.systemctl("start")
    with socket.create_connection(service.address, 60) as client:
        client.sendall(b"how slow?")
        service.wait_for_log("asked")
        stopping = service.begin("stop")
        service.wait_for(ActiveState="deactivating")
        service.wait_for_log("event=stopping")
        is_waiting = stopping.poll() is None
        gate.touch()
        answer = client.recv(100)

    assert is_waiting
    assert answer == b"answered"
    assert stopping.wait(60) == 0
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "0")


def test_the_first_request_starts_the_service(activated: Service) -> None:
    """The socket alone is up; a request that waits in its queue is answered by the service that it starts."""
    assert activated.show("ActiveState") == "inactive"

    assert "hello from version 1" in activated.ask()
    assert activated.show("ActiveState") == "active"
    assert activated.wait_for_log(f"name=default address={activated.address[0]}:{activated.address[1]}")


@pytest.mark.parametrize("how", ["restart", "SIGKILL"])
def test_nobody_is_refused_over_a_restart(activated: Service, how: str) -> None:
    """The socket stays open in systemd's hands; after SIGKILL, what the dead had itself accepted is all that is lost."""
    activated.drop_in("soon", "[Service]\nRestartSec=100ms\n")
    activated.systemctl("start")
    former = activated.show("MainPID")
    load = Load(activated.address)
    try:
        if how == "restart":
            activated.systemctl("restart")
        else:
            activated.signal(signal.SIGKILL)
            until(lambda: int(activated.show("NRestarts")) >= 1, "a restart")
            activated.wait_for(ActiveState="active", SubState="running")
        load.settle()
    finally:
        load.close()
    faults = {request.fault for request in load.requests if request.fault}

    assert activated.show("MainPID") != former
    assert faults <= (set() if how == "restart" else {"ECONNRESET", "closed without an answer"})


def test_a_unix_socket_stays_where_it_is(service: Service) -> None:
    """prod-run does not remove the file of a socket that systemd made, and workers answer on it."""
    service.settings(PROD_RUN_BIND="")
    service.drop_in("socket")
    service.drop_in("group", "[Socket]\nSocketGroup=\n", of=service.socket)
    service.drop_in("root", "[Service]\nDynamicUser=no\n")  # who could remove it
    service.systemctl("start", of=service.socket)
    service.systemctl("start")
    service.systemctl("restart")
    path = service.machine.path(f"/run/prod-run/{service.name}.sock")

    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o660
    assert service.wait_for_log(f"address=unix:/run/prod-run/{service.name}.sock")
