"""The app's configuration in a running prod-run: found, loaded once, handed over, refused as a whole."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import Running, children_of, descriptors, title, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG = """
import environ, launcher, os
from launcher import Worker

@environ.config(prefix="SHOP")
class Config:
    stage = environ.var()
    token = launcher.secret(help="the payment provider's")
    wait = environ.var(converter=launcher.duration, default="1s")

def tell(config, worker=None):
    print("told", config.stage, config.token.reveal()[:4], config.wait, "SHOP_TOKEN" in os.environ, flush=True)
    assert config is launcher.config(Config) is launcher.config()

"""
MAINS = {
    "an annotation": "def main(config: Config):\n    tell(config)\n    launcher_stop()",
    "an annotation as text": "def main(*, config: 'Config'):\n    tell(config)\n    launcher_stop()",
    "by position": "def main(config: Config, /):\n    tell(config)\n    launcher_stop()",
    "Worker[Config]": "def main(worker: Worker[Config]):\n    tell(worker.config)\n    stop(worker)",
    "both": "def main(worker: Worker, config: Config):\n    assert worker.config is config\n    tell(config)\n    stop(worker)",
    "async": "async def main(config: Config):\n    tell(config)\n    import asyncio\n    await asyncio.sleep(1000)",
    "at import": "FOUND = launcher.config(Config)\ndef main(worker: Worker):\n    tell(FOUND)\n    stop(worker)",
}
STOP = """
def launcher_stop():
    import signal
    while True:
        signal.pause()

def stop(worker):
    worker.ready()
    worker.stopping.wait()

"""
GOOD = {"SHOP_STAGE": "live", "SHOP_TOKEN": "tokentoken"}
TOLD = "told live toke 1.0 False"


@pytest.mark.parametrize("preload", ["auto", "never"])
@pytest.mark.parametrize("how", MAINS)
def test_a_target_gets_its_configuration(
    start: Callable[..., Running], app: Callable[..., Path], how: str, preload: str
) -> None:
    """By annotation, on the Worker, or asked for at import: the one instance, its secret gone from os.environ."""
    app(CONFIG + STOP + MAINS[how])
    running = start("--preload", preload, "--restart", "always", "app:main", env=GOOD)
    running.wait_for(event="committed")

    running.wait_for(TOLD)
    assert running.wait_for("SHOP_TOKEN: taken from the plain environment", level="warning", logger="prod-run")
    assert running.stop() == 0


def test_the_class_of_config_is_loaded_before_the_target_is_imported(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """A Django-like settings module asks without naming a class; the secret has left the environment by then."""
    app(CONFIG + STOP, "schema")
    app(
        "import launcher, os\nassert 'SHOP_TOKEN' not in os.environ\nSTAGE = launcher.config().stage\n"
        "def main(worker: launcher.Worker):\n    print('stage', STAGE, worker.config.wait, flush=True)\n"
        "    worker.ready()\n    worker.stopping.wait()\n"
    )
    running = start("--config", "schema:Config", "app:main", env=GOOD)
    running.wait_for(event="committed")

    running.wait_for("stage live 1.0")
    assert running.stop() == 0


def test_config_that_names_another_class_than_the_target_is_refused(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """Which of the two was meant, nobody can know."""
    app(CONFIG + "@environ.config(prefix='OTHER')\nclass Other:\n    pass\ndef main(config: Config): ...")
    running = start("--config", "app:Other", "app:main", env=GOOD)

    assert running.wait() == 78
    running.wait_for("its annotations ask for Config, and --config names app:Other")


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("app:main", "is no environ-config class"),
        ("app:Confg", "Did you mean 'Config'?"),
        ("nowhere:Config", "there is no module 'nowhere'"),
    ],
)
def test_a_class_that_cannot_be_had_is_refused(
    start: Callable[..., Running], app: Callable[..., Path], named: str, sentence: str
) -> None:
    """The sentence says what is wrong with the name."""
    app(CONFIG + "def main(): ...")
    running = start("--config", named, "app:main", env=GOOD)

    assert running.wait() == 78
    running.wait_for(sentence)


def test_env_files_feed_the_app_and_the_settings(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """The environment beats the files, the later file the earlier; PROD_RUN_ variables do not reach the app."""
    app(
        CONFIG
        + STOP
        + "def main(worker: Worker[Config]):\n    tell(worker.config)\n"
        + "    print('ours', [n for n in os.environ if n.startswith('PROD_RUN_')], os.environ['PLAIN'], flush=True)\n"
        + "    stop(worker)"
    )
    (tmp_path / "base.env").write_text("SHOP_STAGE=base\nSHOP_WAIT=5s\nPLAIN=yes\nPROD_RUN_WORKERS=3\n")
    (tmp_path / "live.env").write_text("SHOP_STAGE=live\nSHOP_TOKEN=tokentoken\nPROD_RUN_NAME=fromfile\n")
    running = start("--env-file", "base.env", "--env-file", "live.env", "app:main", env={"SHOP_WAIT": "7s"})
    running.wait_for(event="committed", workers="3/3")

    running.wait_for("told live toke 7.0 False")
    running.wait_for("ours [] yes")
    assert running.wait_for(event="started")["name"] == "fromfile"
    running.wait_for("SHOP_TOKEN: taken from an env file, live.env:2")
    assert running.stop() == 0


def test_what_is_wrong_with_a_setting_in_an_env_file_is_told_with_its_line(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """As it is for a variable; but an env file cannot say where env files are."""
    app("def main(): ...")
    lines = ("PROD_RUN_WORKERS=many", "PROD_RUN_WORKRES=2", "PROD_RUN_CHDIR=/", "PROD_RUN_ENV_FILE=x")
    (tmp_path / "live.env").write_text("\n".join(lines))
    running = start("--env-file", "live.env", "app:main")

    assert running.wait() == 78
    running.wait_for("PROD_RUN_WORKERS (live.env:1)   'many' is not a whole number")
    running.wait_for("PROD_RUN_WORKRES (live.env:2)   there is no such setting. Did you mean PROD_RUN_WORKERS?")
    running.wait_for("PROD_RUN_CHDIR (live.env:3)     says where env files are, so it cannot stand in one")
    running.wait_for("PROD_RUN_ENV_FILE (live.env:4)  says where env files are, so it cannot stand in one")


def test_show_config_names_the_line_of_an_env_file(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Found from --chdir, like every relative path."""
    app("def main(): ...")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "live.env").write_text("\nPROD_RUN_WORKERS=2\n")
    running = start("--chdir", "inner", "--env-file", "live.env", "--show-config")

    assert running.wait() == 0
    row = running.wait_for(lambda line: line["text"].startswith("workers "))
    assert row["text"].split() == ["workers", "2", "inner/live.env:2"]


