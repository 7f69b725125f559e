"""What a process of the app says by itself, before and after it has configured logging: one interpreter per test."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from launcher.logs.batch import INNER_NEWLINE, RECORD
from tests.logs.logfmt import parsed

ROOT = Path(__file__).parents[2]
MARK = "0123abcd"
BEGIN = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from launcher import protocol
from launcher.runtime import records
order = dict(log_kind="json", log_colour=False, log_level="info", mark={MARK!r}, name="shop", generation=2)
"""
NOW = """
records.begin(protocol.decode(protocol.encode("prepare", **order)))
records.become(1, order["mark"])
"""
LIMIT = 60.0


def said(code: str, *, before: str = "", **options: Any) -> list[str]:
    """Run code in a process that speaks as it was ordered; return the lines of its stderr."""
    source = BEGIN + before + NOW + textwrap.dedent(code)
    argv = [sys.executable, "-c", source]
    done = subprocess.run(argv, stderr=subprocess.PIPE, timeout=LIMIT, check=True, **options)
    return done.stderr.decode().removesuffix("\n").split("\n")


def read(line: str) -> dict[str, Any]:
    """Read a finished record; anything else is a raw line."""
    if not line.startswith(RECORD + MARK):
        return {"raw": line}
    found: dict[str, Any] = json.loads(line[len(RECORD + MARK) + 1 :])
    return found | {"severity": int(line[len(RECORD + MARK)])}


def told(code: str, **options: Any) -> list[tuple[str, str]]:
    """Return level and message of each record, and raw lines as they are."""
    found = [read(line) for line in said(code, **options)]
    return [("raw", one["raw"]) if "raw" in one else (one["level"], one["message"]) for one in found]


def test_an_app_that_does_not_log_loads_nothing_for_it() -> None:
    """Neither logging, nor what belongs to it, nor our own part of it."""
    assert said("""
        import json
        heavy = {"logging", "threading", "traceback", "re", "enum", "launcher.logs.fields", "launcher.logs.formats"}
        print(*sorted(heavy & set(sys.modules)) , file=sys.stderr)
        """) != [""]  # json brings re: the question can be answered with something
    assert said("""
        heavy = {"logging", "threading", "traceback", "re", "enum", "launcher.logs.fields", "launcher.logs.formats"}
        print(*sorted(heavy & set(sys.modules)) , file=sys.stderr)
        """) == [""]


def test_logging_works_from_the_line_after_its_import() -> None:
    """Without any configuration, whoever imports it first; afterwards no trace of the hook is left."""
    assert told("""
        import asyncio  # imports it for us
        import logging, threading
        logging.getLogger("shop").info("first")
        ours = [finder for finder in sys.meta_path if type(finder).__module__.startswith("launcher")]
        print(ours, "exec_module" in vars(logging.__loader__), logging.__spec__.loader is logging.__loader__, file=sys.stderr)
        """) == [("info", "first"), ("raw", "[] False True")]


def test_logging_that_was_there_before_is_taken_too() -> None:
    """A site's start-up may have imported it."""
    assert told("logging.getLogger().info('first')", before="import logging, threading\n") == [("info", "first")]


def test_a_module_of_the_apps_named_logging_is_let_alone(tmp_path: Path) -> None:
    """It may be anything."""
    (tmp_path / "logging.py").write_text("print('mine', file=__import__('sys').stderr)")

    assert told("import logging", env={"PYTHONPATH": str(tmp_path)}) == [("raw", "mine")]


