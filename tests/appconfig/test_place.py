"""Rendered files into their places: nothing half done after any failure, and a way back."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from launcher.appconfig import place
from launcher.appconfig.place import Placed, Staged
from launcher.appconfig.render import Rendered
from launcher.appconfig.templates import Template
from launcher.errors import Problem

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to others")


def rendered(path: Path, content: bytes, mode: int | None = None) -> Rendered:
    """Make the value that is about to be placed."""
    return Rendered(Template("t", str(path), mode), str(path), content, mode, frozenset(), ())


def staged(*items: Rendered) -> list[Staged]:
    """Stage without problems."""
    result, problems = place.stage(items)
    assert problems == []
    return result


def placed(*items: Rendered) -> list[Placed]:
    """Stage and move without problems."""
    result, problems = place.move(staged(*items))
    assert problems == []
    return result


def state(directory: Path) -> dict[str, tuple[bytes, int, int, int]]:
    """Return content, mode and owner of each file of a directory."""
    return {
        p.name: (p.read_bytes(), stat.S_IMODE(p.stat().st_mode), p.stat().st_uid, p.stat().st_gid)
        for p in sorted(directory.iterdir())
        if p.is_file()
    }


def mode(path: Path) -> int:
    """Return a file's mode."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def no_descriptors_lost() -> object:
    """Compare the open descriptors before and after."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


pytestmark = pytest.mark.usefixtures("no_descriptors_lost")


def test_files_are_staged_beside_their_places_and_moved_together(tmp_path: Path) -> None:
    """Before `move` nothing is seen of them; afterwards all is there, and after `settle` nothing else."""
    (tmp_path / "a").write_text("old")
    items = staged(rendered(tmp_path / "a", b"new"), rendered(tmp_path / "b", b"other", 0o600))

    assert (tmp_path / "a").read_text() == "old"
    assert not (tmp_path / "b").exists()
    assert all(Path(item.temporary).parent == tmp_path for item in items)

    moved, problems = place.move(items)
    place.settle(moved)

    assert problems == []
    assert {name: found[:2] for name, found in state(tmp_path).items()} == {
        "a": (b"new", 0o644),
        "b": (b"other", 0o600),
    }


def test_put_back_makes_everything_as_it_was(tmp_path: Path) -> None:
    """Bytes, mode, owner, even the inode; and no file where there was none."""
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o604)
    before, inode = state(tmp_path), (tmp_path / "a").stat().st_ino
    items = placed(rendered(tmp_path / "a", b"new", 0o600), rendered(tmp_path / "b", b"other"))
    assert (tmp_path / "a").read_bytes() == b"new"

    problems = place.put_back(items)

    assert problems == []
    assert state(tmp_path) == before
    assert (tmp_path / "a").stat().st_ino == inode


def test_what_is_the_same_is_not_written_again(tmp_path: Path) -> None:
    """Neither its inode nor its times change; another mode or content does change it."""
    path = tmp_path / "a"
    path.write_text("same")
    path.chmod(0o640)
    inode = path.stat().st_ino

    assert [item.temporary for item in staged(rendered(path, b"same"), rendered(path, b"same", 0o640))] == ["", ""]
    assert placed(rendered(path, b"same")) == []
    assert path.stat().st_ino == inode
    for item in (rendered(path, b"same", 0o600), rendered(path, b"sam"), rendered(path, b"same!")):
        (one,) = staged(item)
        assert one.temporary
        place.discard([one])


def test_modes_are_kept_given_or_0644(tmp_path: Path) -> None:
    """Whatever the umask."""
    (tmp_path / "old").write_text("x")
    (tmp_path / "old").chmod(0o606)
    former = os.umask(0o077)
    try:
        place.settle(
            placed(
                rendered(tmp_path / "old", b"y"),
                rendered(tmp_path / "new", b"y"),
                rendered(tmp_path / "own", b"y", 0o666),
            )
        )
    finally:
        os.umask(former)

    assert [mode(tmp_path / name) for name in ("old", "new", "own")] == [0o606, 0o644, 0o666]


@as_root
def test_the_owner_is_kept(tmp_path: Path) -> None:
    """A new content does not make the file root's."""
    path = tmp_path / "a"
    path.write_text("old")
    os.chown(path, 1234, 2345)

    items = placed(rendered(path, b"new", 0o640))

    assert state(tmp_path)["a"] == (b"new", 0o640, 1234, 2345)
    place.put_back(items)
    assert state(tmp_path)["a"] == (b"old", 0o644, 1234, 2345)


