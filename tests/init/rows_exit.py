"""Rows about the end: exit codes, commands that cannot be run, and what is left behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess

from tests.init.row import BOTH, DUMB_INIT, TINI, Differs, Row
from tests.init.world import FENCE, World, state_of
from tests.processes.running import until

OTHERS = 8  # a second SIGTERM right after the first is only seen if one of them was quick

# A family that ignores SIGTERM, one below the other.
DEAF = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if child():
    if child():
        idle("grandchild")
    os.waitpid(-1, 0)
    sys.exit()
until_let_go()
"""


def _exit_codes(world: World) -> object:
    return [world.start("sh", "-c", f"exit {code}").end() for code in (0, 1, 126, 255)]


def _ended_by_a_signal(world: World) -> object:
    return [world.start("sh", "-c", f"kill -{number} $$").end() for number in (15, 9, 64)]


def _one_code_remapped(world: World) -> object:
    return [world.start("sh", "-c", f"exit {code}").end() for code in (143, 0, 42)]


def _several_codes_remapped(world: World) -> object:
    return [world.start("sh", "-c", f"exit {code}").end() for code in (143, 42, 0, 1)]


def _a_code_that_is_none(world: World) -> object:
    return _refusal(world, "true")


def _not_found(world: World) -> object:
    code, _, said = world.start("no-such-command").output()
    return code, b"no-such-command" in said


def _not_executable(world: World) -> object:
    (world.folder / "script").write_text("#!/bin/sh\n")
    return [world.start(world.folder / "script").end(), world.start(world.folder).end()]


