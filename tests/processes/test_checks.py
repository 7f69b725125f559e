"""`worker.check()` under a real prod-run."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.processes.asking import ANYWHERE, ask, ctl, private, wait_until_served
from tests.processes.running import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.running import Running

# What a test wants to happen it says by files beside the app.
CHECKED = """
import os, threading, time
import environ, launcher
from launcher import Worker
from launcher.runtime import health
health.PERIOD, health.SOONER, health.GLANCE = 0.1, 0.05, 0.05

@environ.config(prefix="APP")
class Config:
    password = launcher.secret()

def main(worker: Worker, config: Config):
    def database():
        with open("looks", "a") as file:
            file.write(f"{os.getpid()}\\n")
        if os.path.exists("bad"):
            raise ConnectionError("refused for " + config.password.reveal() + " at 10.0.0.1")
    def mail():
        with open("runs", "a") as file:
            file.write(f"{threading.active_count()}\\n")
        while os.path.exists("hang"):
            time.sleep(0.01)
    worker.check("database", database, required=True)
    worker.check("mail", mail, timeout=0.2)
    worker.ready()
    worker.stopping.wait()
"""


@pytest.fixture
def running(start: Callable[..., Running], app: Callable[..., Path]) -> Running:
    """Two workers with a secret and two checks."""
    app(CHECKED)
    one = start("-w", 2, *ANYWHERE, "app:main", env={"APP_PASSWORD": "hunter2-hunter2"})
    wait_until_served(one)
    return one


def looks(tmp_path: Path) -> list[int]:
    """Return who looked, the last one last."""
    return [int(line) for line in (tmp_path / "looks").read_text().split()]


def test_a_failure_is_seen_everywhere_and_its_secret_nowhere(running: Running, tmp_path: Path) -> None:
    """Not ready, but alive; the app's words are for the private tier."""
    good = ask(running, "/readyz?verbose").text
    (tmp_path / "bad").touch()
    until(lambda: ask(running, "/readyz").code == 503, "not ready")
    public = "".join(ask(running, path).text for path in ("/readyz", "/__heartbeat__", "/status", "/healthz?verbose"))
    told = "".join(ask(private(tmp_path), path).text for path in ("/readyz", "/__heartbeat__", "/status"))
    status = ctl(tmp_path, "status").stdout

    assert re.search(r"\[\+\]database ok, \d+s ago\n", good)
    alone = ask(running, "/readyz/database").text
    assert re.fullmatch(r"\[-\]database failed: it raised, \d+s ago: reason withheld\n", alone)
    assert (ask(running, "/livez").code, ask(running, "/healthz").code, ask(running, "/startupz").code) == (200,) * 3
    assert "[!]database failed: it raised" in ask(running, "/healthz?verbose").text
    assert ctl(tmp_path, "health").returncode == 1
    assert "refused for" not in public
    assert re.search(r"ConnectionError: refused for <secret \w+> at 10.0.0.1", told), told
    assert "name database  required yes  is failed" in status
    line = running.wait_for(event="check failed")
    assert (line["level"], line["name"]) == ("error", "database")
    (tmp_path / "bad").unlink()
    until(lambda: ask(running, "/readyz").code == 200, "ready again")
    running.wait_for(event="check is good again")
    check = next(each for each in ask(running, "/status").json["checks"] if each["name"] == "database")
    assert (check["good"], check["required"], check["slot"]) == (True, True, 0)
    assert check["age"] >= 0
    assert "hunter2" not in running.text() + public + told + status


def test_a_check_that_hangs_has_failed_and_is_not_begun_again(running: Running, tmp_path: Path) -> None:
    """Its thread is the only one, the other checks go on, and it is found good when it comes back."""
    (tmp_path / "hang").touch()

    def mail() -> str:
        return ask(running, "/readyz/mail").text

    until(lambda: "still runs" in mail(), "a check that hangs")
    begun = (tmp_path / "runs").read_text()
    seen = len(looks(tmp_path))
    until(lambda: len(looks(tmp_path)) > seen + 5, "others that go on")
    assert "[!]mail failed: timed out after 0.2s, and still runs after" in mail()
    assert ask(running, "/readyz").code == 200
    assert (tmp_path / "runs").read_text() == begun
    (tmp_path / "hang").unlink()
    until(lambda: mail() == "ok\n", "a good one")


def test_the_lowest_slot_alone_looks_and_the_next_one_takes_over(running: Running, tmp_path: Path) -> None:
    """A death, a reload that was rejected, one that was not."""
    first = next(pid for pid, slot in running.workers().items() if slot == 0)
    until(lambda: len(looks(tmp_path)) > 5, "looks")
    assert set(looks(tmp_path)) == {first}
    os.kill(first, signal.SIGKILL)
    until(lambda: looks(tmp_path)[-1] != first, "another one")
    assert running.reload()["event"] == "committed"
    second = next(pid for pid, slot in running.workers().items() if slot == 0)
    until(lambda: looks(tmp_path)[-1] == second, "the new generation")
    assert ask(running, "/readyz").code == 200


