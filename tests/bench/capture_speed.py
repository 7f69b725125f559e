"""
What capturing costs, without a sink: `python -m tests.bench.capture_speed`.

CPU time of `Capture.read` alone (the writing is not counted), the best of several runs: the machine is shared.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from typing import NamedTuple

from launcher.logs.batch import Form, Source, finished
from launcher.observer.capture import Capture

SOURCE = Source("shop", 1, 4711, slot=0, version="1.2")
MARK = "0123456789abcdef"
PIECE = 64 * 1024
PIECES = 100
RUNS = 7

TEXT = "2026-11-22 05:11:56,123 INFO shop.web request done path=/checkout/basket status=200 ms=12 user=4711"
OBJECT = '{"time":"2026-11-22T05:11:56.123Z","level":"info","logger":"shop.web","msg":"request done","ms":12}'
LONG_OBJECT = OBJECT[:-1] + ',"more":"' + "x" * 19_900 + '"}'


class Case(NamedTuple):
    """One kind of line in one form."""

    name: str
    kind: str
    line: str
    stream: str = "stdout"


CASES = (
    Case("raw -> logfmt, 100 B", "logfmt", TEXT),
    Case("raw -> logfmt, stderr", "logfmt", TEXT, "stderr"),
    Case("raw -> logfmt, not ASCII", "logfmt", TEXT.replace("basket", "körbe")),
    Case("raw -> logfmt, ESC and quotes", "logfmt", TEXT.replace("INFO", '\x1b[32m"I"')),
    Case("raw -> json, 100 B", "json", TEXT),
    Case("raw -> console, 100 B", "console", TEXT),
    Case("raw -> message, 100 B", "message", TEXT),
    Case("app JSON -> json, 100 B", "json", OBJECT),
    Case("app JSON -> json, not ASCII", "json", OBJECT.replace("done", "fertig für")),
    Case("app JSON and text, in turns", "json", OBJECT + "\n" + TEXT),
    Case("finished records -> logfmt", "logfmt", finished(MARK, 6, TEXT).rstrip("\n")),
    Case("raw -> logfmt, 20 kB", "logfmt", TEXT * 200),
    Case("app JSON -> json, 20 kB", "json", LONG_OBJECT),
    Case("finished -> logfmt, 20 kB", "logfmt", finished(MARK, 6, TEXT * 200).rstrip("\n")),
)


def main() -> None:
    """Print a table: lines per second and microseconds per line, by CPU time."""
    sys.stdout.write(f"Python {sys.version.split()[0]}, {PIECES} pieces of 64 KiB, best of {RUNS}\n")
    for case in CASES:
        seconds, lines = min(measured(case) for _ in range(RUNS))
        speed = lines / seconds
        sys.stdout.write(f"{case.name:32} {speed:12,.0f} lines/s  {1e6 / speed:8.3f} us/line\n")


def measured(case: Case) -> tuple[float, int]:
    """Return the CPU seconds that reading took, and the number of lines read."""
    line = case.line.encode() + b"\n"
    data = line * (PIECE * PIECES // len(line))
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIECE)
    os.set_blocking(reading, False)
    seen: list[int] = []
    capture = Capture(reading, case.stream, SOURCE, Form(case.kind), mark=MARK, took=seen.append)
    seconds = 0.0
    lines = 0
    for start in range(0, len(data), PIECE):
        os.write(writing, data[start : start + PIECE])
        begin = time.process_time()
        batches = capture.read(0.0)
        seconds += time.process_time() - begin
        lines += sum(batch.taken for batch in batches)
    os.close(reading)
    os.close(writing)
    if lines != sum(seen) or lines != data.count(b"\n"):
        message = f"{case.name}: {lines} of {sum(seen)} lines came out"
        raise AssertionError(message)
    return seconds, lines


if __name__ == "__main__":
    main()
