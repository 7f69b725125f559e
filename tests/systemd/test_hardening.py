"""The hardening drop-in: a good score, and everything works under it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.containers import debian

if TYPE_CHECKING:
    from tests.systemd.conftest import Service

pytestmark = pytest.mark.slow
GOOD = 1.5  # of 10, where less is better: `systemd-analyze security` calls it OK; without the drop-in it is 8.2


def test_a_hardened_service_does_all_that_it_does_otherwise(service: Service) -> None:
    """Start, template, answer, control socket, reload, descriptors, stop."""
    service.drop_in("hardening")
    rendered = f"/run/prod-run/{service.name}/site.conf"
    (service.release / "site.tmpl").write_text("workers ${PROD_RUN_WORKERS:-0}\n")
    service.settings(PROD_RUN_WORKERS=2, PROD_RUN_TEMPLATE=f"site.tmpl:{rendered}")
    service.systemctl("start")
    control = f"/run/prod-run/{service.name}/control.sock"
    health = service.machine.run(f"/srv/{service.name}/current/venv/bin/prod-ctl", "--socket", control, "health")
    service.systemctl("reload")
    answer = service.ask()
    limits = service.machine.path(f"/proc/{service.show('MainPID')}/limits").read_text()
    score = service.machine.run("systemd-analyze", "security", "--no-pager", service.unit, check=False).stdout
    service.systemctl("stop")

    assert health.returncode == 0
    assert "generation 2" in answer
    soft, hard = re.search(r"Max open files +(\d+) +(\d+)", limits).groups()  # type: ignore[union-attr]
    assert soft == hard
    assert float(re.search(r"level for .*?: ([0-9.]+)", score).group(1)) < GOOD, score  # type: ignore[union-attr]
    assert service.show("Result") == "success"
    warnings = service.machine.run(
        "journalctl", "--output=cat", "-p", "warning", "-u", service.unit, "_TRANSPORT=stdout", check=False
    )
    assert [line for line in warnings.stdout.splitlines() if not line.startswith("--")] == []


def test_systemd_finds_nothing_wrong_with_the_units(service: Service) -> None:
    """`systemd-analyze verify` of the units with all their drop-ins says nothing."""
    for path in sorted((debian.REPOSITORY / "systemd" / "prod-run@.service.d").glob("*.conf")):
        service.drop_in(path.stem)
    service.machine.run("systemctl", "daemon-reload")
    said = service.machine.run("systemd-analyze", "verify", "--man=no", service.unit, service.socket, check=False)
    about_ours = [line for line in said.stderr.splitlines() if "prod-run" in line]

    assert (said.returncode, about_ours) == (0, [])
