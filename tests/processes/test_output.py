"""What workers write arrives whole, and whoever does not read it harms nobody: DESIGN §6."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.ports import free_port
from tests.processes.loud import Loud
from tests.processes.running import LIMIT, Line, Running, children_of, descriptors, signals_in, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHATTY = """
import sys
from launcher import Worker
LINES, LENGTH = {lines}, {length}
def main(worker: Worker):
    worker.ready()
    for number in range(LINES):
        stream = sys.stdout if number % 2 else sys.stderr
        stream.write(f"<{{worker.slot}} {{number}} " + "x" * (number % LENGTH) + ">\\n")
    sys.stdout.flush()
    open(f"done.{{worker.slot}}", "w").close()
    worker.stopping.wait()
    print("last words", flush=True)
"""

# Of each of two workers, 4.7 MB: more than the pipes hold (1 MiB each, two for a worker) and the observer keeps (1 MiB).
UNREAD = 30_000
OWN = 20  # lines of prod-run's at most


def into(fd: int) -> tuple[str, ...]:
    """Return the words that have prod-run called with this descriptor as its stdout."""
    code = (
        "import os, sys; os.dup2(int(sys.argv[1]), 1); os.close(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
    )
    return (sys.executable, "-c", code, str(fd))


def printed(log: Path) -> list[str]:
    """Return the texts of the lines in a log file."""
    return [Line.parse(text)["text"] for text in log.read_text().splitlines()]


@pytest.mark.slow
def test_no_line_of_four_chatty_workers_is_lost_or_torn(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Four workers with 5,000 lines on both outputs, with a reader that keeps up: all there, whole, in order."""
    app(CHATTY.format(lines=5000, length=50))  # together less than the supervisor keeps for a slow reader
    reading, writing = os.pipe()
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(["cat"], stdin=reading, stdout=log) as reader:
        os.close(reading)
        running = start("-w", 4, "app:main", before=into(writing), pass_fds=[writing])
        os.close(writing)
        until(lambda: len(list(tmp_path.glob("done.*"))) == 4, "all has been written")
        assert running.stop() == 0
        reader.wait(LIMIT)
    texts = [text for text in printed(tmp_path / "log") if text.startswith("<")]
    found = [re.fullmatch(r"<(\d) (\d+) (x*)>", text) for text in texts]

    assert len(found) == 4 * 5000
    assert all(match and len(match[3]) == int(match[2]) % 50 for match in found)
    for slot in range(4):
        for is_stdout in (0, 1):
            numbers = [int(m[2]) for m in found if m and int(m[1]) == slot and int(m[2]) % 2 == is_stdout]
            assert numbers == list(range(is_stdout, 5000, 2))
    assert "dropped output" not in (tmp_path / "log").read_text()