@as_root
def test_what_this_user_may_not_do_is_said() -> None:
    """A file of another user's in a directory that all may write to; and a directory that they may not."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own directories are closed to others
        directory = Path(name)
        (directory / "closed").mkdir()
        (directory / "a").write_text("old")
        directory.chmod(0o777)
        os.setegid(65534)
        os.seteuid(65534)
        try:
            other, closed = directory / "a", directory / "closed" / "b"
            result, problems = place.stage([rendered(other, b"new"), rendered(closed, b"x")])
        finally:
            os.seteuid(0)
            os.setegid(0)

        assert result == []
        assert [f"{p.name.removeprefix(name)} {p.reason}" for p in problems] == [
            "/a belongs to user 0 and group 0, to whom this user cannot give a file",
            "/closed/b cannot be written by this user",
        ]
        assert sorted(os.listdir(name)) == ["a", "closed"]


@pytest.mark.parametrize("call", ["open", "write", "fchmod", "fsync", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EBUSY, errno.EIO])
def test_any_failure_at_any_step_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """Each call fails once at each turn: the former files, no temporary one, one sentence."""
    (tmp_path / "a").write_text("old")
    (tmp_path / "b").write_text("old")
    before = state(tmp_path)
    items = [rendered(tmp_path / name, b"new") for name in "abc"]
    real, turns, failures = getattr(os, call), 0, 0
    for failing in range(1, 30):
        turns = 0

        def fail(*args: object, failing: int = failing, **named: object) -> object:
            nonlocal turns
            turns += 1
            if turns == failing:
                raise OSError(code, os.strerror(code))
            return real(*args, **named)

        monkeypatch.setattr(os, call, fail)
        found, problems = place.stage(items)
        moved: list[Placed] = []
        if not problems:
            moved, problems = place.move(found)
        monkeypatch.setattr(os, call, real)

        failures += bool(problems)
        if moved:
            assert [name for name, *_ in moved] == [item.path for item in items]
            place.put_back(moved)
        else:
            assert len(problems) == 1
        assert state(tmp_path) == before, failing
        if turns < failing:  # nothing failed: there are no more turns, and each costs its fsync
            break

    assert failures >= 3


@pytest.mark.parametrize("call", ["write", "fchmod", "fsync", "rename", "link"])
def test_an_exception_from_outside_leaves_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """SIGTERM is SystemExit, anywhere."""
    (tmp_path / "a").write_text("old")
    before = state(tmp_path)
    items = [rendered(tmp_path / name, b"new") for name in "ab"]
    real, turns = getattr(os, call), 0

    def interrupt(*args: object, **named: object) -> object:
        nonlocal turns
        turns += 1
        real(*args, **named)
        if turns == (1 if call == "link" else 2):
            raise SystemExit

    monkeypatch.setattr(os, call, interrupt)
    with pytest.raises(SystemExit):
        place.move(place.stage(items)[0])
    monkeypatch.setattr(os, call, real)
    place.sweep([str(tmp_path)])

    assert state(tmp_path) == before


def test_where_no_second_name_can_be_had_a_copy_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hard links (vfat), or another's file (fs.protected_hardlinks): the way back is the same."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o604)
    before = state(tmp_path)
    monkeypatch.setattr(os, "link", refuse)

    items = placed(rendered(tmp_path / "a", b"new", 0o600))

    assert state(tmp_path)["a"][:2] == (b"new", 0o600)
    assert place.put_back(items) == []
    assert state(tmp_path) == before


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("folder", "is there and is not a regular file. Remove it, or correct DEST"),
        ("fifo", "is there and is not a regular file. Remove it, or correct DEST"),
        ("link", "is a symbolic link, which would be replaced. Name the file that it points to"),
        ("nowhere/x", "is in a directory that does not exist. Create the directory, or correct DEST"),
        ("file/x", "is in a directory that does not exist. Create the directory, or correct DEST"),
    ],
)
def test_what_cannot_be_replaced_is_said(tmp_path: Path, kind: str, sentence: str) -> None:
    """One sentence with what to do; and the good ones are not staged either."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")

    result, problems = place.stage([rendered(tmp_path / "good", b"x"), rendered(tmp_path / kind, b"new")])

    assert result == []
    assert [f"{p.reason}. {p.remedy}" for p in problems] == [sentence]
    assert sorted(os.listdir(tmp_path)) == ["fifo", "file", "folder", "link"]


def test_a_name_of_any_length_can_be_staged(tmp_path: Path) -> None:
    """NAME_MAX holds for temporary names too."""
    path = tmp_path / ("é" * 127)

    place.settle(placed(rendered(path, b"x")))
    place.settle(placed(rendered(path, b"y")))

    assert path.read_bytes() == b"y"
    assert len(os.listdir(tmp_path)) == 1


