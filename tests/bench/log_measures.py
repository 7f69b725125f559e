"""
The measure `logs`: what eight workers write, on its way through each contender to a file or a pipe.

Owns the cases, each contender's set-up for logs, the way to see when all is written out, and the look at every line.
Must never call a run fast whose lines are not counted.
"""

from __future__ import annotations

import functools
import os
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.bench import procfs
from tests.bench.contenders import OWN, Place, write
from tests.bench.session import LIMIT, NotSeenError, Session, pause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.contenders import Contender

WORKERS = 8
STILL = 0.3  # seconds without growth, after which the output is looked at
PIPED = 'mkfifo line; (cat < line > out/piped &); exec "$@" > line'


class Case(NamedTuple):
    """What is written, and where it goes."""

    row: str
    kind: str
    lines: int = 100_000  # of each worker
    form: str = "logfmt"
    is_piped: bool = False
    is_everybodys: bool = False  # else prod-run's alone: the others have no such thing


CASES = (
    Case("raw", "raw", is_everybodys=True),
    Case("piped", "raw", is_everybodys=True, is_piped=True),
    Case("mixed", "mixed", is_everybodys=True),
    Case("printed", "printed", is_everybodys=True),
    Case("raw json", "raw", form="json"),
    Case("objects", "objects", form="json"),
    Case("records", "records", 20_000),
)

SEEN = f"""\
logs        {WORKERS} workers, 100,000 lines of 100 B each (logging: 20,000), to files in memory (/dev/shm), for supervisord
            and s6 one for each worker, without rotation; to a pipe: one for all, read by cat; the same program for
            all: lines are made before, and written 8 KiB at a time as by a buffered stdout (one by one: a write for
            each line, line-buffered; the writers are the brake there, as with logging); from the first worker's first
            write to the last change of a file; CPU of all processes but the workers and cat, for each line; flawed:
            lost, torn, out of order, or ascribed to another process (only prod-run ascribes), in all cases together"""

_TEXT = rb"<(?P<pid>\d+) (?P<number>\d+) x+>"
_LOOKS = {
    ("raw", "logfmt"): rb"time=\S+ level=info app=chatter slot=(?P<slot>\d) generation=1 pid=(?P<said>\d+) "
    rb'stream=stdout message="' + _TEXT + rb'"',
    ("raw", "json"): rb'\{"time":"[^"]+","level":"info","app":"chatter","slot":(?P<slot>\d),"generation":1,'
    rb'"pid":(?P<said>\d+),"stream":"stdout","message":"' + _TEXT + rb'"\}',
    ("objects", "json"): rb'\{"time":"[^"]+","level":"info","logger":"shop.web","text":"'
    + _TEXT
    + rb'","app":"chatter","slot":(?P<slot>\d),"generation":1,"pid":(?P<said>\d+)\}',
    ("records", "logfmt"): rb"time=\S+ level=info .*slot=(?P<slot>\d) generation=1 pid=(?P<said>\d+).*"
    + _TEXT
    + rb".*",
}


def logs(contender: Contender, lengths: object) -> dict[str, list[float]]:
    """Lines per second from the signal to begin until all is written out, CPU of the log's way, and flawed lines."""
    figures: dict[str, list[float]] = {"flawed": [0.0]}
    for case in CASES:
        if case.is_everybodys or contender.name == OWN:
            seconds, cpu, flawed = _run(contender, case)
            total = WORKERS * case.lines
            figures[f"logs {case.row}"] = [total / seconds / 1e6]
            figures[f"logs {case.row} CPU"] = [1e6 * cpu / total]
            figures["flawed"][0] += flawed
    return figures


def _run(contender: Contender, case: Case) -> tuple[float, float, int]:
    """Return seconds, CPU seconds, and how many lines are lost, torn, out of order or of the wrong process."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as out:
        argv = functools.partial(_argv, contender, case, out)
        with Session(contender._replace(argv=argv), WORKERS) as session:
            session.wait_for("up", WORKERS)
            path = [pid for pid in session.tree() if pid not in session.workers()]
            cpu = procfs.cpu_seconds(path)
            go = os.open(session.place.directory / "go", os.O_RDWR)
            began = min(report.detail for report in session.wait_for("began", WORKERS))
            session.wait_for("done", WORKERS)
            ended = _wait_for_all(contender, Path(out), WORKERS * case.lines)
            cpu = procfs.cpu_seconds(path) - cpu
            os.close(go)
            pids = {report.pid for report in session.reports if report.event == "done"}
        good = _good_lines(_texts(Path(out)), pids, _pattern(contender, case))
    return ended - began, cpu, WORKERS * case.lines - good


def _wait_for_all(contender: Contender, out: Path, lines: int) -> float:
    """Wait until so many lines are in the files; return when the last was written, in seconds since the epoch."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        before = _written(out)
        pause(STILL)
        # Torn lines may be fewer or more than were written: when nothing comes for long, that is all.
        if before == _written(out) and sum(text.count(b"\n") for text in _texts(out)) >= lines:
            return before[1] / 1e9
    if time.time() - _written(out)[1] / 1e9 > LIMIT / 2:
        return _written(out)[1] / 1e9
    raise NotSeenError(contender.name, "not all lines are written out")


