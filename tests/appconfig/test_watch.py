"""Noticing changed files: content decides, events only say when to look."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, strategies

from launcher.appconfig import watch
from launcher.appconfig.watch import LOOK_AGAIN, Pending, Step, Watch, changed, directories, fingerprint, next_step

CANARY = "canary-7f3a"
TIMEOUT = 20.0  # seconds; only a failing test waits


def swap(volume: Path, generation: str, **files: str) -> None:
    """Swap a directory as kubelet does: a new folder, a link renamed over `..data`, the old folder removed."""
    new = volume / f"..{generation}"
    new.mkdir(parents=True)
    for name, value in files.items():
        (new / name).write_text(value)
    old = (volume / "..data").resolve()
    (volume / "..data_tmp").symlink_to(new.name)
    (volume / "..data_tmp").rename(volume / "..data")
    for name in files:
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(f"..data/{name}")
    if old.name != "..data":
        shutil.rmtree(old)


def test_a_fingerprint_tells_every_state_of_a_file_apart(tmp_path: Path) -> None:
    """Missing, empty, unusable and each content are different values; the same content is the same one."""
    path = tmp_path / "f"
    seen = [fingerprint((str(path),))]
    for make in (
        path.touch,
        lambda: path.write_text("a"),
        lambda: path.write_text("b"),
        lambda: (path.unlink(), path.mkdir()),
    ):
        make()
        seen.append(fingerprint((str(path),)))
    path.rmdir()
    path.write_text("b")

    assert len({repr(one) for one in seen}) == 5
    assert changed(seen[3], fingerprint((str(path),))) == ()
    assert changed(seen[0], seen[1]) == (str(path),)


def test_a_fingerprint_is_no_help_to_guess_the_content(tmp_path: Path) -> None:
    """Another process has another key."""
    (tmp_path / "f").write_text(CANARY)
    code = "import sys; from launcher.appconfig.watch import fingerprint; print(fingerprint((sys.argv[1],)))"
    theirs = subprocess.run([sys.executable, "-c", code, tmp_path / "f"], capture_output=True, text=True, check=True)

    ours = repr(fingerprint((f"{tmp_path}/f",)))

    assert theirs.stdout.strip() != ours
    assert CANARY not in ours


def test_a_large_file_is_compared_too(tmp_path: Path) -> None:
    """A template may be larger than a secret; a change at its end counts."""
    path = tmp_path / "f"
    path.write_bytes(b"x" * 3_000_000)
    before = fingerprint((str(path),))
    path.write_bytes(b"x" * 2_999_999 + b"y")

    assert changed(before, fingerprint((str(path),))) == (str(path),)


def test_changed_names_the_files_in_order() -> None:
    """Also one that is in one of the two only."""
    assert changed({"c": b"1", "a": b"1", "b": b"1"}, {"c": b"2", "b": b"1", "d": b"1"}) == ("a", "c", "d")


def test_the_directories_of_a_swapped_volume(tmp_path: Path) -> None:
    """That of the link which is replaced, that of the file behind it, and that of a link elsewhere."""
    volume = tmp_path / "volume"
    swap(volume, "1", key="1")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "app.key").symlink_to(volume / "key")

    assert directories((f"{volume}/key",)) == (str(volume), f"{volume}/..1")
    assert directories((f"{tmp_path}/etc/app.key",)) == (f"{tmp_path}/etc", str(volume), f"{volume}/..1")


def test_a_directory_that_is_missing_is_awaited(tmp_path: Path) -> None:
    """The nearest one above it is where it will appear."""
    (tmp_path / "file").touch()

    assert directories((f"{tmp_path}/no/such/file",)) == (str(tmp_path),)
    assert directories((f"{tmp_path}/file/below",)) == (str(tmp_path),)
    (tmp_path / "loop").symlink_to("loop")
    assert directories((f"{tmp_path}/loop",)) == (str(tmp_path),)


# ── when to look ──


@pytest.mark.parametrize(
    ("pending", "now", "stirred", "expected"),
    [
        (None, 100.0, False, Step(None, look=False, wait=LOOK_AGAIN)),
        (None, 100.0, True, Step(Pending(100.0, 100.0), look=False, wait=2.0)),
        (Pending(100.0, 100.0), 101.0, False, Step(Pending(100.0, 100.0), look=False, wait=1.0)),
        (Pending(100.0, 100.0), 101.0, True, Step(Pending(100.0, 101.0), look=False, wait=2.0)),
        (Pending(100.0, 101.0), 103.0, False, Step(None, look=True, wait=LOOK_AGAIN)),
        (Pending(100.0, 108.5), 109.0, True, Step(Pending(100.0, 109.0), look=False, wait=1.0)),
        (Pending(100.0, 109.5), 110.0, True, Step(None, look=True, wait=LOOK_AGAIN)),
    ],
)
def test_quiet_is_awaited_but_not_for_ever(
    pending: Pending | None, now: float, *, stirred: bool, expected: Step
) -> None:
    """Two seconds after the last event, or ten after the first."""
    assert next_step(pending, now, stirred=stirred, settle=2.0, longest=10.0) == expected


@given(strategies.lists(strategies.integers(0, 40), min_size=1, max_size=60))
def test_every_stir_is_followed_by_a_look_in_time(pauses: list[int]) -> None:
    """Whatever the pauses (in quarters of a second): never before it settled, never later than the limit."""
    now, pending, wait, unseen, last = 0.0, None, LOOK_AGAIN, None, 0.0
    for pause in pauses:
        arrival = now + pause / 4
        while True:
            stirred = now + wait >= arrival
            now = min(arrival, now + wait)
            if stirred:
                unseen, last = now if unseen is None else unseen, now
            pending, look, wait = next_step(pending, now, stirred=stirred, settle=2.0, longest=10.0)
            assert not look or unseen is not None
            assert not look or now >= last + 2.0 or now >= unseen + 10.0
            unseen = None if look else unseen
            assert unseen is None or now + wait <= unseen + 10.0
            assert wait > 0
            if stirred:
                break


class Silent(watch.Listening):
    """Hears nothing, and remembers where it was told to listen."""

    def __init__(self) -> None:
        super().__init__()
        self.folders: list[tuple[str, ...]] = []

    def listen(self, folders: tuple[str, ...]) -> None:
        """Remember."""
        self.folders.append(folders)


class Clock:
    """Stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_only_content_makes_a_change(tmp_path: Path) -> None:
    """The same bytes written again are none; of a change and its undoing within the settling time nothing is told."""
    path = tmp_path / "f"
    path.write_text("a")
    clock = Clock()
    watched = Watch((str(path),), Silent(), clock)

    for text, expected in (("a", ()), ("b", (str(path),)), ("b", ()), ("a", (str(path),))):
        path.write_text("something else")
        assert watched.step(stirred=True) == ((), 2.0)
        path.write_text(text)
        clock.now += 2.0
        assert watched.step(stirred=False) == (expected, LOOK_AGAIN)


