"""
Which sink `--log` means.

Owns the choice and nothing else; what is not chosen is not imported.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.logs.batch import Batch
    from launcher.observer.standard_output import StandardOutput
    from launcher.observer.syslog import Syslog


def open_sink(
    log: str,
    *,
    notice: Callable[[int], Batch],
    watch: Callable[[int, int], None],
    complain: Callable[[str], None],
    count: Callable[[int, int], None],
) -> StandardOutput | Syslog:
    """Make the sink; nothing can be wrong with it yet, for it is tried with the first line."""
    if log == "stdout":
        from launcher.observer.standard_output import StandardOutput  # noqa: PLC0415  one of the two

        return StandardOutput(1, notice=notice, watch=watch, count=count)
    from launcher.logs import syslog_address  # noqa: PLC0415
    from launcher.observer.syslog import Syslog  # noqa: PLC0415

    address = syslog_address.parse(log)
    return Syslog(address, host=os.uname().nodename, notice=notice, watch=watch, complain=complain)
