"""Commands with more than tini and dumb-init have: copies, restarts, readiness, sockets, reloads."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher.errors import Exit
from tests.processes.commands import is_serving
from tests.processes.running import Running, children_of, environ, is_alive, title, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.processes.commands import Ctl


def test_copies_are_counted_scaled_and_reloaded(start: Callable[..., Running], ctl: Ctl) -> None:
    """The control socket is there; a reload starts new copies and then ends the old ones with SIGTERM."""
    script = "trap 'echo told $$; exit' TERM; echo there $$; while :; do sleep 0.1; done"
    running = start("-w", 2, "--", "sh", "-c", script)
    until(lambda: is_serving(ctl, "serving 2/2"), "two copies")
    assert running.count("there", 2) == 2
    first = [line["text"].split()[1] for line in running.lines if "there" in line["text"]]
    assert ctl("reload", "--wait").returncode == 0
    until(lambda: {pid for pid in first if f"told {pid}" in running.text()} == set(first), "both are told")
    assert ctl("scale", "+1").returncode == 0
    until(lambda: is_serving(ctl, "generation 2 serving 3/3"), "three copies")

    assert not any("[observer]" in title(pid) or "[zygote]" in title(pid) for pid in children_of(running.pid))
    assert running.stop() == 0
    assert "prod-run:" not in running.text()


def test_a_failed_copy_is_replaced(start: Callable[..., Running], ctl: Ctl) -> None:
    """Under on-failure; a warning says so on stderr."""
    running = start("--restart", "on-failure", "--", "sleep", "1000")
    until(lambda: is_serving(ctl, "serving 1/1"), "the copy")
    (pid,) = children_of(running.pid)
    os.kill(pid, signal.SIGKILL)
    running.wait_for("prod-run: lost worker slot=0 generation=1")
    until(lambda: children_of(running.pid) and children_of(running.pid) != [pid], "another one")

    assert running.stop() == 0


def test_an_explicit_name_is_one_live_instances_also_of_a_command(start: Callable[..., Running], ctl: Ctl) -> None:
    """The second one ends with 69 and the PID; a command without a name of its own has no runtime directory."""
    first = start("--name", "cache", "--", "sleep", "1000")
    until(lambda: is_serving(ctl, "serving 1/1"), "the copy")
    second = start("--name", "cache", "--", "sleep", "1000")

    assert second.wait() == Exit.UNAVAILABLE
    assert f"cache: a running prod-run already has this name: PID {first.pid}" in second.text()
    assert first.stop() == 143


@pytest.mark.parametrize(
    ("restart", "script", "code"),
    [
        ("never", "exit 3", 3),
        ("never", "kill -TERM $$", 143),
        ("on-failure", "exit 0", 0),
        ("on-failure", "exit 3", 70),
        ("always", "exit 0", 70),
    ],
)
def test_the_end_of_all_copies_is_the_end(start: Callable[..., Running], restart: str, script: str, code: int) -> None:
    """The first code that is not 0 under never; a start that fails is 70."""
    assert start("-w", 2, "--restart", restart, "--", "sh", "-c", script).wait() == code


def test_success_of_several_copies(start: Callable[..., Running]) -> None:
    """What counts as 0 is work that is done."""
    words = ("-w", 2, "--restart", "on-failure", "--success-exit-status", "TERM,3", "--", "sh", "-c", "sleep 1; exit 3")

    assert start(*words).wait() == 0


def test_a_stop_passes_the_exit_code_on_under_never(start: Callable[..., Running], ctl: Ctl) -> None:
    """As of one copy alone."""
    running = start("-w", 2, "--restart", "never", "--", "sleep", "1000")
    until(lambda: is_serving(ctl, "serving 2/2"), "both")

    assert running.stop() == 143


def test_a_command_that_says_ready_is_ready(start: Callable[..., Running]) -> None:
    """Each copy has a NOTIFY_SOCKET of its own; prod-run's manager hears of it."""
    code = (
        "import os, socket, time\n"
        "address = os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1)\n"
        "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', address)\n"
        "time.sleep(1000)"
    )
    above = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    above.bind("")
    address = "@" + above.getsockname()[1:].decode()
    above.settimeout(60)
    running = start("--", sys.executable, "-c", code, env={"NOTIFY_SOCKET": address})
    said = b""
    while b"READY=1" not in said:
        said = above.recv(4096)
    above.close()
    (pid,) = children_of(running.pid)

    assert environ(pid)["NOTIFY_SOCKET"] not in ("", address)
    assert running.stop() == 143


