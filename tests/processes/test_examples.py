"""The examples, really started: what runs here are the command lines that stand in them."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.containers import containerfile
from tests.ports import free_port
from tests.processes.running import LIMIT, PROD_RUN, Running

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the repository, as far as the examples go."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def in_docstring(path: Path) -> str:
    """Return the command line that stands in a module's docstring: the indented lines."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return "\n".join(line.strip() for line in text.splitlines() if line.startswith("    "))


def in_readme(path: Path) -> list[str]:
    """Return the lines of each block for a shell."""
    return [block.partition("\n```")[0] for block in path.read_text().split("```sh\n")[1:]]


def run(line: str, cwd: Path) -> tuple[int, str]:
    """Have a shell run it; return the exit code and what was said."""
    clean = {name: value for name, value in os.environ.items() if name in {"HOME", "LANG", "TMPDIR"}}
    environ = {**clean, "PATH": f"{PROD_RUN.parent}:{os.environ['PATH']}:/usr/sbin", "XDG_RUNTIME_DIR": str(cwd)}
    ended = subprocess.run(
        ["sh", "-e", "-c", line],
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_a_plain_class(root: Path) -> None:
    """Its variable comes from the environment, the other is the default; it starts, greets and is done."""
    line = in_docstring(root / "examples" / "plain_config.py")

    code, said = run(line, root)

    assert line.startswith("SHOP_GREETING=Moin prod-run ")
    assert (code, "Moin, you wait 2 s" in said) == (0, True), said
    assert "event=committed" in said


def test_a_settings_module_with_a_url_from_dockers_directory(root: Path) -> None:
    """One value from a file gives user, host and port; the template is in its place; no secret is said."""
    shop = root / "examples" / "shop"
    secrets, start, _ = in_readme(shop / "README.md")

    assert run(secrets, shop) == (0, "")
    code, said = run(start, shop)
    again = run(in_docstring(shop / "web.py"), root)

    for text, ended in ((said, code), (again[1], again[0])):
        assert (ended, "shop.example, www.shop.example: shop at db.internal:5433" in text) == (0, True), text
        assert "event=committed" in text
        assert "p%40ss" not in text
        assert "fifty-random" not in text
    assert said.startswith("web:main: the configuration is good\n")
    assert "proxy_set_header Host $host;" in (shop / "nginx.conf").read_text()


@pytest.mark.skipif(not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"), reason="nginx is not installed")
def test_the_template_is_what_nginx_takes(root: Path) -> None:
    """The file is looked at by nginx before it is moved; one that it refuses starts nothing."""
    shop = root / "examples" / "shop"
    secrets, _, checked = in_readme(shop / "README.md")
    run(secrets, shop)

    code, said = run(checked, shop)
    good = (shop / "nginx.conf").read_text()
    source = shop / "nginx.conf.tmpl"
    source.write_text(source.read_text().replace("proxy_pass ", "proxy_past "))
    refused, why = run(checked, shop)

    assert (code, "event=committed" in said) == (0, True), said
    assert refused == 78
    assert "nginx refuses it (exit code 1): " in why
    assert "proxy_past" in why
    assert (shop / "nginx.conf").read_text() == good


def test_herokus_procfile(root: Path, start: Callable[..., Running]) -> None:
    """The release is checked, and the web process listens at $PORT with $WEB_CONCURRENCY workers."""
    lines = dict(line.split(": ", 1) for line in (root / "examples/heroku/Procfile").read_text().splitlines())
    port = free_port()
    code, said = run(lines["release"], root / "examples")
    # $PORT and the like are the shell's to fill in, as on the platform.
    web = f"cd {root}/examples && PATH={PROD_RUN.parent}:$PATH && exec {lines['web']}"
    running = start(before=("sh", "-c", web), env={"PORT": str(port), "WEB_CONCURRENCY": "3"})

    assert (code, "is good" in said) == (0, True), said
    assert running.wait_for(event="committed")["workers"] == "3/3"
    assert running.wait_for(event="listening", name="default")["address"] == f"0.0.0.0:{port}"
    assert "hello from version 1" in running.ask()
    assert running.stop() == 0


def test_the_server(root: Path, start: Callable[..., Running]) -> None:
    """It answers, and stops when it is told to; the port of its command line may be taken here."""
    words = in_docstring(root / "examples" / "hello.py").split()
    assert words[0] == "prod-run"

    running = start(*(word.replace(":8000", ":0") for word in words[1:]))

    running.wait_for(event="committed")
    assert "hello from version 1" in running.ask()
    assert running.stop() == 0


def test_compose_gives_its_target_the_secret_it_declares(start: Callable[..., Running], tmp_path: Path) -> None:
    """The lines at its top make the file; without that there is no start.  Nothing is watched: the mount is of one file."""
    compose = (containerfile.PATH.parent / "compose.yaml").read_text()
    making = "\n".join(line.removeprefix("#   ") for line in compose.splitlines() if line.startswith("#   "))
    target = json.loads(compose.partition("command: ")[2].partition("\n")[0])
    (copied,) = (one.words for one in containerfile.stages()[0] if one.name == "COPY" and one.words[-1] == "/app/")
    for source in copied[:-1]:
        shutil.copy(containerfile.CONTEXT / source, tmp_path)

    assert start("--secrets-dir", "secrets", *target).wait() == 78
    subprocess.run(["sh", "-ec", making], cwd=tmp_path, check=True)
    running = start("--secrets-dir", "secrets", "--bind", "127.0.0.1:0", *target)
    running.wait_for("orders are in orders at db.internal")
    running.wait_for(event="committed")
    answer = running.ask()

    assert answer.startswith("hello")
    assert "WATCH" not in compose
    assert (tmp_path / "secrets/shop_database_url").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert running.stop() == 0


def test_the_pod_gives_its_target_what_it_declares(start: Callable[..., Running], tmp_path: Path) -> None:
    """Kubernetes' ConfigMap and Secret, as files at the places that the Deployment names: all is used, nothing is noted."""
    yaml = pytest.importorskip("yaml")
    described = {
        one["kind"]: one for name in ("deployment", "config") for one in documents(yaml, f"kubernetes/{name}.yaml")
    }
    pod = described["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (projected,) = next(volume["projected"] for volume in pod["volumes"] if "projected" in volume)["sources"]
    files = {"/etc/shop/config/shop.env": described["ConfigMap"]["data"]["shop.env"]}
    for item in projected["secret"]["items"]:
        files[f"/etc/shop/secrets/{item['path']}"] = described["Secret"]["stringData"][item["key"]]
    for name, text in files.items():
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o440)
    for name in ("hello.py", "containers/orders.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    given = {one["name"]: one["value"].replace("/etc/", f"{tmp_path}/etc/") for one in container["env"]}
    given |= {"PROD_RUN_BIND": "127.0.0.1:0", "PROD_RUN_INTROSPECT": "off", "PROD_RUN_DRAIN_DELAY": "0s"}

    running = start(*container["args"], env={**given, "PROD_RUN_LOG_FORMAT": "logfmt"})
    running.wait_for("orders are in orders at db.internal, for shop.example, www.shop.example")
    running.wait_for(event="committed")

    assert running.stop() == 0
    assert [line["text"] for line in running.lines if line.get("level") in {"warning", "error"}] == []


def documents(yaml: ModuleType, name: str) -> list[dict[str, Any]]:
    """Return the objects of a manifest."""
    return list(yaml.safe_load_all((EXAMPLES / name).read_text()))
