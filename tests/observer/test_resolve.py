"""Names are looked up by a child, which takes nothing of the observer's and leaves nothing behind."""

from __future__ import annotations

import os
import select
import signal
import socket

import pytest

from launcher.observer import resolve
from launcher.observer.resolve import Lookup, Place, numeric

LIMIT = 5.0  # seconds; an outer limit


def ended(lookup: Lookup) -> bool:
    """Wait as the loop does."""
    return bool(select.select([lookup], [], [], LIMIT)[0])


def descriptors() -> set[str]:
    """Return what is open now."""
    return set(os.listdir("/proc/self/fd"))


def hang(_: str) -> str:
    """Look a name up at a server that does not answer."""
    signal.pause()
    return ""


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", [Place(socket.AF_INET, ("127.0.0.1", 514))]),
        ("::1", [Place(socket.AF_INET6, ("::1", 514, 0, 0))]),
        ("localhost", []),
        ("logs.example", []),
        ("1.2.3", [Place(socket.AF_INET, ("1.2.0.3", 514))]),
    ],
)
def test_numbers_need_no_child(host: str, expected: list[Place]) -> None:
    """As getaddrinfo(3) reads them."""
    assert numeric(host, 514) == expected


def test_a_name_is_found_and_nothing_stays_behind() -> None:
    """No process, no descriptor."""
    before = descriptors()
    lookup = Lookup("localhost", 514)
    assert ended(lookup)

    places = lookup.places()

    assert Place(socket.AF_INET, ("127.0.0.1", 514)) in places
    assert all(place.address[:2] in {("127.0.0.1", 514), ("::1", 514)} for place in places)
    assert descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_failure_has_the_systems_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are for the operator's line."""

    def refuse(*_: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    lookup = Lookup("127.0.0.1", 514)
    assert ended(lookup)
    assert lookup.places() == [Place(socket.AF_INET, ("127.0.0.1", 514))]
    monkeypatch.setattr(resolve.socket, "getaddrinfo", refuse)
    lookup = Lookup("logs.example", 514)
    assert ended(lookup)

    assert (lookup.places(), lookup.reason) == ([], "Name or service not known")


def test_a_look_up_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child ends itself, whatever the observer is doing by then."""
    monkeypatch.setattr(resolve, "_found", hang)
    monkeypatch.setattr(resolve, "TIMEOUT", 0.01)
    lookup = Lookup("logs.example", 514)
    assert ended(lookup)

    assert (lookup.places(), lookup.reason) == ([], "the look-up did not end in time")


def test_a_child_that_dies_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in it neither shows nor goes on in a copy of the observer."""

    def fail(_: str) -> str:
        raise MemoryError

    monkeypatch.setattr(resolve, "_found", fail)
    lookup = Lookup("logs.example", 514)
    assert ended(lookup)

    assert lookup.places() == []


def test_the_child_holds_nothing_of_the_observers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe's end in it would hide that a worker is gone."""
    monkeypatch.setattr(resolve, "_found", hang)
    low = os.pipe()
    high = os.dup2(low[1], 900)
    lookup = Lookup("logs.example", 514)
    os.close(low[1])
    os.close(high)

    assert select.select([low[0]], [], [], LIMIT)[0], "the child holds the writing end"
    assert os.read(low[0], 1) == b""
    os.close(low[0])
    pid = lookup._pid
    lookup.close()
    reap(pid)


def test_to_give_up_ends_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """The observer ends: nothing of it stays."""
    before = descriptors()
    monkeypatch.setattr(resolve, "_found", hang)
    lookup = Lookup("logs.example", 514)
    pid = lookup._pid

    lookup.close()

    assert reap(pid) in {None, -signal.SIGKILL}
    assert descriptors() == before


def test_a_child_that_somebody_else_has_reaped_is_no_failure() -> None:
    """The observer may have a loop over waitpid(-1)."""
    lookup = Lookup("localhost", 514)
    assert ended(lookup)
    os.waitpid(-1, 0)

    assert lookup.places()


def test_the_observers_signals_are_not_the_childs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop for the group ends the child at once; the observer's own code does not run in it."""
    monkeypatch.setattr(resolve, "_found", hang)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        lookup = Lookup("logs.example", 514)
        os.kill(lookup._pid, signal.SIGTERM)

        assert ended(lookup)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGTERM, before)
    assert lookup.places() == []


def reap(pid: int) -> int | None:
    """Return how a child ended; None if it has been reaped."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None
