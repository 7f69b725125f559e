"""Reading one file that may hold a secret: every kind of file is a value or a clear sentence, and none a hang."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.appconfig import secret_files
from launcher.appconfig.secret_files import MOST_BYTES, FileError, Files, read, snapshot, text, trail

CANARY = "canary-7f3a"


@pytest.fixture
def nobody() -> Iterator[None]:
    """Be an ordinary user, if the tests run as root: root may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the temporary directory for a disk, also where it is a tmpfs."""
    monkeypatch.setattr(secret_files, "_is_in_memory", lambda _device: False)


def written(path: Path, data: bytes = CANARY.encode(), mode: int = 0o400) -> str:
    """Write a file with a mode, whatever the umask is."""
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


def value_of(path: str) -> str | None:
    """Read a file as a source does."""
    contents = read(path)
    return None if contents is None else text(path, contents.data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"x", "x"),
        (b"x\n", "x"),
        (b"x\r\n", "x"),
        (b"x\n\n", "x\n"),
        (b"x\r", "x\r"),
        (b"\nx", "\nx"),
        (b" x ", " x "),
        ("pä\n".encode(), "pä"),
    ],
)
def test_one_newline_at_the_end_is_not_part_of_the_value(tmp_path: Path, data: bytes, expected: str) -> None:
    """Editors and `echo` write it; a second one somebody meant."""
    assert value_of(written(tmp_path / "s", data)) == expected


def fifo(path: Path) -> None:
    """Make a named pipe that nobody writes to."""
    os.mkfifo(path)


def listening(path: Path) -> None:
    """Make a socket that outlives this function as a file."""
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))


CASES: list[tuple[str, Callable[[Path], object], str, str]] = [
    ("directory", lambda path: path.mkdir(), "is a directory", "Name a file in it"),
    ("fifo", fifo, "is a named pipe", "Name a regular file"),
    ("socket", listening, "is a socket", "Name a regular file"),
    ("device", lambda path: path.symlink_to("/dev/zero"), "is a device", "Name a regular file"),
    ("empty", lambda path: written(path, b""), "is empty", "Write the value"),
    ("only a newline", lambda path: written(path, b"\n"), "is empty", "Write the value"),
    ("not UTF-8", lambda path: written(path, b"\xff" + CANARY.encode()), "is not UTF-8 text", "base64"),
    ("NUL", lambda path: written(path, CANARY.encode() + b"\0"), "contains a NUL byte", "base64"),
    ("too large", lambda path: written(path, b"x" * (MOST_BYTES + 1)), "is larger than 1 MiB", "one value"),
    ("loop", lambda path: path.symlink_to(path), "leads back to itself", "Point it to the file"),
    ("dangling", lambda path: path.symlink_to("gone"), "is a symbolic link to nothing", "Point it to the file"),
    ("unreadable", lambda path: written(path, mode=0), "cannot be read: permission denied", "Let user"),
]


@pytest.mark.parametrize(("make", "what", "remedy"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_file_that_cannot_be_used_says_why(
    tmp_path: Path, request: pytest.FixtureRequest, make: Callable[[Path], object], what: str, remedy: str
) -> None:
    """One sentence with the path, what to do, and nothing of the contents; none of them hangs."""
    path = tmp_path / "db_url"
    make(path)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    if what.startswith("cannot"):
        request.getfixturevalue("nobody")

    with pytest.raises(FileError) as caught:
        value_of(str(path))

    assert caught.value.reason.startswith(f"{path} ")
    assert what in caught.value.reason
    assert remedy in caught.value.remedy
    assert CANARY not in f"{caught.value!r} {caught.value.remedy} {caught.value.__context__!r}"
    assert not isinstance(caught.value.__context__, UnicodeDecodeError)


def test_a_pipe_that_takes_the_files_place_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the open the file is exchanged."""
    os.mkfifo(tmp_path / "s")
    regular = os.stat(written(tmp_path / "other"))
    monkeypatch.setattr(os, "stat", lambda *_args, **_named: regular)
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(20)  # seconds; only a failing test waits

    try:
        with pytest.raises(FileError, match="is a named pipe"):
            read(str(tmp_path / "s"))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_one_mebibyte_is_enough(tmp_path: Path) -> None:
    """The limit itself is allowed."""
    assert value_of(written(tmp_path / "s", b"x" * MOST_BYTES)) == "x" * MOST_BYTES


@pytest.mark.parametrize("name", ["absent", "no/such/folder", "file/below"])
def test_absence_is_no_error(tmp_path: Path, name: str) -> None:
    """Only a missing file lets the search go on."""
    written(tmp_path / "file")

    assert read(str(tmp_path / name)) is None


