"""Rows about what the command finds: as if nobody stood before it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from tests.init.row import TRANSPARENT, Differs, Row
from tests.init.world import World

WORDS = (b"", b"two words", b"\xff\xfe", b"--", b"-x", b"line\nline", b"$HOME", b"*")
VARIABLES = {b"A": b"\xff", b"EMPTY": b"", b"LINES": b"a\nb", b"Z": b"=", b"a-b": b"odd", b"PATH": os.environb[b"PATH"]}
PRIVATE = {
    "NOTIFY_SOCKET": "/nonexistent",
    "LISTEN_FDS": "1",
    "LISTEN_PIDFDID": "1",
    "WATCHDOG_USEC": "1000000",
    "PROD_RUN_LOG_LEVEL": "error",
}
FILES = ("status", "limits", "oom_score_adj", "personality", "coredump_filter", "loginuid", "cgroup")
# Of /proc/self/status: what no two processes share.
VARYING = (
    "Pid",
    "Tgid",
    "PPid",
    "NS",
    "Vm",
    "Rss",
    "SigQ",
    "voluntary",
    "nonvoluntary",
    "Speculation",
    "Hugetlb",
    "FDSize",
)
UNUSUAL = (
    *("prlimit", "--nofile=300:400", "--core=0:0", "nice", "-n", "3", "taskset", "-c", "0"),
    *("sh", "-c", 'umask 027; echo 100 >/proc/self/oom_score_adj; exec "$@"', "sh"),
)
SIZE = 1 << 20


def _arguments(world: World) -> object:
    world.start(*world.inside("say('words', [os.fsencode(word).hex() for word in sys.argv[3:]])"), *WORDS)
    return tuple(bytes.fromhex(word) for word in world.hear("words")[0]) == WORDS


def _its_name(world: World) -> object:
    (world.folder / "link").symlink_to("/bin/sh")
    return world.start("./link", "-c", "echo $0").output()[1]


def _environment(world: World) -> object:
    given = b"".join(b"%s=%s\0" % item for item in VARIABLES.items())
    return world.start("cat", "/proc/self/environ", env=VARIABLES).output()[1] == given


def _variables_for_others(world: World) -> object:
    return _seen_of(world, PRIVATE)


def _variables_for_others_without_a_manager(world: World) -> object:
    return _seen_of(world, {name: PRIVATE[name] for name in sorted(PRIVATE) if name != "NOTIFY_SOCKET"})


def _seen_of(world: World, given: dict[str, str]) -> object:
    world.environment.update(given)
    seen = world.start("env").output()[1].decode().splitlines()
    return sorted(name for name, value in given.items() if f"{name}={value}" in seen)


def _limits_and_manners(world: World) -> object:
    return _differences(world, *UNUSUAL)


def _signal_mask(world: World) -> object:
    return _differences(world, "env", "--block-signal=USR1,TERM,RTMIN+1").keys()


def _ignored_signals(world: World) -> object:
    return _differences(world, "env", "--ignore-signal=HUP,USR1,TTOU,RTMIN").keys()


def _ignored_sigpipe(world: World) -> object:
    return _differences(world, "env", "--ignore-signal=PIPE,XFSZ").keys()


def _ignored_sigchld(world: World) -> object:
    world.start("sh", "-c", "exit 4", before=("env", "--ignore-signal=CHLD"))
    return world.end()


def _standard_input(world: World) -> object:
    given = os.urandom(SIZE)
    world.start("cat", stdin=subprocess.PIPE)
    return world.process.communicate(given)[0] == given


def _the_same_files(world: World) -> object:
    paths = [world.folder / name for name in ("in", "out", "err")]
    code = "for n in 0 1 2; do readlink /proc/$$/fd/$n; done"
    with paths[0].open("wb+") as first, paths[1].open("wb") as second, paths[2].open("wb") as third:
        world.start("sh", "-c", code, stdin=first, stdout=second, stderr=third).end()
    return paths[1].read_text().splitlines() == list(map(str, paths))


def _closed_standard_files(world: World) -> object:
    said = world.folder / "said"
    code = "l=; for n in 0 1 2; do [ -e /proc/$$/fd/$n ] && l=$l$n; done; echo open: $l >said"
    closed = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    return world.start("sh", "-c", code, before=closed).end(), said.read_text() if said.exists() else ""


def _descriptors(world: World) -> object:
    return _open_ones(world)[0]


def _no_more_descriptors(world: World) -> object:
    return _open_ones(world)[1]


def _open_ones(world: World) -> tuple[object, object]:
    """Return whether a descriptor that the caller passes is there, and those that nobody passed."""
    with (world.folder / "open").open("wb") as file:
        os.dup2(file.fileno(), 77)
        try:
            world.start("ls", "/proc/self/fd", pass_fds=(77,))
        finally:
            os.close(77)
        seen = set(world.output()[1].decode().split())
    return "77" in seen, sorted(seen - {"0", "1", "2", "3", "77"})  # 3 is of ls itself


def _directory(world: World) -> object:
    world.python("say('directory', os.getcwd()); record()").ready()
    assert world.heard[0] == ("directory", str(world.folder))
    world.passes()  # an init that passes signals on has arrived where it stays
    return str(Path(f"/proc/{world.pid}/cwd").readlink()) == "/"


def _group_and_session(world: World) -> object:
    world.python("say('leads', [os.getpgrp() == os.getpid(), os.getsid(0) == os.getpid()])")
    return world.hear("leads")[0]


def _differences(world: World, *before: str) -> dict[str, tuple[str, str]]:
    """Return what `/proc/self` says differently below the init."""
    command = ("cat", *(f"/proc/self/{name}" for name in FILES))
    options: dict[str, Any] = {"cwd": world.folder, "env": world.environment, "stdin": subprocess.DEVNULL}
    plain = _facts(subprocess.run((*before, *command), capture_output=True, **options).stdout)
    below = _facts(world.start(*command, before=before).output()[1])
    assert plain["SigBlk"]
    return {name: (plain[name], below.get(name, "")) for name in plain if plain[name] != below.get(name)}


def _facts(said: bytes) -> dict[str, str]:
    lines = [line.partition(":" if ":" in line else "  ") for line in said.decode(errors="replace").splitlines()]
    return {name: value.strip() for name, _, value in lines if not name.startswith(VARYING)}


ROWS = (
    Row("Its words, byte for byte", TRANSPARENT, _arguments, seen=True),
    Row("Its own name as it was written", TRANSPARENT, _its_name, b"./link\n"),
    Row("Its environment, byte for byte, in order, and nothing more", TRANSPARENT, _environment, seen=True),
    Row(
        "Variables that are for the init and for systemd's first process",
        TRANSPARENT,
        _variables_for_others,
        sorted(PRIVATE),
        differs={"prod-run": Differs("are not the command's, which gets a NOTIFY_SOCKET of its own", [])},
    ),
    Row(
        "… also without a manager to tell",
        TRANSPARENT,
        _variables_for_others_without_a_manager,
        sorted(set(PRIVATE) - {"NOTIFY_SOCKET"}),
        differs={"prod-run": Differs("are not the command's", [])},
    ),
    Row(
        "Its directory; the init itself is in `/`, and keeps no file system busy",
        TRANSPARENT,
        _directory,
        seen=True,
        differs={"tini": Differs("stays where it was started", seen=False)},
    ),
    Row("Limits, priority, CPUs, umask, user, capabilities, …", TRANSPARENT, _limits_and_manners, {}),
    Row(
        "Blocked signals stay blocked",
        TRANSPARENT,
        _signal_mask,
        set(),
        differs={"dumb-init": Differs("unblocks all", {"SigBlk"})},
    ),
    Row(
        "Ignored signals stay ignored (`nohup`)",
        TRANSPARENT,
        _ignored_signals,
        set(),
        differs={"dumb-init": Differs("sets all to their defaults", {"SigIgn"})},
    ),
    Row(
        "… also SIGPIPE and SIGXFSZ",
        TRANSPARENT,
        _ignored_sigpipe,
        set(),
        differs={
            "dumb-init": Differs("sets all to their defaults", {"SigIgn"}),
            "prod-run": Differs(
                "Python ignores these two itself, so nobody knows what was; they are the default's", {"SigIgn"}
            ),
        },
    ),
    Row(
        "A caller that ignores SIGCHLD changes nothing",
        TRANSPARENT,
        _ignored_sigchld,
        4,
        tini="",
        differs={"tini": Differs("never notices the end, wait(2), and hangs")},
    ),
    Row("Its standard input, a megabyte through it", TRANSPARENT, _standard_input, seen=True),
    Row("Its standard files are the very ones", TRANSPARENT, _the_same_files, seen=True),
    Row(
        "Closed ones stay closed",
        TRANSPARENT,
        _closed_standard_files,
        (0, "open:\n"),
        differs={"tini": Differs("does not start without a standard input", (1, ""))},
    ),
    Row("Other descriptors that the caller passes", TRANSPARENT, _descriptors, seen=True),
    Row("… and none of the init's own", TRANSPARENT, _no_more_descriptors, []),
    Row(
        "A process group of its own, or a session",
        "dumb-init: Session behavior",
        _group_and_session,
        [True, False],
        differs={"dumb-init": Differs("a session; the others leave the terminal's session as it is", [True, True])},
    ),
)