def test_the_fields_of_a_record() -> None:
    """Whose it is, the app's extras, the thread; and the severity stands where the observer looks."""
    (line,) = said("""
        import logging, threading
        def work():
            try:
                {}["x"]
            except KeyError:
                logging.getLogger("shop.db").exception("query %d", 7, extra={"rows": 3, "pid": "mine"}, stack_info=True)
        thread = threading.Thread(target=work, name="poller")
        thread.start()
        thread.join()
        print(os.getpid())
        """)
    found = read(line)

    assert (found["level"], found["severity"]) == ("error", 3)
    assert (found["app"], found["slot"], found["generation"]) == ("shop", 1, 2)
    assert (found["logger"], found["message"], found["thread"]) == ("shop.db", "query 7", "poller")
    assert (found["rows"], found["x_pid"]) == (3, "mine")
    assert found["exc"].startswith("Traceback (most recent call last):\n")
    assert found["exc"].endswith("KeyError: 'x'")
    assert found["stack"].startswith("Stack (most recent call last):\n")


@pytest.mark.parametrize(
    ("level", "wanted"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("info", ["info", "warning", "error", "critical"]),
        ("warning", ["warning", "error", "critical"]),
        ("error", ["error", "critical"]),
    ],
)
def test_the_level_is_the_operators(level: str, wanted: list[str]) -> None:
    """`--log-level` decides for an app that did not; for warnings too, before and after logging is there."""
    code = """
        import warnings
        warnings.warn("w1")
        import logging
        warnings.warn("w2")
        for number in (10, 20, 30, 40, 50):
            logging.getLogger("shop").log(number, "x")
        """
    found = told(code, before=f"order['log_level'] = {level!r}\n")

    assert [level for level, text in found if text == "x"] == wanted
    assert len([text for _, text in found if "UserWarning: w" in text]) == (0 if level == "error" else 2)


@pytest.mark.parametrize(
    ("setup", "wanted"),
    [
        ("logging.root.setLevel(logging.DEBUG)", [("debug", "d"), ("info", "i"), ("warning", "w")]),
        ("logging.root.setLevel(logging.ERROR)", []),
        ("log.setLevel(logging.DEBUG)", [("debug", "d"), ("info", "i"), ("warning", "w")]),
        ("logging.basicConfig(format='%(message)s')", [("raw", "w")]),
        ("logging.basicConfig(format='%(message)s', level=logging.INFO)", [("raw", "i"), ("raw", "w")]),
        ("logging.root.addHandler(logging.StreamHandler())", [("raw", "w")]),
        (
            "logging.root.setLevel(logging.INFO); logging.root.addHandler(logging.StreamHandler())",
            [("raw", "i"), ("raw", "w")],
        ),
        ("logging.config.dictConfig({'version': 1, 'disable_existing_loggers': False, 'root': {'level': 'DEBUG'}})", [("debug", "d"), ("info", "i"), ("warning", "w")]),
        (
            "logging.config.dictConfig({'version': 1, 'disable_existing_loggers': False, 'handlers': {'h': {'class': 'logging.StreamHandler'}}, 'root': {'handlers': ['h']}})",
            [("raw", "w")],
        ),
        ("log.addHandler(logging.NullHandler())", []),
        ("logging.getLogger('library').addHandler(logging.NullHandler())", [("info", "i"), ("warning", "w")]),
        ("logging.getLogger('gunicorn.access').addHandler(logging.StreamHandler())", [("info", "i"), ("warning", "w")]),
        ("log.addHandler(logging.StreamHandler())", [("raw", "w")]),
        ("logging.getLogger('other').addHandler(logging.StreamHandler())", [("warning", "w")]),
        ("logging.root.setLevel(logging.INFO); log.addHandler(logging.StreamHandler())", [("raw", "i"), ("raw", "w")]),
        (
            "logging.config.dictConfig({'version': 1, 'disable_existing_loggers': False, 'handlers': {'c': {'class': 'logging.StreamHandler'}}, 'loggers': {'shop': {'handlers': ['c']}}})",
            [("raw", "w")],
        ),
        ("logging.warning('implicit')", [("raw", "WARNING:root:implicit"), ("raw", "WARNING:shop:w")]),
    ],
)  # fmt: skip
def test_what_the_app_sets_up_is_as_without_prod_run(setup: str, wanted: list[tuple[str, str]]) -> None:
    """Levels and handlers of the app's own count, and the default level is Python's again as soon as it has a handler."""
    assert [
        one
        for one in told(f"""
        import logging, logging.config
        log = logging.getLogger("shop")
        {setup}
        log.debug("d"); log.info("i"); log.warning("w")
        """)
        if one != ("raw", "")
    ] == wanted


