"""`prod-ctl top` and `prod-ctl logs`."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Any

import pytest

from launcher import top
from tests.processes.asking import ANYWHERE, SIMPLE, ctl, observer_of, wait_until_served
from tests.processes.running import LIMIT, PROD_RUN, Running, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TALKING = """
import os, time
from launcher import Worker

def main(worker: Worker):
    worker.ready()
    told = 0
    while not worker.stopping.wait(0.02):
        if os.path.exists(f"say{worker.slot}"):
            for line in open(f"say{worker.slot}").read().split()[told:]:
                print(line, flush=True)
                told += 1
    print("bye", worker.slot, flush=True)
"""


@pytest.fixture
def running(start: Callable[..., Running], app: Callable[..., Path]) -> Running:
    """Two workers that say what a test wants to be said."""
    app(TALKING)
    one = start("-w", 2, *ANYWHERE, "app:main")
    wait_until_served(one)
    return one


# ── the table ──


def status(**changes: Any) -> dict[str, Any]:
    """What /status says of two workers."""
    now = time.time()
    worker = {"generation": 3, "pid": 41, "state": "serving", "age": 75.0, "rss": 50_000_000, "cpu": 10.0, "says": None}
    whole = {
        "name": "shop",
        "prod_run": "26.1.0",
        "started": now - 7300,
        "sentence": "generation 3 serving 2/2",
        "ready": True,
        "draining": False,
        "workers": [{**worker, "slot": 1, "pid": 42}, {**worker, "slot": 0, "says": "busy \x1b[2J"}],
        "slots": [{"slot": 1, "restarts": 4, "last_exit": "SIGSEGV (core dumped)"}],
        "reloads": [{"generation": 4, "result": "rejected", "reason": "KeyError: 'x'", "at": now - 61}],
        "checks": [{"name": "database", "good": False, "age": 3.0, "reason": "it raised", "details": "no route"}],
    }
    return {**whole, **changes}


def test_the_table_says_what_an_operator_wants_to_know_first() -> None:
    """The state in a sentence, what went wrong last, and each worker in its row, the lowest slot first."""
    before = top.Look(status(), 10.0)
    later = status()
    later["workers"][0] = {**later["workers"][0], "cpu": 11.0}
    rows = top.lines(top.Look(later, 12.0), before)

    assert rows[0] == "shop: generation 3 serving 2/2, ready, up 2h01m, prod-run 26.1.0"
    assert rows[1] == "generation 4 rejected 1m01s ago: KeyError: 'x'"
    assert rows[2] == "check database FAILED 3s ago: it raised: no route"
    assert rows[4].split() == ["SLOT", "GEN", "PID", "STATE", "UP", "RSS", "CPU%", "RESTARTS", "LAST", "EXIT", "SAYS"]
    assert rows[5].split() == ["0", "3", "41", "serving", "1m15s", "47.7M", "0.0", "0", "-", "busy", "?[2J"]
    assert rows[6].split() == ["1", "3", "42", "serving", "1m15s", "47.7M", "50.0", "4", "SIGSEGV", "(core", "dumped)"]
    assert "\x1b" not in "".join(rows)


def test_what_is_not_known_is_not_invented() -> None:
    """No /proc, no PID yet, a first look."""
    worker = {"slot": 0, "generation": 1, "pid": None, "state": "ordered", "age": 0.0, "rss": None, "cpu": None}
    rows = top.lines(top.Look(status(workers=[worker], slots=[], reloads=[], checks=[]), 1.0), None)

    assert rows[-1].split() == ["0", "1", "-", "ordered", "0s", "-", "-", "0", "-"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (90000, "1d01h")]
)
def test_ages_have_two_units(seconds: float, text: str) -> None:
    """The others do not matter."""
    assert top.age(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(None, "-"), (0, "0K"), (1 << 20, "1.0M"), (5 << 30, "5.0G")])
def test_sizes_have_one_unit(number: int | None, text: str) -> None:
    """And one figure behind the point."""
    assert top.size(number) == text


# ── top ──


def test_once_prints_one_table_and_ends(running: Running, tmp_path: Path) -> None:
    """Into a pipe; for programs as JSON."""
    answer = ctl(tmp_path, "top", "--once")
    rows = [line.split() for line in answer.stdout.splitlines()[-2:]]

    assert answer.returncode == 0
    assert {(int(row[2]), int(row[0])) for row in rows} == set(running.workers().items())
    assert all(row[5].endswith("M") and float(row[6]) >= 0 for row in rows)
    assert "\x1b" not in answer.stdout
    assert ctl(tmp_path, "top").stdout.splitlines()[2] == answer.stdout.splitlines()[2]
    assert json.loads(ctl(tmp_path, "top", "--json").stdout)["pid"] == running.pid


def test_there_is_a_sentence_where_nobody_can_tell(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """--introspect off."""
    app(SIMPLE)
    start("--introspect", "off", "app:main").wait_for(event="committed")

    for verb in ("top", "logs"):
        answer = ctl(tmp_path, verb)
        assert (answer.returncode, answer.stdout) == (69, "")
        assert "there is no private introspection socket. Start it with --introspect" in answer.stderr


class Terminal:
    """A terminal with prod-ctl in it."""

    def __init__(self, tmp_path: Path, *words: str) -> None:
        self.ours, self.theirs = pty.openpty()
        self.resize(100, 24)
        self.before = termios.tcgetattr(self.theirs)
        path = tmp_path / "run" / "prod-run" / "app" / "control.sock"
        argv = [str(PROD_RUN.with_name("prod-ctl")), "--socket", str(path), *words]
        # A session of its own, or Ctrl-C would reach nobody.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *argv], stdin=self.theirs, stdout=self.theirs, stderr=self.theirs
        )
        self.seen = b""

    def resize(self, width: int, height: int) -> None:
        """Make the window another size."""
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def see(self, what: bytes) -> bytes:
        """Wait until something was written; return all from there on."""

        def is_there() -> bool:
            while select.select([self.ours], [], [], 0)[0]:
                self.seen += os.read(self.ours, 65536)
            return what in self.seen

        until(is_there, f"{what!r} on the terminal")
        return self.seen

    def press(self, keys: bytes) -> None:
        """Press some keys."""
        os.write(self.ours, keys)

    def close(self) -> None:
        """Take it away."""
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(running: Running, tmp_path: Path) -> Iterator[Terminal]:
    """One with `prod-ctl top` on it, which has drawn its first picture."""
    one = Terminal(tmp_path, "top")
    one.see(b"SLOT  GEN")
    yield one
    one.close()


@pytest.mark.parametrize(("keys", "code"), [(b"q", 0), (b"\x03", 130)])
def test_top_leaves_a_clean_terminal(terminal: Terminal, keys: bytes, code: int) -> None:
    """Q and Ctrl-C alike: the former screen, a cursor, echo."""
    assert terminal.seen.startswith(b"\x1b[?1049h\x1b[?25l")
    assert termios.tcgetattr(terminal.theirs) != terminal.before
    terminal.press(keys)

    assert terminal.process.wait(LIMIT) == code
    assert terminal.see(b"\x1b[?25h\x1b[?1049l").endswith(b"\x1b[?25h\x1b[?1049l")
    assert termios.tcgetattr(terminal.theirs) == terminal.before


def test_top_is_live_and_follows_the_size_of_the_window(terminal: Terminal, running: Running) -> None:
    """A worker's end is seen without a key; a low window says what it leaves out, a narrow one cuts lines."""
    os.kill(next(pid for pid, slot in running.workers().items() if slot == 1), signal.SIGKILL)
    terminal.see(b"SIGKILL")
    terminal.seen = b""
    terminal.resize(20, 3)
    picture = terminal.see(b"more: make the").rpartition(b"\x1b[H")[2]

    rows = [row.removesuffix("\x1b[J").removesuffix("\x1b[K") for row in picture.decode().split("\r\n")]
    assert len(rows) == 3
    assert max(map(len, rows)) == 20, rows


