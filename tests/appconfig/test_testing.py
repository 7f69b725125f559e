"""`launcher.testing`, as an app's author uses it."""

from __future__ import annotations

import os
import queue
import socket
import threading
from typing import Any

import environ
import pytest

from launcher import Worker, testing
from launcher.appconfig import current
from launcher.appconfig.declare import secret
from launcher.errors import ConfigError


@environ.config(prefix="SHOP")
class Config:
    """An app's."""

    greeting = environ.var()
    token = secret(None)


def serve(worker: Worker[Config], config: Config) -> None:
    """Answer each connection with the greeting, until told to stop."""
    assert current.config(Config) is config
    worker.ready()
    listener = worker.sockets["web"]
    while not worker.stopping.wait(0.01):
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue
        with connection:
            connection.sendall(config.greeting.encode())


def test_a_server_is_asked_while_it_runs() -> None:
    """Its listener is real, its configuration is the dict, and afterwards nothing is left."""
    before = dict(os.environ)
    with testing.run(serve, {"SHOP_GREETING": "hello"}, sockets=["web"]) as worker:
        listener = worker.sockets["web"]
        with socket.create_connection(listener.getsockname(), timeout=10) as client:
            assert client.recv(100) == b"hello"
        assert worker.config.greeting == "hello"
        assert dict(os.environ) == before

    assert worker.stopping.is_set()
    assert listener.fileno() == -1
    assert "main" not in {thread.name for thread in threading.enumerate()}
    assert Config not in current._instances


def test_the_platforms_secrets_do_not_reach_a_test() -> None:
    """Only the dict counts; all that is wrong is raised before `main` is called."""
    with (
        pytest.raises(ConfigError, match="SHOP_GREETING: missing"),
        testing.run(serve, {"GREETING": "hello"}),
    ):
        pytest.fail("the block must not be entered")
    assert testing.config(Config, {"SHOP_GREETING": "x"}).token is None


def test_a_coroutine_function_runs_too() -> None:
    """With the asynchronous twins of the Worker's methods."""
    steps: list[str] = []

    async def main(worker: Worker[Any]) -> None:
        await worker.ready_async()
        steps.append("ready")
        await worker.stopping.wait_async()
        steps.append("stopped")

    with testing.run(main):
        pass

    assert steps == ["ready", "stopped"]


def test_a_job_without_a_worker_ends_by_itself() -> None:
    """The block begins when it is over."""
    done: list[str] = []

    def main() -> None:
        done.append("done")
        raise SystemExit(0)

    with testing.run(main):
        assert done == ["done"]


def test_what_main_raises_is_raised_in_the_test() -> None:
    """Also after it was ready, and an exit code above 0."""

    def fails(worker: Worker[Any]) -> None:
        worker.ready()
        worker.stopping.wait()
        raise LookupError

    def exits() -> None:
        raise SystemExit(3)

    with pytest.raises(LookupError), testing.run(fails):
        pass
    with pytest.raises(SystemExit), testing.run(exits):
        pass


def test_a_failure_of_the_block_is_not_hidden_by_one_of_main() -> None:
    """The test's own assertion is what its author must see."""

    def main(worker: Worker[Any]) -> None:
        worker.ready()
        worker.stopping.wait()

    with pytest.raises(ZeroDivisionError), testing.run(main):
        _ = 1 / 0


def test_a_main_that_dies_is_named_beside_the_failure_that_it_causes() -> None:
    """Before it is ready the block is not entered; later a note says what happened."""

    def at_once(worker: Worker[Any]) -> None:
        raise LookupError

    go: queue.SimpleQueue[None] = queue.SimpleQueue()

    def later(worker: Worker[Any]) -> None:
        worker.ready()
        go.get()
        raise LookupError

    def fail(worker: Worker[Any]) -> None:
        go.put(None)
        _threads_named_main_end()
        _ = worker.slot / 0

    with pytest.raises(LookupError), testing.run(at_once):
        pytest.fail("the block must not be entered")
    with pytest.raises(ZeroDivisionError) as caught, testing.run(later) as worker:
        fail(worker)
    assert caught.value.__notes__ == ["main raised LookupError()"]


def _threads_named_main_end() -> None:
    for thread in threading.enumerate():
        if thread.name == "main":
            thread.join(10)


def test_one_that_never_gets_ready_is_named() -> None:
    """Instead of hanging the test run."""

    def never_ready(worker: Worker[Any]) -> None:
        worker.stopping.wait()

    with pytest.raises(TimeoutError, match=r"did not call worker.ready\(\) within 0.01 s"):
        testing.run(never_ready, deadline=0.01).__enter__()


def test_one_that_never_ends_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of hanging the test run; the thread does not keep the interpreter alive."""
    release: queue.SimpleQueue[None] = queue.SimpleQueue()
    joined: list[float] = []
    monkeypatch.setattr(threading.Thread, "join", lambda _self, timeout: joined.append(timeout))

    def never_ends(worker: Worker[Any]) -> None:
        worker.ready()
        release.get()

    with pytest.raises(TimeoutError, match="did not end within 10 s of"), testing.run(never_ends):
        assert all(thread.daemon for thread in threading.enumerate() if thread.name == "main")

    assert joined == [testing.DEADLINE]
    release.put(None)
