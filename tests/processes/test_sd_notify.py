"""What the manager above hears, in which order and from whom (sd_notify(3))."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import LIMIT, Running, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Recorder:
    """A stand-in for systemd's notify socket: what came, when, and from which PID."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(str(path))
        self.messages: list[tuple[int, dict[str, str], int]] = []
        self._thread = threading.Thread(target=self._record, daemon=True)
        self._thread.start()

    def _record(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(12))
            except OSError:  # closed
                return
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            if not data:
                return
            pid = int.from_bytes(ancillary[0][2][:4], "little")
            self.messages.append((pid, dict(line.split("=", 1) for line in data.decode().split("\n")), now))

    def wait_for(self, key: str, count: int = 1) -> dict[str, str]:
        """Wait for the n-th message with this key."""
        until(lambda: len(self.with_key(key)) >= count, f"{count} times {key}: {self.messages}", LIMIT)
        return self.with_key(key)[count - 1]

    def with_key(self, key: str) -> list[dict[str, str]]:
        """Return the messages that have this key."""
        return [fields for _, fields, _ in self.messages if key in fields]

    def words(self) -> list[str]:
        """Return the order of the four words that change a unit's state."""
        states = ("READY", "RELOADING", "STOPPING")
        return [state for _, fields, _ in self.messages for state in states if state in fields]

    def statuses(self, since: int = 0) -> list[str]:
        """Return what `systemctl status` had to show, from that message on."""
        return [fields["STATUS"] for _, fields, _ in self.messages[since:] if "STATUS" in fields]

    def status(self) -> str:
        """Return what it shows now."""
        return self.statuses()[-1]

    def close(self) -> None:
        """Stop recording."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Record what is sent to NOTIFY_SOCKET."""
    one = Recorder(tmp_path / "notify")
    yield one
    one.close()


def begin(start: Callable[..., Running], recorder: Recorder, *words: object, **env: str) -> Running:
    """Start the example under the recorder and wait until it is ready."""
    path = recorder.socket.getsockname()
    running = start("-w", 2, "-b", "127.0.0.1:0", *words, "hello:main", env={"NOTIFY_SOCKET": path, **env})
    recorder.wait_for("READY")
    return running


def test_the_whole_life_in_the_right_order(
    start: Callable[..., Running], hello: Callable[..., Path], recorder: Recorder
) -> None:
    """READY at the first commit; RELOADING … READY on each reload, rejected ones too; STOPPING; one sender."""
    hello()
    running = begin(start, recorder)
    running.wait_for(event="committed")
    hello(2)
    running.reload()
    recorder.wait_for("READY", 2)
    hello(3, "raise ValueError('half deployed')")
    running.reload()
    recorder.wait_for("READY", 3)
    assert running.stop() == 0
    recorder.wait_for("STOPPING")

    assert recorder.words() == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]
    assert {pid for pid, _, _ in recorder.messages} == {running.pid}


def test_reloading_carries_a_fresh_time(
    start: Callable[..., Running], hello: Callable[..., Path], recorder: Recorder
) -> None:
    """MONOTONIC_USEC lies between the signal and the arrival: an older one is ignored by systemd."""
    hello()
    running = begin(start, recorder)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    running.send(signal.SIGHUP)
    stamp = int(recorder.wait_for("RELOADING")["MONOTONIC_USEC"])

    assert before <= stamp <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_the_status_stays_true(start: Callable[..., Running], hello: Callable[..., Path], recorder: Recorder) -> None:
    """When the old ones are gone and when a worker dies, too; why a reload failed stays until one does not."""
    hello()
    running = begin(start, recorder)
    hello(2)
    running.reload()
    until(lambda: recorder.status() == "generation 2 serving 2/2", "nobody drains")
    hello(3, "raise ValueError('half deployed')")
    running.reload()
    kept = "; generation 3 rejected: "
    until(lambda: kept in recorder.status(), "why it failed")
    seen = len(recorder.messages)
    os.kill(next(iter(running.workers())), signal.SIGKILL)
    until(lambda: any("serving 1/2" in shown and kept in shown for shown in recorder.statuses(seen)), "one is lost")
    until(lambda: recorder.status().startswith(f"generation 2 serving 2/2{kept}"), "and replaced")
    hello(4)
    running.reload()
    until(lambda: recorder.status() == "generation 4 serving 2/2", "the failure is history")

    assert running.stop() == 0
    until(lambda: recorder.status().startswith("over"), "nobody drains any more")


