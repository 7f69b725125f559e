"""
Where prometheus_client keeps its values in a process of the app, and under which identifier.

Owns the variable that says so, and the identifiers: `w<place>` is a worker, whose place on the heartbeat page no living
process shares and a later one takes over; `z<generation>.<pid>` a zygote; with `.<pid>` behind it, a fork of the app's
own.  A bare PID is prometheus_client's own choice, in a Python that the app started.  So what ends in a PID has that
one writer.
Must never import prometheus_client (70 ms), and never touch an app that chose a directory of its own.

Two living processes on one identifier would overwrite each other's entries.  One after the other is safe: the
second goes on with the counters of the first.
"""

from __future__ import annotations

import os
import sys

from launcher.metrics_directory import VARIABLES
from launcher.runtime.on_import import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VARIABLE = VARIABLES[0]
_VALUES = "prometheus_client.values"
# What a dead process has to say no more; the observer leaves it out as long as nobody takes its place.
_OF_THE_LIVING = ("all", "liveall", "livemax", "livemin", "livemostrecent", "livesum")


class _Writer:
    """Who this process is in the names of its files."""

    directory = ""  # empty: nothing of this is ours
    name = ""
    pid = 0  # of the process that `name` alone stands for; 0: nobody


def begin(directory: str, generation: int) -> None:
    """Know where metrics may be kept, in a fresh interpreter; empty: nowhere."""
    _Writer.directory, _Writer.name, _Writer.pid = directory, f"z{generation}", 0


def offer() -> None:
    """
    Have the app's metrics written there, as soon as it imports prometheus_client.

    Called when the whole environment is there, env files included, and before the first import of the app.
    """
    if not _Writer.directory or any(name in os.environ for name in VARIABLES):
        return
    # Whether or not there is a prometheus_client: a Python that the app starts may have one.
    os.environ[VARIABLE] = _Writer.directory
    when_imported({_VALUES: _take_over})


def become(place: int) -> None:
    """Be the worker at this place from now on; before any code of the app runs in it."""
    if not _Writer.directory:
        return
    _Writer.name, _Writer.pid = f"w{place}", os.getpid()
    # Here and not in the observer, which may hear of a death when the next one has its files open; and before
    # the supervisor is told that this worker lives.
    for mode in _OF_THE_LIVING:
        try:
            os.unlink(f"{_Writer.directory}/gauge_{mode}_{_Writer.name}.db")
        except OSError:
            pass  # there was none


def _take_over() -> None:
    """Have values kept under our identifiers: their class is chosen, and no metric is made yet."""
    if os.environ.get(VARIABLE) != _Writer.directory:
        return  # the app has one of its own
    from launcher.runtime.value_file import safe  # noqa: PLC0415  only who has metrics pays for it

    values: Any = sys.modules[_VALUES]
    values.MmapedDict = safe(values.MmapedDict)
    values.ValueClass = values.MultiProcessValue(process_identifier=_identifier)


def _identifier() -> str:
    # prometheus_client asks at each operation, and opens other files when the answer has changed.
    pid = os.getpid()
    return _Writer.name if pid == _Writer.pid else f"{_Writer.name}.{pid}"
