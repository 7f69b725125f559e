"""Probes as a kubelet asks them: at the pod's own address, each on a connection of its own, with one second."""

from __future__ import annotations

import ctypes
import http.client
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.processes.asking import OBEDIENT, SIMPLE
from tests.processes.running import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.processes.running import Running

POD = "10.42.0.7"
PORT = 8900
# A network of its own, with an address that is not a loopback one.
NETWORK = ("unshare", "--net", "sh", "-c", f'ip addr add {POD}/32 dev lo && ip link set lo up && exec "$@"', "sh")
CLONE_NEWNET = 0x40000000  # setns(2): of the calling thread alone
LIMIT = 1.0  # seconds: timeoutSeconds
PERIOD = 0.05  # seconds; ten in earnest
FAILURES = 3  # in a row: failureThreshold
PATHS = ("/livez", "/readyz", "/startupz")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "probes.md"


def can_have_a_network() -> bool:
    """Say whether this user may make a network."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return subprocess.run([*NETWORK, "true"], capture_output=True).returncode == 0


needs_network = pytest.mark.skipif(not can_have_a_network(), reason="no right to make a network namespace, or no ip")


class Seen(NamedTuple):
    """One answer."""

    at: float
    path: str
    what: str  # the code, or what went wrong


class Kubelet(threading.Thread):
    """Who asks."""

    def __init__(self, running: Running) -> None:
        super().__init__(daemon=True)
        self.running = running
        self.seen: list[Seen] = []
        self.is_over = threading.Event()  # noqa: TID251  no signal handler touches it

    def run(self) -> None:
        """Enter the pod's network and ask, again and again."""
        until(self._is_unshared, "a network of its own")
        with open(f"/proc/{self.running.pid}/ns/net", "rb") as namespace:
            assert ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) == 0
        while not self.is_over.wait(PERIOD):
            for path in PATHS:
                begin = time.monotonic()
                self.seen.append(Seen(begin - self.running.began, path, self._ask(path)))

    def _is_unshared(self) -> bool:
        ours = os.readlink("/proc/self/ns/net")
        return os.readlink(f"/proc/{self.running.pid}/ns/net") != ours

    @staticmethod
    def _ask(path: str) -> str:
        connection = http.client.HTTPConnection(POD, PORT, timeout=LIMIT)
        try:
            connection.request("GET", path, headers={"User-Agent": "kube-probe/1.31", "Connection": "close"})
            return str(connection.getresponse().status)
        except TimeoutError:
            return "timed out"
        except OSError as error:
            return str(error.strerror)
        finally:
            connection.close()

    def answers(self, path: str, since: int = 0) -> list[str]:
        """Return what one probe saw."""
        return [seen.what for seen in self.seen[since:] if seen.path == path]

    def failed(self, path: str, since: int = 0) -> bool:
        """Say whether a probe ever failed so often in a row that a kubelet acts."""
        marks = "".join("." if what == "200" else "x" for what in self.answers(path, since))
        return "x" * FAILURES in marks

    def changes(self) -> list[str]:
        """Tell when each probe changed its mind."""
        last: dict[str, str] = {}
        told = []
        for seen in self.seen:
            if last.get(seen.path) != seen.what:
                told.append(f"{seen.at:7.2f} s  {seen.path:<10} {last.get(seen.path, '')} → {seen.what}")
            last[seen.path] = seen.what
        return told


def printed_table() -> dict[str, tuple[str, ...]]:
    """Read the table of the page: what is so → the codes of the three probes."""
    rows = re.findall(r"^\| ([^|]+) \| (\d+)[^|]* \| (\d+)[^|]* \| (\d+)[^|]* \|$", PAGE.read_text(), re.MULTILINE)
    return {name: tuple(codes) for name, *codes in rows}


@needs_network
def test_what_a_kubelet_sees_when(start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path) -> None:
    """The page's table, row by row; and at no time does it see a reason to restart the container."""
    app(OBEDIENT)
    (tmp_path / "slow").touch()
    one = start("--drain-delay", "60s", "--introspect", f"0.0.0.0:{PORT}", "app:main", before=NETWORK)
    kubelet = Kubelet(one)
    kubelet.start()
    expected, found = printed_table(), {}

    def see(when: str) -> int:
        """Wait until the three probes say what the page says; return where that began."""
        since = len(kubelet.seen)

        def settled() -> bool:
            found[when] = tuple("".join(kubelet.answers(path, since)[-1:]) for path in PATHS)
            return found[when] == expected[when]

        until(settled, f"{when}: {expected[when]}, not {found.get(when)}")
        return since

    one.wait_for(event="preparing")
    see("starting, a slow boot")
    (tmp_path / "slow").unlink()
    one.wait_for(event="committed")
    serving = see("serving")
    (tmp_path / "slow").touch()
    one.send(signal.SIGHUP)
    one.wait_for(event="preparing", generation=2)
    see("a reload under way")
    (tmp_path / "slow").unlink()
    one.wait_for(event="committed", generation=2)
    (tmp_path / "bad").touch()
    assert one.reload()["event"] == "rejected"
    see("a reload was rejected")
    assert not kubelet.failed("/readyz", serving), "a reload takes no traffic away"
    (tmp_path / "bad").unlink()
    (tmp_path / "crash").touch()
    for pid in one.workers():
        os.kill(pid, signal.SIGKILL)
    see("every worker crashes")
    (tmp_path / "crash").unlink()
    see("serving")
    one.send(signal.SIGTERM)
    see("draining")
    kubelet.is_over.set()
    kubelet.join()
    one.send(signal.SIGQUIT)
    print("\n".join(kubelet.changes()))

    assert one.wait() == 0
    began = next(index for index, seen in enumerate(kubelet.seen) if seen.what.isdecimal())
    assert not kubelet.failed("/livez", began)
    assert not kubelet.failed("/startupz", serving)
    assert {seen.what for seen in kubelet.seen[began:] if seen.what.isdecimal()} == {"200", "503"}


@needs_network
def test_the_default_port_is_not_there_for_a_kubelet(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Loopback only: what the page warns of; an exec probe does then."""
    app(SIMPLE)
    one = start("--introspect", f"127.0.0.1:{PORT}", "--drain-timeout", "0s", "app:main", before=NETWORK)
    one.wait_for(event="committed")
    kubelet = Kubelet(one)
    kubelet.start()
    until(lambda: len(kubelet.seen) >= len(PATHS), "answers")
    kubelet.is_over.set()
    kubelet.join()

    assert {seen.what for seen in kubelet.seen} == {"Connection refused"}
    assert one.stop() == 0