TEN = {
    "SHOP_WAIT": "soon",
    "SHOP_URL_FILE": "/nowhere/url",
    "SHOP_KEY": "a-plain-canary",
    "SHOP_KEY_FILE": "/nowhere/key",
    "SHOP_PORT": "many",
}
BAD = """
import environ, launcher
@environ.config(prefix="SHOP")
class Config:
    @environ.config
    class Inner:
        stage = environ.var()
        flag = environ.var(converter=launcher.boolean, default="perhaps")
    inner = environ.group(Inner)
    token = launcher.secret()
    url = launcher.url()
    key = launcher.secret()
    wait = environ.var(converter=launcher.duration)
    port = environ.var(converter=int)
"""
NAMES = (
    "broken.env:1",
    "SHOP_INNER_STAGE",
    "SHOP_INNER_FLAG",
    "SHOP_TOKEN",
    "SHOP_URL",
    "SHOP_KEY",
    "SHOP_WAIT",
    "SHOP_PORT",
    "one.tmpl:1:7",
    "nowhere.tmpl",
    "app",
)


def break_it(app: Callable[..., Path], tmp_path: Path) -> None:
    """Make every input wrong."""
    app(BAD, "schema")
    app("import schema\nraise ValueError('half deployed')")
    (tmp_path / "broken.env").write_text('A="\n')
    (tmp_path / "one.tmpl").write_text("never ${UNKNOWN} ${SHOP_TOKEN}\n")


OPTIONS = (
    *("--config", "schema:Config", "--env-file", "broken.env"),
    *("--template", "one.tmpl:one", "--template", "nowhere.tmpl:two"),
)


