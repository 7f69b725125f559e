"""`--watch` needs a zygote as long as its generation serves, also where workers import for themselves."""

from __future__ import annotations

import pytest

from launcher.supervisor import actions as do
from tests.supervisor.world import World, booted


@pytest.mark.parametrize("files", ["v1", "v2"])
def test_the_zygote_that_watches_comes_again_where_workers_import_for_themselves(files: str) -> None:
    """Whatever lies on disk: it only watches, and workers still come from the disk."""
    world = booted(preload="never", watch=True)
    world.kernel.files = files
    world.kernel.die(world.zygote(1), -9)
    world.catch_up()

    assert world.zygote(1).alive
    assert do.Confirm(world.zygote(1).ticket) in world.orders
    assert not world.said("cannot respawn")
    world.kernel.die(world.workers()[0], 1)
    world.catch_up()
    assert world.serving(1) == 2


def test_a_zygote_of_other_code_watches_and_forks_nobody() -> None:
    """The generation cannot respawn, and yet a secret that changes brings the reload that heals it."""
    world = booted(watch=True)
    world.kernel.files = "v2"
    for _ in range(2):
        world.kernel.die(world.zygote(1), -9)
        world.catch_up()
        assert world.zygote(1).alive
    assert len(world.said("cannot respawn")) == 1
    assert do.Confirm(world.zygote(1).ticket) in world.orders

    for left in (2, 1):  # the spare is of the right code
        world.kernel.die(world.workers()[0], 1)
        world.catch_up()
        assert world.serving(1) == left


@pytest.mark.parametrize("preload", ["never", "always"])
def test_who_cannot_watch_any_more_says_so(preload: str) -> None:
    """A zygote that is refused for good is an error line, not a silence."""
    world = booted(preload=preload, watch=True)
    world.kernel.die(world.zygote(1), -9)
    world.deliver_all()
    world.wait(1.0)
    world.kernel.refuse(world.zygote(1), 78)
    world.catch_up()

    assert world.said("--watch")
    assert bool(world.said("cannot respawn")) == (preload == "always")
    assert not world.zygote(1).alive
    assert world.serving(1) == 2


def test_nobody_waits_for_a_zygote_that_nobody_needs() -> None:
    """One that only kept templates is not promised again."""
    world = World(preload="never")
    world.kernel.zygote_stays = True  # it stays, but there is no --watch
    world.catch_up()
    world.kernel.die(world.zygote(1), -9)
    world.catch_up()

    assert not world.said("delayed respawn")
    assert not world.zygote(1).alive
