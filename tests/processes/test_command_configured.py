"""Commands with a configuration: env files, templates and secrets, prepared by a short-lived process of its own."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import Running, children_of, environ, processes, title, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.commands import Ctl

CANARY = "hunter2-canary"
CONFIG = """
import environ
import launcher

@environ.config(prefix="SHOP")
class Config:
    port = environ.var(converter=int)
    password = launcher.secret()
"""


def test_variables_of_env_files_reach_the_command(start: Callable[..., Running], tmp_path: Path) -> None:
    """The environment beats them; nothing that is prod-run's own is among them; nobody else is left running."""
    (tmp_path / "a.env").write_text("GREETING=hello\nTAKEN=file\nPROD_RUN_DRAIN_TIMEOUT=1s\n")
    script = "echo $GREETING $TAKEN; env | grep -c PROD_RUN; sleep 1000"
    running = start("--env-file", "a.env", "--", "sh", "-c", script, env={"TAKEN": "environment"})
    running.wait_for("hello environment")
    running.wait_for("0")
    until(lambda: len(children_of(running.pid)) == 1, "the preparer is over")

    assert running.stop() == 143


def test_a_template_is_rendered_before_the_command(start: Callable[..., Running], tmp_path: Path) -> None:
    """Its place is told as to any worker."""
    (tmp_path / "web.conf.in").write_text("greeting ${GREETING}\n")
    words = ("--template", "web.conf.in:web.conf", "--", "sh", "-c", "cat web.conf; env | grep PROD_RUN_")
    running = start(*words, env={"GREETING": "hello"})

    assert running.wait() == 0
    assert "greeting hello" in running.text()
    assert f"{tmp_path}/web.conf" in running.text()


def sleeping(running: Running) -> int:
    """Wait until a command has become what it is, and return its PID."""
    until(lambda: any(title(pid).startswith("sleep") for pid in children_of(running.pid)), "the command")
    return next(pid for pid in children_of(running.pid) if title(pid).startswith("sleep"))


def test_a_declared_secret_is_not_in_a_commands_environment(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """But in that of a command which --export-secret names it for; and in no other process's, whoever they are."""
    app(CONFIG, "config")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "shop_password").write_text(CANARY)
    flags = ("--config", "config:Config", "--secrets-dir", "secrets")
    environment = {"SHOP_PORT": "8000", "SPT_NOENV": "1"}
    plain = start(*flags, "--", "sh", "-c", "exec sleep 1000", env=environment)
    exported = start(*flags, "--export-secret", "SHOP_PASSWORD", "--", "sh", "-c", "exec sleep 1000", env=environment)
    without, having = sleeping(plain), sleeping(exported)

    assert "SHOP_PASSWORD" not in environ(without)
    assert environ(having)["SHOP_PASSWORD"] == CANARY
    for pid in (plain.pid, exported.pid, *children_of(exported.pid)):
        assert pid == having or CANARY not in environ(pid).values()
        assert CANARY not in title(pid)
    assert plain.stop() == exported.stop() == 143


def test_a_plain_secret_variable_leaves_the_environment(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """As it does for a Python target."""
    app(CONFIG, "config")
    environment = {"SHOP_PORT": "8000", "SHOP_PASSWORD": CANARY}
    running = start("--config", "config:Config", "--", "sh", "-c", "env", env=environment)

    assert running.wait() == 0
    assert CANARY not in running.text()
    assert "SHOP_PORT=8000" in running.text()


def test_nothing_starts_with_a_bad_configuration(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """All problems at once, exit code 78; the command was not run."""
    app(CONFIG, "config")
    flags = ("--config", "config:Config", "--export-secret", "NO_SUCH", "--export-secret", "NOR_THIS")
    running = start(*flags, "--", "sh", "-c", "echo it ran", env={"SHOP_PORT": CANARY})

    assert running.wait() == 78
    for name in ("SHOP_PORT", "SHOP_PASSWORD", "NO_SUCH", "NOR_THIS"):
        assert name in running.text()
    assert "it ran" not in running.text()


def test_a_reload_is_a_transaction_as_far_as_it_can_be(start: Callable[..., Running], ctl: Ctl, tmp_path: Path) -> None:
    """A bad env file rejects it and the copies never notice; a good one brings new copies."""
    (tmp_path / "a.env").write_text("GREETING=one\n")
    script = "trap 'echo told; exit' TERM; echo $GREETING; while :; do sleep 0.1; done"
    running = start("--env-file", "a.env", "-w", 2, "--", "sh", "-c", script)

    until(lambda: "serving 2/2" in ctl("health").stdout, "both copies")
    assert running.count("one", 2) == 2
    (tmp_path / "a.env").write_text("no pair\n")
    refused = ctl("reload", "--wait")
    assert refused.returncode == 1
    assert "a.env:1" in refused.stdout
    assert "told" not in running.text()
    (tmp_path / "a.env").write_text("GREETING=two\n")
    assert ctl("reload", "--wait").returncode == 0
    until(lambda: running.text().splitlines().count("told") == 2, "the old copies are told")

    assert running.count("two", 2) == 2
    running.send(signal.SIGTERM)
    assert running.wait() == 0
    assert not [pid for pid, parent, _ in processes() if parent == running.pid]


@pytest.mark.parametrize(
    ("name", "content", "code", "sentence"),
    [
        ("./script", "#!/bin/sh\n", 0, "the configuration is good"),
        ("./script", "#!/nowhere/python -u\n", 78, "cannot be run: its first line names /nowhere/python"),
        ("./missing", "", 78, "cannot be run: it is not in PATH, or no program"),
    ],
)
def test_a_command_that_cannot_be_run_is_found_without_a_start(
    start: Callable[..., Running], tmp_path: Path, name: str, content: str, code: int, sentence: str
) -> None:
    """A start would end with 126 or 127; a virtual environment that was moved is the usual case."""
    (tmp_path / "script").write_text(content)
    (tmp_path / "script").chmod(0o755)
    running = start("--check-config", "--", name)

    assert running.wait() == code
    assert sentence in running.text()
