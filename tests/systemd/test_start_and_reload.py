"""`systemctl start` waits for the first commit, `systemctl reload` for the result; what does not live is replaced."""

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

# Ready when somebody says so: a file is the signal.
GATED = """
import os
from launcher import Worker

def main(worker: Worker):
    while not os.path.exists(GATE) and not worker.stopping.wait(0.05):
        pass
    worker.ready()
    worker.stopping.wait()
"""


def test_active_only_after_the_commit(service: Service) -> None:
    """While a worker is not ready the unit is `activating`; then it is `active`, and STATUS says why."""
    gate = service.machine.path(f"/srv/{service.name}/gate")
    service.app(GATED.replace("GATE", repr(f"/srv/{service.name}/gate")))
    service.settings("app:main", PROD_RUN_WORKERS=2)
    starting = service.begin("start")
    service.wait_for_log("event=listening")
    service.wait_for_log("event=prepared")
    before = service.show("ActiveState"), starting.poll()
    gate.touch()

    assert starting.wait(60) == 0
    assert before == ("activating", None)
    assert service.show("ActiveState") == "active"
    assert service.show("StatusText") == "generation 1 serving 2/2"


def test_two_instances_do_not_get_into_each_others_way(service: Service, neighbour: Service) -> None:
    """Each answers how it is at its own socket; there is no word of a port that is taken."""
    for one in (service, neighbour):
        one.settings(PROD_RUN_INTROSPECT=None)
        one.systemctl("start")
    for one in (service, neighbour):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(one.machine.path(f"/run/prod-run/{one.name}/introspect.sock")))
            client.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))

        assert f'"name": "{one.name}"' in answer.decode()
        assert f'"pid": {one.show("MainPID")}' in answer.decode()
        assert "introspection" not in one.log()


def test_a_good_reload_is_waited_for(service: Service) -> None:
    """When `systemctl reload` returns, the new code answers, under the same PID, and nobody was refused."""
    service.settings(PROD_RUN_WORKERS=2)
    service.systemctl("start")
    pid = service.show("MainPID")
    load = Load(service.address)
    try:
        source = (service.release / "hello.py").read_text()
        service.app(source.replace('VERSION = "1"', 'VERSION = "2"'), "hello")
        service.systemctl("reload")
        said = service.ask()
        load.settle()
    finally:
        load.close()

    assert "version 2 generation 2" in said
    assert service.show("MainPID") == pid
    assert service.show("ActiveState") == "active"
    assert service.show("StatusText").startswith("generation 2 serving 2/2")
    assert [request for request in load.requests if request.fault] == []


def test_a_rejected_reload_fails_and_hurts_nobody(service: Service) -> None:
    """`systemctl reload` fails, the unit stays active on its former generation, STATUS has the reason."""
    service.systemctl("start")
    pid = service.show("MainPID")
    service.app("raise ValueError('half a release')", "hello")
    reload = service.systemctl("reload", check=False)

    assert reload.returncode != 0
    assert (service.show("ActiveState"), service.show("SubState"), service.show("MainPID")) == (
        "active",
        "running",
        pid,
    )
    assert "half a release" in service.show("StatusText")
    assert "generation 1" in service.ask()


@pytest.mark.parametrize("is_good", [True, False])
def test_notify_reload(service: Service, is_good: bool) -> None:  # noqa: FBT001
    """With Type=notify-reload systemd sends the signal and waits for READY, which comes after a rejection too."""
    service.drop_in("notify-reload")
    service.systemctl("start")
    assert service.show("Type") == "notify-reload"
    if not is_good:
        service.app("raise ValueError('half a release')", "hello")
    reload = service.systemctl("reload", check=False)

    assert reload.returncode == 0
    assert (service.show("ActiveState"), service.show("SubState")) == ("active", "running")
    assert ("generation 2" if is_good else "generation 1") in service.ask()
    assert ("half a release" in service.show("StatusText")) == (not is_good)


def test_a_reload_that_nobody_asked_systemd_for_is_seen(service: Service) -> None:
    """After SIGHUP from elsewhere systemd shows `reloading` until it is over."""
    service.app(GATED.replace("GATE", repr(f"/srv/{service.name}/gate")))
    gate = service.machine.path(f"/srv/{service.name}/gate")
    gate.touch()
    service.settings("app:main")
    service.systemctl("start")
    gate.unlink()
    service.signal(signal.SIGHUP)
    service.wait_for(ActiveState="reloading")
    gate.touch()
    service.wait_for(ActiveState="active")

    assert service.show("StatusText").startswith("generation 2 serving 1/1")


def test_a_bad_configuration_is_not_tried_again(service: Service) -> None:
    """Exit code 78: the unit fails at once and stays down, whatever Restart= says; the journal has errors."""
    service.settings(PROD_RUN_WORKERS="many", PROD_RUN_DRAIN_DELAY="soon")
    start = service.systemctl("start", check=False)
    service.wait_for_log("PROD_RUN_DRAIN_DELAY")
    said = [entry for entry in service.journal() if "PROD_RUN_" in entry["MESSAGE"]]

    assert start.returncode != 0
    assert (service.show("ActiveState"), service.show("SubState")) == ("failed", "failed")
    assert (service.show("ExecMainStatus"), service.show("NRestarts")) == ("78", "0")
    assert [(entry["MESSAGE"].split()[0], entry["PRIORITY"]) for entry in said] == [
        ("PROD_RUN_WORKERS", "3"),
        ("PROD_RUN_DRAIN_DELAY", "3"),
    ]


def test_a_start_that_fails_otherwise_is_tried_again(service: Service) -> None:
    """Exit code 70 may be a database that is not up yet."""
    service.drop_in("soon", "[Service]\nRestartSec=100ms\n")
    service.app("raise ValueError('no')", "hello")
    service.begin("start")
    until(lambda: int(service.show("NRestarts")) >= 1, "another try")

    assert service.show("ExecMainStatus") in {"70", "0"}


def test_the_watchdog_is_fed(service: Service) -> None:
    """A service with a short watchdog lives on as long as its loop turns, idle or not."""
    service.drop_in("watchdog", "[Service]\nWatchdogSec=2s\n")
    service.systemctl("start")
    first = service.show("WatchdogTimestampMonotonic")
    until(lambda: int(service.show("WatchdogTimestampMonotonic")) > int(first) + 4_000_000, "signs of life for 4 s")

    assert (service.show("ActiveState"), service.show("NRestarts")) == ("active", "0")


def test_a_stopped_supervisor_is_replaced(service: Service) -> None:
    """SIGSTOP stands for a supervisor that hangs: the watchdog ends it with all its workers, Restart= starts anew."""
    service.drop_in("watchdog", "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=2s\nRestartSec=100ms\n")
    service.systemctl("start")
    former = service.show("MainPID")
    service.signal(signal.SIGSTOP)
    until(lambda: int(service.show("NRestarts")) >= 1, "a restart")
    service.wait_for(ActiveState="active", SubState="running")

    assert service.show("MainPID") != former
    assert "generation 1" in service.ask()
    assert "watchdog" in service.log().lower()
