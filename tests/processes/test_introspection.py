"""The introspection port of a real prod-run."""

from __future__ import annotations

import os
import signal
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from launcher.observer.endpoints import ROUTES
from tests.processes.asking import ANYWHERE, OBEDIENT, SIMPLE, Answer, ask, observer_of, private, wait_until_served
from tests.processes.running import Running, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def running(start: Callable[..., Running], app: Callable[..., Path]) -> Running:
    """Two workers, and a port for everybody."""
    app(SIMPLE)
    one = start("-w", 2, *ANYWHERE, "app:main")
    wait_until_served(one)
    return one


# ── every path ──


EXPECTED = {
    "/": (200, 200),
    "/livez": (200, 200),
    "/livez/supervisor": (200, 200),
    "/readyz": (200, 200),
    "/readyz/workers": (200, 200),
    "/startupz": (200, 200),
    "/healthz": (200, 200),
    "/__version__": (404, 404),
    "/__heartbeat__": (200, 200),
    "/__lbheartbeat__": (200, 200),
    "/metrics": (200, 200),
    "/status": (200, 200),
    "/config": (403, 200),
    "/logs": (403, 200),
    "/logs?level=loud": (403, 400),
    "/workers/0/stacks": (403, 200),
    "/nothing": (404, 404),
}


def test_every_path_has_its_code_its_type_and_its_headers(running: Running, tmp_path: Path) -> None:
    """In public and in private; HEAD says the same without a body; nothing else is allowed."""
    assert len(EXPECTED) == len(ROUTES) + 2
    for path, expected in EXPECTED.items():
        for where, code in zip((running, private(tmp_path)), expected, strict=True):
            got = ask(where, path)
            head = ask(where, path, "HEAD")
            post = ask(where, path, "POST")

            assert (path, got.code, head.code) == (path, code, code)
            assert head.text == ""
            assert got.headers["Cache-Control"] == "no-store"
            assert got.headers["X-Content-Type-Options"] == "nosniff"
            assert int(got.headers["Content-Length"]) == len(got.text.encode())
            assert "Access-Control-Allow-Origin" not in got.headers
            assert head.headers.keys() == got.headers.keys()
            assert (post.code, post.headers.get("Allow")) == ((404, None) if path == "/nothing" else (405, "GET, HEAD"))
    kinds = {route.path: route.kind for route in ROUTES}
    for path in ("/", "/livez", "/readyz", "/__heartbeat__", "/__lbheartbeat__", "/status"):
        assert ask(running, path).headers["Content-Type"] == kinds[path]


def test_the_port_can_be_turned_off(start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path) -> None:
    """Then there is no socket either."""
    app(SIMPLE)
    one = start("--introspect", "off", "app:main")
    one.wait_for(event="committed")

    assert not private(tmp_path).exists()
    assert "introspect" not in one.text()


def test_sockets_are_private_and_go_with_prod_run(running: Running, tmp_path: Path) -> None:
    """0600, and no file is left."""
    assert private(tmp_path).stat().st_mode & 0o777 == 0o600
    assert running.stop() == 0
    assert not private(tmp_path).exists()


