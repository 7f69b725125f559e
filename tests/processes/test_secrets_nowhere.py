"""A declared secret is in no environment, no argument and no line of a running prod-run, however it was given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import Running, children_of, environ, title

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.processes.conftest import Strace

CANARIES = {"TOKEN": "canary-token", "URL": "postgres://u:canary-url@db/x", "KEY": "canary-key", "PIN": "canary-pin"}
APP = """
import environ, launcher, os, subprocess

@environ.config(prefix="SHOP")
class Config:
    token = launcher.secret()
    url = launcher.url()
    key = launcher.secret()
    pin = launcher.secret()

def main(worker: launcher.Worker[Config]):
    c = worker.config
    print("config", c, repr(c), flush=True)
    found = [c.token.reveal(), c.url.password, c.key.reveal(), c.pin.reveal()]
    print("right", found == ["canary-token", "canary-url", "canary-key", "canary-pin"], flush=True)
    print("names", sorted(name for name in os.environ if name.startswith("SHOP")), flush=True)
    subprocess.run(["true"], check=True)
    worker.ready()
    worker.stopping.wait()
    raise ValueError(f"the app itself says {c.token.reveal()} and {c.url.reveal()}")
"""
OPTIONS = (
    *("--env-file", "live.env", "--secrets-dir", "secrets", "--template", "web.tmpl:web"),
    *("--template-check", "true {src}"),
)


@pytest.fixture
def given(tmp_path: Path, app: Callable[..., Path]) -> dict[str, str]:
    """Give each secret in another way; return the environment."""
    app(APP)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "shop_key").write_text(CANARIES["KEY"])
    (tmp_path / "live.env").write_text(f"SHOP_URL={CANARIES['URL']}\n")
    (tmp_path / "pin").write_text(CANARIES["PIN"])
    (tmp_path / "web.tmpl").write_text("${SHOP_TOKEN} ${SHOP_URL}\n")
    return {"SHOP_TOKEN": CANARIES["TOKEN"], "SHOP_PIN_FILE": str(tmp_path / "pin"), "SPT_NOENV": "1"}


@pytest.mark.parametrize("preload", ["always", "never"])
def test_no_process_shows_a_secret_in_its_environment_or_arguments(
    start: Callable[..., Running], given: dict[str, str], preload: str
) -> None:
    """Nor do its output, its reload or its end, where the app puts one into an exception of its own."""
    running = start("-w", 2, "--preload", preload, *OPTIONS, "app:main", env=given)
    running.wait_for(event="committed")
    assert running.reload()["event"] == "committed"
    running.wait_for(event="retired", generation=1)
    if preload == "always":
        running.spare()
    tree = [running.pid, *children_of(running.pid)]

    assert len(tree) >= 4
    for pid in tree:
        assert "canary" not in str(environ(pid)), title(pid)
        assert "canary" not in Path(f"/proc/{pid}/cmdline").read_text(errors="replace"), title(pid)
    assert running.stop() == 0
    assert running.text().count("right True") == 4
    assert running.text().count("names ['SHOP_PIN_FILE']") == 4
    assert "the app itself says <secret SHOP_TOKEN> and <secret SHOP_URL>" in running.text()
    assert "canary" not in running.text()


@pytest.mark.slow
@pytest.mark.parametrize("preload", ["always", "never"])
def test_no_exec_but_the_callers_own_shows_a_secret(
    start: Callable[..., Running], given: dict[str, str], strace: Strace, preload: str
) -> None:
    """Of the supervisor, interpreters, the template's check and the app's own programs."""
    before = strace("-e", "trace=execve", "-v", "-s", "9999")
    running = start("-w", 2, "--preload", preload, *OPTIONS, "app:main", env=given, before=before)
    running.wait_for(event="committed")
    assert running.reload()["event"] == "committed"
    assert running.stop() == 0
    execs = [line for line in strace.log() if "execve(" in line]

    assert "canary-token" in execs[0]
    assert any('["true"]' in line for line in execs), "the app's own program was seen"
    assert any('["true", "' in line for line in execs), "the template's check was seen"
    assert [line for line in execs[1:] if "canary" in line] == []


@pytest.mark.parametrize("name", ["LC_TOKEN", "PYTHON_TOKEN"])
def test_a_secret_whose_name_stays_in_every_environment_is_refused(
    start: Callable[..., Running], app: Callable[..., Path], name: str
) -> None:
    """What libc and CPython read before the first line is at every exec: such a name can hold no secret."""
    app(
        f"import environ, launcher\n@environ.config\nclass Config:\n    token = launcher.secret(name={name!r})\ndef main(config: Config): ..."
    )
    running = start("app:main", env={name: "canary-token"})

    assert running.wait() == 78
    running.wait_for(f"{name}: is a name that stays in the environment of every process")
    assert "canary" not in running.text()


def test_an_import_that_fails_with_a_secret_in_its_words_does_not_show_it(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """The class is known by annotation only, and there is no target to ask: every class in sight is looked at."""
    app(
        "import environ, launcher, os\n"
        "@environ.config(prefix='SHOP')\nclass Config:\n    token = launcher.secret()\n"
        "raise ValueError(os.environ['SHOP_TOKEN'])\n"
    )
    running = start("app:main", env={"SHOP_TOKEN": "canary-canary"})

    assert running.wait() == 70
    assert "importing it raised ValueError: <secret SHOP_TOKEN>" in running.text()
    assert "canary" not in running.text()
