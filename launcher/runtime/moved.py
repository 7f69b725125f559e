"""
The files that templates became, as their generation's zygote knows them.

Owns what is in its place and not confirmed, and the way back.  Must never leave a file of one
that was given up.
"""

from __future__ import annotations

import os
import time

from launcher.runtime import records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.appconfig.place import Placed, Staged
    from launcher.errors import Problem

NOTHING = -1  # no lock


class Files:
    """The templates' files while the generation lives: put back unless it is committed, removed if nobody else's."""

    __slots__ = ("paths", "placed", "private")

    def __init__(self) -> None:
        self.paths: tuple[str, ...] = ()  # of all
        self.placed: list[Placed] = []  # not confirmed yet
        self.private: tuple[str, ...] = ()

    def confirm(self) -> None:
        """The generation is committed: drop what was kept for a way back."""
        if self.paths:
            from launcher.appconfig import place  # noqa: PLC0415  only templates need it

            place.settle(self.placed)
            place.drop_abandoned(self.paths)
        self.placed = []

    def move(self, staged: Sequence[Staged]) -> list[Problem]:
        """Put them into their places; if there are problems, all are as they were."""
        from launcher.appconfig import place  # noqa: PLC0415  only templates need it

        self.placed, problems = place.move(staged)
        return problems

    def restore(self, paths: Sequence[str] = (), kept: Sequence[str] = (), until: float = 0.0) -> None:
        """
        Put the former files back, for the generation was given up.

        Args:
            paths: those that another one moved, whose zygote was killed; none: our own.
            kept: where the former files are; empty if there was none.
            until: monotonic seconds; later, the next generation may have its own files there.
        """
        if not paths:
            _put_back(self.placed)
            self.placed = []
            return
        if time.monotonic() >= until:
            return
        from launcher.appconfig.place import Placed  # noqa: PLC0415  seldom needed

        # What is not there any more was put back by the one that died.
        names = [name for name in zip(paths, kept, strict=True) if not name[1] or os.path.lexists(name[1])]
        _put_back([Placed(path, former, NOTHING) for path, former in names])

    def end(self) -> None:
        """The generation is over."""
        self.restore()
        for path in self.private:
            try:
                os.unlink(path)
            except OSError:
                pass  # put back just now, or removed by somebody else

    def close(self) -> None:
        """Let go of the locks, in a fork: they are the zygote's."""
        for item in self.placed:
            try:
                os.close(item.lock)
            except OSError:
                pass  # there is none
        self.placed = []


def _put_back(placed: list[Placed]) -> None:
    if placed:
        from launcher.appconfig import place  # noqa: PLC0415  loaded when they were moved

        for problem in place.put_back(placed):
            records.say("error", f"{problem.name} {problem.reason}. {problem.remedy}")
