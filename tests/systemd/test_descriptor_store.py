"""Sockets that prod-run binds outlive it in systemd's descriptor store."""

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

# What a client sees whose connection a killed process had itself accepted; a refusal is ECONNREFUSED.
LOST = {"ECONNRESET", "closed without an answer"}


@pytest.fixture
def keeping(service: Service) -> Service:
    """A service with the drop-in, that is started again at once."""
    service.drop_in("descriptor-store")
    service.drop_in("soon", "[Service]\nRestartSec=100ms\n")
    service.settings(PROD_RUN_WORKERS=2)
    return service


def kept(service: Service) -> int:
    """Return how many descriptors systemd has."""
    return int(service.show("NFileDescriptorStore"))


def restart_by_death(service: Service) -> None:
    """Kill the supervisor, all its processes with it, and wait until systemd has started the next."""
    restarts = int(service.show("NRestarts"))
    service.signal(signal.SIGKILL)
    until(lambda: int(service.show("NRestarts")) > restarts, "a restart")
    service.wait_for(ActiveState="active", SubState="running")


@pytest.mark.parametrize("how", ["restart", "SIGKILL"])
def test_nobody_is_refused_over_a_restart(keeping: Service, how: str) -> None:
    """Under load, three times: clients wait in the queue; a restart loses nothing, a SIGKILL what it had accepted."""
    keeping.systemctl("start")
    load = Load(keeping.address)
    pids = [keeping.show("MainPID")]
    try:
        for _ in range(3):
            if how == "restart":
                keeping.systemctl("restart")
            else:
                restart_by_death(keeping)
            pids.append(keeping.show("MainPID"))
            load.settle()
    finally:
        load.close()
    faults = {request.fault for request in load.requests if request.fault}

    assert len(set(pids)) == 4
    assert faults <= (set() if how == "restart" else LOST)
    assert kept(keeping) == 1
    assert "cannot" not in keeping.log().lower()


def test_what_is_not_asked_for_any_more_is_let_go(keeping: Service) -> None:
    """With another --bind the former address is free at once, also for one that overlaps it; nothing is leaked."""
    keeping.systemctl("start")
    host, port = keeping.address
    keeping.settings(PROD_RUN_BIND=f"0.0.0.0:{port}")
    keeping.systemctl("restart")
    everywhere = keeping.wait_for_log(f"address=0.0.0.0:{port}")
    keeping.settings(PROD_RUN_BIND=f"{host}:0")
    keeping.systemctl("restart")

    assert everywhere
    until(lambda: kept(keeping) == 1, "one socket in the store")
    with pytest.raises(ConnectionRefusedError):
        keeping.ask()
    listening = keeping.machine.run("cat", f"/proc/{keeping.show('MainPID')}/net/tcp").stdout
    assert f":{port:04X} 00000000:0000 0A" not in listening


def test_a_stop_empties_the_store(keeping: Service) -> None:
    """After `systemctl stop` nobody may wait for a service that does not come."""
    keeping.systemctl("start")
    keeping.systemctl("stop")

    with pytest.raises(ConnectionRefusedError):
        keeping.ask()


@pytest.mark.parametrize("how", ["restart", "SIGKILL"])
def test_a_unix_socket_stays_where_it_is(keeping: Service, how: str) -> None:
    """The same file, through which a client that connected before is answered; its mode is what is asked for now."""
    inside = f"/run/prod-run/{keeping.name}/web.sock"
    keeping.settings(PROD_RUN_BIND=f"unix:{inside}?mode=0600")
    keeping.systemctl("start")
    path = keeping.machine.path(inside)
    former = path.stat()
    keeping.settings(PROD_RUN_BIND=f"unix:{inside}?mode=0660")
    if how == "restart":
        keeping.systemctl("restart")
    else:
        restart_by_death(keeping)
    found = path.stat()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))

    assert (former.st_ino, former.st_mode & 0o777) == (found.st_ino, 0o600)
    assert found.st_mode & 0o777 == 0o660
    assert b"hello from version 1" in answer
    assert keeping.wait_for_log(f"name=default address=unix:{inside}")
    assert kept(keeping) == 1


def test_a_start_that_failed_keeps_clients_waiting_for_the_next(keeping: Service) -> None:
    """Exit code 70 is tried again: a client that connected in between is answered by the start that works."""
    keeping.systemctl("start")
    source = (keeping.release / "hello.py").read_text()
    keeping.app("raise ValueError('half a release')", "hello")
    keeping.drop_in("patient", "[Unit]\nStartLimitIntervalSec=0\n")
    keeping.begin("restart")
    until(lambda: int(keeping.show("NRestarts")) >= 1, "a failed start")
    with socket.create_connection(keeping.address, 60) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        keeping.app(source, "hello")
        answer = b"".join(iter(lambda: client.recv(65536), b""))

    assert b"hello from version 1" in answer


WEB = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"from the web\\n"]
"""


def test_a_web_application_without_bind_keeps_its_address(keeping: Service) -> None:
    """Its address is known late, when the target is: what was kept waits until then, and goes if it is not wanted."""
    port = keeping.address[1]
    keeping.app(WEB)
    keeping.settings("app:application", PROD_RUN_BIND="", PORT=port)
    keeping.systemctl("start")
    with socket.socket() as client:
        keeping.app(f"import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.05)\n{WEB}")
        keeping.begin("restart")
        keeping.wait_for(ActiveState="activating")
        client.settimeout(60)
        client.connect(keeping.address)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        (keeping.release / "go").touch()
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    keeping.wait_for(ActiveState="active")
    with_web = kept(keeping)
    keeping.settings(PROD_RUN_BIND="", PORT=port)
    keeping.app("def main():\n    import time\n    time.sleep(3600)\n", "hello")
    keeping.systemctl("restart")

    assert b"from the web" in answer
    assert with_web == 1
    until(lambda: kept(keeping) == 0, "nothing in the store")
    with pytest.raises(ConnectionRefusedError):
        keeping.ask()
