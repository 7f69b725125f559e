"""What a user gets wrong: one clear sentence, the right exit code, and no traceback of prod-run's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.running import Running

APP = """
value = 3
nothing = None

def main(): ...
def needs(x): ...
def needs_more(x, y, z): ...
"""

OWN_FILES = re.compile(r'File \\?"[^"]*/launcher/')

# words → exit code, what the sentence says
COMMAND_LINES = {
    "unknown option": (["--workrs", "2", "app:main"], 2, "--workrs: there is no such option. Did you mean --workers?"),
    "nothing at all": ([], 2, "MODULE:ATTRIBUTE: missing"),
    "no value": (["--bind"], 2, "--bind: its value is missing"),
    "negative workers": (["-w", "-1", "app:main"], 2, "--workers: '-1' is negative"),
    "no workers": (["-w", "0", "app:main"], 2, "--workers: '0' is out of range"),
    "negative surge": (["--max-surge", "-1", "app:main"], 2, "--max-surge: '-1' is negative"),
    "negative limit": (["--boot-timeout", "-5s", "app:main"], 2, "--boot-timeout: '-5s' is negative"),
    "no unit": (["--drain-delay", "5", "app:main"], 2, "--drain-delay: '5' has no unit"),
    "no choice": (["--preload", "sometimes", "app:main"], 2, "Write auto, always or never"),
    "no such port": (["-b", "127.0.0.1:99999", "app:main"], 2, "'99999' is not a port"),
    "no port": (["-b", "127.0.0.1", "app:main"], 2, "'127.0.0.1' is not an address"),
    "no file name": (["-b", "unix:", "app:main"], 2, "'unix:' has no file name"),
    "negative descriptor": (["-b", "fd:-3", "app:main"], 2, "'-3' is not a descriptor"),
    "no such host": (["-b", "1.2.3.4.5:80", "app:main"], 69, "cannot resolve '1.2.3.4.5'"),
    "no such directory for a socket": (["-b", "unix:nowhere/x", "app:main"], 69, "there is no directory"),
    "one name twice": (["-b", "a=:0", "-b", "a=[::]:0", "app:main"], 2, "'a' is the name of both"),
    "no such directory": (["--chdir", "nowhere", "app:main"], 69, "--chdir: cannot enter"),
    "a file as directory": (["--chdir", "app.py", "app:main"], 69, "--chdir: cannot enter"),
    "a bad name": (["--name", "a/b", "app:main"], 2, "--name: 'a/b' is not a name"),
    "no command": (["--"], 2, "-- COMMAND: missing"),
    "a command that is not there": (["--", "no-such-command"], 127, "cannot run no-such-command: not found in PATH"),
    "a setting of targets": (["--preload", "never", "--", "true"], 2, "--preload: only goes with a Python target"),
    "a heartbeat of nobody": (["--stall-timeout", "5s", "app:main"], 2, "--stall-timeout: app:main takes no Worker"),
    "a setting of commands": (["--rewrite", "1:2", "app:main"], 2, "--rewrite: only goes with a command"),
    "no interface": (["--interface", "cgi", "app:main"], 2, "--interface: 'cgi' is not one of the choices"),
    "no attribute": (["app"], 2, "Say what in the module is to be run, for example app:main"),
    "empty attribute": (["app:"], 2, "'app:' is not MODULE:ATTRIBUTE"),
    "empty target": ([""], 2, "'' is not MODULE:ATTRIBUTE"),
    "a call": (["app:main()"], 2, "Name the callable without parentheses"),
    "a file": (["./app.py"], 2, "Name the module as `import` does, not its file: app:main"),
    "a file and its attribute": (["app.py:main"], 70, "Name the module as `import` does, not its file: app"),
    "missing module": (["nope:main"], 70, "there is no module 'nope'; it was looked for in"),
    "missing parent": (["nope.sub:main"], 70, "there is no module 'nope'"),
    "not a package": (["app.sub:main"], 70, "there is no module 'app.sub'"),
    "missing attribute": (["app:mian"], 70, "there is no 'mian' in "),
    "near attribute": (["app:mian"], 70, "Did you mean 'main'?"),
    "missing attribute of a function": (["app:main.x"], 70, "there is no 'x' in a function"),
    "a number": (["app:value"], 70, "'value' is an int, which cannot be called. Name a function"),
    "None": (["app:nothing"], 70, "'nothing' is a NoneType, which cannot be called"),
    "an unknown argument": (["app:needs"], 70, "does not know what to pass for 'x'. Annotate it"),
    "unknown arguments": (["app:needs_more"], 70, "does not know what to pass for 'x', 'y', 'z'"),
    "prod-run's own package": (["launcher:main"], 70, "prod-run's own package is called `launcher`"),
}


@pytest.mark.parametrize("mistake", COMMAND_LINES)
def test_a_mistake_is_one_clear_sentence(start: Callable[..., Running], app: Callable[..., Path], mistake: str) -> None:
    """Each ends at once with its exit code; one line is an error, and it says what to do."""
    words, code, sentence = COMMAND_LINES[mistake]
    app(APP)
    running = start(*words)

    assert running.wait() == code
    errors = [line["text"] for line in running.lines if "prod-run: " in line["text"] or line.get("level") == "error"]
    assert len(errors) == 1, running.text()
    assert sentence in errors[0]
    assert "Traceback" not in running.text()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PROD_RUN_WORKER", "2", "PROD_RUN_WORKER: there is no such setting. Did you mean PROD_RUN_WORKERS?"),
        ("PROD_RUN_workers", "2", "PROD_RUN_workers: there is no such setting. Did you mean PROD_RUN_WORKERS?"),
        ("PROD_RUN_X", "2", "PROD_RUN_X: there is no such setting. Unset it, or see `prod-run --help` for the names"),
        ("PROD_RUN_WORKERS", "many", "PROD_RUN_WORKERS: 'many' is not a whole number"),
        ("PROD_RUN_WORKERS", "-2", "PROD_RUN_WORKERS: '-2' is negative"),
        ("PROD_RUN_BIND", "127.0.0.1", "'127.0.0.1' is not an address"),
    ],
)
def test_a_bad_variable_is_exit_78(
    start: Callable[..., Running], app: Callable[..., Path], name: str, value: str, sentence: str
) -> None:
    """A typo in a PROD_RUN_ variable is an error, never passed over."""
    app(APP)
    running = start("app:main", env={name: value})

    assert running.wait() == 78
    assert sentence in running.text()
    assert len(running.lines) == 1


def test_all_mistakes_are_named_at_once(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Nobody has to start prod-run five times to find five typos."""
    app(APP)
    running = start("--boot-timeout", "5", "-b", "x", "app", env={"PROD_RUN_WORKER": "2"})

    assert running.wait() in (2, 78)
    for name in ("--boot-timeout", "--bind", "PROD_RUN_WORKER", "MODULE:ATTRIBUTE"):
        assert name in running.text()