ASYNC = """
import asyncio, os
from launcher import Worker
from launcher.runtime import health
health.PERIOD, health.SOONER, health.GLANCE = 0.1, 0.05, 0.05

async def main(worker: Worker):
    loop = asyncio.get_running_loop()
    async def database():
        assert asyncio.get_running_loop() is loop
        if os.path.exists("bad"):
            await asyncio.sleep(3600)
    worker.check("database", database, timeout=0.1, required=True)
    await worker.ready_async()
    await worker.stopping.wait_async()
"""


def test_an_async_check_is_run_by_the_event_loop_of_the_app(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """And is cancelled at its limit."""
    app(ASYNC)
    one = start(*ANYWHERE, "app:main")
    wait_until_served(one)
    (tmp_path / "bad").touch()
    until(lambda: ask(one, "/readyz").code == 503, "not ready")
    assert "database failed: timed out after 0.1s" in ask(one, "/readyz").text
    (tmp_path / "bad").unlink()
    until(lambda: ask(one, "/readyz").code == 200, "ready again")
    assert one.stop() == 0


QUICK = """
import os
from launcher import Worker
from launcher.runtime import health
health.PERIOD, health.SOONER, health.GLANCE = 0.1, 0.05, 0.05

def database():
    assert not os.path.exists("bad")
"""
WSGI = """
Worker.current().check("database", database, required=True)

def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "1")])
    return [str(Worker.current().slot).encode()]
"""
ASGI = """
import asyncio

async def database():
    assert asyncio.get_running_loop() and not os.path.exists("bad")

async def app(scope, receive, send):
    while scope["type"] == "lifespan":
        event = (await receive())["type"]
        if event == "lifespan.startup":
            Worker.current().check("database", database, required=True)
        await send({"type": event + ".complete"})
        if event == "lifespan.shutdown":
            return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
    await send({"type": "http.response.body", "body": str(Worker.current().slot).encode()})
"""


@pytest.mark.parametrize(
    ("server", "source", "words"),
    [("gunicorn", WSGI, ()), ("gunicorn", WSGI, ("--preload", "never")), ("uvicorn", ASGI, ())],
)
def test_web_applications_have_checks_too(
    start: Callable[..., Running],
    app: Callable[..., Path],
    tmp_path: Path,
    server: str,
    source: str,
    words: tuple[str, ...],
) -> None:
    """Asked for while it is imported, before the fork, or in its lifespan; after a reload there is still one."""
    pytest.importorskip(server)
    app(QUICK + source)
    one = start(*words, "-b", "127.0.0.1:0", *ANYWHERE, "app:app")
    wait_until_served(one)

    assert "[+]database ok" in ask(one, "/readyz?verbose").text
    assert one.ask() == "0"
    assert one.reload()["event"] == "committed"
    (tmp_path / "bad").touch()
    until(lambda: ask(one, "/readyz").code == 503, "not ready")
    (tmp_path / "bad").unlink()
    until(lambda: ask(one, "/readyz").code == 200, "ready again")
    assert one.stop() == 0


MUTE = """
import os, socket, stat
from launcher import Worker
from launcher.runtime import health
health.PERIOD, health.GLANCE = 0.1, 0.05

def main(worker: Worker):
    worker.check("database", lambda: None, timeout=0.1, required=True)
    worker.ready()
    while not os.path.exists("mute"):
        worker.stopping.wait(0.05)
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode) and socket.socket(fileno=os.dup(fd)).type == socket.SOCK_SEQPACKET:
                os.close(fd)
        except OSError:
            pass
    print("mute")
    while True:
        signal.pause()
"""


@pytest.mark.slow
def test_a_result_that_nobody_can_renew_is_not_known_any_more(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """All workers have closed what they knew nothing of: they serve and are silent, until somebody reloads."""
    app("import signal" + MUTE)
    one = start("-w", 2, *ANYWHERE, "app:main")
    wait_until_served(one)
    (tmp_path / "mute").touch()
    one.wait_for("lost sight of the checks")
    until(lambda: ask(one, "/readyz").code == 503, "not ready")

    assert "[-]database failed: no result yet" in ask(one, "/readyz").text
    assert len(one.workers()) == 2
    (tmp_path / "mute").unlink()
    assert one.reload()["event"] == "committed"
    until(lambda: ask(one, "/readyz").code == 200, "ready again")
