"""What the authors of apps get for the ways in which Python programs log: docs/how-to/logging.md."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.logs.logfmt import parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.processes.running import Line, Running

FRAME = """
{setup}
from launcher import Worker
def main(worker: Worker):
{body}
    worker.ready()
    worker.stopping.wait()
"""


class Case(NamedTuple):
    """One way to log: what is done once, what in a worker, and the fields that come out, in both forms."""

    setup: str
    body: str
    wanted: list[dict[str, Any]]
    needs: str = ""


RAW = {"level": "info", "stream": "stderr"}
OUT = {"level": "info", "stream": "stdout"}
CASES = {
    "prints": Case(
        "import sys",
        "print('one'); print('two', file=sys.stderr)",
        [OUT | {"message": "one"}, RAW | {"message": "two"}],
    ),
    "no configuration": Case(
        "import logging; log = logging.getLogger('shop')",
        "log.debug('not wanted'); log.info('paid %d', 5, extra={'order': 17})",
        [{"level": "info", "logger": "shop", "message": "paid 5", "order": 17}],
    ),
    "no configuration, an exception": Case(
        "import logging; log = logging.getLogger('shop')",
        "try: [].pop()\nexcept IndexError: log.exception('failed')",
        [{"level": "error", "logger": "shop", "message": "failed", "exc": "IndexError: pop from empty list"}],
    ),
    "basicConfig": Case(
        "import logging; log = logging.getLogger('shop'); logging.basicConfig(format='%(levelname)s %(message)s')",
        "log.info('not wanted'); log.warning('low')",
        [RAW | {"message": "WARNING low"}],
    ),
    "basicConfig, an exception": Case(
        "import logging; log = logging.getLogger('shop'); logging.basicConfig(format='%(message)s')",
        "try: [].pop()\nexcept IndexError: log.exception('failed')",
        [
            RAW | {"message": "failed"},
            {"level": "error", "stream": "stderr", "message": "IndexError: pop from empty list"},
        ],
    ),
    "dictConfig": Case(
        """
import logging.config
log = logging.getLogger('shop')
logging.config.dictConfig({
    'version': 1, 'disable_existing_loggers': False,
    'formatters': {'f': {'format': '%(name)s|%(message)s'}},
    'handlers': {'out': {'class': 'logging.StreamHandler', 'formatter': 'f', 'stream': 'ext://sys.stdout'}},
    'root': {'level': 'INFO', 'handlers': ['out']},
})""",
        "log.info('paid')",
        [OUT | {"message": "shop|paid"}],
    ),
    "dictConfig without root": Case(
        """
import logging.config
log = logging.getLogger('shop')
logging.config.dictConfig({
    'version': 1, 'disable_existing_loggers': False,
    'handlers': {'c': {'class': 'logging.StreamHandler'}},
    'loggers': {'shop': {'handlers': ['c']}},
})""",
        "log.info('not wanted'); log.warning('low')",
        [RAW | {"message": "low"}],
    ),
    "structlog": Case(
        "import structlog; structlog.configure(processors=[structlog.processors.JSONRenderer()]); log = structlog.get_logger()",
        "log.info('paid', order=17)",
        [{"event": "paid", "order": 17}],
        "structlog",
    ),
    "structlog over logging": Case(
        """
import structlog
structlog.configure(
    processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
    logger_factory=structlog.stdlib.LoggerFactory(), wrapper_class=structlog.stdlib.BoundLogger,
)
log = structlog.get_logger('shop')""",
        "log.info('paid', order=17)",
        [{"level": "info", "logger": "shop", "message": "paid", "order": 17}],
        "structlog",
    ),
    "loguru": Case(
        "import sys; from loguru import logger; logger.remove(); logger.add(sys.stderr, format='{level} {message}')",
        "logger.info('paid')",
        [RAW | {"message": "INFO paid"}],
        "loguru",
    ),
    "python-json-logger": Case(
        """