def test_the_handler_that_flask_brings_by_itself_changes_nothing() -> None:
    """It comes with the first error, perhaps after days: the lines of others must not end there."""
    pytest.importorskip("flask")
    found = told("""
        import flask, logging
        app = flask.Flask("shop")
        app.logger.error("e")
        logging.getLogger("other").info("i")
        """)

    assert found[-1] == ("info", "i")


@pytest.mark.parametrize("settings", ["", "LOGGING_CONFIG=None", "LOGGING={'version': 1, 'loggers': {'django': {}}}"])
def test_what_django_sets_up_for_itself_changes_nothing(settings: str) -> None:
    """Its defaults are for its own logger (errors go by mail); without them it has prod-run's form."""
    pytest.importorskip("django")
    found = told(f"""
        import logging, django
        from django.conf import settings
        settings.configure({settings})
        django.setup()
        logging.getLogger("django.request").error("e")
        logging.getLogger("shop").info("i")
        """)

    assert found == [*([("error", "e")] if settings else []), ("info", "i")]


@pytest.mark.parametrize(
    ("setup", "wanted"),
    [
        ("", [("warning", "<string>:N: UserWarning: old")]),
        ("import logging", [("warning", "<string>:N: UserWarning: old")]),
        ("import logging; logging.basicConfig(format='%(message)s')", [("raw", "<string>:N: UserWarning: old")]),
        (
            "import logging; logging.basicConfig(format='captured %(message)s'); logging.captureWarnings(True)",
            [("raw", "captured <string>:N: UserWarning: old")],
        ),
        ("import logging; logging.captureWarnings(True); logging.captureWarnings(False)", [("warning", "<string>:N: UserWarning: old")]),
        ("warnings.simplefilter('ignore')", []),
    ],
)  # fmt: skip
def test_warnings_go_where_the_apps_records_go(setup: str, wanted: list[tuple[str, str]]) -> None:
    """A record if nothing is set up; else as Python does it, and filters are the app's."""
    found = told(f"""
        import warnings
        {setup}
        warnings.warn("old")
        """)
    # Python adds the line of the source, if it has it (with -c since 3.13).
    shown = [(level, re.sub(":[0-9]+:", ":N:", text)) for level, text in found if text.strip() and text[0] != " "]

    assert shown == wanted


@pytest.mark.parametrize(
    ("code", "message", "last", "thread"),
    [
        ("records.report(ValueError('no\\nway'))", "uncaught ValueError: no", "way", ""),
        ("import threading; t = threading.Thread(target=lambda: 1 / 0, name='T'); t.start(); t.join()",
         "uncaught ZeroDivisionError: division by zero", "ZeroDivisionError: division by zero", "T"),
        ("import _thread, threading; threading.Thread(target=sys.exit).start(); records.report(KeyError(1))", "uncaught KeyError: 1", "KeyError: 1", ""),
        ("def f(o): raise OSError('x')\nclass A: __del__ = f\nA()", "Exception ignored in: <function f at", "OSError: x", ""),
    ],
)  # fmt: skip
def test_what_nobody_caught_is_a_record(code: str, message: str, last: str, thread: str) -> None:
    """Of the target, of a thread, of a finalizer: one line, with the whole traceback; `sys.exit` in a thread is none."""
    found = read(*said(code))

    assert (found["level"], found["logger"], found.get("thread", "")) == ("error", "prod-run", thread)
    assert found["message"].startswith(message)
    assert found["exc"].split("\n")[-1] == last


def test_a_callback_of_atexit_that_fails_is_a_record() -> None:
    """Python 3.13 has its name in the message, and no object."""
    found = read(*said("import atexit\natexit.register(lambda: 1 / 0)"))

    assert (found["level"], found["exc"].split("\n")[-1]) == ("error", "ZeroDivisionError: division by zero")
    assert "atexit callback" in found["message"]
    assert "None" not in found["message"]


