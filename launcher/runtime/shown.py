"""
What may be shown of a generation's configuration: each variable, its value and where that came from.

Owns the message that tells it to the supervisor.  No secret's value is in it: rows are masked as they are loaded.
"""

from __future__ import annotations

from launcher import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.runtime.prepare import Prepared

_LONGEST = 1000  # characters of a value
_MOST = 60_000  # bytes in all; a datagram holds twice as much, and a newline becomes two


def message(prepared: Prepared) -> bytes:
    """Write all variables, as many as a message holds; empty if there are none."""
    rows = [row for loaded in prepared.loads for row in loaded.rows]
    texts = [(row.name, protocol.shorten(row.value, _LONGEST), row.origin) for row in rows]
    room = _MOST
    fitting = [row for row in texts if (room := room - sum(len(text.encode("utf-8", "replace")) for text in row)) > 0]
    if not fitting:
        return b""
    if len(fitting) < len(texts):
        fitting.append(("…", "", f"{len(texts) - len(fitting)} more are left out"))
    names, values, origins = zip(*fitting, strict=True)
    return protocol.encode("config", names=names, values=values, origins=origins)