def test_a_module_called_launcher_as_target_is_explained(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """A user's own launcher.py can never be found: the sentence says so, and what to do."""
    app("def main(): ...\n", "launcher")
    running = start("launcher:main")

    assert running.wait() == 70
    assert "so an app's module of that name is never found. Rename the module" in running.text()


@pytest.mark.parametrize("use", ["from launcher import go", "import launcher\nlauncher.go()", "import launcher.steps"])
@pytest.mark.parametrize("kind", ["module", "package"])
def test_a_launcher_beside_the_app_is_explained(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path, use: str, kind: str
) -> None:
    """An app that imports its own `launcher` gets prod-run's: the error says that it is hidden."""
    if kind == "module":
        app("def go(): ...\n", "launcher")
    else:
        (tmp_path / "launcher").mkdir()
        app("def go(): ...\n", "launcher/__init__")
    app(f"{use}\ndef main(): ...\n")
    running = start("app:main")

    assert running.wait() == 70
    assert (
        "A `launcher` lies in the app's directory: prod-run's package of that name hides it, rename it"
        in running.text()
    )
    assert not OWN_FILES.search(running.text())


def test_a_launcher_beside_the_app_does_not_harm_who_means_prod_runs(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """`from launcher import Worker` is prod-run's, whatever lies in the app's directory."""
    app("raise SystemExit('imported by mistake')\n", "launcher")
    app("from launcher import Worker\ndef main(worker: Worker):\n    worker.ready()\n    worker.stopping.wait()\n")
    for preload in ("always", "never"):
        running = start("--preload", preload, "app:main")
        running.wait_for(event="committed")
        assert running.reload()["event"] == "committed"

        assert running.stop() == 0


@pytest.mark.parametrize("module", ["signal", "socket", "errors", "protocol", "select"])
def test_a_module_with_the_name_of_a_standard_one_hides_nothing_from_prod_run(
    start: Callable[..., Running], app: Callable[..., Path], module: str
) -> None:
    """The app's directory leads `sys.path` only when prod-run has loaded what it needs."""
    app("raise SystemExit('imported by mistake')\n", module)
    app("from launcher import Worker\ndef main(worker: Worker):\n    worker.ready()\n    worker.stopping.wait()\n")
    running = start("app:main")
    running.wait_for(event="committed")

    assert running.stop() == 0


def test_a_missing_dependency_is_not_taken_for_a_missing_target(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """The app's own failed import shows its traceback, not the sentence about the target's module."""
    app("import not_installed\ndef main(): ...\n")
    running = start("app:main")

    assert running.wait() == 70
    assert "importing it raised ModuleNotFoundError: No module named 'not_installed'" in running.text()
    assert "it was looked for in" not in running.text()


@pytest.mark.skipif(os.geteuid() != 0, reason="root reads everything: another user is needed")
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
def test_a_directory_that_may_not_be_entered_is_exit_69(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Named with --chdir by a user without permission: the sentence names it."""
    app(APP)
    (tmp_path / "closed").mkdir(mode=0o700)
    before = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")
    if subprocess.run([*before, sys.executable, "-c", ""], capture_output=True).returncode:
        pytest.skip("an unprivileged user cannot run this interpreter")
    running = start("--chdir", tmp_path / "closed", "app:main", before=before)

    assert running.wait() == 69
    assert f"--chdir: cannot enter {tmp_path}/closed: Permission denied" in running.text()


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_directory_that_is_gone_at_a_reload_rejects_it(
    start: Callable[..., Running], hello: Callable[..., Path], tmp_path: Path, how: str
) -> None:
    """The generation before serves on; when the directory is back a reload succeeds."""
    path = hello()
    here = tmp_path / "here"
    here.mkdir()
    shutil.copy(path, here)
    running = start("--chdir", "here", "-b", "127.0.0.1:0", "hello:main")
    running.wait_for(event="committed")
    if how == "moved":
        here.rename(tmp_path / "away")
    else:
        shutil.rmtree(here)
    result = running.reload()

    assert result["event"] == "rejected", running.text()
    assert f"{here}: cannot enter the directory: No such file or directory" in result["reason"]
    assert "version 1" in running.ask()
    here.mkdir()
    shutil.copy(path, here)
    assert running.reload()["event"] == "committed"
    assert running.stop() == 0


def test_a_relative_pythonpath_is_meant_from_the_apps_directory(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """`PYTHONPATH=src` finds the app at the start, at a reload, and without preload."""
    path = app(
        "from launcher import Worker\ndef main(worker: Worker):\n    worker.ready()\n    worker.stopping.wait()\n"
    )
    (tmp_path / "src").mkdir()
    path.rename(tmp_path / "src" / "app.py")
    for preload in ("always", "never"):
        running = start("--preload", preload, "app:main", env={"PYTHONPATH": "src"})
        running.wait_for(event="committed")

        assert running.reload()["event"] == "committed"
        assert running.stop() == 0
