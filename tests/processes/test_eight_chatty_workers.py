"""Eight workers that write as fast as they can: none lost, none torn, none anonymous, and all counted: DESIGN §6."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes.loud import Counted
from tests.processes.running import LIMIT, Running, descriptors, until
from tests.processes.test_output import into

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKERS = 8
LONG_EVERY = 250  # lines; more would only fill the disk
APP = """
import logging, os, sys, time
from launcher import Worker

written, pauses = time.monotonic(), 0

def texts(slot):
    for number in range({lines}):
        begin = f"<{{slot}} {{os.getpid()}} {{number}} "
        size = 20_000 if number % {every} == slot else 80
        yield begin + "x" * (size - len(begin) - 1) + ">"

def write(data):
    global written, pauses
    while data:
        data = data[os.write(1, data):]
    before, written = written, time.monotonic()
    pauses += written - before > {pause}

def main(worker: Worker):
    worker.ready()
    while not os.path.exists("go"):
        time.sleep(0.01)
    log = logging.getLogger("shop")
    if "{way}" == "logging":
        for text in texts(worker.slot):
            log.info("%s", text)
    elif worker.slot % 2:
        for text in texts(worker.slot):
            write(text.encode() + b"\\n")
    else:  # as a program whose stdout is not line-buffered: the blocks end anywhere
        data = b""
        for text in texts(worker.slot):
            data += text.encode() + b"\\n"
            while len(data) >= 8192:
                write(data[:8192])
                data = data[8192:]
        write(data)
    with open(f"wrote.{{worker.slot}}", "w") as file:
        file.write(str(pauses))
    os.rename(file.name, f"done.{{worker.slot}}")
    worker.stopping.wait()
"""
LINE = re.compile(r'time=\S+ level=info .*?\bslot=(\d) generation=1 pid=(\d+) (.*?)message=("?)(.*)\4')
PAUSE = 0.2  # seconds between two pieces of a line: a writer that had no turn for so long may see it given out by half


MEMORY = Path("/dev/shm")
SOONER = ("nice", "-n", "-10") if os.geteuid() == 0 else ()  # a reader that keeps up also on a busy machine
ROOM = 1 << 30


class Output:
    """A file, directly or behind a pipe whose reader keeps up."""

    def __init__(self, kind: str, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        self._reader: subprocess.Popen[bytes] | None = None
        if kind == "pipe":
            reading, writing = os.pipe()
            self._reader = subprocess.Popen([*SOONER, "cat"], stdin=reading, stdout=self.fd)
            os.close(reading)
            os.close(self.fd)
            self.fd = writing

    def wait(self) -> None:
        """Wait until all is in the file."""
        if self._reader:
            self._reader.wait(LIMIT)

    def close(self) -> None:
        """End the reader."""
        if self._reader:
            self._reader.kill()
            self._reader.wait(LIMIT)


@pytest.fixture
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Output]:
    """Have an output, in memory if there is room: a disk that stalls is no reader that keeps up."""
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    with tempfile.TemporaryDirectory(dir=MEMORY if has_room else tmp_path) as folder:
        made = Output(request.param, Path(folder) / "log")
        yield made
        made.close()


@pytest.mark.parametrize(
    ("output", "lines"),
    [("file", 5_000), ("pipe", 5_000), pytest.param("pipe", 100_000, marks=pytest.mark.slow)],
    indirect=["output"],
)
@pytest.mark.parametrize("way", ["raw", "logging"])
def test_every_line_arrives_whole_and_with_its_name(
    start: Callable[..., Running],
    app: Callable[..., Path],
    output: Output,
    tmp_path: Path,
    way: str,
    lines: int,
) -> None:
    """Lines of 80 B and some of 20 kB, raw or logged: each there once, in order, with slot and pid; none dropped."""
    app(APP.format(lines=lines, every=LONG_EVERY, way=way, pause=PAUSE))
    running = start("-w", WORKERS, "app:main", before=into(output.fd), pass_fds=[output.fd])
    os.close(output.fd)
    # It reads what is written: by a busy machine it is started late, and what has no reader for long is discarded.
    until(lambda: "event=committed" in output.path.read_text(), "the observer says so")
    (tmp_path / "go").touch()
    until(lambda: len(list(tmp_path.glob("done.*"))) == WORKERS, "all is written", 4 * LIMIT)
    page = os.open(_page_of(running), os.O_RDONLY)  # outlives the process
    pids = {str(slot): str(pid) for pid, slot in running.workers().items()}
    assert running.stop() == 0
    output.wait()
    counted = Counted(*struct.unpack("5q", os.pread(page, 40, 0)))
    os.close(page)

    following = dict.fromkeys(map(str, range(WORKERS)), 0)
    begun = dict.fromkeys(following, "")
    torn = dict.fromkeys(following, 0)
    total = 0
    with output.path.open() as log:
        for line in log:
            total += 1
            found = LINE.fullmatch(line.rstrip("\n"))
            if found is None:
                assert "<" not in line, line[:200]  # prod-run's own lines say nothing of the kind
                continue
            slot, pid, facts, _, message = found.groups()
            assert pids[slot] == pid
            begun[slot] += message
            if "partial=true" in facts:
                torn[slot] += 1
            else:
                assert begun[slot] == _text(slot, pid, following[slot])
                following[slot] += 1
                begun[slot] = ""
    for slot, times in torn.items():
        assert times <= int((tmp_path / f"done.{slot}").read_text())
    assert set(following.values()) == {lines}
    assert (counted.taken, counted.passed) == (total, total)
    assert (counted.dropped, counted.lost) == (0, 0)


def _text(slot: str, pid: str, number: int) -> str:
    begin = f"<{slot} {pid} {number} "
    size = 20_000 if number % LONG_EVERY == int(slot) else 80
    return begin + "x" * (size - len(begin) - 1) + ">"


def _page_of(running: Running) -> str:
    """Return the page of the counters, as the supervisor has it open."""
    fds = descriptors(running.pid).items()
    return f"/proc/{running.pid}/fd/{next(fd for fd, link in fds if 'memfd:log-counters' in link)}"
