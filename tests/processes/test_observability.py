"""The recipes of examples/observability, really run: a collector, a Sentry and a statsd of the test's own listen."""

from __future__ import annotations

import gzip
import http.server
import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher.observer.metrics import FAMILIES
from tests.ports import free_port
from tests.processes.running import LIMIT, Running
from tests.processes.test_examples import in_docstring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parents[2] / "examples" / "observability"


class Received(threading.Thread):
    """An HTTP server that keeps what is posted to it: path and body."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.posts: list[tuple[str, bytes]] = []
        posts = self.posts

        class Taker(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                posts.append((self.path, body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taker)
        self.port = self._server.server_address[1]

    def run(self) -> None:
        """Take what comes."""
        self._server.serve_forever(0.05)

    def close(self) -> None:
        """Take no more."""
        self._server.shutdown()
        self._server.server_close()
        self.join(LIMIT)


@pytest.fixture
def received() -> Iterator[Received]:
    """Start one."""
    one = Received()
    one.start()
    yield one
    one.close()


@pytest.fixture
def run(start: Callable[..., Running], tmp_path: Path) -> Callable[..., Running]:
    """Start an example by the command line that stands in it, with variables of the test's."""
    shutil.copytree(HERE, tmp_path / "examples" / "observability", ignore=shutil.ignore_patterns("__pycache__"))

    def run_it(name: str, **variables: str) -> Running:
        words = shlex.split(in_docstring(HERE / f"{name}.py"))
        while "=" in words[0]:
            variable, _, value = words.pop(0).partition("=")
            variables.setdefault(variable, value)
        assert words.pop(0) == "prod-run"
        return start(*words, env=variables)

    return run_it


WEB = """
import contextlib, fastapi, telemetry
@contextlib.asynccontextmanager
async def lifespan(app):
    async with telemetry.lifespan(app):
        telemetry.pay()
        yield
app = fastapi.FastAPI(lifespan=lifespan)
"""


@pytest.mark.parametrize("target", ["main", "ASGI"])
def test_opentelemetry_knows_each_worker(
    run: Callable[..., Running], start: Callable[..., Running], received: Received, tmp_path: Path, target: str
) -> None:
    """Each worker of each generation is an instance; nothing that was measured is lost at the end, or sent twice."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{received.port}"}
    if target == "ASGI":
        folder = tmp_path / "examples" / "observability"
        (folder / "web.py").write_text(WEB)
        running = start("-w", 2, "--chdir", folder, "-b", "127.0.0.1:0", "web:app", env=endpoint)
    else:
        running = run("telemetry", **endpoint)
    running.wait_for(event="committed", generation=1)
    assert running.reload()["event"] == "committed"
    assert running.stop() == 0
    spans, paid = told(received)

    host = socket.gethostname()
    assert spans == {f"{host}-{slot}-{generation}": 1 for slot in (0, 1) for generation in (1, 2)}
    assert paid == spans
    assert "threads" not in running.text()  # the import left none behind, or nothing would have been preloaded


def told(received: Received) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many spans and how many payments each instance told."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans: dict[str, int] = {}
    paid: dict[str, int] = {}
    for path, body in received.posts:
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = [span.name for scope in resource.scope_spans for span in scope.spans]
                spans[instance(resource)] = spans.get(instance(resource), 0) + names.count("pay")
        else:
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                (point,) = resource.scope_metrics[0].metrics[0].sum.data_points
                paid[instance(resource)] = point.as_int
    return spans, paid


def instance(resource: object) -> str:
    """Return the id of who sent it."""
    attributes = {one.key: one.value.string_value for one in resource.resource.attributes}  # type: ignore[attr-defined]
    assert attributes["service.name"] == "shop"
    return attributes["service.instance.id"]


def test_sentry_hears_of_what_ends_a_worker(run: Callable[..., Running], received: Received) -> None:
    """And of what was handled; each with the slot; the log has the traceback all the same."""
    pytest.importorskip("sentry_sdk")
    running = run("errors", SENTRY_DSN=f"http://key@127.0.0.1:{received.port}/1")

    assert running.wait() == 1
    events = [
        json.loads(line)
        for _, body in received.posts
        for line in body.decode().splitlines()
        if '"exception"' in line and '"values"' in line
    ]
    found = {one["exception"]["values"][0]["type"]: one for one in events}
    assert found.keys() == {"KeyError", "RuntimeError"}
    for one in events:
        assert (one["release"], one["tags"]) == ("shop@1", {"slot": 0, "generation": 1})
    assert found["KeyError"]["exception"]["values"][0]["mechanism"]["handled"] is True
    assert found["RuntimeError"]["exception"]["values"][0]["mechanism"]["handled"] is False
    assert "RuntimeError: the shop is closed" in running.text()


def test_statsd_hears_of_every_worker(run: Callable[..., Running]) -> None:
    """Through one socket, made before the fork, which keeps nobody from preloading."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(LIMIT)
        running = run("statsd", STATSD=f"127.0.0.1:{server.getsockname()[1]}")
        datagrams = sorted(server.recv(1500).decode() for _ in range(2))
        assert running.zygotes()
        assert running.stop() == 0

    assert datagrams == [f"shop.paid:1|c|#slot:{slot},currency:eur" for slot in (0, 1)]
    assert "cannot be forked" not in running.text()


