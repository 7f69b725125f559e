"""Units, manifests and the pages about them: well-formed, valid, and all that they say of prod-run is true."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest

from launcher import ctl, settings, settings_table
from launcher.errors import EXIT_CODES
from launcher.observer import endpoints
from launcher.quantities import duration

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(__file__).parents[1]
SERVICE = ROOT / "systemd/prod-run@.service"
UNITS = sorted(path for path in (ROOT / "systemd").rglob("*") if path.is_file())
DEPLOYMENT = ROOT / "examples/kubernetes/deployment.yaml"
MONITORING = ROOT / "examples/kubernetes/monitoring.yaml"
KUBERNETES = sorted((ROOT / "examples" / "kubernetes").glob("*.yaml"))
CONTAINERFILE = ROOT / "examples/containers/Containerfile"
COMPOSE = ROOT / "examples/containers/compose.yaml"
NOMAD = ROOT / "examples/nomad/shop.nomad.hcl"
PROCFILE = ROOT / "examples/heroku/Procfile"
PAGES = [ROOT / f"docs/how-to/{name}.md" for name in ("systemd", "containers", "kubernetes")]
ALL = [*UNITS, *KUBERNETES, CONTAINERFILE, COMPOSE, NOMAD, PROCFILE, *PAGES]
BUILT = {setting.name: setting for setting in (*settings_table.BUILT, *settings_table.MODES)}
# Flags of other programs: systemctl, systemd-creds, podman, docker, apt-get, pip and the engine's own words.
FOREIGN = {"now", "tag", "file", "yes", "from", "read-only", "tmpfs", "user", "publish", "rm", "no-install-recommends"}
FOREIGN |= {"no-cache-dir", "init", "stop-timeout", "start-period", "interval"}
MARGIN = 5.0  # seconds for the end itself: what is left over is killed, the log is flushed

# Not of Kubernetes itself; its fields are checked against the others' by hand.
DEFINED_BY_OTHERS = {"monitoring.coreos.com/v1"}

# compose-spec's names, as far as this file may use them.
COMPOSE_TOP = {"name", "services", "secrets"}
COMPOSE_SERVICE = {
    *("image", "build", "ports", "environment", "secrets", "user", "read_only", "tmpfs", "cap_drop", "security_opt"),
    *("cpus", "command", "mem_limit", "pids_limit", "stop_grace_period", "restart", "healthcheck"),
}


def load(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a file."""
    return list(yaml.safe_load_all(path.read_text()))


def deployment() -> dict[str, Any]:
    """Return the pod's description."""
    pod: dict[str, Any] = load(DEPLOYMENT)[0]["spec"]["template"]["spec"]
    return pod


