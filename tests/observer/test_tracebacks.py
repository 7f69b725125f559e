"""What Python itself reports on stderr is one record, and what stands around it is not in it."""

# ruff: noqa: EM101, TRY301  the exceptions are what is tested

from __future__ import annotations

import faulthandler
import sys
import tempfile
import threading
import traceback

import pytest

from launcher.logs.batch import Form, Source
from launcher.observer import tracebacks
from launcher.observer.sorting import Sorting

SOURCE = Source("shop", 1, 123, slot=0)


def plain() -> str:
    """Return a traceback with many frames, an exception of a local class and a note."""

    class OddError(Exception):
        """Its name has `<locals>` in it."""

    def deeper(level: int) -> None:
        if level:
            deeper(level - 1)
        raise OddError("odd: " + "one")

    return caught(lambda: deeper(9))


def chained() -> str:
    """Return an exception while another is handled, with a cause of its own."""

    def fail() -> None:
        try:
            try:
                raise KeyError("a")
            except KeyError as error:
                raise ValueError from error
        except ValueError:
            raise KeyboardInterrupt  # noqa: B904  the chain is what is tested

    return caught(fail)


def grouped() -> str:
    """Return a group in a group, which is the cause of another exception."""

    def fail() -> None:
        try:
            raise ExceptionGroup("out", [ValueError(1), ExceptionGroup("in", [TypeError("x")])])
        except ExceptionGroup as error:
            raise KeyError("k") from error

    return caught(fail)


def cause_of_a_group() -> str:
    """Return an exception that is the cause of a group."""

    def fail() -> None:
        try:
            raise KeyError("k")
        except KeyError as error:
            raise ExceptionGroup("out", [ValueError(1)]) from error

    return caught(fail)


def crashed() -> str:
    """Return what faulthandler writes when a process dies of a signal."""
    with tempfile.TemporaryFile() as file:
        lock = threading.Lock()
        thread = threading.Thread(target=lock.acquire)
        with lock:
            thread.start()
            faulthandler.dump_traceback(file, all_threads=True)
        thread.join()
        file.seek(0)
        stacks = file.read().decode()
    assert stacks.count("most recent call first") == 2
    return f"Fatal Python error: Segmentation fault\n\n{stacks}\nExtension modules: a.b, c (total: 2)\n"


def not_started() -> str:
    """Return what an interpreter says that finds no standard library."""
    return (
        "Fatal Python error: init_fs_encoding: failed to get the Python codec of the filesystem encoding\n"
        "Python runtime state: core initialized\nModuleNotFoundError: No module named 'encodings'\n\n"
        "Current thread 0x00007f581be39b80 (most recent call first):\n  <no Python frame>\n"
    )


def caught(fail: object) -> str:
    """Return the traceback of what a function raises."""
    assert callable(fail)
    try:
        fail()
    except BaseException as error:  # noqa: BLE001  also KeyboardInterrupt
        return "".join(traceback.format_exception(error))
    raise AssertionError


def sorted_lines(data: str, stream: str = "stderr") -> list[tuple[int, list[str]]]:
    """Return (severity, lines) of each run, as an app's stderr would be sorted; INNER_NEWLINE made visible."""
    sorting = Sorting(stream, Form("message"), "mark")
    found = sorting.add(data.encode(), data.count("\n"), SOURCE) + sorting.close(SOURCE)
    return [(written.severity, written.lines.decode()[:-1].split("\n")) for written in found]


def one(text: str) -> tuple[int, list[str]]:
    """Return a text as one error record."""
    return (3, [text.rstrip("\n").replace("\n", "\x1f").replace("\t", "\\t")])


MADE = [plain, chained, grouped, cause_of_a_group, crashed, not_started]


@pytest.mark.parametrize("make", MADE)
def test_a_report_is_one_record(make: object) -> None:
    """What stands before and after is its own line."""
    assert callable(make)
    text = make()

    assert sorted_lines(f"before\n{text}- after\nmore\n") == [(6, ["before"]), one(text), (6, ["- after", "more"])]
    assert sorted_lines(text + "\nafter\n") == [one(text), (6, [""]), (6, ["after"])]
    assert sorted_lines(text + text) == [one(text), one(text)]


@pytest.mark.parametrize("make", MADE)
def test_a_report_on_stdout_is_lines(make: object) -> None:
    """Only stderr is where Python reports."""
    assert callable(make)
    text = make()

    assert [severity for severity, _ in sorted_lines(text, "stdout")] == [6]


def test_a_thread_that_died(capsys: pytest.CaptureFixture[str]) -> None:
    """`Exception in thread` and its traceback are one."""
    try:
        raise ValueError("y")
    except ValueError as error:
        threading.__excepthook__(threading.ExceptHookArgs((type(error), error, error.__traceback__, None)))
    text = capsys.readouterr().err

    assert text.startswith("Exception in thread")
    assert sorted_lines(text) == [one(text)]


def test_a_destructor_that_failed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`Exception ignored in` and its traceback are one; so is one without frames."""

    class Bad:
        def __del__(self) -> None:
            raise ValueError("y")

    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    bad = Bad()
    del bad
    text = capsys.readouterr().err
    pipe = "Exception ignored in: <_io.TextIOWrapper name='<stdout>'>\nBrokenPipeError: [Errno 32] Broken pipe\n"

    assert text.startswith("Exception ignored in")
    assert sorted_lines(text + pipe) == [one(text), one(pipe)]


def test_what_does_not_belong_ends_it() -> None:
    """Another thread's line between two frames is its own; nothing is lost, nothing changes places."""
    head = "Traceback (most recent call last):\n  frame\n"

    assert sorted_lines(f"{head}GET / 200\n  frame\n") == [one(head), (6, ["GET / 200", "  frame"])]
    assert sorted_lines(f"{head}\x1emark6own\n  frame\n") == [one(head), (6, ["own"]), (6, ["  frame"])]
    assert sorted_lines(f"{head}A: b\n\nDuring lunch\n") == [one(head + "A: b"), (6, [""]), (6, ["During lunch"])]


def test_a_text_that_only_mentions_one_is_text() -> None:
    """A traceback begins where Python begins it: at the start of a line."""
    text = "he said: Traceback (most recent call last):\n  x\n"

    assert sorted_lines(text) == [(6, text.splitlines())]


def test_a_report_without_end_makes_several_records() -> None:
    """At most 500 lines or 64 KiB in one; the rest is still an error, and complete."""
    frames = [f"  frame {number}" for number in range(1200)]
    found = sorted_lines("\n".join(["Traceback (most recent call last):", *frames, "E: x", ""]))
    long = sorted_lines("\n".join(["Traceback (most recent call last):", *(["  " + "x" * 40_000] * 3), ""]))

    assert [(severity, line.count("\x1f") + 1) for severity, [line] in found] == [(3, 500), (3, 500), (3, 202)]
    assert [line for _, [lines] in found for line in lines.split("\x1f")][1:-1] == frames
    assert [severity for severity, _ in long] == [3, 3, 3]
    assert all(len(line) <= tracebacks.MOST_BYTES for _, [line] in long)
