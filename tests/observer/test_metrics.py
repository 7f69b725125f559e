"""prod-run's own metrics as text."""

from __future__ import annotations

import os
import shutil
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from launcher import metrics_directory
from launcher.observer import metrics
from launcher.observer.aggregate import Aggregate
from launcher.observer.metrics import FAMILIES, Measured, Use
from launcher.observer.state import AppCheck, Generation, Lines, Listener, Reload, Slot, State, Worker
from launcher.supervisor import history
from tests.observer.test_aggregate import key, read_openmetrics, samples, scrape, write

if TYPE_CHECKING:
    from pathlib import Path

MEASURED = Measured(now=1000.0, time=1_700_001_000.0, version="1.0", name="shop")
FULL = State(
    is_ready=True,
    is_committed=True,
    started=900.0,
    wanted=3,
    orphans=4,
    current=7,
    generations=(Generation(7, "committed", "SIGHUP", 950.0, stale_since=990.0, cannot_respawn="app.py differs"),),
    workers=(
        Worker(0, 7, 11, "serving", 950.0),
        Worker(0, 6, 10, "draining", 900.0),
        Worker(1, 7, 12, "booting", 950.0),
    ),
    slots=(Slot(1, 5, "exit 1", 1_700_000_990.0),),
    reloads=(
        Reload(7, "committed", "", "SIGHUP", 1_700_000_950.0, 1.5),
        Reload(8, "rejected", "bad", "prod-ctl", 1_700_000_990.0, 0.25),
    ),
    reloads_by_result=(("committed", 2), ("rejected", 1)),
    deaths_by_reason=(("exit", 4), ('odd "one"\n', 1)),
    listeners=(Listener("web", "127.0.0.1:80", 9), Listener("old", "unix:/x", -1)),
    checks=(
        AppCheck("database", False, True, at=995.0),
        AppCheck("disk", False, False, at=900.0),
        AppCheck("new", False, None),
    ),
    lines=Lines(100, 90, 6, 4),
)
FULL_MEASURED = MEASURED._replace(uses=(Use(0, 4096, 1.25),), files=12, skipped=2, free_bytes=2**30)


def value(found: dict[tuple[str, tuple[tuple[str, str], ...]], float], name: str, /, **labels: str) -> float:
    """Look up one sample."""
    return found[f"prod_run_{name}", tuple(sorted(labels.items()))]


def test_each_fact_stands_where_the_table_says() -> None:
    """One state, all values."""
    found = samples(metrics.render(FULL, FULL_MEASURED, openmetrics=False).decode())

    assert value(found, "info", name="shop", version="1.0") == 1
    assert value(found, "start_time_seconds") == 1_700_000_900
    assert [value(found, name) for name in ("ready", "draining", "generation", "workers_wanted")] == [1, 0, 7, 3]
    assert [value(found, "workers", state=state) for state in ("serving", "draining", "booting", "ready")] == [
        1,
        1,
        1,
        0,
    ]
    assert [value(found, "worker_up", slot=slot) for slot in "012"] == [1, 0, 0]
    assert value(found, "worker_restarts_total", reason="exit") == 4
    assert value(found, "worker_restarts_total", reason='odd "one"\n') == 1
    assert value(found, "slot_restarts_total", slot="1") == 5
    assert value(found, "worker_rss_bytes", slot="0") == 4096
    assert value(found, "worker_cpu_seconds_total", slot="0") == 1.25
    assert value(found, "orphans_total") == 4
    assert value(found, "reloads_total", result="committed") == 2
    assert value(found, "reloads_total", result="rolled-back") == 0
    assert [value(found, f"last_reload_{name}") for name in ("successful", "success_timestamp_seconds")] == [
        0,
        1_700_000_950,
    ]
    assert [value(found, name) for name in ("reload_duration_seconds", "config_stale_seconds", "cannot_respawn")] == [
        0.25,
        10,
        1,
    ]
    assert value(found, "listen_backlog", socket="web") == 9
    assert [value(found, "check_passed", check=name) for name in ("database", "disk")] == [1, 0]
    assert [value(found, "check_age_seconds", check=name) for name in ("database", "disk")] == [5, 100]
    assert ("prod_run_check_passed", (("check", "new"),)) not in found
    assert [value(found, f"log_lines{name}_total") for name in ("", "_passed", "_dropped", "_lost")] == [100, 90, 6, 4]
    assert [value(found, name) for name in ("metrics_files", "metrics_files_skipped_total", "metrics_free_bytes")] == [
        12,
        2,
        2**30,
    ]
    assert {name for name, _ in found} == {family.full_name for family in FAMILIES}


@pytest.mark.parametrize(("state", "measured"), [(State(), MEASURED), (FULL, FULL_MEASURED)], ids=["first", "full"])
def test_both_forms_say_the_same(state: State, measured: Measured) -> None:
    """What is not known is left out, in both; nothing is there twice."""
    plain = samples(metrics.render(state, measured, openmetrics=False).decode())
    strict = read_openmetrics(metrics.render(state, measured, openmetrics=True).decode())

    assert plain == strict
    assert ("prod_run_metrics_free_bytes", ()) not in plain or measured.free_bytes >= 0
    assert ("prod_run_listen_backlog", (("socket", "old"),)) not in plain


def test_ready_is_what_the_probe_says() -> None:
    """A required check of the app's counts as it does there."""
    failing = FULL._replace(checks=(AppCheck("database", True, False, at=995.0),))

    for state, expected in ((FULL, 1), (failing, 0), (FULL._replace(is_draining=True), 0)):
        found = samples(metrics.render(state, FULL_MEASURED, openmetrics=False).decode())
        assert value(found, "ready") == expected


def test_the_table_is_one_of_names() -> None:
    """No family twice, and each name with its unit and ending."""
    names = [family.full_name for family in FAMILIES]

    assert len(set(names)) == len(names)
    assert all(family.help.endswith(".") for family in FAMILIES)
    assert all((family.kind == "counter") == family.full_name.endswith("_total") for family in FAMILIES)


def test_a_scraper_gets_the_form_it_asks_for() -> None:
    """Prometheus asks for OpenMetrics first; a person's browser gets text."""
    prometheus = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"

    assert metrics.accepts_openmetrics(prometheus)
    assert not metrics.accepts_openmetrics("text/html,*/*;q=0.8")


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (Debian: prometheus)")
def test_promtool_has_nothing_to_say(tmp_path: Path) -> None:
    """The whole scrape, own families and the app's, passes the linter of Prometheus."""
    write(tmp_path, "counter_w0.db", {key("paid", "paid_total", shop="é\n"): (1.0, 0.0)})
    bounds = ("0.1", "+Inf")
    write(tmp_path, "histogram_w0.db", {key("took_seconds", "took_seconds_bucket", le=le): (1.0, 0.0) for le in bounds})
    write(tmp_path, "gauge_livesum_w0.db", {key("busy"): (1.0, 0.0)})
    text = metrics.render(FULL, FULL_MEASURED, openmetrics=False) + scrape(Aggregate(str(tmp_path))).encode()

    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)

    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_room_without_a_limit_is_no_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ramfs says 0 of 0 blocks: that nothing is left would be a false alarm."""
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_blocks=0, f_bavail=0, f_frsize=4096))

    assert metrics_directory.free_bytes(str(tmp_path)) == -1


def test_results_of_reloads_are_those_that_there_are() -> None:
    """A label that nothing can ever count makes an alert that never fires."""
    assert metrics.RESULTS == history.RESULTS