def test_an_excepthook_of_the_apps_gets_its_exception() -> None:
    """Error trackers wrap sys.excepthook; one that fails itself hides nothing."""
    assert told("""
        former = sys.excepthook
        def hook(*about):
            print("tracked", file=sys.stderr)
            former(*about)
            raise RuntimeError
        sys.excepthook = hook
        records.report(ValueError("no"))
        """) == [("raw", "tracked"), ("error", "uncaught ValueError: no"), ("error", "uncaught ValueError: no")]


def test_arguments_that_do_not_fit_cost_no_line() -> None:
    """A mistake in a log call is shown with the values it was made with; what has none is as it is."""
    assert told("""
        import logging
        log = logging.getLogger()
        log.error("%d rows", "x")
        log.error("100%")
        log.error({"a": 1})
        """) == [
        ("error", "'%d rows' with arguments that do not fit: ('x',)"),
        ("error", "100%"),
        ("error", "{'a': 1}"),
    ]


def test_a_child_of_the_apps_speaks_as_itself() -> None:
    """After os.fork the mark stays, the PID is the child's, and a lock that was held is free."""
    first, second = map(
        read,
        said("""
        import logging
        log = logging.getLogger()
        log.info("parent")
        records._Pen.lock.acquire()
        logging.lastResort.acquire()
        if not os.fork():
            import _thread, signal
            signal.alarm(60)  # should it hang
            _thread.start_new_thread(lambda: (log.info("child"), os._exit(0)), ())  # another than the lock's owner
            while True:
                os.read(os.pipe()[0], 1)
        os.wait()
        """),
    )

    assert (first["message"], second["message"]) == ("parent", "child")
    assert first["pid"] != second["pid"]


@pytest.mark.parametrize("is_blocking", [True, False])
def test_records_of_threads_do_not_mix_in_a_full_pipe(*, is_blocking: bool) -> None:
    """20 kB each from four threads into a pipe of 4 kB: each is whole, whatever asyncio did to the pipe."""
    lines = said(f"""
        import fcntl, logging, threading
        fcntl.fcntl(2, 1031, 4096)  # F_SETPIPE_SZ
        os.set_blocking(2, {is_blocking})
        log = logging.getLogger()
        def work(name):
            for number in range(40):
                log.info("%s" * 20, *[name * 1000] * 20)
        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        """)

    texts = [read(line).get("message", line) for line in lines]
    assert len(texts) == 160
    assert {text: texts.count(text) for text in set(texts)} == {name * 20_000: 40 for name in "abcd"}


def test_records_of_children_do_not_mix_in_a_full_pipe() -> None:
    """20 kB each from the process and three that it forked (multiprocessing does) into a pipe of 4 kB: each is whole."""
    lines = said("""
        import fcntl, logging
        fcntl.fcntl(2, 1031, 4096)  # F_SETPIPE_SZ
        log = logging.getLogger()
        children = []
        for name in "abcd":
            if name == "d" or not (pid := os.fork()):
                break
            children.append(pid)
        for number in range(20):
            log.info("%s" * 20, *[name * 1000] * 20)
        for pid in children if name == "d" else ():
            os.waitpid(pid, 0)
        """)

    texts = [read(line).get("message", line) for line in lines]
    assert {text[:1]: texts.count(text) for text in texts} == dict.fromkeys("abcd", 20)
    assert {len(text) for text in texts} == {20_000}


def test_a_child_that_was_stopped_while_it_wrote_stops_nobody() -> None:
    """It has the lock, and will have it for ever; a record of ours comes all the same."""
    (line,) = said("""
        import logging, signal
        reading, writing = os.pipe()
        if not (pid := os.fork()):
            os.lockf(2, os.F_LOCK, 0)
            os.write(writing, b"x")
            while True:
                signal.pause()
        os.read(reading, 1)
        logging.getLogger().info("x" * 20_000)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        """)

    assert len(read(line)["message"]) == 20_000