def test_what_was_not_heard_is_found(tmp_path: Path) -> None:
    """Where the file system tells nothing the files are looked at every five seconds."""
    path = tmp_path / "f"
    path.write_text("a")
    watched = Watch((str(path),), Silent(), Clock())

    path.write_text("b")

    assert watched.step(stirred=False) == ((str(path),), LOOK_AGAIN)
    assert watched.step(stirred=False) == ((), LOOK_AGAIN)


def test_each_look_listens_at_the_new_directories_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes between the look and the next event is heard, also in the folder that a swap brought."""
    swap(tmp_path / "v", "1", key="1")
    silent = Silent()
    order: list[str] = []
    real = fingerprint
    monkeypatch.setattr(watch, "fingerprint", lambda paths: order.append(silent.folders[-1][-1]) or real(paths))
    watched = Watch((f"{tmp_path}/v/key",), silent, Clock())

    swap(tmp_path / "v", "2", key="2")
    watched.step(stirred=False)

    assert order == [f"{tmp_path}/v/..1", f"{tmp_path}/v/..2"]


# ── the process ──

RUN = """
import socket, sys
from launcher.appconfig import watch
watch.LOOK_AGAIN = float(sys.argv[2])
if sys.argv[3] == "deaf":
    watch._EVENTS = -1  # EINVAL, as from a kernel without dnotify
    watch.fcntl.F_NOTIFY = -1
