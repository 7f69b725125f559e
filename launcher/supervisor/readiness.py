"""
Whoever waits for a daemon: is it up, and if not, why?

Owns the channel to the caller of `--daemon`, and the one message that it gets.
Must never wait: a caller that is gone or does not read is no reason to.
"""

from __future__ import annotations

from launcher import protocol
from launcher.errors import Exit
from launcher.lean_posix import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.logs.formats import Record


class Readiness:
    """The caller's news; it learns from the lines that prod-run says anyway."""

    __slots__ = ("_channel", "_is_done", "_reason", "is_stopping")

    def __init__(self, fd: int) -> None:
        self._channel: socket.socket | None = socket.socket(fileno=fd)
        self._reason = ""
        self._is_done = False  # all work, before anybody could be told that it had begun
        self.is_stopping: Callable[[], bool] = lambda: False

    def hear(self, record: Record) -> None:
        """Learn from one line."""
        if record.event == "committed" and self.is_stopping():
            self._is_done = True  # its exit code is the news
        elif record.event == "committed":
            self._tell("ready")
        elif record.event in {"rejected", "stopping"} and not self._reason:
            facts = dict(record.fields)
            what = facts.get("reason") or f"stopped by {facts.get('origin')} before it was ready"
            self._reason = f"cannot start: {what}" + (f"\n{record.detail}" if record.detail else "")

    def over(self, code: int, reason: str = "") -> None:
        """Prod-run ends; whoever still waits learns that it was never ready, or what came of the work."""
        if self._is_done and not code:
            self._tell("ready")
        if self._is_done:
            reason = reason or f"it has ended already, with exit code {code}"
        text = reason or self._reason or "cannot start: it ended before it was ready"
        self._tell("failed", code=code or Exit.SOFTWARE, text=text)

    def _tell(self, verb: str, **fields: protocol.Field) -> None:
        channel, self._channel = self._channel, None
        if channel is None:
            return
        try:
            channel.send(protocol.encode(verb, **fields), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass
        channel.close()
