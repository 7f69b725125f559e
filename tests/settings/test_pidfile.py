"""The pidfile: whose it is, what it may replace, and how it ends."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from launcher.errors import UnavailableError
from launcher.supervisor import pidfile

TRUSTED = (0, os.geteuid())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A place for a pidfile."""
    return tmp_path / "shop.pid"


def take(path: Path) -> int:
    """Take it for the process of this test."""
    return pidfile.take(str(path), "--pidfile", TRUSTED)


def test_it_holds_the_pid_and_is_gone_afterwards(path: Path) -> None:
    """Readable for everybody, whatever the umask."""
    mask = os.umask(0o777)
    try:
        fd = take(path)
    finally:
        os.umask(mask)

    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert not os.get_inheritable(fd)
    pidfile.let_go(str(path), fd)
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "1\n", "4194304999999\n", f"{os.getppid()}"])
def test_one_that_nobody_holds_is_stale(path: Path, content: str) -> None:
    """Also if its PID is somebody's by now: the lock is what counts."""
    path.write_text(content)

    fd = take(path)

    assert path.read_text() == f"{os.getpid()}\n"
    os.close(fd)


def test_one_that_is_held_is_refused_with_its_pid(path: Path) -> None:
    """Nothing of it is touched."""
    fd = take(path)

    with pytest.raises(UnavailableError, match=rf"--pidfile: in use by a running prod-run \(PID {os.getpid()}\)"):
        take(path)
    with pytest.raises(UnavailableError, match="in use by"):
        pidfile.examine(str(path), "--pidfile", TRUSTED)
    assert path.read_text() == f"{os.getpid()}\n"
    os.close(fd)


def test_a_link_is_never_followed(path: Path) -> None:
    """Neither to a file nor to nowhere."""
    victim = path.with_name("victim")
    path.symlink_to(victim)

    with pytest.raises(UnavailableError, match="a symbolic link is there"):
        take(path)
    assert not victim.exists()
    victim.write_text("")
    with pytest.raises(UnavailableError, match="a symbolic link is there"):
        take(path)


def test_a_hard_link_is_refused(path: Path) -> None:
    """It could be anybody's file."""
    victim = path.with_name("victim")
    victim.write_text("17\n")
    os.link(victim, path)

    with pytest.raises(UnavailableError, match="second name"):
        take(path)
    assert victim.read_text() == "17\n"


def test_what_is_no_pidfile_is_left_alone(path: Path) -> None:
    """`--pidfile /etc/passwd` is a mistake, not a wish."""
    path.write_text("root:x:0:0\n")

    with pytest.raises(UnavailableError, match="something else than a PID"):
        take(path)
    assert path.read_text() == "root:x:0:0\n"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UnavailableError, match="not a regular one"):
        take(path)


def test_a_directory_that_others_may_write_to_is_refused(path: Path) -> None:
    """They could put another file there; where the sticky bit is set they cannot."""
    path.parent.chmod(0o777)
    with pytest.raises(UnavailableError, match="others may write to its directory"):
        take(path)
    assert not path.exists()

    path.parent.chmod(0o1777)
    os.close(take(path))


def test_a_directory_that_is_not_there_is_a_sentence(path: Path) -> None:
    """It is not made: a runtime directory is the manager's business."""
    with pytest.raises(UnavailableError, match="there is no such directory"):
        take(path / "deeper")


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of other users")
def test_what_belongs_to_somebody_else_is_refused(path: Path) -> None:
    """The file, and the directory; who they belong to is said."""
    path.write_text("1\n")
    os.chown(path, 65534, 65534)
    with pytest.raises(UnavailableError, match=r"a file is there that belongs to another user \(uid 65534\)"):
        take(path)
    os.chown(path.parent, 65534, 65534)
    with pytest.raises(UnavailableError, match=r"its directory belongs to another user \(uid 65534\)"):
        take(path)

    os.close(pidfile.take(str(path), "--pidfile", (*TRUSTED, 65534)))


def test_examining_changes_nothing(path: Path) -> None:
    """A file that is not there is not made, a stale one stays as it is."""
    pidfile.examine(str(path), "--pidfile", TRUSTED)
    assert not path.exists()
    path.write_text("17\n")

    pidfile.examine(str(path), "--pidfile", TRUSTED)

    assert path.read_text() == "17\n"


def test_another_file_in_its_place_is_not_removed(path: Path) -> None:
    """Whoever replaced it knows why."""
    fd = take(path)
    path.unlink()
    path.write_text("17\n")

    pidfile.let_go(str(path), fd)

    assert path.read_text() == "17\n"
