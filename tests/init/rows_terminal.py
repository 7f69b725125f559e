"""Rows about terminals: `docker run -it`, and a shell in which a person starts the init."""

from __future__ import annotations

import os
import shlex
from signal import SIGWINCH

from tests.init.row import TRANSPARENT, Differs, Row
from tests.init.world import FENCE, SHELL, Terminal, World, is_pending, state_of
from tests.processes.running import children_of, title, until


def _in_the_foreground(world: World) -> object:
    Terminal(world).start(*world.inside("say('terminal', terminal())"))
    return world.hear("terminal")[0]


def _what_is_typed(world: World) -> object:
    terminal = Terminal(world)
    terminal.start("sh", "-c", "read word; exit $word")
    terminal.type("9\n")
    return world.end()


def _ctrl_c(world: World) -> object:
    terminal = Terminal(world)
    terminal.start(*world.inside("idle()")).ready()
    terminal.type("\x03")
    return world.end()


def _nothing_from_the_hand_off(world: World) -> object:
    Terminal(world).start(*world.inside("record()")).ready()
    return world.passes()


def _a_new_size(world: World) -> object:
    terminal = Terminal(world)
    terminal.start(*world.inside("record()")).ready()
    terminal.resize(50, 132)
    return world.received("command")


def _hung_up(world: World) -> object:
    terminal = Terminal(world)
    terminal.start(*world.inside("idle()")).ready()
    terminal.hang_up()
    return world.end()


def _a_shell_below(world: World) -> object:
    terminal = Terminal(world)
    terminal.start(*SHELL)
    said = terminal.see("$ ")
    shell = terminal.foreground()
    terminal.type("sleep 1000\n")
    until(lambda: title(terminal.foreground()) == "sleep 1000", "the job is in the foreground")
    terminal.type("\x1a")
    terminal.see("Stopped")
    terminal.see("$ ")
    terminal.type("fg\n")
    until(lambda: terminal.foreground() != shell, "the job is in the foreground again")
    terminal.type("\x03")
    terminal.see("$ ")
    terminal.type("exit 7\n")
    return world.end(), "no job control" in said


def _suspended_from_a_shell(world: World) -> object:
    terminal = Terminal(world)
    terminal.shell()
    init = _typed(world, terminal, f"signal.signal({FENCE:d}, lambda *_: say('fence')); idle()")
    terminal.type("\x1a")
    until(lambda: state_of(world.command) == "T", "the command is stopped")
    os.kill(init, FENCE)
    until(lambda: state_of(init) == "T" or is_pending(world.command, FENCE), "it stops, or goes on")
    if state_of(init) != "T":
        return "the shell goes on waiting"
    terminal.see("Stopped")
    return _woken(world, terminal, init)


def _woken(world: World, terminal: Terminal, init: int) -> object:
    """Return what the shell says of the job when it has been in the foreground again, and Ctrl-C ended it."""
    terminal.see("$ ")
    terminal.type("fg\n")
    until(lambda: "T" not in {state_of(init), state_of(world.command)}, "both go on")
    until(lambda: world.said("fence"), "what came meanwhile has arrived")
    terminal.type("\x03")
    terminal.see("$ ")
    terminal.type("echo code $?.\n")
    terminal.see("\r\ncode ")
    return int(terminal.see("."))


def _in_the_background(world: World) -> object:
    terminal = Terminal(world)
    terminal.shell()
    shell = terminal.foreground()
    _typed(world, terminal, "idle()", " &")
    return terminal.foreground() == shell


def _given_back(world: World) -> object:
    terminal = Terminal(world)
    words = shlex.join(world.words)
    world.words = []
    terminal.start("sh", "-c", f"{words} true; read word && exit $word; exit 99")
    terminal.type("9\n")
    return world.end()


def _before_another(world: World) -> object:
    """Return what the second of a pipeline has of the terminal while the first runs below the init."""
    first = (*world.words, *world.inside("os.write(1, b'x'); idle()"))
    _piped(world, first, world.inside("os.read(0, 1); say('terminal', terminal())"))
    return world.hear("terminal")[0]