def test_a_line_written_in_pieces_is_forwarded_whole(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Two workers that write a line byte by byte do not mix; what has no newline comes at the end."""
    app("""
import os
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    for byte in f"slot {worker.slot} says: wörd by wörd\\n".encode():
        os.write(1, bytes([byte]))
    os.write(2, b"an unfinished one")
    worker.stopping.wait()
""")
    running = start("-w", 2, "app:main")
    for slot in (0, 1):
        running.wait_for(lambda line, slot=slot: line["text"] == f"slot {slot} says: wörd by wörd")

    assert running.stop() == 0
    assert [line["text"] for line in running.lines].count("an unfinished one") == 2


@pytest.fixture
def unread(app: Callable[..., Path], tmp_path: Path) -> Callable[..., tuple[Running, int]]:
    """Start two chatty workers whose stdout is a pipe that nobody reads; the other end comes with them."""

    def start_one(start: Callable[..., Running], **options: object) -> tuple[Running, int]:
        app(CHATTY.format(lines=UNREAD, length=300))
        reading, writing = os.pipe()
        running = start("-w", 2, "app:main", before=into(writing), pass_fds=[writing], **options)
        os.close(writing)
        return running, reading

    return start_one


def test_a_full_pipe_that_nobody_reads_harms_neither_workers_nor_the_stop(
    start: Callable[..., Running], unread: Callable[..., tuple[Running, int]], tmp_path: Path
) -> None:
    """Megabytes are written, workers never wait for the reader, a reload commits, SIGTERM ends all with 0."""
    running, reading = unread(start)
    until(lambda: len(list(tmp_path.glob("done.*"))) == 2, "both workers have written everything")
    first = {*running.zygotes(), *running.workers(), running.spare()}
    running.send(signal.SIGHUP)
    until(lambda: not first & set(children_of(running.pid)), "the old generation is gone")

    assert len(running.workers()) == 2
    assert running.stop() == 0
    os.close(reading)


def test_a_reader_that_comes_late_is_told_how_much_was_dropped(
    start: Callable[..., Running], unread: Callable[..., tuple[Running, int]], tmp_path: Path
) -> None:
    """Nothing is lost silently: whole lines, and one line that says how many are missing."""
    running, reading = unread(start)
    until(lambda: len(list(tmp_path.glob("done.*"))) == 2, "both workers have written everything")
    with os.fdopen(reading, "rb") as stream:
        running.send(signal.SIGTERM)
        texts = stream.read().decode().splitlines()

    assert running.wait() == 0
    dropped = [int(found[1]) for text in texts if (found := re.search(r'event="dropped output" lines=(\d+)', text))]
    assert sum(dropped) > 0
    said = [line["text"] for text in texts if (line := Line.parse(text)).get("stream")]
    assert all(re.fullmatch(r"<\d \d+ x*>|last words", text) for text in said)
    # prod-run's own may be among the dropped, too.
    assert 2 * UNREAD + 2 <= len(said) + sum(dropped) <= 2 * UNREAD + 2 + OWN


@pytest.mark.parametrize("where", ["/dev/full", "closed", "a reader that left"])
def test_a_stdout_that_takes_nothing_does_not_stop_the_service(
    start: Callable[..., Running], hello: Callable[..., Path], tmp_path: Path, where: str
) -> None:
    """No space left, no stdout at all, or a broken pipe: it starts, reloads and stops as usual."""
    hello(extra="print('at import')")
    reading, writing = os.pipe()
    os.close(reading)
    redirect = {"/dev/full": ">/dev/full", "closed": ">&-"}.get(where)
    before = ("sh", "-c", f'exec "$@" {redirect}', "sh") if redirect else into(writing)
    running = start("-w", 2, "-b", f"unix:{tmp_path}/s", "hello:main", before=before, pass_fds=[writing])
    os.close(writing)
    until(lambda: len(running.workers()) == 2, "two workers")
    before_reload = running.workers()
    until(lambda: signal.SIGHUP in signals_in(running.pid, "SigCgt"), "it takes signals")
    running.send(signal.SIGHUP)
    until(
        lambda: len(running.workers()) == 2 and not running.workers().keys() & before_reload.keys(), "two new workers"
    )

    assert running.stop() == 0
    assert "Traceback" not in running.text()


def test_the_flags_of_an_inherited_stdout_are_left_as_they_are(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """The pipe is shared with the caller and others: it is never made non-blocking, nor reopened."""
    app(CHATTY.format(lines=5, length=9))
    reading, writing = os.pipe()
    running = start("app:main", before=into(writing), pass_fds=[writing])
    with os.fdopen(reading, "rb") as stream:
        flags = fcntl.fcntl(writing, fcntl.F_GETFL)
        until((tmp_path / "done.0").exists, "the worker has written")
        while_it_runs = fcntl.fcntl(writing, fcntl.F_GETFL)
        same = descriptors(running.pid)[1] == os.readlink(f"/proc/self/fd/{writing}")
        code = running.stop()

        assert (while_it_runs, fcntl.fcntl(writing, fcntl.F_GETFL)) == (flags, flags)
        assert not flags & os.O_NONBLOCK
        assert (same, code) == (True, 0)
        os.close(writing)
        assert b"last words" in stream.read()


def test_an_inherited_log_file_is_appended_to_from_where_it_stands(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """`prod-run … > log` after other output: nothing is overwritten."""
    app(CHATTY.format(lines=50, length=9))
    log = tmp_path / "log"
    running = start("app:main", before=("sh", "-c", f'echo before; exec "$@" > {log}', "sh"))
    until((tmp_path / "done.0").exists, "the worker has written")

    assert running.stop() == 0
    texts = printed(log)
    assert sum(text.startswith("<0 ") for text in texts) == 50
    assert "event=stopped" in texts[-1]


def test_a_worker_that_dies_leaves_its_last_words(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """What a killed worker had written, an unfinished line included, is forwarded before its end is reported."""
    app("""
import os, signal
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    os.write(1, b"line\\n" * 2000 + b"and then")
    os.kill(os.getpid(), signal.SIGKILL)
""")
    running = start("--restart", "never", "app:main")

    assert running.wait() == 137
    texts = [line["text"] for line in running.lines]
    assert texts.count("line") == 2000
    assert texts.count("and then") == 1


def test_a_program_of_the_apps_that_floods_does_not_hold_up_the_supervisor(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """`yes` on the worker's own stdout: signals are answered, and the stop ends it too."""
    app("""
import subprocess
from launcher import Worker
def main(worker: Worker):
    flood = subprocess.Popen(["yes"])
    worker.ready()
    worker.stopping.wait()
    flood.kill()
""")
    running = start("app:main", before=("sh", "-c", 'exec "$@" >/dev/null', "sh"))
    until(running.workers, "a worker")
    until(lambda: any("yes" in name for name in commands(running)), "the flood")

    assert running.stop() == 0


def commands(running: Running) -> list[str]:
    """Return the names of the programs that the workers run."""
    found = []
    for worker in running.workers():
        found += [
            subprocess.run(["ps", "-o", "comm=", str(pid)], capture_output=True, text=True).stdout
            for pid in children_of(worker)
        ]
    return found


def test_without_stdio_at_all_it_still_serves(
    start: Callable[..., Running], hello: Callable[..., Path], tmp_path: Path
) -> None:
    """0, 1 and 2 closed by the caller: no socket gets one of these numbers."""
    hello()
    code = "import os, sys; [os.close(fd) for fd in (0, 1, 2)]; os.execv(sys.argv[1], sys.argv[1:])"
    running = start("-b", f"unix:{tmp_path}/s", "hello:main", before=(sys.executable, "-c", code))
    until(running.workers, "a worker")

    assert [descriptors(running.pid)[fd] for fd in (0, 1, 2)] == ["/dev/null"] * 3
    assert running.stop() == 0


STANDING = """
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    for number in range(4000):
        print(f"<{worker.slot} {number}>")
    print(end="", flush=True)
    open(f"done.{worker.slot}", "w").close()
    worker.stopping.wait()
"""


@pytest.mark.parametrize("reader", ["stands still", "is gone"])
def test_what_nobody_took_at_the_stop_is_counted_on_stderr(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path, reader: str
) -> None:
    """The pipe has what it can hold; the rest, and prod-run's own last line, are not lost without a word."""
    app(STANDING)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    running = start("-w", 2, "app:main", before=into(writing), pass_fds=[writing])
    os.close(writing)
    server = Loud(running, tmp_path, ("", 0))
    until(lambda: len(list(tmp_path.glob("done.*"))) == 2, "all is written")
    if reader == "is gone":
        os.close(reading)
    code = running.stop()
    arrived = 0 if reader == "is gone" else len(_rest_of(reading))
    said = running.text()
    counted = server.counted()
    server.close()

    assert code == 0
    assert reader == "is gone" or counted.dropped == counted.taken - arrived > 4000
    assert said.count(f"prod-run: {counted.dropped} lines could not be written at the end\n") == 1
    assert len(re.findall(r"^.*could not be written at the end$", said, re.MULTILINE)) == 1
    assert len(re.findall(r"^.*\bstopped\b.*$", said, re.MULTILINE)) == 1


def _rest_of(reading: int) -> list[str]:
    with os.fdopen(reading) as stream:
        return stream.read().splitlines()


@pytest.mark.parametrize("sink", ["tcp", "unix"])
def test_what_no_syslog_took_at_the_stop_is_counted_on_stderr(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path, sink: str
) -> None:
    """There is no receiver, from the beginning to the end."""
    app(STANDING)
    url = f"tcp://127.0.0.1:{free_port()}" if sink == "tcp" else f"unix:{tmp_path}/nobody"
    running = start("-w", 2, "--log", f"syslog:{url}", "app:main")
    server = Loud(running, tmp_path, ("", 0))
    until(lambda: len(list(tmp_path.glob("done.*"))) == 2, "all is written")
    code = running.stop()
    counted = server.counted()
    server.close()

    assert code == 0
    assert counted.dropped == counted.taken > 8000
    assert running.text().count(f"prod-run: {counted.dropped} lines could not be written at the end\n") == 1
    assert len(re.findall(r"^.*\bstopped\b.*$", running.text(), re.MULTILINE)) == 1
