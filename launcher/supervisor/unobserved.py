"""
What stands for the observer where there is none: plain commands have prod-run's own stdout and stderr.

Owns prod-run's own lines on their way to stderr.
Must never wait, and never start anything.
"""

from __future__ import annotations

from launcher import protocol
from launcher.logs import nonblocking
from launcher.supervisor.observing import Observing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.supervisor import events as on
    from launcher.supervisor.introspection import Introspection

_SEVERITY = {"error": "<3>", "warning": "<4>", "info": "<6>", "debug": "<7>"}  # sd-daemon(3)


class Unobserved:
    """As `Observer`, but nobody is observed."""

    __slots__ = ("_priority", "introspection", "life", "lives")

    is_over = True
    takes_more = False

    def __init__(self, *, priority: bool) -> None:
        self.life = Observing(0.0, lambda: 0.0)  # without a PID for ever
        self.lives = 0
        self.introspection: Introspection | None = None
        self._priority = priority  # stderr is a journal's stream

    def say(self, message: bytes) -> None:
        """Write a line for people."""
        read = protocol.decode(message)
        names, values = (name[1:] for name in read.texts("names")), read.texts("values")
        facts = "".join(f" {name}={_quoted(value)}" for name, value in zip(names, values, strict=True))
        mark = _SEVERITY.get(read.text("level"), "") if self._priority else ""
        lines = [f"prod-run: {read.text('event')}{facts}", *read.text("detail").splitlines()]
        text = "".join(f"{mark}{line}\n" for line in lines)
        nonblocking.try_to_write(2, text.encode("utf-8", "backslashreplace"))

    def capture(self, ticket: int, fds: dict[str, int], **facts: protocol.Field) -> None:
        """Nothing is captured."""

    def outputs(self) -> list[int]:
        """Nothing is captured."""
        return []

    def know(self, ticket: int, **facts: protocol.Field) -> None:
        """Nobody wants to know."""

    def gone(self, ticket: int) -> None:
        """Nobody wants to know."""

    def tell(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Nobody is told."""

    def exited(self, death: on.ProcessExited) -> bool:  # noqa: ARG002
        """It was somebody else."""
        return False

    def tend(self) -> None:
        """Nothing is to be done."""

    def deadline(self) -> float | None:
        """Nothing is waited for."""
        return None

    def end(self) -> None:
        """All has been said."""

    def unsaid(self) -> list[str]:
        """All has been said."""
        return []


def _quoted(value: str) -> str:
    return f'"{value}"' if " " in value else value