def _written(out: Path) -> tuple[int, int]:
    found = [path.stat() for path in _files(out)]
    return sum(stat.st_size for stat in found), max((stat.st_mtime_ns for stat in found), default=0)


def _files(out: Path) -> list[Path]:
    """Return the files of output; s6-log keeps two of its own beside."""
    return [path for path in out.rglob("*") if path.is_file() and path.name not in {"lock", "state"}]


def _texts(out: Path) -> Iterator[bytes]:
    for path in _files(out):
        yield path.read_bytes()


def _pattern(contender: Contender, case: Case) -> re.Pattern[bytes]:
    kind = case.kind if case.kind in {"objects", "records"} else "raw"
    look = _LOOKS[kind, case.form] if contender.name == OWN else _TEXT
    return re.compile(rb"^" + look + rb"$", re.MULTILINE)


def _good_lines(texts: Iterator[bytes], pids: set[int], pattern: re.Pattern[bytes]) -> int:
    """Count the lines that are whole, the next of their process, and ascribed to it and to its one slot."""
    good = 0
    following: dict[bytes, int] = dict.fromkeys((b"%d" % pid for pid in pids), 0)
    slots: dict[bytes, bytes] = {}
    names = pattern.groupindex
    for text in texts:
        for found in pattern.finditer(text):
            pid, number = found["pid"], int(found["number"])
            good += number == following.get(pid) and ("said" not in names or _is_ascribed(found, slots))
            following[pid] = number + 1
    return good


def _is_ascribed(found: re.Match[bytes], slots: dict[bytes, bytes]) -> bool:
    return found["said"] == found["pid"] and slots.setdefault(found["slot"], found["pid"]) == found["pid"]


# ── the contenders ──────────────────────────────────────────────────────────────────────────────


def _argv(contender: Contender, case: Case, out: str, place: Place) -> list[str]:
    os.mkfifo(place.directory / "go")
    (place.directory / "out").symlink_to(out)
    words = _SET_UPS[contender.name](place, case)
    if case.is_piped:
        return ["/bin/sh", "-c", PIPED, "sh", *words]
    return ["/bin/sh", "-c", 'exec "$@" > out/stdout', "sh", *words] if contender.name == OWN else words


def _program(case: Case) -> str:
    return f"{{python}} {{directory}}/chatter.py {{directory}} {case.kind} {case.lines}"


def _prod_run(place: Place, case: Case) -> list[str]:
    words = ["--workers", str(place.workers), "--log-format", case.form, "chatter:main"]
    return [str(place.bin / "prod-run"), *words, str(place.directory), case.kind, str(case.lines)]


def _supervisord(place: Place, case: Case) -> list[str]:
    log = "/dev/fd/1" if case.is_piped else "{directory}/out/%(process_num)d"
    words = ["[supervisord]", "nodaemon=true", "user=root", "[program:chatter]", f"command={_program(case)}"]
    words += ["process_name=%(program_name)s_%(process_num)d", "numprocs={workers}"]
    write(place, "supervisord.conf", "\n".join([*words, f"stdout_logfile={log}", "stdout_logfile_maxbytes=0", ""]))
    return [str(place.bin / "supervisord"), "--configuration", "supervisord.conf"]


def _circus(place: Place, case: Case) -> list[str]:
    words = ["[circus]", "endpoint = ipc://{directory}/endpoint", "pubsub_endpoint = ipc://{directory}/pubsub"]
    words += ["[watcher:chatter]", f"cmd = {_program(case)}", "copy_env = True", "numprocesses = {workers}"]
    file = ["stdout_stream.class = FileStream", "stdout_stream.filename = {directory}/out/all"]
    words += ["stdout_stream.class = StdoutStream"] if case.is_piped else file
    write(place, "circus.ini", "\n".join([*words, ""]))
    return [str(place.bin / "circusd"), "circus.ini"]


def _s6(place: Place, case: Case) -> list[str]:
    for number in range(place.workers):
        log = "s6-log 1" if case.is_piped else f"s6-log -l 0 s200000000 {{directory}}/out/{number}"
        for name, words in ((f"services/web{number}/run", _program(case)), (f"services/web{number}/log/run", log)):
            write(place, name, f"#!/bin/sh\nexec {words}\n")
            (place.directory / name).chmod(0o755)
    return ["s6-svscan", "services"]


_SET_UPS: dict[str, Callable[[Place, Case], list[str]]] = {
    "prod-run": _prod_run,
    "supervisord": _supervisord,
    "circus": _circus,
    "s6": _s6,
}
