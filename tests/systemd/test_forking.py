"""A unit from before sd_notify: `Type=forking`, a pidfile, and a user that prod-run itself becomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.systemd.conftest import Service

pytestmark = pytest.mark.slow

FORKING = """
[Service]
Type=forking
NotifyAccess=none
WatchdogSec=0
PIDFile=/run/%i.pid
DynamicUser=no
Restart=no
ExecStart=
ExecStart=/srv/%i/current/venv/bin/prod-run --daemon --user nobody --pidfile /run/%i.pid --name %i --chdir /srv/%i/current $TARGET
"""


def test_it_is_active_when_ready_and_knows_its_main_process(service: Service) -> None:
    """`systemctl start` returns at the commit, reload waits for its result, stop drains; nothing is root's."""
    service.drop_in("forking", FORKING)
    service.systemctl("start")
    pid = service.show("MainPID")

    assert service.show("ActiveState") == "active"
    assert service.machine.run("cat", f"/run/{service.name}.pid").stdout == f"{pid}\n"
    users = service.machine.run("sh", "-c", f"ps -o uid= --ppid {pid} --pid {pid}", check=False).stdout.split()
    assert set(users) <= {"65534"}
    assert service.machine.run("stat", "-c", "%u", f"/proc/{pid}").stdout == "65534\n"
    service.systemctl("reload")
    assert "generation 2" in service.ask()
    assert service.show("MainPID") == pid
    service.systemctl("stop")
    service.wait_for(ActiveState="inactive")
    assert service.show("Result") == "success"
    assert service.machine.run("cat", f"/run/{service.name}.pid", check=False).stdout == ""


def test_a_start_that_fails_fails_the_unit(service: Service) -> None:
    """With the exit code of the start."""
    service.drop_in("forking", FORKING)
    service.app("raise ValueError('half a release')", "hello")

    assert service.systemctl("start", check=False).returncode != 0
    assert service.show("ActiveState") == "failed"
    assert "half a release" in service.log()
