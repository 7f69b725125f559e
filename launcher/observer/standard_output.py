"""
The sink of `--log stdout`: the writer of logs.stdout with the surface of every sink.

Owns when the loop has to wait for room.  Must never wait, and never raise out of `write`.
"""

from __future__ import annotations

import select

from launcher.logs.stdout import Stdout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.logs.batch import Batch

LIMIT = 8 * 1024 * 1024  # bytes that wait for a slow reader before the oldest give way


class StandardOutput:
    """Our stdout; what was written is in `passed`, in `dropped` or in `backlog`."""

    __slots__ = ("_is_watching", "_output", "_watch")

    def __init__(
        self,
        fd: int,
        *,
        notice: Callable[[int], Batch],
        watch: Callable[[int, int], None],
        count: Callable[[int, int], None] | None = None,
    ) -> None:
        """
        Take a descriptor, which stays the caller's.

        `notice` makes the batch that stands where lines are missing, from their number; `watch` tells the loop
        which descriptor to wait for, and with which mask (0: not any more); `count` is told `passed` and `dropped`.
        """
        self._output = Stdout(fd, notice=lambda lines: notice(lines).lines, limit=LIMIT, count=count)
        self._watch = watch
        self._is_watching = False

    @property
    def passed(self) -> int:
        """Return how many lines the kernel has taken."""
        return self._output.passed

    @property
    def dropped(self) -> int:
        """Return how many lines were given up."""
        return self._output.dropped

    @property
    def missing(self) -> int:
        """Return how many of them no notice has told of."""
        return self._output.missing

    @property
    def backlog(self) -> int:
        """Return how many bytes wait."""
        return self._output.backlog if self._output.wants_write else 0

    def write(self, batch: Batch) -> None:
        """Take lines, and pass on at once what the other side takes."""
        self._output.write(batch.lines, batch.taken)
        self._mind()

    def on_ready(self, fd: int, mask: int) -> None:  # noqa: ARG002  the surface of every sink
        """Pass on more: there is room."""
        self._output.flush()
        self._mind()

    def deadline(self) -> float | None:
        """Say when `tick` is due: never, the kernel says when there is room."""
        return None

    def tick(self) -> None:
        """Nothing is due by time."""

    def close(self) -> None:
        """Try once more, and count what is left as dropped."""
        self._output.close()

    def _mind(self) -> None:
        # A pipe without a reader reports EPOLLERR whether asked or not: wait only while something is queued.
        if self._output.wants_write is not self._is_watching:
            self._is_watching = not self._is_watching
            self._watch(self._output.fileno(), select.EPOLLOUT if self._is_watching else 0)
