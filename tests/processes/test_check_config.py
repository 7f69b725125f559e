"""What `--check-config` says is what a start does; and the examples of configuration do what they say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import LIMIT, PROD_RUN, Running

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = Path(__file__).parents[2] / "examples"
APP = """
import environ
import launcher

@environ.config(prefix="SHOP")
class Config:
    port = environ.var(converter=int)
    token = launcher.secret()

def main(config: Config) -> None:
    pass
"""
URL = "postgres://shop:p%40ss-hunter2@db.internal:5433/orders"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A copy of the example, with the secrets that Docker would mount."""
    shutil.copytree(EXAMPLES / "shop", tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    for name, value in {"shop_secret_key": "key-hunter2", "shop_database_url": URL}.items():
        (folder / name).write_text(f"{value}\n")
        (folder / name).chmod(0o600)
    return tmp_path


def run(*words: str, cwd: Path, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    clean = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
    clean["PATH"] = f"{PROD_RUN.parent}:{clean['PATH']}"
    return subprocess.run(
        words, cwd=cwd, env={**clean, **(environ or {})}, capture_output=True, text=True, timeout=LIMIT
    )


def check(*words: str, cwd: Path, environ: dict[str, str] | None = None) -> dict[str, object]:
    """Return the report."""
    found: dict[str, object] = json.loads(
        run(str(PROD_RUN), "--check-config", "--format", "json", *words, cwd=cwd, environ=environ).stdout
    )
    return found


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"SHOP_PORT": "eighty"}, ()),
        ({"SHOP_PORT": "80", "SHOP_TOKEN": "hunter2", "SHOP_TOKEN_FILE": "/nowhere"}, ()),
        ({"SHOP_PORT": "80", "SHOP_TOKEN": "hunter2"}, ("--template", "a.tmpl:a")),
        ({"SHOP_PORT": "80", "SHOP_TOKEN": "hunter2"}, ("--env-file", "missing.env")),
    ],
)
def test_a_start_is_refused_for_the_problems_that_the_check_names(
    start: Callable[..., Running],
    app: Callable[..., Path],
    tmp_path: Path,
    environ: dict[str, str],
    words: tuple[str, ...],
) -> None:
    """The same code: what the check lets pass starts, and what it names stops a start with 78."""
    app(APP)
    (tmp_path / "a.tmpl").write_text("${SHOP_PORT}${NOTHING}")

    report = check(*words, "app:main", cwd=tmp_path, environ=environ)
    running = start(*words, "app:main", env=environ)

    assert running.wait() == 78
    assert report["problems"]
    for problem in report["problems"]:  # type: ignore[attr-defined]
        assert problem["name"] in running.text()
        assert problem["reason"] in running.text()


def test_what_the_check_lets_pass_starts(start: Callable[..., Running], shop: Path) -> None:
    """The Django-like example: its settings are made of a URL from Docker's directory, its template is in place."""
    words = ("--secrets-dir", "secrets", "--env-file", "production.env", "--template", "nginx.conf.tmpl:nginx.conf")

    report = check(*words, "web:main", cwd=shop)
    assert (report["ok"], (shop / "nginx.conf").exists()) == (True, False)
    running = start(*words, "web:main")

    assert running.wait() == 0, running.text()
    assert "shop.example, www.shop.example: shop at db.internal:5433" in running.text()
    assert "server_name shop.example;" in (shop / "nginx.conf").read_text()
    assert "hunter2" not in running.text()


def test_the_nginx_template_keeps_nginxs_own_variables(shop: Path) -> None:
    """`$$host` is nginx's; a missing name is found before nginx is."""
    (shop / "production.env").write_text("SHOP_HOSTS=shop.example\n")
    words = ("--secrets-dir", "secrets", "--env-file", "production.env", "--template", "nginx.conf.tmpl:nginx.conf")

    found = check(*words, "web:main", cwd=shop)["problems"]
    made = run(
        *(str(PROD_RUN), "--check-config", *words, "--template-check", "grep -F 'Host $host' {src}", "web:main"),
        cwd=shop,
        environ={"SERVER_NAME": "shop.example"},
    )

    assert [(problem["name"], problem["reason"]) for problem in found] == [  # type: ignore[attr-defined]
        ("nginx.conf.tmpl:4:17", "SERVER_NAME is not set, or empty: the name in the certificate")
    ]
    assert (made.returncode, made.stdout) == (0, "web:main: the configuration is good\n")


