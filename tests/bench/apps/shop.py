"""
The app that every contender serves: trivial, or as heavy to import as the environment says.

Owns what is measured inside an app: its import, its answer, its reports.  Must never import what a plain
start of Python has not loaded already: a trivial app must be trivial.

BENCH_PIPE            where reports go: lines of event, PID, monotonic seconds and a detail
BENCH_HEAP_MB         grow by this much, made of Python objects, at import
BENCH_IMPORT_SECONDS  seconds of CPU that the import takes at least, the heap included
"""

import gc
import os
import time

from version import VERSION

REQUESTS_UNTIL_COLLECTED = 100


def report(event: str, detail: float = 0.0) -> None:
    """Tell the benchmark what has just happened; one write, so lines of many processes do not mix."""
    now = time.monotonic()
    pipe = os.environ.get("BENCH_PIPE")
    if pipe:
        fd = os.open(pipe, os.O_WRONLY)
        os.write(fd, f"{event} {os.getpid()} {now!r} {detail!r}\n".encode())
        os.close(fd)


def begin() -> None:
    """Report that this worker is inside the app's code, and could serve from here on."""
    report("inside")
    report("up")


def resident() -> int:
    """Return the bytes of memory that this process has in use."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def build(size_mb: int, seconds: float) -> list[dict[str, object]]:
    """Make a heap of Python objects, then use the processor until the time is up."""
    began = time.process_time()
    goal = resident() + size_mb * 1_000_000
    heap: list[dict[str, object]] = []
    while size_mb and resident() < goal:
        heap += [{"number": float(n), "name": f"article {n}"} for n in range(1000)]
    while time.process_time() < began + seconds:
        sum(range(1000))
    return heap


_began = time.monotonic()
_seconds = float(os.environ.get("BENCH_IMPORT_SECONDS", "0"))
HEAP = build(int(os.environ.get("BENCH_HEAP_MB", "0")), _seconds)
_requests = iter(range(1, 1 << 62))  # next() is one step, also for the threads of a server
if _seconds:
    report("imported", time.monotonic() - _began)


def answer(path: str) -> bytes:
    """Return the body of the answer to a request; a `/pause` takes two milliseconds, so that others have a turn."""
    if path == "/pause":
        import select

        select.select((), (), (), 0.002)
    if next(_requests) == REQUESTS_UNTIL_COLLECTED:
        gc.collect()
        report("collected")
    return f"version {VERSION} pid {os.getpid()}\n".encode()