def variables(path: Path) -> dict[str, str]:
    """Return the variables that a file sets, by its kind."""
    if path == DEPLOYMENT:
        return {item["name"]: item["value"] for item in deployment()["containers"][0]["env"]}
    if path == COMPOSE:
        return dict(load(path)[0]["services"]["web"]["environment"])
    return dict(re.findall(r'^\s*#?\s*(?:ENV )?(PROD_RUN_\w+) *= *"?([^"\s]+)"?', path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
@pytest.mark.parametrize("version", ["1.30.0", "newest"])
def test_kubernetes_would_take_them(path: Path, version: str) -> None:
    """Each object is valid, without a field that Kubernetes does not know."""
    checker = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    documents = load(path)

    assert documents
    for document in documents:
        if document["apiVersion"] in DEFINED_BY_OTHERS:
            continue
        checker.validate(document, checker.latest_version() if version == "newest" else version, strict=True)


def test_kubernetes_objects_fit_together() -> None:
    """Volumes, ports, labels and references name what is there."""
    objects = {(one["kind"], one["metadata"]["name"]): one for path in KUBERNETES for one in load(path)}
    pod = deployment()
    container = pod["containers"][0]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    labels = objects["Deployment", "shop"]["spec"]["template"]["metadata"]["labels"]
    secret = volumes["secrets"]["projected"]["sources"][0]["secret"]

    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert ("ConfigMap", volumes["config"]["configMap"]["name"]) in objects
    assert {item["key"] for item in secret["items"]} == objects["Secret", secret["name"]]["stringData"].keys()
    assert objects["Service", "shop"]["spec"]["selector"] == labels
    assert objects["PodDisruptionBudget", "shop"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["Service", "shop"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert variables(DEPLOYMENT)["PROD_RUN_BIND"] == f":{container['ports'][0]['containerPort']}"
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert variables(DEPLOYMENT)["PROD_RUN_SECRETS_DIR"] in mounted
    assert str(Path(variables(DEPLOYMENT)["PROD_RUN_ENV_FILE"]).parent) in mounted


def test_probes_ask_what_they_are_for() -> None:
    """Each asks its own path, on the port that prod-run was told to answer at."""
    container = deployment()["containers"][0]
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    assert {name: probe["path"] for name, probe in asked.items()} == {
        "startup": "/startupz",
        "readiness": "/readyz",
        "liveness": "/livez",
    }
    assert {probe["path"] for probe in asked.values()} <= {route.path for route in endpoints.ROUTES}
    assert {f":{ports[probe['port']]}" for probe in asked.values()} == {variables(DEPLOYMENT)["PROD_RUN_INTROSPECT"]}


def test_prometheus_finds_the_metrics() -> None:
    """The ServiceMonitor leads to a Service, which leads to the port, which has the path."""
    service, monitor = load(MONITORING)
    (endpoint,) = monitor["spec"]["endpoints"]
    (port,) = service["spec"]["ports"]
    pod = load(DEPLOYMENT)[0]["spec"]["template"]

    assert monitor["kind"] == "ServiceMonitor"
    assert set(monitor["spec"]) == {"selector", "endpoints"}
    assert set(endpoint) <= {"port", "path", "interval", "scrapeTimeout"}
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert endpoint["port"] == port["name"]
    assert endpoint["path"] in {route.path for route in endpoints.ROUTES}
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert port["targetPort"] in {each["name"] for each in pod["spec"]["containers"][0]["ports"]}


def test_compose_has_no_unknown_field() -> None:
    """Checked against the fields of compose-spec that matter here."""
    document = load(COMPOSE)[0]
    service = document["services"]["web"]

    assert set(document) <= COMPOSE_TOP
    assert set(service) <= COMPOSE_SERVICE
    assert set(service["secrets"]) <= document["secrets"].keys()
    assert (COMPOSE.parent / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_the_nomad_job_is_well_formed() -> None:
    """It is HCL with one job, one group and one task."""
    hcl = pytest.importorskip("hcl2", reason="python-hcl2 is not installed")
    text = str(hcl.loads(NOMAD.read_text()))

    for word in ("shutdown_delay", "kill_timeout", "PROD_RUN_WATCH", "change_mode"):
        assert word in text


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_well_formed(path: Path) -> None:
    """Sections and assignments only; what they mean is verified by systemd itself in tests/systemd."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())

    assert set(parser.sections()) <= {"Unit", "Service", "Socket", "Install"}
    codes = parser.get("Service", "RestartPreventExitStatus", fallback="").split()
    assert set(codes) <= {code for code, _ in EXIT_CODES}


GRACES = {
    "kubernetes": (float(deployment()["terminationGracePeriodSeconds"]), variables(DEPLOYMENT)),
    "compose": (duration(load(COMPOSE)[0]["services"]["web"]["stop_grace_period"]), variables(COMPOSE)),
    "nomad": (duration(re.findall(r'kill_timeout = "(\w+)"', NOMAD.read_text())[0]), variables(NOMAD)),
    "systemd": (duration(re.findall(r"TimeoutStopSec=(\w+)", SERVICE.read_text())[0]), {}),
    "heroku": (30.0, {}),
}


@pytest.mark.parametrize("where", GRACES)
def test_the_grace_is_long_enough(where: str) -> None:
    """Drain delay, drain limit and the end itself fit into what the platform gives."""
    grace, given = GRACES[where]
    used = sum(
        duration(given.get(BUILT[name].variable, BUILT[name].default)) for name in ("drain-delay", "drain-timeout")
    )

    assert used + MARGIN <= grace


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_every_word_of_prod_run_exists(path: Path) -> None:
    """Flags, variables, verbs and files that are named are there, and built."""
    text = path.read_text()
    known = {setting.variable for setting in BUILT.values()}
    options = {flag.removeprefix("--") for flags in ctl.OPTIONS.values() for flag in flags} | {"socket", "json"}
    flags = set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", text))
    verbs = set(re.findall(r'prod-ctl(?:"?,? "?(?:--socket \S+ )?)([a-z]+)', text))
    files = re.findall(r"(?<![\w/.])((?:systemd|examples)/[\w@./-]*\w)", text)

    assert set(re.findall(r"PROD_RUN_[A-Z_]+(?!…)", text)) - {"PROD_RUN_"} <= known
    assert flags <= set(BUILT) | options | FOREIGN
    assert verbs <= set(ctl.VERBS)
    assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", [DEPLOYMENT, COMPOSE, NOMAD, CONTAINERFILE, SERVICE], ids=lambda p: p.name)
def test_their_settings_are_accepted(path: Path) -> None:
    """prod-run itself reads what they set."""
    given = variables(path)
    accepted = settings.resolve(("hello:main",), {}, given, settings.Machine(lambda: 2))

    assert given
    assert {row.name for row in accepted.rows if row.origin.startswith("environment")} == {
        name for name, setting in BUILT.items() if setting.variable in given
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_stay_short(path: Path) -> None:
    """Under 120 lines."""
    assert len(path.read_text().splitlines()) < 120


def test_the_page_names_every_drop_in() -> None:
    """And no other."""
    page = PAGES[0].read_text()

    assert set(re.findall(r"^\| `([\w-]+\.conf)`", page, re.MULTILINE)) == {
        path.name for path in UNITS if path.suffix == ".conf"
    }