def test_a_descriptor_is_closed_and_never_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a good nor a refused file leaves one open, and a child that another thread starts gets none."""
    flags: list[int] = []
    real = os.open

    def look(*args: Any, **named: Any) -> int:
        descriptor = real(*args, **named)
        flags.append(fcntl.fcntl(descriptor, fcntl.F_GETFD))
        return descriptor

    regular = os.stat(written(tmp_path / "s"))
    os.mkfifo(tmp_path / "pipe")
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "open", look)

    read(str(tmp_path / "s"))
    monkeypatch.setattr(os, "stat", lambda *_args, **_named: regular)
    with pytest.raises(FileError):
        secret_files.open_regular(str(tmp_path / "pipe"))

    assert flags == [fcntl.FD_CLOEXEC, fcntl.FD_CLOEXEC]
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize(
    ("mode", "warning"),
    [
        (0o400, ""),
        (0o600, ""),
        (0o440, ""),
        (0o640, ""),
        (0o444, "can be read by every user"),
        (0o460, "can be written by its group"),
        (0o402, "can be written by every user"),
    ],
)
def test_loose_permissions_are_warned_about(tmp_path: Path, mode: int, warning: str) -> None:
    """The warning names the file and three ways to repair it."""
    path = written(tmp_path / "s", mode=mode)

    contents = read(path)

    assert contents is not None
    assert bool(contents.warning) == bool(warning)
    if warning:
        assert f"{path} {warning}" in contents.warning
        assert all(way in contents.warning for way in ("chmod 0400", "defaultMode: 0400", "LoadCredential="))


@pytest.mark.parametrize("way", ["platform", "linked", "in memory"])
def test_the_platforms_way_is_not_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Compose and Kubernetes make readable files where nobody else can look; written by all is never right."""
    path = written(tmp_path / "s", mode=0o464)
    monkeypatch.setattr(secret_files, "PLATFORM_DIRECTORIES", (f"{tmp_path}/",) if way != "in memory" else ())
    monkeypatch.setattr(secret_files, "_is_in_memory", lambda _device: way == "in memory")
    if way == "linked":
        os.symlink(tmp_path, tmp_path.parent / "link")
        path = str(tmp_path.parent / "link" / "s")

    assert read(path) == (CANARY.encode(), "")

    os.chmod(path, 0o406)
    assert "can be written by every user" in str(read(path))


@pytest.mark.skipif(not os.access("/proc/self/mountinfo", os.R_OK), reason="needs /proc")
def test_a_tmpfs_is_known_from_the_table_of_mounts() -> None:
    """/dev/shm is one, the root of a file system with a disk is none."""
    if not os.path.ismount("/dev/shm"):
        pytest.skip("no /dev/shm")

    assert secret_files._is_in_memory(os.stat("/dev/shm").st_dev)
    assert not secret_files._is_in_memory(os.stat("/proc").st_dev)


def test_without_proc_it_is_only_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure less, not a failure."""

    def refuse(*args: object, **named: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", refuse)

    assert not secret_files._is_in_memory(os.stat("/dev").st_dev)


@pytest.mark.usefixtures("on_disk")
def test_a_folder_in_which_all_can_replace_the_file_is_warned_about(tmp_path: Path) -> None:
    """Also the folder of a link on the way; with the sticky bit nobody can replace another's file."""
    (tmp_path / "real").mkdir()
    written(tmp_path / "real" / "s")
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "s").symlink_to("../real/s")
    linked = str(tmp_path / "open" / "s")

    os.chmod(tmp_path / "open", 0o777)
    assert f"every user can replace files in {tmp_path}/open" in str(read(linked))
    os.chmod(tmp_path / "open", 0o1777)
    assert read(linked) == (CANARY.encode(), "")
    os.chmod(tmp_path / "real", 0o707)
    assert f"every user can replace files in {tmp_path}/real" in str(read(linked))


def test_contents_are_not_in_a_repr(tmp_path: Path) -> None:
    """A debugger's line or an assertion of pytest shows no secret."""
    assert CANARY not in repr(read(written(tmp_path / "s")))


def test_the_trail_names_every_link(tmp_path: Path) -> None:
    """Relative and absolute ones, `..` behind a link, and the end though it does not exist."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "abs").symlink_to(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "up").symlink_to("../../rel")
    (tmp_path / "rel").symlink_to("a/gone")

    steps = list(trail(str(tmp_path / "abs" / "up" / "x")))

    assert [step.path for step in steps] == [f"{tmp_path}/{n}" for n in ("abs", "a/b/up", "rel", "a/gone/x")]
    assert [step.rest for step in steps] == ["up/x", "x", "x", ""]
    assert next(trail(str(tmp_path / "abs" / ".." / "y"))).rest == "../y"
    assert list(trail(str(tmp_path / "abs" / ".." / "y")))[-1].path == f"{tmp_path}/a/y"


# ── directories that Kubernetes swaps ──


class Volume:
    """A directory as kubelet's AtomicWriter makes it, and swaps it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.numbers = itertools.count()
        path.mkdir()

    def swap(self, **files: str) -> None:
        """Show new files at once; the old ones are removed afterwards."""
        new = self.path / f"..{next(self.numbers)}"
        for name, value in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_text(value)
        link = self.path / "..data"
        old = link.resolve() if link.is_symlink() else None
        (self.path / "..data_tmp").symlink_to(new.name)
        (self.path / "..data_tmp").rename(link)
        for name in {name.partition("/")[0] for name in files}:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        if old:
            shutil.rmtree(old)


