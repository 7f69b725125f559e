"""Rows about what an init itself says: version, help, more words, and how its own options end."""

from __future__ import annotations

from tests.init.row import BOTH, TINI, Differs, Row
from tests.init.world import World


def _version(world: World) -> object:
    return _asked(world)


def _help(world: World) -> object:
    return _asked(world)


def _license(world: World) -> object:
    return _asked(world)


def _asked(world: World) -> object:
    code, out, said = world.start().output()
    return code, bool(out + said)


def _an_option_that_is_none(world: World) -> object:
    code, out, said = world.start("true").output()
    return code != 0, bool(out + said)


def _without_two_dashes(world: World) -> object:
    return world.start("echo", "hi").output()[:2]


def _without_two_dashes_but_with_options(world: World) -> object:
    return world.start("sh", "-c", "exit 3").end()


def _a_static_build(world: World) -> object:
    return _asked(world)


def _after_two_dashes(world: World) -> object:
    return world.start("echo", "-v", "--", "--help").output()[1].splitlines()[-1]


def _more_words(world: World) -> object:
    code, out, said = world.start("echo", "hi", as_pid_1=True).output()
    return code, bool((out + said).replace(b"hi\n", b""))


def _an_entrypoint(world: World) -> object:
    script = world.folder / "docker-entrypoint.sh"
    script.write_text('#!/bin/sh\nset -e\nshift\nexec "$@"\n')
    script.chmod(0o755)
    world.start(script, "first", "sh", "-c", "kill -TERM $PPID; sleep 60; true")
    return world.end()


def _a_first_line(world: World) -> object:
    script = world.folder / "script"
    words = " ".join(world.words)
    script.write_text(f"#!/usr/bin/env -S {words} /bin/sh\necho $0 $1\nexit 6\n")
    script.chmod(0o755)
    world.words = []
    code, out, _ = world.start(script, "word").output()
    return code, out == b"%s word\n" % bytes(script)


NEEDS_DASHES = "without `--` the first word is a Python target: `prod-run myapp:main`"
ROWS = (
    Row(
        "Its version, exit code 0",
        BOTH,
        _version,
        (0, True),
        tini="tini --version",
        dumb_init="dumb-init --version or dumb-init -V",
        prod_run="prod-run --version",
    ),
    Row(
        "Its options, exit code 0",
        BOTH,
        _help,
        (0, True),
        tini="tini -h",
        dumb_init="dumb-init --help or dumb-init -h",
        prod_run="prod-run --help",
    ),
    Row(
        "Its licence, exit code 0",
        "tini: -h, -l",
        _license,
        (0, True),
        tini="tini -l",
        dumb_init="",
        prod_run="",
        differs={"dumb-init": Differs("no option"), "prod-run": Differs("no option: the package carries its licence")},
    ),
    Row(
        "An option, or a value of one, that there is not: refused, in words",
        BOTH,
        _an_option_that_is_none,
        (True, True),
        tini="tini -Z -- or tini -e many -- or tini -p SIGNONE --",
        dumb_init="dumb-init -Z --",
        prod_run="prod-run -Z -- or prod-run --success-exit-status many -- or prod-run --parent-death-signal SIGNONE --",
    ),
    Row(
        "More words about what it does",
        "tini: Verbosity; dumb-init: --help",
        _more_words,
        (0, True),
        tini="tini -v -- or tini -vv -- or tini -vvv -- or TINI_VERBOSITY=3 tini --",
        dumb_init="dumb-init -v -- or dumb-init --verbose -- or DUMB_INIT_DEBUG=1 dumb-init --",
        prod_run="prod-run --log-level debug --",
    ),
    Row(
        "A static build",
        "tini: Statically-Linked Version",
        _a_static_build,
        (0, True),
        tini="tini-static --version",
        dumb_init="dumb-init --version",
        prod_run="",
        differs={"prod-run": Differs("is a Python program: the interpreter is what must be there")},
    ),
    Row("After `--` no word is its own", TINI, _after_two_dashes, b"-v -- --help"),
    Row(
        "`--` may be left out",
        "tini: Using Tini; dumb-init: Usage",
        _without_two_dashes,
        (0, b"hi\n"),
        tini="tini",
        dumb_init="dumb-init",
        prod_run="",
        differs={"prod-run": Differs(NEEDS_DASHES)},
    ),
    Row(
        "… before a command with options, too",
        "tini: Using Tini; dumb-init: Usage",
        _without_two_dashes_but_with_options,
        3,
        tini="tini",
        dumb_init="dumb-init",
        prod_run="",
        differs={"tini": Differs("takes them for its own", 1), "prod-run": Differs(NEEDS_DASHES)},
    ),
    Row("With an entrypoint that ends by exec", "tini: Existing Entrypoint", _an_entrypoint, 143),
    Row(
        "As the first line of a script",
        "dumb-init: Session behavior",
        _a_first_line,
        (6, True),
        dumb_init="dumb-init or dumb-init --",
    ),
)
