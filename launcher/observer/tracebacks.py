"""
Which lines on stderr are one traceback.

Owns how Python's own reports begin and which lines belong to one: plain, chained and grouped tracebacks, those of
threads and destructors, and what faulthandler says of a crash.
Pure: it must never read, write or wait.

The next line decides, nothing else: what an exception's message has on further, unindented lines cannot be told from
what anybody prints, and stays outside.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_LINES = 500
MOST_BYTES = 64 * 1024

_PLAIN = b"Traceback (most recent call last):"
_TREE = b"  + Exception Group Traceback (most recent call last):"
_STARTS = {
    # How it starts, and what has then been seen.
    _PLAIN: "frames",
    _TREE: "tree",
    b"Fatal Python error:": "crash",
    b"Exception ignored in": "title",
    b"Exception in thread": "title",
}
_CHAINS = (
    b"During handling of the above exception, another exception occurred:",
    b"The above exception was the direct cause of the following exception:",
)
_OF_A_CRASH = (
    b"Current thread",
    b"Thread 0x",
    b"Extension modules:",
    b"Python runtime state:",
    b"<Cannot show all threads",
)
_MAY_BE_APART = ("exception", "tree", "crash", "chain")  # after these an empty line may stand within


def may_hold(data: bytes) -> bool:
    """Say whether any of these lines may start a traceback; quick, and wrong only in saying yes."""
    return any(start in data for start in (_PLAIN[:16], _TREE[:20], b"Fatal Python error:", b"Exception i"))


def starts(line: bytes) -> bool:
    """Say whether a traceback starts with this line."""
    return line.startswith(tuple(_STARTS))


class Traceback:
    """The lines of one traceback so far."""

    def __init__(self, line: bytes, time: str) -> None:
        """Take the line it starts with, and when that was read."""
        self.time = time
        self.lines = [line]
        self.blanks = 0  # empty lines that belong to it only if the next line does
        self._seen = next(seen for start, seen in _STARTS.items() if line.startswith(start))
        self._size = len(line) + 1

    def takes(self, line: bytes) -> bool:
        """Take a line if it belongs to this traceback, else say no: then it has ended."""
        if not line and not self.blanks and self._seen in _MAY_BE_APART:
            self.blanks = 1
            return True
        seen = self._next(line)
        if not seen:
            return False
        self._seen = seen
        self.lines += *[b""] * self.blanks, line
        self._size += self.blanks + len(line) + 1
        self.blanks = 0
        return True

    def is_full_with(self, line: bytes) -> bool:
        """Say whether another line would be too much for one record."""
        is_full = len(self.lines) + self.blanks >= MOST_LINES or self._size + self.blanks + len(line) > MOST_BYTES
        return bool(self.lines) and is_full

    def begin_again(self) -> None:
        """Forget the lines so far, which are written: what still comes makes another record."""
        self.lines = []
        self._size = 0

    def _next(self, line: bytes) -> str:
        return next((seen for when, belongs, seen in _RULES if self._seen in when and belongs(self, line)), "")


def _is_chain(_: Traceback, line: bytes) -> bool:
    return line.startswith(_CHAINS)


def _is_indented(traceback: Traceback, line: bytes) -> bool:
    return not traceback.blanks and line[:1] in {b" ", b"\t"} and not line.startswith(_TREE)


def _is_exception(traceback: Traceback, line: bytes) -> bool:
    """Say whether a line may be an exception's: its dotted name, alone or before a colon."""
    if traceback.blanks:
        return False
    name = line.partition(b": ")[0].replace(b"<locals>", b"locals").decode("utf-8", "replace")
    return all(part.isidentifier() for part in name.split("."))


_RULES: tuple[tuple[tuple[str, ...], Callable[[Traceback, bytes], bool], str], ...] = (
    # What was seen, what the line is, what has been seen then.
    (("exception", "tree"), _is_chain, "chain"),
    (("chain", "title"), lambda _, line: line.startswith(_PLAIN), "frames"),
    (("chain", "title"), lambda _, line: line.startswith(_TREE), "tree"),
    (("frames", "title"), _is_indented, "frames"),
    (("tree",), _is_indented, "tree"),
    (("exception",), _is_indented, "exception"),
    (("crash",), _is_indented, "crash"),
    (("crash",), lambda _, line: line.startswith(_OF_A_CRASH), "crash"),
    (("crash",), _is_exception, "crash"),
    (("frames", "title"), _is_exception, "exception"),
)