def test_statsd_that_nobody_runs_costs_nothing(run: Callable[..., Running]) -> None:
    """A closed port answers with an error that nobody wants to hear."""
    port = free_port(kind=socket.SOCK_DGRAM)
    running = run("statsd", STATSD=f"127.0.0.1:{port}")
    running.wait_for(event="committed")
    running.send(signal.SIGHUP)
    running.wait_for(event="committed", generation=2)

    assert running.stop() == 0
    assert "Error" not in running.text()


# ── the dashboard and the alert rules ──


def names_in(text: str) -> set[str]:
    """Return the names of prod-run's metrics in an expression."""
    return set(re.findall(r"\bprod_run_\w+", text))


def expressions() -> list[str]:
    """Return all that the dashboard asks for."""
    board = json.loads((HERE / "dashboard.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [one["expr"] for one in board["annotations"]["list"]]
    return asked + [one["query"] for one in board["templating"]["list"] if one["type"] == "query"]


def test_every_metric_of_the_dashboard_is_there_and_every_family_is_shown() -> None:
    """A family that is renamed takes its panel with it; one that nobody looks at need not be made."""
    known = {family.full_name for family in FAMILIES}
    shown = set().union(*map(names_in, expressions()))

    assert shown - known == set()
    # These are for alert rules, or are in others' words already.
    assert known - shown == {
        "prod_run_draining",
        "prod_run_last_reload_success_timestamp_seconds",
        "prod_run_orphans_total",
    }


def test_labels_that_the_dashboard_asks_for_are_there() -> None:
    """`by (…)` and `{{…}}` name labels of the families beside them, or those that Prometheus adds."""
    labels = {family.full_name: {*family.labels, "job", "instance"} for family in FAMILIES}
    board = json.loads((HERE / "dashboard.json").read_text())
    for target in (target for panel in board["panels"] for target in panel["targets"]):
        (name,) = names_in(target["expr"])
        asked = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        for group in re.findall(r"by \(([^)]*)\)", target["expr"]):
            asked |= set(group.split(", "))

        assert asked <= labels[name], target


def test_the_dashboards_panels_do_not_overlap() -> None:
    """Grafana would move them about."""
    taken: set[tuple[int, int]] = set()
    panels = json.loads((HERE / "dashboard.json").read_text())["panels"]
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }

        assert not taken & cells
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_every_metric_of_the_alert_rules_is_there() -> None:
    """The same for them."""
    import yaml

    rules = yaml.safe_load((HERE / "alerts.yml").read_text())["groups"][0]["rules"]
    named = set().union(*(names_in(rule["expr"]) for rule in rules))

    assert named <= {family.full_name for family in FAMILIES}
    assert all(names_in(rule["expr"]) and rule["annotations"]["description"] for rule in rules)


FIRING = """
rule_files: [alerts.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'prod_run_ready{instance="a"}', values: '1 0x60'}
      - {series: 'prod_run_draining{instance="a"}', values: '0x60'}
      - {series: 'prod_run_ready{instance="leaving"}', values: '0x60'}
      - {series: 'prod_run_draining{instance="leaving"}', values: '1x60'}
      - {series: 'prod_run_worker_up{instance="a",slot="0"}', values: '1x60'}
      - {series: 'prod_run_worker_up{instance="a",slot="1"}', values: '0x60'}
      - {series: 'prod_run_workers_wanted{instance="a"}', values: '2x60'}
      - {series: 'prod_run_worker_restarts_total{instance="a",reason="SIGSEGV"}', values: '0+1x60'}
      - {series: 'prod_run_last_reload_successful{instance="a"}', values: '0x60'}
      - {series: 'prod_run_cannot_respawn{instance="a"}', values: '1x60'}
      - {series: 'prod_run_check_passed{instance="a",check="database"}', values: '0x60'}
      - {series: 'prod_run_listen_backlog{instance="a",socket="web"}', values: '500x60'}
      - {series: 'prod_run_log_lines_dropped_total{instance="a"}', values: '0+3x60'}
      - {series: 'prod_run_log_lines_lost_total{instance="a"}', values: '0x60'}
      - {series: 'prod_run_metrics_free_bytes{instance="a"}', values: '4096x60'}
    alert_rule_test:
"""


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (Debian: prometheus)")
def test_the_alert_rules_are_taken_and_fire(tmp_path: Path) -> None:
    """Each of them, on a service that has everything wrong; and none on one that is only stopping."""
    import yaml

    shutil.copy(HERE / "alerts.yml", tmp_path)
    names = [rule["alert"] for rule in yaml.safe_load((HERE / "alerts.yml").read_text())["groups"][0]["rules"]]
    checked = subprocess.run(["promtool", "check", "rules", "alerts.yml"], cwd=tmp_path, capture_output=True, text=True)
    # An expectation that is wrong makes promtool say what it got: here that nothing fires.
    expecting = "".join(f"      - {{eval_time: 30m, alertname: {name}, exp_alerts: []}}\n" for name in names)
    (tmp_path / "test.yml").write_text(FIRING + expecting)
    fired = subprocess.run(["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True)
    said = fired.stdout + fired.stderr

    assert (checked.returncode, f"{len(names)} rules found" in checked.stdout) == (0, True)
    assert {name for name in names if f'alertname="{name}"' in said} == set(names), said
    assert 'instance="leaving"' not in said
    assert 'instance="a"' in said
