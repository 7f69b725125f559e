"""Rows about signals: which are passed on, to whom, as what, and in which order."""

from __future__ import annotations

import signal
from signal import (
    SIGALRM,
    SIGCHLD,
    SIGCONT,
    SIGHUP,
    SIGINT,
    SIGQUIT,
    SIGRTMIN,
    SIGTERM,
    SIGTSTP,
    SIGTTIN,
    SIGTTOU,
    SIGUSR1,
    SIGUSR2,
)

from tests.init.row import BOTH, TRANSPARENT, Differs, Row
from tests.init.world import FENCE, World, is_pending, state_of
from tests.processes.running import descendants, title, until

NUMBERS = sorted(
    signal.valid_signals()
    # Not to be had; faults; those that stop; the two that have rows of their own, and the fence.
    - {signal.SIGKILL, signal.SIGSTOP}
    - {signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS}
    - {SIGTSTP, SIGTTIN, SIGTTOU, SIGCHLD, SIGUSR2, FENCE}
)
BURST = 1000
NO_SINGLE_CHILD = "always the whole group: a worker's children are never left out; what needs it otherwise calls setsid"
NO_REWRITE = "has no such option"


def _every_signal(world: World) -> object:
    world.python("record()").ready()
    return {number: got for number in NUMBERS if (got := world.passes(number)) != [number]}


def _a_fault_sent_to_it(world: World) -> object:
    world.python("record()", before=("prlimit", "--core=0")).ready()
    world.send(signal.SIGSEGV, FENCE)
    until(lambda: world.process.poll() or ("command", FENCE) in world.said("command"), "it ends, or passes it on")
    return world.process.poll() or [number for _, number in world.said("command")]


