"""A real Prometheus scrapes a real prod-run through a reload, a reload that is refused, and a crash."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.ports import free_port
from tests.processes.running import LIMIT, Running, until
from tests.processes.test_metrics import paid, shop  # noqa: F401  a fixture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ALERTS = Path(__file__).parents[2] / "examples" / "observability" / "alerts.yml"
CONFIG = """
global: {{evaluation_interval: 1s}}
rule_files: [{alerts}]
scrape_configs:
  - {{job_name: shop, scrape_interval: 2s, static_configs: [{{targets: ["{target}"]}}]}}
  - {{job_name: often, scrape_interval: 200ms, static_configs: [{{targets: ["{target}"]}}]}}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed (Debian: prometheus)"),
]


class Prometheus:
    """One that scrapes one target."""

    def __init__(self, folder: Path, target: str) -> None:
        folder.mkdir()
        self._port = free_port()
        (folder / "prometheus.yml").write_text(CONFIG.format(alerts=ALERTS, target=target))
        self._log = (folder / "log").open("wb")
        words = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        self.process = subprocess.Popen(
            ["prometheus", *words, f"--web.listen-address=127.0.0.1:{self._port}"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def ask(self, path: str) -> Any:
        """Ask its API; None while it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LIMIT)
        with contextlib.closing(connection):
            try:
                connection.request("GET", f"/api/v1/{path}")
                return json.loads(connection.getresponse().read())["data"]
            except (OSError, ValueError, KeyError):
                return None

    def series(self, selector: str) -> dict[str, list[tuple[float, float]]]:
        """Return all samples of some series: their times and values."""
        found = self.ask("query?" + urllib.parse.urlencode({"query": f"{selector}[1h]"}))
        return {
            json.dumps(one["metric"], sort_keys=True): [(time, float(value)) for time, value in one["values"]]
            for one in (found["result"] if found else ())
        }

    def scrapes(self, job: str) -> list[tuple[float, float]]:
        """Return when it scraped, and whether it got anything."""
        return next(iter(self.series(f'up{{job="{job}"}}').values()), [])

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait(LIMIT)
        self._log.close()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[str], Prometheus]]:
    """Start one for a target, with a directory and a port of its own."""
    started: list[Prometheus] = []

    def start_it(target: str) -> Prometheus:
        started.append(Prometheus(tmp_path / "prometheus", target))
        return started[-1]

    yield start_it
    for one in started:
        one.close()


def test_no_gap_and_no_counter_that_goes_back(
    shop: Callable[..., Running],  # noqa: F811
    prometheus: Callable[[str], Prometheus],
    tmp_path: Path,
) -> None:
    """
    Every scrape succeeds, every series of a counter is in each of them from its first on, and only grows.

    Five scrapes a second are there to see more; of these one may fail where the machine stalls for as long.
    """
    running = shop("-w", 2)
    server = prometheus(":".join(map(str, running.address("introspect"))))

    def wait_for_scrapes() -> None:
        before = len(server.scrapes("shop"))
        until(lambda: len(server.scrapes("shop")) >= before + 2, "some scrapes")

    wait_for_scrapes()
    (tmp_path / "busy").touch()
    assert running.reload()["event"] == "committed"
    wait_for_scrapes()
    os.kill(next(iter(running.workers())), signal.SIGKILL)
    running.wait_for(event="lost worker")
    wait_for_scrapes()
    good = (tmp_path / "app.py").read_text()
    (tmp_path / "app.py").write_text("1 / 0\n")
    assert running.reload()["event"] == "rejected"
    (tmp_path / "app.py").write_text(good + "\n")
    wait_for_scrapes()
    (tmp_path / "busy").unlink()
    assert running.reload()["event"] == "committed"
    until(lambda: len(running.workers()) == 2, "the former generation is gone")
    wait_for_scrapes()
    for job in ("shop", "often"):
        scrapes = server.scrapes(job)
        good_ones = [time for time, is_up in scrapes if is_up]
        counters = server.series(f'{{job="{job}",__name__=~".+_(total|count|bucket|sum)"}}')

        assert job == "often" or len(good_ones) == len(scrapes) > 8
        assert len(counters) > 30
        for name, samples in counters.items():
            times, values = zip(*samples, strict=True)
            assert list(times) == [time for time in good_ones if times[0] <= time <= times[-1]], name
            assert good_ones.index(times[-1]) >= len(good_ones) - 2, name
            assert list(values) == sorted(values), name
    (totals,) = server.series('shop_paid_total{job="shop",currency="eur"}').values()
    assert paid(tmp_path) <= totals[-1][1] <= paid(tmp_path) + 1  # one was killed
    rules = [rule for group in server.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    assert {rule["lastError"] for rule in rules if "lastError" in rule} == set()