def test_a_failed_start_is_never_ready(
    start: Callable[..., Running], app: Callable[..., Path], recorder: Recorder
) -> None:
    """A unit whose program cannot start never becomes active."""
    app("raise ValueError('no')")
    running = start("app:main", env={"NOTIFY_SOCKET": recorder.socket.getsockname()})

    assert running.wait() == 70
    assert "READY" not in recorder.words()


def test_time_is_asked_for_before_it_is_needed(
    start: Callable[..., Running], hello: Callable[..., Path], recorder: Recorder
) -> None:
    """EXTEND_TIMEOUT_USEC covers a long boot and a long drain."""
    hello()
    running = begin(start, recorder, "--boot-timeout", "300s", "--drain-timeout", "600s")
    assert int(recorder.with_key("EXTEND_TIMEOUT_USEC")[0]["EXTEND_TIMEOUT_USEC"]) >= 300e6
    running.stop()

    assert int(recorder.with_key("EXTEND_TIMEOUT_USEC")[-1]["EXTEND_TIMEOUT_USEC"]) >= 600e6


def test_the_watchdog_is_fed_by_the_loop(
    start: Callable[..., Running], hello: Callable[..., Path], recorder: Recorder
) -> None:
    """WATCHDOG=1 comes while the loop turns, and not when it stands still."""
    hello()
    running = begin(start, recorder, WATCHDOG_USEC="400000")
    recorder.wait_for("WATCHDOG", 4)
    running.send(signal.SIGSTOP)
    stopped = len(recorder.with_key("WATCHDOG"))
    signal.sigtimedwait([], 1.0)
    assert len(recorder.with_key("WATCHDOG")) <= stopped + 1
    running.send(signal.SIGCONT)
    recorder.wait_for("WATCHDOG", stopped + 4)

    assert running.stop() == 0


def test_a_watchdog_for_another_process_is_not_ours(
    start: Callable[..., Running], hello: Callable[..., Path], recorder: Recorder
) -> None:
    """WATCHDOG_PID names somebody else: no sign of life is given."""
    hello()
    running = begin(start, recorder, WATCHDOG_USEC="100000", WATCHDOG_PID="1")
    running.ask()
    assert running.stop() == 0

    assert recorder.with_key("WATCHDOG") == []


def test_workers_see_nothing_of_it(start: Callable[..., Running], app: Callable[..., Path], recorder: Recorder) -> None:
    """NOTIFY_SOCKET in a worker is its own address, and systemd's other variables are gone."""
    app(
        "import os, launcher\n"
        "def main(worker: launcher.Worker):\n"
        "    print('sees', os.environ.get('NOTIFY_SOCKET'), os.environ.get('WATCHDOG_USEC'), flush=True)\n"
        "    worker.ready()\n    worker.stopping.wait()\n"
    )
    path = recorder.socket.getsockname()
    running = start("app:main", env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "60000000"})
    line = running.wait_for("sees ")

    assert path not in line["text"]
    assert line["text"].endswith("None")


PATIENT = """
import os, socket, time
from launcher import Worker

def tell(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(text, "\\0" + os.environ["NOTIFY_SOCKET"][1:])

def main(worker: Worker):
    tell(b"EXTEND_TIMEOUT_USEC=600000000")
    time.sleep(2.5)  # more than --boot-timeout
    worker.ready()
    worker.stopping.wait()
"""


def test_a_worker_may_ask_for_more_time(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """By its own notify address, while it starts."""
    app(PATIENT)
    running = start("--boot-timeout", "2s", "app:main")
    running.wait_for(event="committed")

    assert running.stop() == 0
