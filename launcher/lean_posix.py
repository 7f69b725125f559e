"""
`signal` and `socket` without what Python builds around them.

Owns two names, for modules that the supervisor loads: the C halves, whose constants are plain numbers.
Must never be used where a context manager, an `accept()` or a number's name is wanted: the C halves have none.
The modules around them bring `enum`, `selectors` and `collections`: 1.2 MB, and a third of the supervisor's start.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    import signal as signal  # noqa: PLC0414  the way to say "exported" to type checkers
    import socket as socket  # noqa: PLC0414
else:
    import _signal as signal
    import _socket as socket

__all__ = ["signal", "socket"]
