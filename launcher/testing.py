"""
For app authors' own tests: a `main` that runs in the test's process, with a dict as its environment.

Owns a Worker without a supervisor.  Must never touch os.environ, start a process or need prod-run to run.

    with launcher.testing.run(main, {"SHOP_STAGE": "dev"}, sockets=["web"]) as worker:
        host, port = worker.sockets["web"].getsockname()
"""

from __future__ import annotations

import contextlib
import inspect
import queue
import socket
import threading
import typing
from typing import TYPE_CHECKING, Any, TypeVar

from launcher.api import Worker
from launcher.appconfig import current
from launcher.appconfig.annotations import find_class, find_parameter
from launcher.errors import ConfigError
from launcher.link import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

T = TypeVar("T")

DEADLINE = 10.0  # seconds


class TestingWorker(Worker[Any]):
    """A Worker that no supervisor knows; `stopping.set()` is its SIGTERM."""

    __test__ = False  # pytest takes every class called Test… for its own

    config: Any


def config(cls: type[T], environ: Mapping[str, str]) -> T:
    """Load a configuration from a dict and from nowhere else, or raise ConfigError with all that is wrong."""
    from launcher.appconfig.load import load  # noqa: PLC0415  an app without a configuration needs no attrs
    from launcher.appconfig.sources import Surroundings  # noqa: PLC0415

    loaded = load(cls, Surroundings(environ, {}, (), ""))
    if loaded.problems:
        raise ConfigError(*loaded.problems)
    return typing.cast("T", loaded.instance)


@contextlib.contextmanager
def run(
    main: Callable[..., Any],
    environ: Mapping[str, str] | None = None,
    *,
    sockets: Iterable[str] = (),
    deadline: float = DEADLINE,
) -> Iterator[TestingWorker]:
    """
    Run `main` in a thread as a worker would; the block begins when it is ready, and its end stops it.

    Args:
        main: a function or coroutine function; it gets what its annotations ask for.
        environ: what its configuration is loaded from.
        sockets: names of listeners to make on free ports of 127.0.0.1.
        deadline: seconds for `main` to become ready, and to end.

    Raises:
        ConfigError: the configuration is wrong; `main` was not called.
        Exception: whatever `main` raised.
        TimeoutError: it did not become ready, or did not end.
    """
    cls = find_class(main)
    with contextlib.ExitStack() as stack:
        listeners = {name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in sockets}
        for listener in listeners.values():
            listener.setblocking(False)
        news: queue.SimpleQueue[str] = queue.SimpleQueue()
        worker = TestingWorker(sockets=listeners, link=Link(show=news.put))
        if cls:
            worker.config = config(cls, environ or {})
            current.provide(cls, worker.config)
            stack.callback(current.withdraw, cls)
        raised: list[BaseException] = []
        thread = threading.Thread(target=_call, args=(main, worker, news, raised), name="main", daemon=True)
        thread.start()
        try:
            _wait_for_news(news, deadline)
            _raise_first(raised)
            yield worker
        except BaseException as error:
            if raised and raised[0] is not error:
                error.add_note(f"main raised {raised[0]!r}")
            raise
        finally:
            worker.stopping.set()
            thread.join(deadline)
        _raise_first(raised)
        if thread.is_alive():
            message = f"main did not end within {deadline:g} s of worker.stopping"
            raise TimeoutError(message)


def _call(
    main: Callable[..., Any], worker: TestingWorker, news: queue.SimpleQueue[str], raised: list[BaseException]
) -> None:
    try:
        result = main(**_arguments(main, worker))
        if inspect.iscoroutine(result):
            import asyncio  # noqa: PLC0415  only async apps pay for it

            asyncio.run(result)
    except BaseException as error:  # noqa: BLE001  raised again in the test's thread
        if not (isinstance(error, SystemExit) and not error.code):
            raised.append(error)
    finally:
        news.put("ended")


def _wait_for_news(news: queue.SimpleQueue[str], deadline: float) -> None:
    """Wait until `main` is ready or has ended."""
    try:
        news.get(timeout=deadline)
    except queue.Empty:
        message = f"main did not call worker.ready() within {deadline:g} s"
        raise TimeoutError(message) from None


def _raise_first(raised: list[BaseException]) -> None:
    if raised:
        raise raised[0]


def _arguments(main: Callable[..., Any], worker: TestingWorker) -> dict[str, Any]:
    """Fill the parameters as prod-run would."""
    arguments: dict[str, Any] = {}
    config_parameter = find_parameter(main)
    for parameter in inspect.signature(main).parameters.values():
        if parameter.name == config_parameter:
            arguments[parameter.name] = worker.config
        elif _is_worker(parameter.annotation):
            arguments[parameter.name] = worker
    return arguments


def _is_worker(annotation: object) -> bool:
    text = annotation.partition("[")[0] if isinstance(annotation, str) else ""
    return text in {"Worker", "launcher.Worker"} or Worker in {annotation, typing.get_origin(annotation)}
