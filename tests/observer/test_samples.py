"""What workers used lately: measured while somebody looks, and no longer."""

from __future__ import annotations

import pytest

from launcher.observer.samples import EVERY, LONGER, MOST, WINDOW, Samples


class Scene:
    """Samples of processes that use one byte and one second more with each look."""

    def __init__(self) -> None:
        self.looks: list[int] = []
        self.alive = {1, 2}
        self.subject = Samples(self.measure)

    def measure(self, pid: int) -> tuple[int, float] | None:
        """Look at one."""
        self.looks.append(pid)
        return (len(self.looks), float(len(self.looks))) if pid in self.alive else None


def test_nothing_is_measured_while_nobody_looks() -> None:
    """And nothing is due: an idle observer makes no system call."""
    scene = Scene()
    scene.subject.tick([1, 2], 1000.0)

    assert (scene.looks, scene.subject.deadline()) == ([], None)


def test_it_goes_on_for_thirty_seconds_after_the_last_look() -> None:
    """At its own pace, however often somebody looks."""
    scene = Scene()
    for now in (0.0, 0.1, 0.2):
        scene.subject.look([1], now)
    assert len(scene.looks) == 1
    times = []
    while (due := scene.subject.deadline()) is not None and due < 2 * LONGER:
        times.append(due)
        scene.subject.tick([1], due)

    assert times == [EVERY * n for n in range(1, int(LONGER / EVERY) + 2)]
    assert len(scene.looks) == len(times), "the last one only ends it"


def test_what_is_old_goes_and_so_do_processes_that_went() -> None:
    """The window is two minutes, whatever was before."""
    scene = Scene()
    for n in range(200):
        now = n * EVERY
        scene.subject.tick([1, 2], now)
        seen = scene.subject.look([1, 2], now)
    assert {len(each) for each in seen.values()} == {WINDOW / EVERY}
    assert seen[1][0].at > now - WINDOW
    scene.subject.tick([2], now + EVERY)

    assert list(scene.subject.look([2], now + EVERY)) == [2]


def test_a_process_that_cannot_be_measured_has_no_samples() -> None:
    """It is gone, or /proc is not there."""
    scene = Scene()

    assert scene.subject.look([3], 0.0) == {3: []}


def test_there_is_a_bound() -> None:
    """Thousands of workers do not hold up the loop."""
    scene = Scene()
    scene.subject.look(range(5000), 0.0)

    assert len(scene.looks) == MOST


def test_a_share_is_of_one_cpu() -> None:
    """Between each two looks; what is too short to tell is left out, and time does not run back."""
    used = iter([1.0, 2.0, 1.5, 1.6, 9.0, 9.4])
    subject = Samples(lambda _: (1, next(used)))
    subject.look([1], 0.0)
    for now in (2.0, 4.0, 6.0, 10.0):
        subject.tick([1], now)
    subject.look([2], 10.0)

    assert [sample.share for sample in subject.look([1], 10.0)[1]] == [None, 0.5, 0.0, pytest.approx(0.05), 1.85]
