"""Where a web application listens, and with how many workers, if nobody says."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from tests.ports import free_port
from tests.processes.running import until
from tests.web.serving import APP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.running import Running
    from tests.web.serving import Client


@pytest.mark.parametrize("preload", ["auto", "never"])
def test_port_and_web_concurrency_are_what_platforms_set(
    preload: str, start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """Without --bind and --workers, the variables that Heroku and its heirs set; the sockets outlive a reload."""
    app(APP)
    port = free_port()
    running = start("--preload", preload, "app:wsgi", env={"PORT": str(port), "WEB_CONCURRENCY": "3"})
    committed = running.wait_for(event="committed")

    assert running.wait_for(event="listening", name="default")["address"] == f"0.0.0.0:{port}"
    assert committed["workers"] == "3/3"
    assert "version 1" in running.ask()
    app(APP.replace("VERSION = 1", "VERSION = 2"))
    assert running.reload()["workers"] == "3/3"
    assert "version 2" in running.ask()
    before = running.workers().keys()
    for worker in before:
        os.kill(worker, signal.SIGKILL)
    until(lambda: len(running.workers().keys() - before) == 3, "workers again")
    assert "version 2" in running.ask()
    assert running.stop() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_what_is_said_stands_above_the_platforms_variables(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """--bind and --workers are answers, not questions."""
    app(APP)
    platform = {"PORT": "1", "WEB_CONCURRENCY": "9"}
    running = start("--bind", "127.0.0.1:0", "--workers", 2, "app:wsgi", env=platform)

    assert running.wait_for(event="committed")["workers"] == "2/2"
    assert [line["address"] for line in running.lines if line.get("name") == "default"] == [
        "{}:{}".format(*running.address())
    ]
    assert running.stop() == 0


def test_an_empty_variable_of_the_platform_is_none(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Compose files write WEB_CONCURRENCY=${WORKERS:-}; gunicorn cannot even be imported then."""
    app(APP)
    running = start("--check-config", "--bind", "127.0.0.1:0", "app:wsgi", env={"WEB_CONCURRENCY": ""})
    assert running.wait() == 0, running.text()
    running = start("--bind", "127.0.0.1:0", "app:wsgi", env={"WEB_CONCURRENCY": ""})

    assert running.wait_for(event="committed")["workers"] == "1/1"
    assert running.stop() == 0


@pytest.mark.parametrize(("name", "value"), [("PORT", "http"), ("PORT", "70000"), ("WEB_CONCURRENCY", "auto")])
def test_a_bad_variable_of_the_platform_is_exit_78(
    name: str, value: str, start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """It is named, and nothing starts."""
    app(APP)
    running = start("app:wsgi", env={name: value})

    assert running.wait() == 78
    assert f"{name}: '{value}' is" in running.text()


def test_a_port_in_use_is_exit_69(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """The address and its holder are named, as for --bind."""
    app(APP)
    with socket.create_server(("0.0.0.0", 0)) as sock:
        port = sock.getsockname()[1]
        running = start("app:wsgi", env={"PORT": str(port)})

        assert running.wait() == 69
    assert f"0.0.0.0:{port}: in use by" in running.text()


def test_a_server_is_always_restarted(
    start: Callable[..., Running], app: Callable[..., Path], client: Callable[[Running], Client]
) -> None:
    """A worker of a web application that ends with 0 is no work done, even if nobody named an address."""
    app(APP)
    running = start("app:wsgi", env={"PORT": str(free_port())})
    running.wait_for(event="committed")
    (before,) = running.workers()
    client(running).ask("/exit")
    until(lambda: running.workers().keys() - {before}, "another worker")

    assert "version 1" in running.ask()
    assert running.stop() == 0


def test_check_config_tries_it(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """A port in use is a note, since the one who serves may be the one that is to be replaced; no port is a problem."""
    app(APP)
    with socket.create_server(("0.0.0.0", 0)) as sock:
        port = sock.getsockname()[1]
        taken = start("--check-config", "app:wsgi", env={"PORT": str(port)})
        assert taken.wait() == 0
    free = start("--check-config", "app:wsgi", env={"PORT": str(port)})
    no_port = start("--check-config", "app:wsgi", env={"PORT": "http"})
    callable_ = start("--check-config", "app:make", env={"PORT": "http"})

    assert f"0.0.0.0:{port}  in use by" in taken.text()
    assert free.wait() == 0
    assert "in use" not in free.text()
    assert no_port.wait() == 78
    assert "PORT" in no_port.text()
    assert callable_.wait() == 0