def test_a_signals_handler_may_log_in_the_middle_of_a_record() -> None:
    """Its record comes after the one that it interrupted, not into it."""
    assert told("""
        import logging
        log, write = logging.getLogger(), os.write
        def interrupted(fd, data):
            os.write = write
            done = write(fd, data[:10])
            log.info("inner")
            return done
        os.write = interrupted
        log.info("outer")
        """) == [("info", "outer"), ("info", "inner")]


def test_an_app_that_closed_its_stderr_lives() -> None:
    """Nobody hears it, and no log call raises."""
    code = """
        import logging
        os.close(2)
        logging.getLogger().info("x")
        os.write(1, b"alive")
        """
    argv = [sys.executable, "-c", BEGIN + NOW + textwrap.dedent(code)]

    assert subprocess.run(argv, capture_output=True, timeout=LIMIT).stdout == b"alive"


def test_without_a_mark_lines_go_out_as_they_are() -> None:
    """With --no-log-capture nobody would take it off."""
    (line, more) = said(
        "import logging; logging.getLogger('shop').error('a', exc_info=ValueError('b'))",
        before="order.update(mark='', log_kind='console')\n",
    )

    assert line.endswith(" error   [1/2] shop: a")
    assert more == "    ValueError: b"


def test_without_a_mark_a_syslogs_bare_message_says_when_and_who() -> None:
    """With --no-log-capture a record goes to stderr, where no header of syslog's is around it."""
    (line,) = said(
        "import logging; logging.getLogger('shop').error('a')", before="order.update(mark='', log_kind='message')\n"
    )

    assert {"level": "error", "app": "shop", "slot": "1", "logger": "shop", "message": "a"}.items() <= parsed(
        line
    ).items()


def test_without_a_mark_the_journal_learns_the_priority() -> None:
    """With --no-log-capture under systemd: as prod-run's own lines have it (sd-daemon(3))."""
    lines = said(
        """
        import logging
        logging.getLogger('shop').error('a', exc_info=ValueError('b'))
        logging.getLogger('shop').info('c')
        """,
        before="""
order.update(mark='', log_kind='console', log_colour=True)
here = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{here.st_dev}:{here.st_ino}"
""",
    )

    assert [line[:3] for line in lines] == ["<3>", "<3>", "<6>"]
    assert lines[0].endswith(" error   [1/2] shop: a")  # and in no colours: it is no terminal


def test_with_a_mark_a_record_is_one_line() -> None:
    """The observer makes the newlines."""
    (line,) = said(
        "import logging; logging.getLogger('shop').error('a', exc_info=ValueError('b'))",
        before="order.update(log_kind='console')\n",
    )

    assert line.startswith(f"{RECORD}{MARK}3")
    assert line.endswith(f" error   [1/2] shop: a{INNER_NEWLINE}    ValueError: b")


def test_trace_and_span_are_opentelemetrys() -> None:
    """If its context is there; an app that does not use it does not pay for it."""
    pytest.importorskip("opentelemetry.trace")
    inside, outside = map(
        read,
        said("""
        import logging
        from opentelemetry import trace
        context = trace.SpanContext(0xABC, 0xDEF, is_remote=False)
        with trace.use_span(trace.NonRecordingSpan(context)):
            logging.getLogger().info("inside")
        logging.getLogger().info("outside")
        """),
    )

    assert (inside["trace_id"], inside["span_id"]) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert "trace_id" not in outside
    assert said("import logging; logging.getLogger().info('x'); assert 'opentelemetry' not in sys.modules")


def test_nothing_of_this_is_inherited_by_a_program() -> None:
    """The mark stands nowhere that another program could read it: not in the environment, not on the command line."""
    assert MARK not in os.environ.values()
    (environment,) = said(
        "import subprocess; print(subprocess.check_output(['env']).count(order['mark'].encode()), file=sys.stderr)"
    )

    assert environment == "0"