def test_sockets_are_handed_over(start: Callable[..., Running], tmp_path: Path) -> None:
    """From 3 on, with the names and the copy's own PID (sd_listen_fds(3))."""
    code = (
        "import os, socket\n"
        "assert int(os.environ['LISTEN_PID']) == os.getpid(), os.environ\n"
        "names = os.environ['LISTEN_FDNAMES'].split(':')\n"
        "sockets = [socket.socket(fileno=3 + n) for n in range(int(os.environ['LISTEN_FDS']))]\n"
        "print(names, [s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for s in sockets])\n"
        "print(sorted(map(int, os.listdir('/proc/self/fd')))[:5])"
    )
    flags = ("--bind", f"web=unix:{tmp_path}/web.sock", "--bind", f"admin=unix:{tmp_path}/admin.sock")
    running = start(*flags, "--restart", "never", "--", sys.executable, "-c", code)

    assert running.wait() == 0
    assert "['web', 'admin'] [1, 1]" in running.text()
    assert "[0, 1, 2, 3]" in running.text() or "[0, 1, 2, 3, 4]" in running.text()
    assert not (tmp_path / "web.sock").exists()


def test_a_command_that_cannot_run_twice_is_reloaded(start: Callable[..., Running], ctl: Ctl) -> None:
    """With --max-surge 0 the old copy ends first, at once."""
    running = start("--max-surge", 0, "--restart", "always", "--", "sleep", "1000")
    until(lambda: is_serving(ctl, "generation 1 serving 1/1"), "the copy")
    (pid,) = children_of(running.pid)

    assert ctl("reload", "--wait").returncode == 0
    assert is_serving(ctl, "generation 2 serving 1/1")
    assert not is_alive(pid)
    assert running.stop() == 0


def test_signals_go_to_every_copy(start: Callable[..., Running], ctl: Ctl) -> None:
    """HUP is the command's, not a reload; TERM is rewritten for a reload too."""
    script = "trap 'echo hup' HUP; trap 'echo quit; exit' QUIT; trap 'echo term' TERM; echo there; while :; do sleep 0.1; done"
    running = start("-w", 2, "--rewrite", "TERM:QUIT", "--", "sh", "-c", script)
    until(lambda: is_serving(ctl, "serving 2/2"), "both")
    assert running.count("there", 2) == 2
    running.send(signal.SIGHUP)
    until(lambda: running.text().count("hup") == 2, "both got it")
    assert ctl("reload", "--wait").returncode == 0
    until(lambda: running.text().count("quit") == 2, "the old ones are told")
    assert running.count("there", 4) == 4

    assert running.stop() == 0
    assert running.text().count("quit") == 4
    assert "term" not in running.text()


def test_a_copy_that_ignores_sigterm_is_killed_with_its_group(start: Callable[..., Running], ctl: Ctl) -> None:
    """At the drain limit."""
    script = "trap '' TERM; sleep 1000 & echo there; sleep 1000"
    running = start("-w", 2, "--drain-timeout", "300ms", "--", "sh", "-c", script)
    until(lambda: is_serving(ctl, "serving 2/2"), "both")
    assert running.count("there", 2) == 2
    family = [grandchild for child in children_of(running.pid) for grandchild in (child, *children_of(child))]

    assert running.stop() == 0
    running.wait_for("prod-run: killed straggler: drain limit slot=0")
    assert not any(map(is_alive, family))


def test_both_are_suspended_and_resumed(start: Callable[..., Running], ctl: Ctl) -> None:
    """As with one copy alone."""
    running = start("-w", 2, "--", "sleep", "1000")
    until(lambda: is_serving(ctl, "serving 2/2"), "both")
    pids = [running.pid, *children_of(running.pid)]

    def states() -> set[str]:
        return {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids}

    running.send(signal.SIGTSTP)
    until(lambda: states() == {"T"}, "all are stopped")
    running.send(signal.SIGCONT)
    until(lambda: "T" not in states(), "all go on")

    assert running.stop() == 0


def test_output_is_captured_if_a_log_was_asked_for(start: Callable[..., Running]) -> None:
    """Then there is an observer, and every line is attributed."""
    running = start("--log-format", "json", "--restart", "never", "--", "sh", "-c", "echo hello; sleep 1")

    assert running.wait() == 0
    assert '"message":"hello"' in running.text().replace('": "', '":"')
