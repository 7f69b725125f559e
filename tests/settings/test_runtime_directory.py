"""The runtime directory and the name's lock."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from launcher.errors import Exit, UnavailableError
from launcher.runtime_directory import Candidate, Claim, candidates, claim, release

if TYPE_CHECKING:
    from pathlib import Path

UID = os.geteuid()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A private directory of ours."""
    folder = tmp_path / "base"
    folder.mkdir(mode=0o700)
    return folder


def taken(name: str, *bases: Path, is_explicit: bool = False) -> Claim:
    """Claim a name below one of these directories."""
    return claim(name, tuple(Candidate(str(b), ("prod-run", name)) for b in bases), UID, is_explicit=is_explicit)


def test_places_are_tried_in_the_documented_order() -> None:
    """What systemd made comes first, /tmp last; /run only for root."""
    environ = {"RUNTIME_DIRECTORY": "/run/shop:/run/other", "XDG_RUNTIME_DIR": "/run/user/7"}

    assert candidates("shop", environ, 0) == (
        Candidate("/run/shop", ()),
        Candidate("/run/user/7", ("prod-run", "shop")),
        Candidate("/run", ("prod-run", "shop")),
        Candidate("/tmp", ("prod-run-0", "shop")),
    )
    assert [place.base for place in candidates("shop", {}, 7)] == ["/tmp"]


def test_the_directory_is_private_and_holds_the_pid(base: Path) -> None:
    """Whatever the umask; the lock says whose it is."""
    mask = os.umask(0o777)
    try:
        found = taken("shop", base)
    finally:
        os.umask(mask)

    assert found.directory == f"{base}/prod-run/shop"
    assert stat.S_IMODE(os.stat(found.directory).st_mode) == 0o700
    assert (base / "prod-run/shop/lock").read_text() == f"{os.getpid()}\nshop\n"
    assert (found.name, found.note) == ("shop", "")
    release(found)


def test_an_explicit_name_that_is_held_is_refused_with_the_pid(base: Path) -> None:
    """Two live instances cannot share a name."""
    first = taken("shop", base, is_explicit=True)

    with pytest.raises(UnavailableError, match=f"shop: a running prod-run already has this name: PID {os.getpid()}"):
        taken("shop", base, is_explicit=True)
    assert UnavailableError.exit_code == Exit.UNAVAILABLE
    release(first)


def test_a_default_name_that_is_held_gets_the_pid_behind_it(base: Path) -> None:
    """The second instance starts all the same, and says what it is called."""
    first = taken("x" * 48, base)
    second = taken("x" * 48, base)

    suffix = f"-{os.getpid()}"
    assert second.name == "x" * (48 - len(suffix)) + suffix
    assert second.directory == f"{base}/prod-run/{second.name}"
    assert second.note.endswith(f"is taken by PID {os.getpid()}: this instance is called {second.name}")
    release(first)
    release(second)


def test_a_dead_instance_holds_nothing(base: Path) -> None:
    """The lock ends with the process, whatever the file says."""
    release(taken("shop", base, is_explicit=True))

    found = taken("shop", base, is_explicit=True)
    assert found.lock_fd >= 0
    release(found)


def test_a_directory_of_systemd_is_used_as_it_is(base: Path) -> None:
    """RuntimeDirectory= is 0755 by default, and ours."""
    base.chmod(0o755)
    found = claim("shop", (Candidate(str(base), ()),), UID, is_explicit=False)

    assert found.directory == str(base)
    release(found)


def test_another_instance_in_a_service_of_systemd_has_a_place_in_its_directory(base: Path) -> None:
    """One that an application starts inherits $RUNTIME_DIRECTORY; only the same name is refused."""
    place = (Candidate(str(base), ()),)
    outer = claim("outer", place, UID, is_explicit=True)
    inner = claim("inner", place, UID, is_explicit=True)

    assert (inner.name, inner.directory, inner.note) == ("inner", f"{base}/inner", "")
    for name in ("outer", "inner"):
        with pytest.raises(UnavailableError, match=f"{name}: a running prod-run already has this name"):
            claim(name, place, UID, is_explicit=True)
    release(outer)
    release(inner)


@pytest.mark.parametrize("kind", ["writable", "link", "file", "missing", "relative"])
def test_a_place_that_could_be_somebody_elses_is_passed_over(tmp_path: Path, base: Path, kind: str) -> None:
    """The next one is taken; nobody else's directory ever is."""
    bad = tmp_path / "bad"
    if kind == "relative":
        bad = type(base)("bad")
    elif kind == "file":
        bad.write_text("")
    elif kind != "missing":
        bad.mkdir(mode=0o700)
        if kind == "writable":
            bad.chmod(0o777)
        else:
            (bad / "prod-run").symlink_to(base)

    found = taken("shop", bad, base)

    assert found.directory == f"{base}/prod-run/shop"
    release(found)


@pytest.mark.skipif(UID != 0, reason="gives a directory away")
def test_a_directory_of_another_user_is_never_used(base: Path) -> None:
    """Somebody may have made /tmp/prod-run-0 before root did."""
    (base / "prod-run").mkdir(mode=0o700)
    os.chown(base / "prod-run", 65534, 65534)

    found = taken("shop", base)

    assert (found.directory, found.lock_fd) == ("", -1)
    assert (
        f"there is no runtime directory, so no control socket and no metrics of the app ({base}/prod-run: belongs to another user)"
        in (found.note)
    )


def test_the_lock_is_no_link(base: Path, tmp_path: Path) -> None:
    """A planted link does not make us write somewhere else."""
    (base / "lock").symlink_to(tmp_path / "elsewhere")

    found = claim("shop", (Candidate(str(base), ()),), UID, is_explicit=False)

    assert found.directory == ""
    assert not (tmp_path / "elsewhere").exists()
