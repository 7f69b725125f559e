"""
An app that writes lines as fast as it is let: `chatter.py DIRECTORY KIND LINES`, and prod-run's target `chatter:main`.

Owns what a line looks like, and how it is written: all is made before the signal to begin, so that the writers are
not what is measured; then in blocks of 8 KiB, as a program whose stdout is a pipe does it, whatever lines they cut.
Only `printed` (a print for each line, line-buffered) and `records` (Python's logging) are made while they are written.
"""

from __future__ import annotations

import os
import sys
import time

import shop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher import Worker

BLOCK = 8192  # io.DEFAULT_BUFFER_SIZE
SHORT, LONG = 100, 20_000  # bytes, the newline included
LONG_EVERY = 100  # lines, of the kind `mixed`
OBJECT = '{"time":"2026-11-22T05:11:56.123Z","level":"info","logger":"shop.web","text":"'


def line(kind: str, number: int) -> str:
    """Return one line."""
    begin = f"<{os.getpid()} {number} "
    if kind == "objects":
        begin = OBJECT + begin
        return begin + "x" * (SHORT - len(begin) - 4) + '>"}\n'
    size = LONG if kind == "mixed" and number % LONG_EVERY == LONG_EVERY - 1 else SHORT
    return begin + "x" * (size - len(begin) - 2) + ">\n"


def blocks(kind: str, lines: int) -> list[bytes]:
    """Return all lines as what a buffered stdout writes at once."""
    data = "".join(line(kind, number) for number in range(lines)).encode()
    return [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]


def write(block: bytes) -> None:
    """Write all of it."""
    while block:
        block = block[os.write(1, block) :]


def chat() -> None:
    """Wait for the signal to begin, write, and say so."""
    directory, kind, lines = sys.argv[1], sys.argv[2], int(sys.argv[3])
    made = blocks(kind, lines) if kind not in {"printed", "records"} else []
    shop.report("up")
    with open(f"{directory}/go", "rb"):  # a FIFO: open for writing when all are up
        pass
    shop.report("began", time.time())
    for block in made:
        write(block)
    if kind == "printed":
        for number in range(lines):
            sys.stdout.write(line("raw", number))
    elif kind == "records":
        from logging import getLogger  # not logging.info, which configures it

        log = getLogger("shop")

        for number in range(lines):
            log.info("%s", line("raw", number)[:-1])
    shop.report("done")


def main(worker: Worker) -> None:
    """Be prod-run's target."""
    worker.ready()
    chat()
    worker.stopping.wait()


if __name__ == "__main__":
    import signal

    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # as prod-run's zygote has it
    chat()
    signal.pause()
