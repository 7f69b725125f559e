"""Web applications as targets: readiness, the gate, the drain, and what is said when something is wrong."""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import LIMIT, title, until
from tests.web.serving import APP, SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.running import Running
    from tests.web.serving import Client


@pytest.mark.parametrize("name", SERVERS)
def test_a_web_application_is_served(name: str, start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """A target that takes no Worker, but looks like an application, is one; workers are forked; the end is 0."""
    app(APP)
    running = start("--bind", "127.0.0.1:0", "--workers", 2, *SERVERS[name])
    running.wait_for(event="committed")

    assert "version 1" in running.ask()
    assert "unsafe to fork" not in running.text()
    assert running.stop() == 0
    assert "Traceback" not in running.text()


@pytest.mark.parametrize("name", SERVERS)
def test_it_is_served_on_a_unix_socket_and_without_preload(
    name: str, start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Where the listener is a path, and workers import for themselves."""
    app(APP)
    running = start("--bind", f"unix:{tmp_path}/s", "--preload", "never", *SERVERS[name])
    running.wait_for(event="committed")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(tmp_path / "s"))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = connection.makefile().read()

    assert "version 1" in answer
    assert running.stop() == 0


@pytest.mark.parametrize(("option", "target"), [("access_log=on", "app:asgi"), ("accesslog=-", "app:wsgi")])
def test_access_logs_are_there_for_the_asking(
    option: str, target: str, start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """One line for each request; by default there is none."""
    app(APP)
    for words in (("--server-option", option), ()):
        running = start("--bind", "127.0.0.1:0", *words, target)
        running.wait_for(event="committed")
        running.ask("/asked")
        assert running.stop() == 0
        assert running.text().count("GET /asked HTTP/1.1") == bool(words)


def test_an_application_may_use_uvicorns_logger(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """As many do, since plain uvicorn shows it; what uvicorn itself says of its start and end is left out."""
    app(
        "import logging\n"
        + APP.replace('print("opened", VERSION, flush=True)', "logging.getLogger('uvicorn.error').info('opened')")
    )
    running = start("--bind", "127.0.0.1:0", "app:asgi")
    running.wait_for(event="committed")
    assert running.stop() == 0

    said = [line for line in running.lines if line.get("logger", "").startswith("uvicorn")]
    assert [(line["level"], line["message"]) for line in said] == [("info", "opened")]


@pytest.mark.parametrize("name", SERVERS)
def test_clients_that_do_not_close_hold_up_nobody(
    name: str, start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """Each may take two seconds of nobody's time: one after the other they would take longer than this test waits."""
    app(APP)
    running = start("--bind", "127.0.0.1:0", *SERVERS[name])
    running.wait_for(event="committed")
    address = running.address()
    with contextlib.ExitStack() as kept:
        slow = [kept.enter_context(socket.create_connection(address, LIMIT)) for _ in range(50)]
        for connection in slow:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

        assert "version 1" in running.ask()
        for connection in slow:
            assert b"version 1" in kept.enter_context(connection.makefile("rb")).read()
        assert running.stop() == 0


@pytest.mark.parametrize("name", SERVERS)
def test_a_kept_connection_is_told_to_close(
    name: str, start: Callable[..., Running], app: Callable[..., Path], client: Callable[[Running], Client]
) -> None:
    """A client that is idle when its worker retires may ask once more, and is told to close with the answer."""
    app(APP)
    running = start("--bind", "127.0.0.1:0", *SERVERS[name])
    running.wait_for(event="committed")
    kept = client(running)
    first = kept.ask()
    assert running.reload()["event"] == "committed"
    running.ask("/sleep/0.5")  # not only in the first instant
    second = kept.ask()

    assert "connection: close" not in first
    assert "connection: close" in second, running.text()
    assert first.splitlines()[-1] == second.splitlines()[-1]  # the old one's answer
    assert kept.read() == ""
    assert running.stop() == 0


@pytest.mark.parametrize("name", SERVERS)
def test_who_is_in_flight_is_told_to_close(
    name: str,
    start: Callable[..., Running],
    app: Callable[..., Path],
    client: Callable[[Running], Client],
    tmp_path: Path,
) -> None:
    """A request that had begun when its worker retires is answered, and its client does not ask there again."""
    app(APP)
    running = start("--bind", "127.0.0.1:0", *SERVERS[name])
    running.wait_for(event="committed")
    (old,) = running.workers()
    busy = client(running)
    busy.socket.sendall(b"GET /wait/go HTTP/1.1\r\nHost: x\r\n\r\n")
    until((tmp_path / "waiting").exists, "the request is in flight")
    assert running.reload()["event"] == "committed"
    until(lambda: "stopping" in title(old), "the worker has heard it")
    (tmp_path / "go").touch()

    answer = busy.read()
    assert f"pid {old}" in answer
    assert "connection: close" in answer, running.text()
    assert running.stop() == 0


@pytest.mark.slow
def test_a_body_that_is_being_sent_is_in_flight(
    start: Callable[..., Running], app: Callable[..., Path], client: Callable[[Running], Client]
) -> None:
    """A client that pauses for longer than an idle connection may linger; waitress has no request yet then."""
    app(APP)
    running = start("--bind", "127.0.0.1:0", *SERVERS["waitress"])
    running.wait_for(event="committed")
    sending, idle = client(running), client(running)
    sending.socket.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
    assert "version 1" in idle.ask()
    running.send(signal.SIGTERM)
    assert idle.read() == ""  # the linger is over
    sending.socket.sendall(b"67890")

    assert "version 1" in sending.read()
    assert running.wait() == 0


@pytest.mark.parametrize("name", SERVERS)
def test_during_the_drain_delay_clients_are_told_and_new_ones_accepted(
    name: str, start: Callable[..., Running], app: Callable[..., Path], client: Callable[[Running], Client]
) -> None:
    """A load balancer's pool of kept connections is empty when the delay is over; nobody is turned away meanwhile."""
    app(APP)
    running = start("--bind", "127.0.0.1:0", "--drain-delay", "1h", *SERVERS[name])
    running.wait_for(event="committed")
    kept = client(running)
    assert "connection: close" not in kept.ask()
    running.send(signal.SIGTERM)
    until(lambda: "connection: close" in kept.ask(), "the kept connection is told to close")

    assert kept.read() == ""
    assert "version 1" in running.ask()
    running.send(signal.SIGQUIT)
    assert running.wait() == 0


def test_ready_means_that_the_lifespan_has_started(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """`committed` comes after the app's own startup, however long that takes; its shutdown is awaited."""
    slow = """
async def startup(receive):
    await receive()
    await asyncio.sleep(0.3)
    pathlib.Path("started").touch()
"""
    app(APP + slow)
    running = start("--bind", "127.0.0.1:0", "app:asgi")
    running.wait_for(event="committed")

    assert (tmp_path / "started").exists()
    assert running.stop() == 0
    assert "closed 1" in running.text()


def test_a_failed_lifespan_is_a_failed_boot(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Its traceback is shown, cut to the app's frames."""
    app(
        APP.replace(
            "    await receive()\ndef wsgi", "    await receive()\n    raise LookupError('no database')\ndef wsgi"
        )
    )
    running = start("--bind", "127.0.0.1:0", "app:asgi")

    assert running.wait() == 70
    assert "LookupError: no database" in running.text()
    assert "in startup" in running.text()
    assert "/launcher/" not in running.text()


def test_no_client_sees_a_generation_that_is_not_committed(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """A worker whose startup is over waits for the others of its generation; if one fails it is shut down again."""
    app(APP)
    running = start("--bind", "127.0.0.1:0", "--workers", 2, "app:asgi")
    running.wait_for(event="committed")
    held = """
async def startup(receive):
    await receive()
    try:
        os.close(os.open("first", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
        raise LookupError("no database")
"""
    app(APP.replace("VERSION = 1", "VERSION = 2") + held)
    since = running.mark()
    running.send(signal.SIGHUP)
    until((tmp_path / "first").exists, "a worker of the new generation has started up")
    answers = {running.ask().split()[1] for _ in range(20)}
    (tmp_path / "go").touch()
    result = running.wait_for(lambda line: line.get("event") in ("rejected", "committed"), since=since)

    assert result["event"] == "rejected"
    assert answers == {"1"}
    running.wait_for("opened 2")
    running.wait_for("closed 2")
    assert "version 1" in running.ask()
    assert running.stop() == 0


def test_a_blocked_event_loop_is_a_stall(
    start: Callable[..., Running], app: Callable[..., Path], client: Callable[[Running], Client]
) -> None:
    """The event loop says that it is alive, also while requests wait; one that blocks it is found."""
    app(APP)
    running = start("--bind", "127.0.0.1:0", "--stall-timeout", "2s", "app:asgi")
    running.wait_for(event="committed")
    assert "version 1" in running.ask("/sleep/5")
    client(running).socket.sendall(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
    running.wait_for(event="stalled")
    stacks = running.wait_for(event="stacks")

    assert "in asgi" in stacks["detail"]

    assert running.stop() == 0


def test_a_factory_makes_the_application_once(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """`--factory`: called in the zygote, not in every worker."""
    app(APP)
    running = start("--bind", "127.0.0.1:0", "--workers", 2, "--factory", "app:make")
    running.wait_for(event="committed")

    assert "version 1" in running.ask()
    assert running.count("made", 1) == 1
    assert running.stop() == 0


def test_a_factory_without_the_flag_is_told_of_it(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """It is called like any target, returns an application, and ends: no success."""
    app(APP)
    running = start("app:make")

    assert running.wait() == 70
    assert "the target returned what can be called (function): to run that, add --factory" in running.text()


def test_an_option_goes_to_the_server(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Under the library's own name: one that can be seen from outside."""
    app(APP)
    running = start("--bind", "127.0.0.1:0", "--server-option", "limit_request_line=100", "app:wsgi")
    running.wait_for(event="committed")

    assert "version" in running.ask("/short")
    assert "version" not in running.ask("/" + 100 * "x")
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--server-option", "thread=3", "app:wsgi"), "passes no such option to gunicorn. Did you mean threads?"),
        (("--server-option", "threads=many", "app:wsgi"), "gunicorn does not take it: "),
        (("--server-option", "timeout_keep_alive=x", "app:asgi"), "timeout_keep_alive is a whole number"),
        (("--server-option", "http=h3", "app:asgi"), "http is auto or httptools or h11"),
        (
            ("--server-option", "channel_timeout=x", "--server-option", "server=waitress", "app:wsgi"),
            "waitress does not",
        ),
        (("--server-option", "server=uvicorn", "app:wsgi"), "is not a server for WSGI applications. Write gunicorn or"),
        (("--server-option", "threads", "app:wsgi"), "'threads' is not NAME=VALUE"),
        (("--server-option", "threads=3", "app:main"), "app:main brings its own server"),
        (("--stall-timeout", "1s", "app:wsgi"), "--stall-timeout: 1s is too short for a web server"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    words: tuple[str, ...], sentence: str, start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """It names the option and what to write; exit 2."""
    app(APP + "def main(): ...\n")
    running = start("--bind", "127.0.0.1:0", *words)

    assert running.wait() == 2
    assert sentence in running.text()
    assert "Traceback" not in running.text()


FAILING = """
from flask import Flask
app = Flask(__name__)
@app.get("/")
def fail():
    raise LookupError("no such book")
"""


@pytest.mark.parametrize("name", ["gunicorn", "waitress"])
def test_what_flask_says_of_a_failed_request_is_in_the_log(
    name: str, start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """Its handler writes to `wsgi.errors` of the request, which a library may have led to nowhere."""
    app(FAILING)
    running = start("--bind", "127.0.0.1:0", *SERVERS[name][:-1], "app:app")
    running.wait_for(event="committed")

    assert "Internal Server Error" in running.ask()
    running.wait_for("LookupError: no such book")
    assert running.stop() == 0


@pytest.mark.parametrize("name", ["gunicorn", "waitress"])
def test_applications_are_told_that_there_are_other_processes(
    name: str, start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """What keeps state in memory, such as a debugger in the page, looks at it (PEP 3333)."""
    app("""
def app(environ, start_response):
    start_response("200 OK", [])
    return [str(environ["wsgi.multiprocess"]).encode()]
""")
    running = start("--bind", "127.0.0.1:0", *SERVERS[name][:-1], "app:app")
    running.wait_for(event="committed")

    assert "True" in running.ask()
    assert running.stop() == 0