def _behind_another(world: World) -> object:
    """Return what the second of a pipeline, below the init, reads from the terminal."""
    code = "tty = os.open('/dev/tty', os.O_RDWR); say('asks'); say('typed', os.read(tty, 9).decode())"
    terminal = _piped(world, ("true",), (*world.words, *world.inside(code)))
    world.hear("asks")
    terminal.type("9\n")
    return world.hear("typed")[0]


def _substituted(world: World) -> object:
    """Return what it reads from the terminal in a shell's `$(…)`, where nobody hears of SIGTTIN."""
    terminal = Terminal(world)
    terminal.shell()
    code = "say('asks'); tty = os.open('/dev/tty', os.O_RDWR); say('typed', os.read(tty, 9).decode())"
    terminal.type(f"seen=$(true | {shlex.join(map(str, (*world.words, *world.inside(code))))})\n")
    world.hear("asks")
    terminal.type("9\n")
    return world.hear("typed")[0]


def _piped(world: World, *commands: tuple[object, ...]) -> Terminal:
    terminal = Terminal(world)
    terminal.shell()
    terminal.type(" | ".join(shlex.join(map(str, words)) for words in commands) + "\n")
    return terminal


def _typed(world: World, terminal: Terminal, code: str, more: str = "") -> int:
    """Start the init by typing, below a shell; return its PID."""
    shell = terminal.foreground()
    terminal.type(shlex.join([*world.words, *map(str, world.inside(code))]) + more + "\n")
    world.ready()
    return children_of(shell)[0]


DOCKER = "both: transparent (`docker run -it`)"
ROWS = (
    Row("A controlling terminal, and its foreground", DOCKER, _in_the_foreground, [True, True]),
    Row("It reads what is typed", DOCKER, _what_is_typed, 9),
    Row("Ctrl-C reaches it", DOCKER, _ctrl_c, 130),
    Row("A new size reaches it, once", DOCKER, _a_new_size, [SIGWINCH]),
    Row("The end of the terminal reaches it", DOCKER, _hung_up, 129),
    Row("No SIGHUP, no SIGCONT from the hand-off", DOCKER, _nothing_from_the_hand_off, []),
    Row("A shell has job control: Ctrl-Z, `fg`, Ctrl-C", DOCKER, _a_shell_below, (7, False)),
    Row(
        "Started in a shell: Ctrl-Z gives the shell back, `fg` goes on, and Ctrl-C ends it",
        "dumb-init: Signal rewriting special case",
        _suspended_from_a_shell,
        130,
        differs={"tini": Differs("stops the command only", "the shell goes on waiting")},
    ),
    Row(
        "Started in the background, it does not take the terminal",
        TRANSPARENT,
        _in_the_background,
        seen=True,
        differs={"tini": Differs("takes it", seen=False)},
    ),
    Row(
        "Before a pager, which keeps the terminal: `… | less`",
        TRANSPARENT,
        _before_another,
        [True, True],
        differs={"tini": Differs("takes it, and the pager is stopped when it reads", [True, False])},
    ),
    Row(
        "As a pager, which gets the terminal when it asks: `cat file | …`",
        TRANSPARENT,
        _behind_another,
        "9\n",
        tini="",
        dumb_init="",
        differs={
            "tini": Differs("never gives it, and the pager is stopped for good"),
            "dumb-init": Differs("its session has no terminal"),
        },
    ),
    Row(
        "… in a shell's `$(cat file | …)` too",
        TRANSPARENT,
        _substituted,
        "9\n",
        tini="",
        dumb_init="",
        differs={
            "tini": Differs("never gives it, and the pager reads nothing"),
            "dumb-init": Differs("its session has no terminal"),
        },
    ),
    Row(
        "The terminal is given back at the end",
        TRANSPARENT,
        _given_back,
        9,
        differs={"tini": Differs("what comes after it is in the background, and reads nothing", 99)},
    ),
)