def test_a_busy_address_that_was_asked_for_is_an_error(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Exit 69, and who has it."""
    app(SIMPLE)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        one = start("--introspect", f"127.0.0.1:{taken.getsockname()[1]}", "app:main")

        assert one.wait() == 69
    assert "in use" in one.text()


def test_a_busy_default_costs_one_warning(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """The unix socket still answers."""
    app(SIMPLE)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8900))
            taken.listen()
        except OSError:
            pass  # somebody else has it: as good
        one = start("app:main", env={"PROD_RUN_INTROSPECT": ""})
        one.wait_for(event="committed")

    assert one.text().count("127.0.0.1:8900") == 1
    assert f"introspection only through unix:{private(tmp_path)}: 127.0.0.1:8900: in use" in one.text()
    until(lambda: ask(private(tmp_path), "/readyz").code == 200, "ready")


@pytest.mark.parametrize(("options", "mode"), [("", 0o600), ("?mode=0660", 0o660)])
def test_an_own_unix_socket_is_for_this_user_only_whatever_the_umask(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path, options: str, mode: int
) -> None:
    """Whoever may open it sees configuration, log and stacks: others have to be let in by name."""
    app(SIMPLE)
    one = start("--umask", "0002", "--introspect", f"unix:{tmp_path}/own.sock{options}", "app:main")
    one.wait_for(event="committed")

    assert stat.S_IMODE((tmp_path / "own.sock").stat().st_mode) == mode
    assert ask(tmp_path / "own.sock", "/config").code == 200


# ── what is told ──


def test_status_tells_what_happened(start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path) -> None:
    """Workers with their ends, reloads with their reasons, settings with their origin; in public without words."""
    app(OBEDIENT)
    one = start("-w", 2, "-b", "web=127.0.0.1:0", *ANYWHERE, "app:main")
    wait_until_served(one)
    one.spare()
    (tmp_path / "bad").touch()
    one.reload()
    os.kill(next(pid for pid, slot in one.workers().items() if slot == 1), signal.SIGSEGV)
    until(lambda: ask(one, "/status").json["slots"], "the end of a worker")
    until(lambda: len([w for w in ask(one, "/status").json["workers"] if w["state"] == "serving"]) == 2, "another one")
    public, told = ask(one, "/status"), ask(private(tmp_path), "/status").json

    assert {(w["slot"], w["pid"]) for w in told["workers"]} == {(slot, pid) for pid, slot in one.workers().items()}
    assert all(worker["rss"] > 1_000_000 and worker["age"] >= 0 for worker in told["workers"])
    (slot,) = told["slots"]
    assert (slot["slot"], slot["restarts"], slot["last_exit"].partition(" ")[0]) == (1, 1, "SIGSEGV")
    assert told["deaths_by_reason"] == {"SIGSEGV": 1}
    assert [(each["generation"], each["result"]) for each in told["reloads"]] == [(1, "committed"), (2, "rejected")]
    assert "hunter2" in told["reloads"][1]["reason"]
    assert told["reloads"][1]["detail"].startswith("Traceback (most recent call last):\n  File ")
    assert not public.json["reloads"][1].keys() & {"reason", "detail"}
    assert told["reloads_by_result"] == {"committed": 1, "rejected": 1}
    assert told["generations"][0]["stale_for"] >= 0
    assert (told["pid"], told["ready"], told["generation"]) == (one.pid, True, 1)
    assert {"name": "workers", "value": "2", "origin": "flag --workers"} in told["settings"]
    assert told["log_lines"]["taken"] > 0
    assert {"name": "workers", "origin": "flag --workers"} in public.json["settings"]
    assert "hunter2" not in public.text
    assert public.json.keys() == told.keys()


def test_metrics_are_of_this_very_moment(running: Running) -> None:
    """In the form that is asked for."""
    plain = ask(running, "/metrics")
    opened = ask(running, "/metrics", Accept="application/openmetrics-text; version=1.0.0")

    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "\nprod_run_ready 1.0\n" in plain.text
    assert 'prod_run_workers{state="serving"} 2.0\n' in plain.text
    assert 'prod_run_worker_rss_bytes{slot="1"} ' in plain.text
    assert opened.headers["Content-Type"].startswith("application/openmetrics-text")
    assert opened.text.endswith("# EOF\n")


def test_status_tells_who_waits_to_be_accepted(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """The backlog of a listening socket that nobody accepts from."""
    app(SIMPLE)
    one = start("-b", "127.0.0.1:0", *ANYWHERE, "app:main")
    wait_until_served(one)
    clients = [socket.create_connection(one.address()) for _ in range(3)]

    def backlog() -> object:
        return next(each["backlog"] for each in ask(one, "/status").json["listeners"] if each["name"] == "default")

    until(lambda: backlog() == 3, "three that wait")
    for client in clients:
        client.close()


def test_stacks_come_from_the_worker_that_is_asked(running: Running, tmp_path: Path) -> None:
    """And several may ask at once."""
    answer = ask(private(tmp_path), "/workers/1/stacks")

    assert answer.code == 200
    assert f"pid {next(pid for pid, slot in running.workers().items() if slot == 1)}\n" in answer.text
    assert "app.py" in answer.text
    assert ask(private(tmp_path), "/workers/5/stacks").code == 404


def test_the_version_is_that_of_the_generation_that_serves(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Dockerflow's file, read once for each generation."""
    app(SIMPLE)
    (tmp_path / "version.json").write_text('{"version": "1"}')
    one = start(*ANYWHERE, "app:main")
    wait_until_served(one)
    first = ask(one, "/__version__")
    (tmp_path / "version.json").write_text('{"version": "2"}')
    still = ask(one, "/__version__")
    app("1 / 0\n")
    one.reload()
    kept = ask(one, "/__version__")
    app(SIMPLE)
    one.reload()

    assert (first.code, first.headers["Content-Type"]) == (200, "application/json")
    assert [each.json["version"] for each in (first, still, kept)] == ["1", "1", "1"]
    until(lambda: ask(one, "/__version__").json["version"] == "2", "the new generation's")


# ── the token ──


def test_the_token_opens_the_private_tier(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Over TCP, by number, and with the token that stands in the file now."""
    app(SIMPLE)
    (tmp_path / "token").write_text("s3cret-one\n")
    one = start(*ANYWHERE, "--introspect-token-file", "token", "app:main")
    wait_until_served(one)

    def stacks(token: str, **headers: str) -> Answer:
        return ask(one, "/workers/0/stacks", Authorization=f"Bearer {token}", **headers)

    assert ask(one, "/workers/0/stacks").headers["WWW-Authenticate"] == 'Bearer realm="prod-run"'
    assert (stacks("s3cret-one").code, stacks("s3cret-two").code) == (200, 401)
    assert stacks("s3cret-one", Host="evil.example").code == 403
    assert "value" in ask(one, "/status", Authorization="Bearer s3cret-one").json["settings"][0]
    assert ask(one, "/readyz").code == 200
    (tmp_path / "token").write_text("s3cret-two\n")
    assert (stacks("s3cret-one").code, stacks("s3cret-two").code) == (401, 200)
    one.stop()
    assert "s3cret" not in one.text()


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_token_file_without_a_token_stops_the_start(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path, content: str | None
) -> None:
    """An operator who asked for protection gets it or nothing."""
    app(SIMPLE)
    if content is not None:
        (tmp_path / "token").write_text(content)
    one = start(*ANYWHERE, "app:main", env={"PROD_RUN_INTROSPECT_TOKEN_FILE": "token"})

    assert one.wait() == 78
    assert "PROD_RUN_INTROSPECT_TOKEN_FILE: " in one.text()


# ── the app's configuration ──


CONFIGURED = """
import os, time
import environ, launcher
from launcher import Worker

@environ.config(prefix="APP")
class Config:
    port = environ.var(8000, converter=int)
    token = launcher.secret()

def main(worker: Worker, config: Config):
    while os.path.exists("hold"):
        time.sleep(0.01)
    worker.ready()
    worker.stopping.wait()
"""


def test_config_shows_what_the_serving_generation_was_started_with(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Value and origin, no secret; a rejected one changes nothing, a killed observer neither."""
    app(CONFIGURED)
    (tmp_path / "env").write_text("APP_PORT=1\n")
    one = start(*ANYWHERE, "--env-file", "env", "app:main", env={"APP_TOKEN": "hunter2-token"})
    wait_until_served(one)

    def port() -> tuple[str, str]:
        rows = {row["name"]: row for row in ask(private(tmp_path), "/config").json["variables"]}
        return rows["APP_PORT"]["value"], rows["APP_PORT"]["origin"]

    until(lambda: ask(private(tmp_path), "/config").json["generation"] == 1, "a committed generation")
    assert port() == ("1", "env:1")
    (tmp_path / "env").write_text("APP_PORT=x\n")
    assert one.reload()["event"] == "rejected"
    assert port() == ("1", "env:1")
    os.kill(observer_of(one), signal.SIGKILL)
    assert port() == ("1", "env:1")
    (tmp_path / "env").write_text("\nAPP_PORT=2\n")
    (tmp_path / "hold").touch()
    one.send(signal.SIGHUP)
    until(lambda: "generation 3 filling" in ask(one, "/status").json["sentence"], "a candidate")
    assert port() == ("1", "env:1")
    (tmp_path / "hold").unlink()
    until(lambda: port() == ("2", "env:2"), "the new one's")
    assert "hunter2" not in ask(private(tmp_path), "/config").text
    assert '"APP_TOKEN"' in ask(private(tmp_path), "/config").text
