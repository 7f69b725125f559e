"""
Where prometheus_client keeps its values in a process of the app, and under which identifier.

Owns the identifiers: `w<place>` is a worker, whose place on the heartbeat page no living process shares and a later
one takes over; `z<generation>.<pid>` a zygote; with `.<pid>` behind it, a fork of the app's own.  A bare PID is
prometheus_client's own choice, in a Python that the app started.  So what ends in a PID has that one writer.
Must never import prometheus_client (70 ms), and never touch an app that chose a directory of its own.

Two living processes on one identifier would overwrite each other's entries.  One after the other is safe: the
second goes on with the counters of the first.
"""

from __future__ import annotations

import os
import sys

from launcher.runtime.on_import import when_imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_OLD_VARIABLE = "prometheus_multiproc_dir"  # prometheus_client still reads it
_VALUES = "prometheus_client.values"
# What a dead process has to say no more; the observer leaves it out as long as nobody takes its place.
_OF_THE_LIVING = ("all", "liveall", "livemax", "livemin", "livemostrecent", "livesum")


class _Writer:
    """Who this process is in the names of its files."""

    directory = ""  # empty: nothing of this is ours
    name = ""
    pid = 0  # of the process that `name` alone stands for; 0: nobody


def begin(directory: str, generation: int) -> None:
    """
    Have the app's metrics written to `directory`, as soon as it imports prometheus_client; empty: nothing happens.

    Called once in a fresh interpreter, when the environment is there and before the first import of the app.
    """
    if not directory or VARIABLE in os.environ or _OLD_VARIABLE in os.environ:
        return
    os.environ[VARIABLE] = directory
    _Writer.directory, _Writer.name, _Writer.pid = directory, f"z{generation}", 0
    when_imported({_VALUES: _take_over})


def become(place: int) -> None:
    """Be the worker at this place from now on; before any code of the app runs in it."""
    if not _Writer.directory:
        return
    _Writer.name, _Writer.pid = f"w{place}", os.getpid()
    if _VALUES in sys.modules:
        _remove_what_the_dead_said()


def _take_over() -> None:
    """Have values kept under our identifiers: their class is chosen, and no metric is made yet."""
    if os.environ.get(VARIABLE) != _Writer.directory:
        return  # the app has one of its own
    values: Any = sys.modules[_VALUES]
    values.ValueClass = values.MultiProcessValue(process_identifier=_identifier)
    if _Writer.pid == os.getpid():
        _remove_what_the_dead_said()


def _identifier() -> str:
    # prometheus_client asks at each operation, and opens other files when the answer has changed.
    pid = os.getpid()
    return _Writer.name if pid == _Writer.pid else f"{_Writer.name}.{pid}"


def _remove_what_the_dead_said() -> None:
    """Remove the gauges of who had this place before; the counters are to go on."""
    # Here and not in the observer, which may hear of a death when the next one has its files open.
    for mode in _OF_THE_LIVING:
        try:
            os.unlink(f"{_Writer.directory}/gauge_{mode}_{_Writer.name}.db")
        except OSError:
            pass  # there was none
