"""Rows about processes that lost their parent, and about the init's own parent."""

from __future__ import annotations

import signal

from tests.init.row import BOTH, TRANSPARENT, Differs, Row
from tests.init.world import World, state_of
from tests.processes.running import children_of, processes, until

ORPHANS = 20
# A thousand do it too; what is looked at is that none stays a zombie.
MAKE_ORPHANS = f"""
reading, writing = os.pipe()
for _ in range({ORPHANS}):
    if orphan():
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
say("orphans")
os.read(0, 1)
os.close(writing)
idle()
"""
NO_SUBREAPER = "has no such option: only as PID 1"
ALWAYS_SUBREAPER = "is always one"


def _orphans_as_pid_1(world: World) -> object:
    return _orphans(world, as_pid_1=True)


def _orphans_as_subreaper(world: World) -> object:
    return _orphans(world, as_pid_1=False)


def _orphans(world: World, *, as_pid_1: bool) -> object:
    """Return whether it adopted them, and whether all were reaped."""
    world.python(MAKE_ORPHANS, stdin=-1, as_pid_1=as_pid_1)
    world.hear("orphans")
    parent = world.pid
    is_parent = len(_children(parent)) == ORPHANS + 1
    assert is_parent or len(_children(parent)) == 1
    world.let_go()
    until(lambda: len(_children(parent)) == 1 or not is_parent, "no orphan, and no zombie, is left")
    return is_parent


def _orphans_elsewhere(world: World) -> object:
    return _orphans(world, as_pid_1=False)


def _a_warning_about_zombies(world: World) -> object:
    return b"not running as PID 1" in world.start("true").output()[2]


def _no_warning_as_pid_1(world: World) -> object:
    return world.start("true", as_pid_1=True).output()


def _no_warning_as_subreaper(world: World) -> object:
    return world.start("true").output()


def _a_warning_for_each_orphan(world: World) -> object:
    world.python("if orphan(): os._exit(0)\nsay('made'); until_let_go()", stdin=-1, as_pid_1=True).ready()
    parent = world.pid
    until(lambda: len(_children(parent)) == 1, "it was reaped")
    world.let_go()
    return world.output()[2].count(b"Reaped zombie process")


def _the_end_is_not_mistaken(world: World) -> object:
    world.python("if orphan(): os._exit(9)\nsay('made'); until_let_go()", stdin=-1, as_pid_1=True).ready()
    parent = world.pid
    until(lambda: len(_children(parent)) == 1, "it was reaped")
    world.let_go()
    return world.end()


def _its_parents_death(world: World) -> object:
    world.python("record()", before=("sh", "-c", '"$@" & wait', "sh")).ready()
    init = children_of(world.process.pid)[0]
    world.process.kill()
    first = world.hear("command")[0]
    return first, state_of(init) not in {"", "Z"}


def _one_below_the_other(world: World) -> object:
    return world.start(*world.words, "echo", "oh, hi").output()


def _signals_through_both(world: World) -> object:
    world.start(*world.words, *world.inside("record()")).ready()
    return world.passes(signal.SIGHUP, signal.SIGUSR1)


def _nobody_between(world: World) -> object:
    world.python("idle()").ready()
    return _children(world.pid) == [world.command]


def _children(parent: int) -> list[int]:
    """Return the PIDs of the children of a process, zombies too."""
    return [pid for pid, its_parent, _ in processes() if its_parent == parent]


ROWS = (
    Row("Orphans are adopted and reaped, as PID 1", BOTH, _orphans_as_pid_1, seen=True),
    Row(
        "… and as a subreaper",
        "tini: Subreaping",
        _orphans_as_subreaper,
        seen=True,
        tini="tini -s -- or TINI_SUBREAPER= tini --",
        differs={"dumb-init": Differs(NO_SUBREAPER, seen=False)},
    ),
    Row(
        "Not PID 1 and no subreaper: a warning",
        "tini: Subreaping",
        _a_warning_about_zombies,
        seen=True,
        differs={
            "dumb-init": Differs("says nothing", seen=False),
            "prod-run": Differs(ALWAYS_SUBREAPER, seen=False),
        },
    ),
    Row("Nothing is said in a good run, as PID 1", "tini: Subreaping", _no_warning_as_pid_1, (0, b"", b"")),
    Row(
        "… nor as a subreaper",
        "tini: Subreaping",
        _no_warning_as_subreaper,
        (0, b"", b""),
        tini="tini -s -- or TINI_VERBOSITY=0 tini --",
    ),
    Row(
        "A warning for each orphan that was reaped",
        "tini: -h, -w",
        _a_warning_for_each_orphan,
        1,
        tini="tini -w --",
        dumb_init="",
        prod_run="",
        differs={
            "dumb-init": Differs("no option; -v says every child"),
            "prod-run": Differs("counted, not warned about: `orphans` in `prod-ctl status` and in the metrics"),
        },
    ),
    Row("The end of an orphan is not the command's", BOTH, _the_end_is_not_mistaken, 0),
    Row(
        "A signal for the death of its own parent; it is passed on",
        "tini: Parent Death Signal",
        _its_parents_death,
        (15, True),
        tini="tini -p SIGTERM --",
        dumb_init="",
        prod_run="prod-run --parent-death-signal SIGTERM --",
        differs={"dumb-init": Differs("has no such option")},
    ),
    Row(
        "One below the other: output and exit code",
        "dumb-init: Session behavior",
        _one_below_the_other,
        (0, b"oh, hi\n", b""),
        tini="tini -s --",
        dumb_init="dumb-init --single-child -- or dumb-init --",
    ),
    Row(
        "One below the other: signals",
        TRANSPARENT,
        _signals_through_both,
        [signal.SIGHUP, signal.SIGUSR1],
        dumb_init="dumb-init --single-child -- or dumb-init --",
    ),
    Row("The command is its child, and the only one", TRANSPARENT, _nobody_between, seen=True),
)
