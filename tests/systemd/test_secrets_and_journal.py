"""Secrets as systemd passes them, and lines as the journal takes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.systemd.conftest import Service

pytestmark = pytest.mark.slow
SECRET = "correct-horse-battery-staple"  # noqa: S105

SHOP = """
import environ, hashlib, os
import launcher

@environ.config(prefix="SHOP")
class Config:
    database_url = launcher.secret(help="a secret")

def main(worker: launcher.Worker[Config]):
    revealed = worker.config.database_url.reveal()
    print("digest", hashlib.sha256(revealed.encode()).hexdigest(), os.getuid(), flush=True)
    worker.ready()
    worker.stopping.wait()
"""

WRITER = """
import logging, sys, warnings
import launcher

def main(worker: launcher.Worker):
    print("printed", flush=True)
    log = logging.getLogger("shop")
    log.warning("a warning")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("an error of several lines")
    log.info("info after it")
    worker.ready()
    worker.stopping.wait()
"""


def test_a_credential_reaches_the_app_and_nothing_else(service: Service) -> None:
    """LoadCredential= from a file that only root reads: the app has it; no environment, argument or line does."""
    import hashlib

    path = f"/etc/prod-run/{service.name}/database_url"
    service.machine.write(path, SECRET + "\n")
    service.machine.path(path).chmod(0o400)
    text = (Path(__file__).parents[2] / "systemd/prod-run@.service.d/credentials.conf").read_text()
    service.drop_in("credentials", text.replace("/etc/prod-run/shop/", f"/etc/prod-run/{service.name}/"))
    # setproctitle writes over what /proc shows as the environment; here it has to be seen.
    service.drop_in("seen", "[Service]\nEnvironment=SPT_NOENV=1\n")
    service.app(SHOP)
    service.settings("app:main", PROD_RUN_WORKERS=2)
    service.systemctl("start")
    said = service.wait_for_log("digest")["MESSAGE"]
    family = pids_of(service)

    assert hashlib.sha256(SECRET.encode()).hexdigest() in said
    assert not said.rstrip('"').endswith(" 0"), "the app must not be root"
    assert len(family) >= 4
    for pid in family:
        shown = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
        assert shown
        assert SECRET.encode() not in shown
    assert SECRET not in service.log()


def test_entries_have_the_level_of_their_line(service: Service) -> None:
    """One entry for each event, a traceback included, with the priority that its level says, and no <N> in the text."""
    service.app(WRITER)
    service.settings("app:main")
    service.systemctl("start")
    service.wait_for_log("info after it")
    service.systemctl("stop")
    entries = service.journal()
    priorities = {
        text: [entry["PRIORITY"] for entry in entries if text in entry["MESSAGE"]]
        for text in ("printed", "a warning", "an error of several lines", "info after it", "event=committed")
    }

    assert priorities == {
        "printed": ["6"],
        "a warning": ["4"],
        "an error of several lines": ["3"],
        "info after it": ["6"],
        "event=committed": ["6"],
    }
    assert "ZeroDivisionError" in next(e["MESSAGE"] for e in entries if "an error of several lines" in e["MESSAGE"])
    assert [entry["MESSAGE"] for entry in entries if not entry["MESSAGE"].startswith("time=")] == []


def test_a_worker_that_is_killed_is_an_error(service: Service) -> None:
    """`journalctl -p err` finds it."""
    service.systemctl("start")
    service.machine.run("systemctl", "kill", "--kill-whom=main", "--signal=USR1", service.unit)
    pid = next(
        entry["MESSAGE"].partition(" pid=")[2].split()[0]
        for entry in [service.wait_for_log('event="status of worker"')]
    )
    service.machine.run("/opt/python/bin/python3", "-c", f"import os; os.kill({pid}, 9)")
    service.wait_for_log("SIGKILL")
    found = service.machine.run("journalctl", "--output=cat", "-p", "warning", "-u", service.unit, "_TRANSPORT=stdout")

    assert f"pid={pid}" in found.stdout


def pids_of(service: Service) -> list[int]:
    """Return the PIDs of the service's processes: the kernel writes them as the reader sees them (cgroups(7))."""
    group = service.machine.path("/sys/fs/cgroup") / service.show("ControlGroup").removeprefix("/")
    return [int(pid) for file in group.rglob("cgroup.procs") for pid in file.read_text().split()]
