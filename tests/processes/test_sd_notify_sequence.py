"""Every message to the manager above, from the start to the end of a life with two reloads, with its time."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import Running
from tests.processes.test_sd_notify import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Workers are ready when they are let; what they say to their own address is for prod-run.
APP = """
import os, socket
from launcher import Worker

def main(worker: Worker):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        address = os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1)  # an abstract one (unix(7))
        sock.sendto(b"STATUS=from a worker\\nMAINPID=1\\nRELOADING=1", address)
    while not os.path.exists(f"go{worker.generation}"):
        worker.stopping.wait(0.01)
    worker.ready()
    worker.stopping.wait()
"""

TIME = ("EXTEND_TIMEOUT_USEC", "STATUS")
READY = ("READY", "STATUS")
RELOADING = ("RELOADING", "STATUS", "MONOTONIC_USEC")
STOPPING = ("STOPPING", "STATUS")
START = [TIME, TIME, READY]  # time for the import, and for the workers
GOOD_RELOAD = [RELOADING, TIME, TIME, READY]
REJECTED_RELOAD = [RELOADING, TIME, READY]  # at its import
STOP = [STOPPING, TIME]
SHOWN = ("STATUS",)  # for people: comes whenever it changes


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Record what is sent to NOTIFY_SOCKET."""
    one = Recorder(tmp_path / "notify")
    yield one
    one.close()


def now() -> int:
    """Return the microseconds of the clock that the messages are stamped with."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_every_message_of_a_life(
    start: Callable[..., Running], app: Callable[..., Path], recorder: Recorder, tmp_path: Path
) -> None:
    """Each comes after what it tells of and from prod-run alone; RELOADING is stamped after the signal."""
    app(APP)
    times = [now()]
    running = start("-w", 2, "app:main", env={"NOTIFY_SOCKET": recorder.socket.getsockname()})
    recorder.wait_for("EXTEND_TIMEOUT_USEC", 2)
    times.append(let(tmp_path, 1))
    recorder.wait_for("READY", 1)
    times.append(ask(running, signal.SIGHUP))
    recorder.wait_for("EXTEND_TIMEOUT_USEC", 4)
    times.append(let(tmp_path, 2))
    recorder.wait_for("READY", 2)
    app("raise ValueError('half deployed')")
    times.append(ask(running, signal.SIGHUP))
    recorder.wait_for("READY", 3)
    times.append(ask(running, signal.SIGTERM))
    assert running.wait() == 0
    recorder.wait_for("EXTEND_TIMEOUT_USEC", 6)
    told = [(fields, at) for _, fields, at in recorder.messages if tuple(fields) != SHOWN]
    came = [at for _, at in told]
    stamps = [int(fields["MONOTONIC_USEC"]) for fields in recorder.with_key("RELOADING")]

    assert [tuple(fields) for fields, _ in told] == START + GOOD_RELOAD + REJECTED_RELOAD + STOP
    assert {pid for pid, _, _ in recorder.messages} == {running.pid}
    assert not [fields for _, fields, _ in recorder.messages if "from a worker" in fields.get("STATUS", "")]
    begun, first_let, good_asked, second_let, bad_asked, stop_asked = times
    order = [begun, came[0], came[1], first_let, came[2]]
    order += [good_asked, stamps[0], came[3], came[5], second_let, came[6]]
    order += [bad_asked, stamps[1], came[7], came[9], stop_asked, came[10]]
    assert order == sorted(order)


def test_the_status_after_a_rejected_reload_says_so(
    start: Callable[..., Running], app: Callable[..., Path], recorder: Recorder, tmp_path: Path
) -> None:
    """`systemctl status` tells that the last reload was rejected, and why."""
    app(APP)
    let(tmp_path, 1)
    running = start("app:main", env={"NOTIFY_SOCKET": recorder.socket.getsockname()})
    recorder.wait_for("READY")
    app("raise ValueError('half deployed')")
    running.reload()
    status = recorder.wait_for("READY", 2)["STATUS"]

    assert "rejected" in status
    assert "half deployed" in status


def test_the_status_of_a_start_that_failed_says_why(
    start: Callable[..., Running], app: Callable[..., Path], recorder: Recorder
) -> None:
    """`systemctl status` tells it without the journal."""
    app("raise ValueError('half deployed')")
    running = start("app:main", env={"NOTIFY_SOCKET": recorder.socket.getsockname()})

    assert running.wait() == 70
    recorder.wait_for("STATUS", 2)
    assert "generation 1 preparing" in recorder.with_key("STATUS")[0]["STATUS"]
    assert "half deployed" in recorder.with_key("STATUS")[-1]["STATUS"]


def ask(running: Running, number: signal.Signals) -> int:
    """Send a signal; return when, just before."""
    asked = now()
    running.send(number)
    return asked


def let(directory: Path, generation: int) -> int:
    """Let the workers of a generation be ready; return when, just before."""
    since = now()
    (directory / f"go{generation}").touch()
    return since