def _in_order(world: World) -> object:
    world.python("record()").ready()
    sent = [(SIGUSR1, SIGHUP, SIGALRM, SIGCONT)[number % 4] for number in range(BURST // 2)]
    for number in sent:
        world.send(number)
        world.hear("command")
    return [number for _, number in world.said("command")] == sent


def _none_lost_in_a_storm(world: World) -> object:
    world.python("record()").ready()
    return world.passes(*(SIGRTMIN for _ in range(BURST))) == [SIGRTMIN] * BURST


def _before_the_command_is_there(world: World) -> object:
    world.python("record()", preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {SIGTERM}))
    world.send(SIGTERM)
    world.ready()
    return world.hear("command")[0]


def _default_actions_as_pid_1(world: World) -> object:
    world.start("sh", "-c", "echo begun; while true; do :; done", as_pid_1=True)
    assert world.process.stdout
    world.process.stdout.readline()
    world.send(SIGTERM)
    return world.end()


def _to_the_command_only(world: World) -> object:
    return _two_of_a_group(world, "")


def _to_the_whole_group(world: World) -> object:
    return _two_of_a_group(world, "")


def _not_to_other_groups(world: World) -> object:
    return _two_of_a_group(world, "leave=True")


def _two_of_a_group(world: World, how: str) -> object:
    """Return what a second process has got, once the command has got it."""
    world.python(f"record('second' if child({how}) else 'command')").ready("second")
    assert world.passes(SIGUSR1) == [SIGUSR1]
    return world.received("second")


def _ctrl_c_and_a_shell_that_waits(world: World) -> object:
    _script(world)
    world.send(SIGINT)
    return world.end()


def _a_script_and_its_children(world: World) -> object:
    children = _script(world)
    world.send(SIGTERM)
    code = world.end()
    until(lambda: not any(state_of(pid) not in {"", "Z"} for pid in children), "the end of both")
    return code


def _script(world: World) -> list[int]:
    """Start a script and wait until both of its children have become what they are; return these."""
    world.start("sh", "-c", "sleep 1000 & sleep 1000; true")
    until(lambda: len(_sleeping(world)) == 2, "both children")
    return _sleeping(world)


def _sleeping(world: World) -> list[int]:
    return [pid for pid in descendants(world.pid) if title(pid) == "sleep 1000"]


def _rewritten(world: World) -> object:
    world.python("record()").ready()
    return world.passes(SIGTERM), world.passes(SIGHUP)


def _rewritten_and_dropped(world: World) -> object:
    return _rewritten(world)


def _a_rewrite_that_is_none(world: World) -> object:
    code, _, said = world.start("true").output()
    return code != 0, bool(said)


def _sigchld(world: World) -> object:
    world.python("record()").ready()
    return world.passes(SIGCHLD)


def _suspended(world: World) -> object:
    return [_stop(world, number) for number in (SIGTSTP, SIGTTIN, SIGTTOU)]


def _stop(world: World, number: int) -> object:
    """Return the letters of command and init after a signal that stops, and the end, after SIGCONT to the init."""
    world.pids.clear()
    world.heard.clear()
    world.python(f"signal.signal({FENCE:d}, lambda *_: say('fence')); idle()").ready()
    world.send(number, FENCE)
    until(lambda: state_of(world.pid) == "T" or _has_passed_on_the_fence(world), "it stops, or goes on")
    if state_of(world.pid) == "T":
        until(lambda: state_of(world.command) == "T", "the command is stopped")
    states = state_of(world.command), state_of(world.pid)
    world.send(SIGCONT)
    until(lambda: world.said("fence"), "both go on")
    world.send(SIGTERM)
    return *states, world.end()


def _has_passed_on_the_fence(world: World) -> bool:
    return bool(world.said("fence")) or is_pending(world.command, FENCE)


def _no_handler_for_suspension(world: World) -> object:
    return _a_handler_for_suspension(world)


def _a_handler_for_suspension(world: World) -> object:
    world.python("record()").ready()
    world.send(SIGTSTP, FENCE)
    fence = ("command", FENCE)
    until(lambda: state_of(world.pid) == "T" or fence in world.said("command"), "it stops, or goes on")
    is_stopped = state_of(world.pid) == "T"
    world.send(SIGCONT)
    until(lambda: fence in world.said("command"), "it goes on")
    return world.said("command")[0] == ("command", SIGTSTP), is_stopped


ROWS = (
    Row("Every other signal is passed on, once: 1 to 64", BOTH, _every_signal, {}),
    Row("As PID 1: a command without handlers still ends by SIGTERM", BOTH, _default_actions_as_pid_1, 143),
    Row("SIGCHLD is its own, not the command's", BOTH, _sigchld, []),
    Row(
        "A fault that is its own (SEGV, BUS, ILL, …) is not passed on: it ends by it",
        BOTH,
        _a_fault_sent_to_it,
        -signal.SIGSEGV,
        differs={"dumb-init": Differs("passes on faults too, and never ends by one", [signal.SIGSEGV, FENCE])},
    ),
    Row("In order", TRANSPARENT, _in_order, seen=True),
    Row("None is lost in a storm of signals that queue", TRANSPARENT, _none_lost_in_a_storm, seen=True),
    Row(
        "One that came before the command was started still reaches it",
        TRANSPARENT,
        _before_the_command_is_there,
        15,
        dumb_init="",
        differs={"dumb-init": Differs("may lose it: it signals the command's group before there is one")},
    ),
    Row(
        "To the command alone",
        "tini: Process group killing; dumb-init: --single-child",
        _to_the_command_only,
        [],
        dumb_init="dumb-init --single-child -- or dumb-init -c -- or DUMB_INIT_SETSID=0 dumb-init --",
        differs={"prod-run": Differs(NO_SINGLE_CHILD, [SIGUSR1])},
    ),
    Row(
        "To the command's whole group",
        "tini: Process group killing; dumb-init: Session behavior",
        _to_the_whole_group,
        [SIGUSR1],
        tini="tini -g -- or TINI_KILL_PROCESS_GROUP= tini --",
    ),
    Row("Never to a process that left the group", BOTH, _not_to_other_groups, [], tini="tini -g --"),
    Row(
        "Ctrl-C, and a shell that waits for another command",
        "tini: Process group killing",
        _ctrl_c_and_a_shell_that_waits,
        130,
        tini="tini -g --",
    ),
    Row(
        "SIGTERM to a script with children in fore- and background",
        "dumb-init: Session behavior",
        _a_script_and_its_children,
        143,
        tini="tini -g --",
    ),
    Row(
        "A signal can be passed on as another one",
        "dumb-init: Signal rewriting",
        _rewritten,
        ([SIGQUIT], [SIGHUP]),
        tini="",
        dumb_init="dumb-init --rewrite 15:3 -- or dumb-init -r 15:3 --",
        prod_run="prod-run --rewrite 15:3 --",
        differs={"tini": Differs(NO_REWRITE)},
    ),
    Row(
        "Several can, and some not at all",
        "dumb-init: Signal rewriting",
        _rewritten_and_dropped,
        ([], [SIGUSR1]),
        tini="",
        dumb_init="dumb-init --rewrite 15:0 --rewrite 1:10 --",
        prod_run="prod-run --rewrite 15:0 --rewrite 1:10 --",
        differs={"tini": Differs(NO_REWRITE)},
    ),
    Row(
        "A rewrite that makes no sense is refused, in words",
        "dumb-init: --help",
        _a_rewrite_that_is_none,
        (True, True),
        tini="",
        dumb_init="dumb-init --rewrite 15 -- or dumb-init --rewrite 99:1 -- or dumb-init --rewrite 1:99 --",
        prod_run="prod-run --rewrite 15 -- or prod-run --rewrite 99:1 -- or prod-run --rewrite 1:99 --",
        differs={"tini": Differs(NO_REWRITE)},
    ),
    Row(
        "TSTP, TTIN, TTOU stop the command, and itself; CONT wakes both",
        "dumb-init: Signal rewriting special case",
        _suspended,
        [("T", "T", 143)] * 3,
        differs={
            "tini": Differs(
                "stops the command only, for TSTP, and drops TTIN and TTOU",
                [("T", "S", 143), ("S", "S", 143), ("S", "S", 143)],
            )
        },
    ),
    Row(
        "… even a command that has a handler of its own for it",
        "dumb-init: Signal rewriting special case",
        _no_handler_for_suspension,
        (False, True),
        differs={"tini": Differs("the handler runs; it does not stop itself", (True, False))},
    ),
    Row(
        "… which can be let run, and it stops itself none the less",
        "dumb-init: Signal rewriting special case",
        _a_handler_for_suspension,
        (True, True),
        tini="tini --",
        dumb_init="dumb-init --rewrite 20:20 --",
        prod_run="prod-run --rewrite 20:20 --",
        differs={"tini": Differs("the handler always runs; it does not stop itself", (True, False))},
    ),
)
