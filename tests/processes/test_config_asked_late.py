"""A class that nobody names before the app runs: its secrets are hidden from the moment at which it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.running import Running

KEY = "hunter2hunter2"
APP = f"""
import logging, os, subprocess, sys
import environ, launcher

@environ.config(prefix="SHOP")
class Config:
    key = launcher.secret()
    {{more}}

def load():
    logging.getLogger("shop").warning("before that")  # so that there is a mask already, of no secret
    try:
        launcher.config(Config)
    except launcher.ConfigError:
        pass
    child = subprocess.run(["env"], capture_output=True, text=True).stdout
    print("seen", "SHOP_KEY" in os.environ, "{KEY}" in child, "EMPTY" in child, flush=True)
    logging.getLogger("shop").warning("logged %s", "{KEY}")
    raise ValueError("of no use: {KEY}")

def main():
    {{body}}

def task():
    load()
"""
GIVEN = {"SHOP_KEY": KEY, "EMPTY": ""}


def assert_nothing_shows_it(running: Running) -> None:
    """All that was said is there."""
    running.wait_for("seen False False True")
    running.wait_for("logged <secret SHOP_KEY>", level="warning")
    running.wait_for("SHOP_KEY: taken from the plain environment", level="warning", logger="prod-run")
    running.wait_for("uncaught ValueError: of no use: <secret SHOP_KEY>", level="error")
    running.wait()
    assert KEY not in running.text()


@pytest.mark.parametrize("preload", ["auto", "never"])
@pytest.mark.parametrize("more", ["", "port = environ.var(converter=int)"], ids=["good", "with a problem"])
def test_a_class_first_asked_for_in_a_worker_is_hidden(
    start: Callable[..., Running], app: Callable[..., Path], preload: str, more: str
) -> None:
    """In records, exceptions, os.environ and a child's environment; also where the class cannot be made."""
    app(APP.format(more=more, body="load()"))
    running = start("--preload", preload, "--restart", "never", "app:main", env=GIVEN)

    assert_nothing_shows_it(running)


def test_a_class_first_asked_for_in_the_init_task_is_hidden(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """And in the reason of the start that it refuses."""
    app(APP.format(more="", body="pass"))
    running = start("--before", "app:task", "app:main", env=GIVEN)

    assert_nothing_shows_it(running)