watch.run(tuple(sys.argv[4:]), socket.socket(fileno=int(sys.argv[1])), settle=0.01, longest=0.1)
"""


class Running:
    """A watching process and our end of its channel."""

    def __init__(self, *paths: str, look_again: float = 3600.0, mode: str = "hearing") -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(TIMEOUT)
        argv = [sys.executable, "-c", RUN, str(theirs.fileno()), str(look_again), mode, *paths]
        self.process = subprocess.Popen(argv, pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE)
        theirs.close()
        assert self.channel.recv(4096) == b"watching"

    def told(self) -> list[str]:
        """Wait for a change, and return its paths."""
        word, *paths = self.channel.recv(4096).split(b"\0")
        assert word == b"changed"
        return [os.fsdecode(path) for path in paths]

    def close(self) -> tuple[int, bytes]:
        """Close the channel and wait for the end."""
        self.channel.close()
        _, stderr = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, stderr


@pytest.fixture
def running() -> Iterator[list[Running]]:
    """Collect the processes of a test; each ends by itself when its channel is closed."""
    started: list[Running] = []
    yield started
    for one in started:
        assert one.close() == (0, b"")


def test_every_swap_is_heard(tmp_path: Path, running: list[Running]) -> None:
    """With the clock's help an hour away: a watch on the file itself would die with the first swap."""
    volume = tmp_path / "v"
    swap(volume, "0", a="0", b="0")
    one = Running(f"{volume}/a", f"{volume}/b", f"{tmp_path}/other")
    running.append(one)

    for number in range(1, 6):
        swap(volume, str(number), a=str(number), b="0")
        assert one.told() == [f"{volume}/a"]


def test_files_are_written_made_replaced_and_removed(tmp_path: Path, running: list[Running]) -> None:
    """All that editors and deployments do, in folders that are there and in one that is not yet."""
    path, late, linked = tmp_path / "f", tmp_path / "late" / "x" / "f", tmp_path / "current"
    for release in ("1", "2"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "f").write_text(release)
    linked.symlink_to("1")
    one = Running(str(path), str(late), f"{linked}/f")
    running.append(one)

    def write(file: Path, text: str) -> None:
        # One system call: truncating first would show an empty file to a look in between.
        descriptor = os.open(file, os.O_WRONLY)
        os.write(descriptor, text.encode())
        os.close(descriptor)

    def new_file() -> None:
        (tmp_path / "new").write_text("c")
        (tmp_path / "new").rename(path)

    def new_link() -> None:
        (tmp_path / "link").symlink_to("2")
        (tmp_path / "link").rename(linked)

    for act, expected in (
        (path.touch, path),
        (lambda: write(path, "b"), path),
        (new_file, path),
        (path.unlink, path),
        (new_link, linked / "f"),
        (lambda: write(tmp_path / "2" / "f", "3"), linked / "f"),
    ):
        act()
        assert one.told() == [str(expected)]
    late.parent.mkdir(parents=True)
    late.touch()
    assert one.told() == [str(late)]
    write(late, "a")
    assert one.told() == [str(late)]


def test_every_event_of_a_series_is_heard(tmp_path: Path) -> None:
    """Not only the first: the series must be over before the look."""
    code = """
import os, signal, sys
from launcher.appconfig.watch import Listening
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
listening = Listening()
listening.listen((sys.argv[1], "/no/such/folder"))
for name in "abc":
    print(listening.wait(0.0), end=" ")
    os.mkdir(os.path.join(sys.argv[1], name))
    print(listening.wait(0.0), end=" ")
listening.listen(())
os.mkdir(os.path.join(sys.argv[1], "d"))
print(listening.wait(0.0))
"""
    told = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True).stdout

    assert told.split() == ["False", "True"] * 3 + ["False"]


def test_a_deaf_kernel_only_costs_time(tmp_path: Path, running: list[Running]) -> None:
    """Without dnotify the regular look finds what changed."""
    path = tmp_path / "f"
    one = Running(str(path), look_again=0.02, mode="deaf")
    running.append(one)

    path.touch()

    assert one.told() == [str(path)]


def test_it_ends_with_its_channel(tmp_path: Path) -> None:
    """Though nothing changes and the clock's help is an hour away."""
    assert Running(str(tmp_path / "f")).close() == (0, b"")