def test_everything_that_is_wrong_is_told_at_once(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Env file, variables, secrets, templates and the target: one list, exit 78, and no value in it."""
    break_it(app, tmp_path)
    running = start(*OPTIONS, "app:main", env=TEN)

    assert running.wait() == 78
    rejected = running.wait_for(event="rejected")
    lines = rejected["detail"].split("\\n")
    told = [line.split()[0] for line in lines if line.startswith("  ")]
    assert [name for name in told if name in NAMES] == list(NAMES), rejected["detail"]
    assert rejected["reason"].startswith("11 problems, the first: broken.env:1: ")
    assert "half deployed" in rejected["detail"]
    assert "canary" not in running.text()
    assert not (tmp_path / "one").exists()


def test_a_target_alone_is_exit_70_and_told_as_before(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """With nothing else wrong the app's import is the only news."""
    app(CONFIG + "raise ValueError('tokentoken is in a traceback')\ndef main(config: Config): ...")
    running = start("--config", "app:Config", "app:main", env=GOOD)

    assert running.wait() == 78  # the class is in the broken module
    app(CONFIG, "schema")
    app("import launcher, schema\nraise ValueError(launcher.config().token.reveal() + ' is in a traceback')")
    running = start("--config", "schema:Config", "app:main", env=GOOD)
    assert running.wait() == 70
    rejected = running.wait_for(event="rejected")
    assert "<secret SHOP_TOKEN> is in a traceback" in rejected["reason"]
    assert "app.py" in rejected["detail"]
    assert "tokentoken" not in running.text()


def test_an_app_that_asks_at_import_is_told_of_its_variables_not_of_its_import(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """`launcher.config(Class)` in a settings module raises: its problems are the news, not the exception."""
    app(CONFIG + "launcher.config(Config)\ndef main(config: Config): ...")
    running = start("app:main")

    assert running.wait() == 78
    detail = running.wait_for(event="rejected")["detail"]
    assert "SHOP_STAGE" in detail
    assert "SHOP_TOKEN" in detail
    assert "ConfigError" not in detail


def test_a_reload_with_all_of_that_changes_nothing_and_a_good_one_commits(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """The same list in a reload; the old generation goes on with what it loaded."""
    source = CONFIG + STOP + "def main(worker: Worker[Config]):\n    tell(worker.config)\n    stop(worker)"
    app(source)
    (tmp_path / "live.env").write_text("SHOP_STAGE=one\nSHOP_TOKEN=tokentoken\n")
    running = start("--env-file", "live.env", "--max-surge", "0", "app:main")
    running.wait_for("told one")
    running.wait_for(event="committed")
    before = running.workers()
    (tmp_path / "live.env").write_text("SHOP_WAIT=soon\nSHOP_STAG=two\n")
    result = running.reload()

    assert result["event"] == "rejected"
    assert result["reason"].startswith("3 problems, the first: SHOP_STAGE: missing")
    assert running.workers() == before
    since = running.mark()
    os.kill(next(iter(before)), signal.SIGKILL)
    running.wait_for("told one", since=since)
    (tmp_path / "live.env").write_text("SHOP_STAGE=two\nSHOP_TOKEN=tokentoken\n")
    assert running.reload()["event"] == "committed"
    running.wait_for("told two")
    assert running.stop() == 0


@pytest.mark.parametrize("preload", ["never", "auto", "replaced zygote"])
def test_a_generations_later_processes_load_what_its_first_one_did(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path, preload: str
) -> None:
    """Whatever becomes of env file and secret: workers that import for themselves, and a replacement zygote's."""
    thread = "import threading, signal\nthreading.Thread(target=signal.pause, daemon=True).start()\n"
    unforkable = thread if preload == "auto" else ""
    app(unforkable + CONFIG + STOP + "def main(worker: Worker[Config]):\n    tell(worker.config)\n    stop(worker)")
    (tmp_path / "live.env").write_text("SHOP_STAGE=one\n")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "shop_token").write_bytes("früh\n".encode())
    options = ("--env-file", "live.env", "--secrets-dir", "secrets", "app:main")
    running = start(*(("--preload", "never") if preload == "never" else ()), *options)
    running.wait_for("told one früh")
    running.wait_for(event="committed")
    if preload != "replaced zygote":
        until(lambda: not running.zygotes(), "the process that prepared the generation is gone")
    (tmp_path / "live.env").unlink()
    (secrets / "shop_token").write_text("late")
    if preload == "replaced zygote":
        running.spare()
        for pid in children_of(running.pid):
            if "[zygote]" in title(pid) or "[spare]" in title(pid):
                os.kill(pid, signal.SIGKILL)
        running.wait_for(event="replaced zygote")
    since = running.mark()
    os.kill(next(iter(running.workers())), signal.SIGKILL)

    running.wait_for("told one früh", since=since)
    assert "told one late" not in running.text()
    assert running.stop() == 0


def kept_inputs(pid: int) -> int:
    """Count the snapshots that a supervisor keeps."""
    return sum("prod-run-inputs" in what for what in descriptors(pid).values())


def test_the_supervisor_keeps_inputs_for_the_generations_that_live(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """One sealed memfd for each, and for the one that a failure would go back to; none if nothing is declared."""
    app(CONFIG + STOP + MAINS["Worker[Config]"])
    running = start("app:main", env=GOOD)
    running.wait_for(event="committed")

    assert kept_inputs(running.pid) == 1
    for generation in (1, 2, 3):
        assert running.reload()["event"] == "committed"
        running.wait_for(event="retired", generation=generation)
    assert kept_inputs(running.pid) == 2
    assert running.stop() == 0
    app("import launcher\ndef main(worker: launcher.Worker):\n    worker.ready()\n    worker.stopping.wait()")
    plain = start("app:main", env=GOOD)
    plain.wait_for(event="committed")
    assert kept_inputs(plain.pid) == 0
    assert plain.stop() == 0