def _a_script_without_a_first_line(world: World) -> object:
    script = world.folder / "script"
    script.write_text("exit 7\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return world.start(script).end()


def _no_command(world: World) -> object:
    return _refusal(world)


def _first_child_ends_it(world: World) -> object:
    return world.python("if child(leave=True): idle()\nsys.exit(5)").end()


def _rest_of_the_group_is_told(world: World) -> object:
    world.python("record('other', signal.SIGTERM) if child() else until_let_go()", stdin=subprocess.PIPE).ready("other")
    world.let_go()
    return world.end(), world.received("other")


def _rest_is_given_time(world: World) -> object:
    return _last_words(world, "child()")


def _daemons_are_told(world: World) -> object:
    return _last_words(world, "orphan(leave=True)")


def _last_words(world: World, who: str) -> object:
    """Return what others could say before PID 1 has ended, and all others with it."""
    names = [f"other {number}" for number in range(OTHERS)]
    code = f"for name in {names}:\n if {who}: last_words(name)\nuntil_let_go()"
    world.python(code, stdin=subprocess.PIPE, as_pid_1=True).ready(*names)
    world.let_go()
    world.end()
    return [how for _, how in world.said("finished")]


def _nobody_stays_behind(world: World) -> object:
    world.python(DEAF, stdin=subprocess.PIPE).ready("grandchild")
    world.let_go()
    return world.end(), state_of(world.pids["grandchild"]) not in {"", "Z"}


def _a_command_that_ignores_sigterm(world: World) -> object:
    world.python("record()").ready()
    said = world.passes(signal.SIGTERM)
    world.send(signal.SIGUSR2)
    return said, world.end()


def _a_limit_for_the_end(world: World) -> object:
    world.python("record()").ready()
    world.send(signal.SIGTERM)
    return world.end()


def _it_is_killed(world: World) -> object:
    world.python("record()").ready()
    world.send(signal.SIGKILL)
    code = world.end()
    os.kill(world.command, FENCE)
    until(lambda: world.said("command") or state_of(world.command) in {"", "Z"}, "it answers, or is gone")
    return code, bool(world.said("command"))


def _refusal(world: World, *command: str) -> object:
    code, out, said = world.start(*command).output()
    return code != 0, bool(out + said)


ROWS = (
    Row("The exit code is the command's, 0 to 255", BOTH, _exit_codes, [0, 1, 126, 255]),
    Row("A command that a signal N ended: 128 + N", BOTH, _ended_by_a_signal, [143, 137, 192]),
    Row(
        "One exit code can be made a 0, others stay",
        "tini: Remapping exit codes",
        _one_code_remapped,
        [0, 0, 42],
        tini="tini -e 143 --",
        dumb_init="",
        prod_run="prod-run --success-exit-status 143 --",
        differs={"dumb-init": Differs("has no such option")},
    ),
    Row(
        "Several exit codes can",
        "tini: Remapping exit codes",
        _several_codes_remapped,
        [0, 0, 0, 1],
        tini="tini -e 143 -e 42 --",
        dumb_init="",
        prod_run="prod-run --success-exit-status 143 --success-exit-status 42 --",
        differs={"dumb-init": Differs("has no such option")},
    ),
    Row(
        "An exit code above 255 is refused, in words",
        "tini: -h",
        _a_code_that_is_none,
        (True, True),
        tini="tini -e 256 --",
        dumb_init="",
        prod_run="prod-run --success-exit-status 256 --",
        differs={"dumb-init": Differs("has no such option")},
    ),
    Row(
        "A command that is not there: 127, and its name on stderr",
        TINI,
        _not_found,
        (127, True),
        differs={"dumb-init": Differs("2 for whatever cannot be executed; a shell has 127 and 126", (2, True))},
    ),
    Row(
        "A file that may not be executed, a directory: 126",
        TINI,
        _not_executable,
        [126, 126],
        differs={"dumb-init": Differs("2 for whatever cannot be executed; a shell has 127 and 126", [2, 2])},
    ),
    Row("A script without `#!` is a shell's, as execvp(3) has it", BOTH, _a_script_without_a_first_line, 7),
    Row("No command: refused, in words", BOTH, _no_command, (True, True)),
    Row(
        "The end of the first child is the end, whoever else is left",
        "tini: Understanding Tini",
        _first_child_ends_it,
        5,
    ),
    Row(
        "At the end, what is left of the command's group gets SIGTERM",
        "dumb-init: What dumb-init does",
        _rest_of_the_group_is_told,
        (0, [15]),
        differs={"tini": Differs("leaves that to the end of the container, which is SIGKILL", (0, []))},
    ),
    Row(
        "… and the time to finish: as PID 1 the end is SIGKILL for all",
        DUMB_INIT,
        _rest_is_given_time,
        [],
        differs={"prod-run": Differs("waits for it, up to 5 s", ["told once"] * OTHERS)},
    ),
    Row(
        "… and the same for daemons, which have left the group",
        DUMB_INIT,
        _daemons_are_told,
        [],
        differs={"prod-run": Differs("whatever it has adopted gets SIGTERM and up to 5 s", ["told once"] * OTHERS)},
    ),
    Row(
        "Whoever ignores that SIGTERM stays behind, outside a PID namespace",
        BOTH,
        _nobody_stays_behind,
        (0, True),
        differs={"prod-run": Differs("gets SIGKILL after 5 s, and so do its children", (0, False))},
        is_slow=True,
    ),
    Row(
        "A command that goes on after SIGTERM is waited for",
        BOTH,
        _a_command_that_ignores_sigterm,
        ([15], 3),
    ),
    Row(
        "… up to a limit",
        "prod-run",
        _a_limit_for_the_end,
        137,
        tini="",
        dumb_init="",
        prod_run="prod-run --drain-timeout 200ms --",
        differs={
            "tini": Differs("waits for ever; the engine's SIGKILL ends it"),
            "dumb-init": Differs("waits for ever; the engine's SIGKILL ends it"),
        },
    ),
    Row(
        "Killed with SIGKILL, outside a PID namespace: the command lives on",
        BOTH,
        _it_is_killed,
        (-signal.SIGKILL, True),
        differs={"prod-run": Differs("nothing stays behind: PR_SET_PDEATHSIG", (-signal.SIGKILL, False))},
    ),
)