def test_one_loading_sees_one_generation(tmp_path: Path) -> None:
    """Whatever is swapped between two readings, the second belongs to the first; the next loading sees the new."""
    volume = Volume(tmp_path / "v")
    volume.swap(user="1", pair="1")
    files = Files()
    first = files.read(str(volume.path / "user"))

    volume.swap(user="2", pair="2")

    assert first is not None
    assert first.data == b"1"
    assert files.read(str(volume.path / "pair")) == (b"1", "")
    assert Files().read(str(volume.path / "pair")) == (b"2", "")


def test_a_generation_is_found_however_the_path_leads_there(tmp_path: Path) -> None:
    """Through a link elsewhere, a folder of keys, or `..data` itself; a file beside it is read as any other."""
    volume = Volume(tmp_path / "v")
    volume.swap(**{"user": "1", "deep/key": "1"})
    (tmp_path / "link").symlink_to(volume.path / "user")
    written(volume.path / "other", b"1")
    files = Files()
    files.read(str(volume.path / "user"))
    os.unlink(volume.path / "deep")

    volume.swap(**{"user": "2", "deep/key": "2"})
    written(volume.path / "other", b"2", 0o600)

    for path in (tmp_path / "link", volume.path / "deep" / "key", volume.path / "..data" / "deep" / "key"):
        assert files.read(str(path)) == (b"1", "")
    assert files.read(str(volume.path / "other")) == (b"2", "")


def test_a_key_that_was_removed_is_absent(tmp_path: Path) -> None:
    """Its link is left behind for a moment, which is no error."""
    volume = Volume(tmp_path / "v")
    volume.swap(user="1", pair="1")
    volume.swap(user="2")

    assert Files().read(str(volume.path / "pair")) is None


def test_a_bad_file_of_a_volume_is_only_an_error_for_who_asks(tmp_path: Path) -> None:
    """A large certificate bundle beside the secrets is nobody's problem."""
    volume = Volume(tmp_path / "v")
    volume.swap(user="1", bundle="x" * (MOST_BYTES + 1))
    files = Files()

    assert files.read(str(volume.path / "user")) == (b"1", "")
    with pytest.raises(FileError, match=r"v/bundle is larger"):
        files.read(str(volume.path / "bundle"))


def test_a_volume_that_is_not_there_says_so(tmp_path: Path) -> None:
    """`..data` leads to nothing for good, or changes at each look."""
    volume = Volume(tmp_path / "v")
    volume.swap(user="1")
    shutil.rmtree((volume.path / "..data").resolve())

    with pytest.raises(FileError, match=r"v has a \.\.data that leads to nothing"):
        Files().read(str(volume.path / "user"))


def test_a_volume_that_never_stands_still_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five tries, then a sentence; never a half."""
    volume = Volume(tmp_path / "v")
    volume.swap(user="1")
    tries: list[str] = []
    real = secret_files._read_all

    def swap_meanwhile(shown: str, generation: str) -> object:
        tries.append(generation)
        volume.swap(user="2")
        shutil.rmtree(generation, ignore_errors=True)
        return real(shown, str((volume.path / "..data").resolve()))

    monkeypatch.setattr(secret_files, "_read_all", swap_meanwhile)

    with pytest.raises(FileError, match="is swapped faster than it can be read"):
        snapshot(str(volume.path))
    assert len(tries) == 5


@pytest.mark.slow
def test_swaps_never_give_a_mixed_or_incomplete_generation(tmp_path: Path) -> None:
    """Thirty files that must agree, read again and again while another thread swaps them."""
    names = [f"key{number:02}" for number in range(30)]
    volume = Volume(tmp_path / "v")
    volume.swap(**dict.fromkeys(names, "0"))
    seen: list[set[str]] = []
    swapped = threading.Thread(
        target=lambda: [volume.swap(**dict.fromkeys(names, str(number))) for number in range(1, 100)]
    )
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    swapped.start()
    try:
        is_over = False
        while not is_over:
            is_over = not swapped.is_alive()
            files = Files()
            try:
                found = [files.read(str(volume.path / name)) for name in names]
            except FileError:
                continue  # "is swapped faster than it can be read": a sentence, where a mixture must not be
            seen.append({"absent" if contents is None else contents.data.decode() for contents in found})
    finally:
        swapped.join()
        sys.setswitchinterval(interval)

    assert seen
    assert all(len(values) == 1 and "absent" not in values for values in seen)