import logging, sys
from pythonjsonlogger.json import JsonFormatter
handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(JsonFormatter())
logging.basicConfig(handlers=[handler], level=logging.INFO)
log = logging.getLogger('shop')""",
        "log.info('paid', extra={'order': 17})",
        [{"message": "paid", "order": 17}],
        "pythonjsonlogger",
    ),
    "warnings": Case(
        "import warnings",
        "warnings.warn('old')",
        [{"level": "warning", "logger": "py.warnings", "message": "UserWarning: old"}],
    ),
    "a thread": Case(
        "import threading",
        "t = threading.Thread(target=lambda: 1 / 0, name='T'); t.start(); t.join()",
        [{"level": "error", "logger": "prod-run", "thread": "T", "exc": "ZeroDivisionError: division by zero"}],
    ),
}


def source(case: Case) -> str:
    """Write the app of a case."""
    return FRAME.format(setup=case.setup, body=textwrap.indent(case.body, "    "))


def read(line: Line) -> dict[str, Any]:
    """Read a line of either form."""
    if line.get("stream"):  # of logfmt, and taken apart already
        return line | {"message": line["text"]}
    text = line["text"]
    return json.loads(text) if text.startswith("{") else parsed(text)  # type: ignore[no-any-return]


def of_workers(running: Running) -> list[dict[str, Any]]:
    """Return what workers said, each line with whose it is."""
    found = [read(line) for line in running.lines]
    return [line for line in found if "event" not in line or ("app" in line and "logger" not in line)]


def _message(facts: Mapping[str, object]) -> str:
    return str(facts.get("message", facts.get("event")))


@pytest.mark.parametrize("form", ["logfmt", "json"])
@pytest.mark.parametrize("name", CASES)
def test_each_way_of_logging_gives_what_its_author_expects(
    start: Callable[..., Running], app: Callable[..., Path], name: str, form: str
) -> None:
    """One line for each event, with whose it is; texts and JSON of the app's own are kept as they are."""
    case = CASES[name]
    if case.needs:
        pytest.importorskip(case.needs)
    app(source(case))
    running = start("-w", 1, "--log-format", form, "app:main")
    running.wait_for(lambda line: "committed" in line["text"])
    assert running.stop() == 0
    found = of_workers(running)

    assert len(found) == len(case.wanted), running.text()
    # Two pipes have no order between them.
    for line, wanted in zip(sorted(found, key=_message), sorted(case.wanted, key=_message), strict=True):
        texts = {key: str(item) if form == "logfmt" and "event" not in line else item for key, item in wanted.items()}
        for key, item in texts.items():
            ends = key in ("exc", "message") and isinstance(item, str) and str(line.get(key)).endswith(item)
            assert ends or str(line.get(key)) == str(item), line
        assert (line["app"], str(line["slot"]), str(line["generation"])) == ("app", "0", "1")
        assert int(line["pid"]) != running.pid


def test_people_see_records_with_the_place_and_indented_tracebacks(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """The console form: what was printed and what was logged stand in the same columns."""
    app(
        source(
            CASES["no configuration, an exception"]._replace(
                setup="import logging; log = logging.getLogger('shop'); print('imported')"
            )
        )
    )
    running = start("-w", 1, "--log-format", "console", "app:main")
    running.wait_for("committed")
    assert running.stop() == 0
    texts = [line["text"] for line in running.lines]
    first = next(index for index, text in enumerate(texts) if text.endswith(" error   [0/1] shop: failed"))

    assert any(text.endswith(" info    [-/1] imported") for text in texts)
    assert texts[first + 1] == "    Traceback (most recent call last):"
    assert "    IndexError: pop from empty list" in texts


@pytest.mark.parametrize("preload", ["auto", "never"])
def test_the_last_exception_of_a_worker_is_whole_in_each_form(
    start: Callable[..., Running], app: Callable[..., Path], preload: str
) -> None:
    """What ended the target is one record, with the app's frames only; with and without preload."""
    app("def main():\n    raise ValueError('no\\nway')\n")
    running = start("-w", 1, "--preload", preload, "--log-format", "json", "app:main")
    running.wait_for("uncaught")
    running.stop()
    found = next(line for line in of_workers(running) if line.get("logger") == "prod-run")

    assert found["message"] == "uncaught ValueError: no"
    assert found["exc"].startswith("Traceback (most recent call last):\n")
    assert found["exc"].endswith("ValueError: no\nway")
    assert "launcher" not in found["exc"]


@pytest.mark.parametrize("form", ["logfmt", "json", "console"])
def test_no_declared_secret_is_in_a_record(start: Callable[..., Running], app: Callable[..., Path], form: str) -> None:
    """In a message, an extra or a traceback stands the name instead."""
    app("""
import logging
import environ
from launcher import Worker, secret
@environ.config(prefix="APP")
class Config:
    key = secret()
log = logging.getLogger("shop")
def main(config: Config, worker: Worker):
    value = config.key.reveal()
    try:
        raise ValueError(f"bad {value}")
    except ValueError:
        log.exception("key is %s", value, extra={"key": value, "deep": [value]})
    worker.ready()
    worker.stopping.wait()
""")
    running = start("-w", 1, "--log-format", form, "app:main", env={"APP_KEY": "correct horse battery"})
    running.wait_for(lambda line: "committed" in line["text"])
    assert running.stop() == 0

    assert "horse" not in running.text()
    assert running.text().count("<secret APP_KEY>") >= 4


def test_print_cannot_forge_a_record(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Even with the sign that begins ours, and a mark that is somebody's guess: it stays printed text."""
    app("""
import sys
from launcher import Worker
def main(worker: Worker):
    print('\\x1e000000003time=x level=error logger=forged', file=sys.stderr)
    worker.ready()
    worker.stopping.wait()
""")
    running = start("-w", 1, "app:main")
    running.wait_for(event="committed")
    assert running.stop() == 0
    (line,) = of_workers(running)

    assert (line.get("level"), line.get("stream")) == ("info", "stderr"), running.text()
    assert line["message"].endswith("logger=forged")


def test_without_capture_records_come_as_they_are(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """With --no-log-capture the worker's own records still have all fields; what it prints is its own."""
    app(source(CASES["no configuration"]._replace(body="log.info('paid'); print('bare', flush=True)")))
    running = start("-w", 1, "--no-log-capture", "app:main")
    running.wait_for(event="committed")
    assert running.stop() == 0
    texts = [line["text"] for line in running.lines]
    record = next(parsed(text) for text in texts if "logger=shop" in text)

    assert "bare" in texts
    assert (record["app"], record["slot"], record["message"]) == ("app", "0", "paid")
