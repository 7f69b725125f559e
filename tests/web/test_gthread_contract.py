"""What prod-run relies upon in gunicorn's threaded worker, which is not public API."""

from __future__ import annotations

import errno
import inspect
import os
import select
import selectors
import socket
from collections import deque
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.workers import base, gthread

from launcher.runtime.servers import Front
from launcher.runtime.servers import gthread as driver


@pytest.mark.parametrize(
    "name", [*driver.OPTIONS, *("graceful_timeout", "forwarded_allow_ips", "secure_scheme_headers")]
)
def test_the_options_are_there(name: str) -> None:
    """Every option that is passed on is a setting of gunicorn's."""
    assert name in Config().settings


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("init_signals", []),
        ("is_parent_alive", []),
        ("notify", []),
        ("run", []),
        ("wait_for_and_dispatch_events", ["timeout"]),
        ("set_accept_enabled", ["enabled"]),
        ("_cap_keepalive", ["deadline"]),
        ("handle", ["conn"]),
    ],
)
def test_what_is_overridden_is_there(name: str, parameters: list[str]) -> None:
    """The methods that the driver replaces, as they are called."""
    assert list(inspect.signature(getattr(gthread.ThreadWorker, name)).parameters) == ["self", *parameters]


def test_the_order_of_a_workers_life() -> None:
    """The constructor's arguments; the app is loaded before `run`, in which the poller and the threads exist."""
    words = ["self", "age", "ppid", "sockets", "app", "timeout", "cfg", "log"]
    source = inspect.getsource(base.Worker.init_process)

    assert list(inspect.signature(base.Worker.__init__).parameters) == words
    assert source.index("self.init_signals()") < source.index("self.load_wsgi()") < source.index("self.run()")


def test_the_loop_ends_when_alive_is_false_and_then_lingers() -> None:
    """`run`: events, while alive; then accepting ends, kept connections linger, and what is in flight is finished."""
    source = inspect.getsource(gthread.ThreadWorker.run)
    steps = (
        "set_accept_enabled(True)",
        "while self.alive:",
        "self.wait_for_and_dispatch_events(",
        "self.set_accept_enabled(False)",
        "self._cap_keepalive(",
        "while self.nr_conns > 0:",
        "self.wait_for_and_dispatch_events(",
    )
    position = 0
    for step in steps:
        position = source.index(step, position) + 1
    assert 1 <= gthread.STOP_KEEPALIVE_LINGER <= 5


def test_a_worker_that_leaves_waits_no_longer_for_who_never_said_anything() -> None:
    """Balancers open connections ahead; with a long keep-alive time one of them kept a worker until it was killed."""
    source = inspect.getsource(gthread.ThreadWorker)
    assert "conn.timeout = time.monotonic() + self.cfg.keepalive\n                self.pending_conns.append" in source
    worker = driver._Server.__new__(driver._Server)
    kept, silent = SimpleNamespace(timeout=75.0), SimpleNamespace(timeout=76.0)
    worker.keepalived_conns, worker.pending_conns = deque([kept]), deque([silent])
    worker._cap_keepalive(2.0)

    assert (kept.timeout, silent.timeout) == (2.0, 2.0)


def test_a_close_is_asked_for_with_false_and_waits_for_nobody() -> None:
    """The repair in `handle`: the accepting thread closes, says so, and hears from the poller that the client did."""
    worker = driver._Server.__new__(driver._Server)
    worker.front = Front()
    worker.nr_conns, worker._last, worker._parting = 0, select.epoll(), {}
    ours, theirs = socket.socketpair()
    conn = SimpleNamespace(sock=ours, close=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gthread.ThreadWorker, "handle", lambda *_: False)
        assert worker.handle(conn) is False
    conn.close(graceful=True)  # as finish_request does

    assert theirs.recv(1) == b""
    assert worker.nr_conns == 1
    theirs.sendall(b"x" * 100)
    worker._hear_the_last(worker._last)
    assert worker.nr_conns == 1
    copy = os.dup(ours.fileno())  # as a child of the app's may have it
    theirs.close()
    worker._hear_the_last(worker._last)
    assert (worker.nr_conns, ours.fileno(), worker._last.poll(0)) == (0, -1, [])
    os.close(copy)
    assert "self.nr_conns -= 1\n                conn.close(graceful=True)" in inspect.getsource(
        gthread.ThreadWorker.finish_request
    )


def test_a_client_that_cannot_be_waited_for_is_closed() -> None:
    """The kernel refuses to watch one more: that costs this connection its farewell, and nobody else anything."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no more watches")

    worker = driver._Server.__new__(driver._Server)
    worker.nr_conns, worker._last, worker._parting = 0, SimpleNamespace(register=refuse), {}
    ours, theirs = socket.socketpair()
    with theirs:
        worker._part(SimpleNamespace(sock=ours), graceful=True)

        assert (worker.nr_conns, worker._parting, ours.fileno()) == (0, {}, -1)


def test_an_answer_that_begins_may_still_be_told_to_close() -> None:
    """`start_response` is a method of the response, and its head is made when something is written."""
    source = inspect.getsource(gthread.ThreadWorker.handle_request)
    assert "self.wsgi(environ, resp.start_response)" in source
    response = wsgi.Response(SimpleNamespace(version=(1, 1), should_close=lambda: False, method="GET"), None, Config())
    start_response = response.start_response
    start_response("200 OK", [("Content-Length", "0")])
    assert not response.should_close()
    start_response.__self__.force_close()

    assert "Connection: close\r\n" in response.default_headers()


def test_a_listener_is_an_object_with_sock() -> None:
    """What gunicorn asks of a listener is answered by the real socket."""
    with socket.create_server(("127.0.0.1", 0)) as sock, selectors.DefaultSelector() as selector:
        listener = driver._Listener(sock)
        selector.register(listener, selectors.EVENT_READ)
        assert listener.getsockname() == sock.getsockname()


def test_what_comes_in_front_of_http() -> None:
    """TLS is asked for by a name and had by the hook; data is waited for before; `client` is read for each request."""
    config = Config()
    config.set("certfile", "any")
    connection = inspect.getsource(gthread.TConn)

    assert config.is_ssl
    assert "ssl_context" in config.settings
    assert gthread._DEFER is not None
    assert gthread.DEFAULT_WORKER_DATA_TIMEOUT > 0
    assert "if self.data_ready:\n            return True" in connection
    assert "self.client = client" in connection
    assert "wsgi.create(req, conn.sock, conn.client," in inspect.getsource(gthread.ThreadWorker.handle_request)