def test_the_workflow_for_ci_passes_without_secrets_and_fails_for_a_bad_change(shop: Path) -> None:
    """Its lines are run as they stand there."""
    shutil.rmtree(shop / "secrets")
    lines = runs((shop / "check-config.yml").read_text())
    assert lines[0] == "pip install prod-run"  # this test's environment has it

    answers = [run("sh", "-c", line, cwd=shop) for line in lines[1:]]
    (shop / "production.env").write_text("SHOP_HOSTS=shop.example\nSHOP_DEBUG=perhaps\nSHOP_HOST=x\n")
    refused = run("sh", "-c", lines[1], cwd=shop)
    (shop / "config.py").write_text((shop / "config.py").read_text().replace("on: pages", "on, pages"))
    stale = run("sh", "-c", lines[2], cwd=shop)

    assert [answer.returncode for answer in answers] == [0, 0], answers
    assert "SHOP_DATABASE_URL  a secret, not given here" in answers[0].stdout
    assert refused.returncode == 78
    assert [name for name in ("SHOP_DEBUG ", "SHOP_HOST ", "nginx.conf.tmpl:4:17 ") if name not in refused.stdout] == []
    assert stale.returncode == 1


def runs(workflow: str) -> list[str]:
    """Return what the steps of a workflow run: `run: words`, or `run: >-` and the indented lines below."""
    found: list[str] = []
    folded = False
    for line in workflow.splitlines():
        _, mark, words = line.partition("run: ")
        if mark and not line.lstrip().startswith("#"):
            folded = words == ">-"
            found.append("" if folded else words)
        elif folded and line.startswith("          "):
            found[-1] = f"{found[-1]} {line.strip()}".strip()
        else:
            folded = False
    return found


def test_the_list_of_variables_is_what_the_class_says(shop: Path) -> None:
    """Printed, not written."""
    words = ("--help-config", "--format", "markdown", "--config", "config:Config")

    assert run(str(PROD_RUN), *words, cwd=shop).stdout == (EXAMPLES / "shop" / "VARIABLES.md").read_text()


def test_the_shop_runs_without_prod_run(shop: Path) -> None:
    """`launcher.config()` loads for itself then."""
    secrets = {f"SHOP_{name}_FILE": f"{shop}/secrets/shop_{name.lower()}" for name in ("SECRET_KEY", "DATABASE_URL")}
    environ = {"SHOP_HOSTS": "shop.example", **secrets}

    alone = run(sys.executable, "-c", "import web; web.main()", cwd=shop, environ=environ)

    assert alone.stdout == "shop.example: shop at db.internal:5433\n"


def test_a_plain_class_is_asked_for_by_annotation(start: Callable[..., Running]) -> None:
    """The smallest example, checked and run."""
    good, bad = {"SHOP_GREETING": "Moin"}, {"SHOP_PATIENCE": "3"}

    assert check("plain_config:main", cwd=EXAMPLES, environ=good)["ok"]
    assert not check("plain_config:main", cwd=EXAMPLES, environ=bad)["ok"]
    running = start("--chdir", EXAMPLES, "plain_config:main", env=good)
    assert running.wait() == 0, running.text()
    assert "Moin, you wait 2 s" in running.text()


@pytest.mark.parametrize("page", ["configure.md", "check-in-ci.md"])
def test_what_the_pages_show_is_what_is_printed(shop: Path, page: str) -> None:
    """Each console block is run in the example, and says what the page says."""
    text = (EXAMPLES.parent / "docs" / "how-to" / page).read_text()
    blocks = [block.partition("\n```")[0] for block in text.split("```console\n$ ")[1:]]
    (making,) = (block.partition("\n```")[0] for block in text.split("```sh\n")[1:])
    shutil.rmtree(shop / "secrets")  # what is not in the repository, the page says how to make

    assert blocks
    assert run("sh", "-ec", making, cwd=shop).returncode == 0
    for block in blocks:
        command, _, shown = block.partition("\n")
        answer = run("sh", "-c", command, cwd=shop)
        assert (answer.stdout + answer.stderr).rstrip("\n") == shown, command