# ── logs ──


def test_logs_are_the_last_lines_of_all_or_of_one(running: Running, tmp_path: Path) -> None:
    """As the sink has them."""
    for slot in (0, 1):
        (tmp_path / f"say{slot}").write_text(f"one-{slot} two-{slot}")
    for word in ("two-0", "two-1"):
        running.wait_for(message=word)
    everything, of_one = ctl(tmp_path, "logs"), ctl(tmp_path, "logs", "1")

    assert everything.returncode == 0
    until(lambda: len(everything.stdout.splitlines()) == len(running.lines), "here they come later than there")
    assert "event=committed" in everything.stdout
    assert [line.rpartition("message=")[2] for line in of_one.stdout.splitlines()] == ['"one-1"', '"two-1"']


def test_followed_logs_go_on_through_a_death_of_the_observer_until_the_end(running: Running, tmp_path: Path) -> None:
    """No line twice, and the last line is there."""
    path = tmp_path / "run" / "prod-run" / "app" / "control.sock"
    argv = [str(PROD_RUN.with_name("prod-ctl")), "--socket", str(path), "logs", "-f"]
    with (tmp_path / "followed").open("wb") as file:
        follower = subprocess.Popen(argv, stdout=file, stderr=subprocess.PIPE)

    def followed() -> str:
        return (tmp_path / "followed").read_text()

    until(lambda: "committed" in followed(), "what was there")
    (tmp_path / "say0").write_text("one")
    until(lambda: "one" in followed(), "a line")
    os.kill(observer_of(running), signal.SIGKILL)
    (tmp_path / "say0").write_text("one two")
    until(lambda: "two" in followed(), "a line of the next observer")
    assert running.stop() == 0
    _, said = follower.communicate(timeout=LIMIT)

    assert (follower.returncode, said) == (0, b"prod-ctl: prod-run is gone\n")
    assert followed().splitlines()[-1].endswith("event=stopped reason=SIGTERM code=0")
    assert followed().count('"one"') == 1
    assert followed().count('message="bye') == 2