def test_only_leftovers_are_swept(tmp_path: Path) -> None:
    """What a living process has staged or kept is locked; what a dead one left is removed; others' files stay."""
    (tmp_path / "a").write_text("old")
    (tmp_path / ".a.prod-run-0123abcd").write_text("left")
    (tmp_path / ".a.prod-run-0123abcd.txt").write_text("not ours")
    (tmp_path / "a.prod-run-0123abcd").write_text("not ours")
    (tmp_path / ".x.prod-run-0123abcd").mkdir()
    others = {".a.prod-run-0123abcd.txt", "a.prod-run-0123abcd", ".x.prod-run-0123abcd"}

    held = staged(rendered(tmp_path / "a", b"new"), rendered(tmp_path / "b", b"new"))
    place.sweep([str(tmp_path), "/nope"])
    assert set(os.listdir(tmp_path)) == others | {"a"} | {os.path.basename(item.temporary) for item in held}

    kept, _ = place.move(held)
    place.sweep([str(tmp_path)])
    assert set(os.listdir(tmp_path)) == others | {"a", "b", os.path.basename(kept[0].kept)}

    place.settle(kept)
    assert set(os.listdir(tmp_path)) == others | {"a", "b"}


def test_what_cannot_be_put_back_is_said_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are put back; the sentence says where the former content is."""
    for name in "ab":
        (tmp_path / name).write_text("old")
    items = placed(*(rendered(tmp_path / name, b"new") for name in "ab"))
    real = os.rename

    def refuse(source: str, path: str) -> None:
        if path.endswith("/a"):
            raise OSError(errno.EROFS, "Read-only file system")
        real(source, path)

    monkeypatch.setattr(os, "rename", refuse)
    problems = place.put_back(items)

    assert problems == [
        Problem(
            str(tmp_path / "a"),
            "is not put back: it is on a read-only file system",
            f"Its former content is in {items[0].kept}",
        )
    ]
    assert Path(items[0].kept).read_text() == "old"
    assert (tmp_path / "b").read_text() == "old"


def test_a_disk_that_cannot_say_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The former file is back, but fsync(2) of its directory fails."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "a").write_text("old")
    items = placed(rendered(tmp_path / "a", b"new"))
    monkeypatch.setattr(os, "fsync", fail)

    assert [p.reason for p in place.put_back(items)] == ["is put back, but not surely on the disk: Input/output error"]
    assert {name: found[0] for name, found in state(tmp_path).items()} == {"a": b"old"}


# ── real mounts ──

ROOT = Path(__file__).parents[2]
MOUNTED = """
import os, sys
sys.path.insert(0, sys.argv[3])
from launcher.appconfig import place
from launcher.appconfig.render import Rendered
from launcher.appconfig.templates import Template
path, size = sys.argv[1], int(sys.argv[2])
staged, problems = place.stage([Rendered(Template("t", path), path, b"n" * size, None, frozenset(), ())])
if not problems:
    _, problems = place.move(staged)
print(*(f"{p.reason}. {p.remedy}" for p in problems), sep="\\n")
print(sorted(os.listdir(os.path.dirname(path))), os.path.getsize(path))
"""


def in_mounts(tmp_path: Path, mount: str, path: str, size: int) -> list[str]:
    """Run the pipeline in a mount namespace of its own, after a command that mounts something."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace can be had here")
    script = f'cd {tmp_path} && {mount} && exec "$@"'
    argv = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", MOUNTED]
    done = subprocess.run([*argv, str(tmp_path / path), str(size), str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("mount", "size", "sentence"),
    [
        ("mount --bind other d/f", 9, "is mounted by itself and cannot be replaced. Mount its directory instead of the file"),
        ("mount --bind d d && mount -o remount,ro,bind d", 9, "is on a read-only file system. Mount a writable directory there, or name a DEST elsewhere"),
        ("mount -t tmpfs -o size=16k x d && cp other d/f", 65536, "does not fit: no space is left there. Free some, or name a DEST elsewhere"),
    ],
)  # fmt: skip
def test_a_mount_that_refuses_is_said(tmp_path: Path, mount: str, size: int, sentence: str) -> None:
    """A bind-mounted file, a read-only directory, a full one: one sentence, the former file, nothing else left."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("old")
    (tmp_path / "other").write_text("old")

    assert in_mounts(tmp_path, mount, "d/f", size) == [sentence, "['f'] 3"]
