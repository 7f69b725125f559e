"""The program prod-run, up to the moment where the supervisor takes over."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from launcher import addresses, ctl, whereabouts
from launcher import exec as launching
from launcher.cli import parse
from launcher.errors import LauncherError
from launcher.supervisor import listeners

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Program

TARGET = "shop.web:main"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([TARGET, "--verbose", "-x", "--workers", "9"], (TARGET, "--verbose", "-x", "--workers", "9")),
        (["-w2", TARGET, "--", "--help"], (TARGET, "--", "--help")),
        (["--name=--", TARGET], (TARGET,)),
        (["--name", "--", TARGET], (TARGET,)),
    ],
)
def test_what_follows_the_target_is_the_targets(argv: list[str], words: tuple[str, ...]) -> None:
    """Even if it looks like an option of prod-run, or is a lone `--`."""
    found, flags, problems = parse(argv)

    assert (found, problems) == (words, ())
    assert flags.get("workers", ("2",)) == ("2",)


@pytest.mark.parametrize("argv", [["--", "sh", "-c"], ["--workers", "2", "--", "sh", "-c"], ["-w2", "--", "sh", "-c"]])
def test_a_command_is_told_from_a_target_by_the_mark(argv: list[str]) -> None:
    """By its own rules click would take `sh` for a target, and `-c` for an option."""
    words, _, problems = parse(argv)

    assert words == ("--", "sh", "-c")
    assert problems == ()


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--wrokers", "2", TARGET], "--wrokers: there is no such option. Did you mean --workers?"),
        (["--zzz", TARGET], "--zzz: there is no such option. See `prod-run --help`"),
        (["-z", TARGET], "-z: there is no such option"),
        (["--workers"], "--workers: its value is missing. Write --workers N|auto"),
        (["-w"], "--workers: its value is missing"),
        (["--watch=3", TARGET], "--watch: it takes no value"),
        ([], "MODULE:ATTRIBUTE: missing. For example: prod-run shop.web:main"),
        (["shop"], "'shop' is not MODULE:ATTRIBUTE"),
        (["--bind", "nowhere", TARGET], "--bind: 'nowhere' is not an address"),
        (["--drain-timeout", "-5s", TARGET], "--drain-timeout: '-5s' is negative"),
        (["--export-secret", "X", TARGET], "--export-secret: only goes with a command"),
        (["--interface", "cgi", TARGET], "--interface: 'cgi' is not one of the choices"),
        (["--workers", "2", "--"], "-- COMMAND: missing. For example: prod-run -- nginx -g 'daemon off;'"),
        (["--interface", "wsgi", "--", "nginx"], "--interface: only goes with a Python target"),
        (["--rewrite", "TERM:QUIT", TARGET], "--rewrite: only goes with a command"),
        (["--rewrite", "KILL:QUIT", "--", "nginx"], "--rewrite: 'KILL' never comes"),
        (["--rewrite", "15", "--", "nginx"], "--rewrite: '15' is not SIGNAL:SIGNAL. Write TERM:QUIT"),
        (["--success-exit-status", "256", "--", "nginx"], "'256' is out of range"),
        (["--parent-death-signal", "TERN", "--", "nginx"], "'TERN' is not a signal. Write TERM, SIGTERM or 15"),
        (
            ["--template-check", "true {src}", TARGET],
            "--template-check: has no effect without --template. Leave it out",
        ),
        (["--secrets-dir", ".", "--", "nginx"], "on a command without --config, --template or --export-secret"),
        (["--watch", "--", "nginx"], "--watch: has no effect on a command without --config, --env-file, --template or"),
        (["--boot-timeout", "5s", "--", "nginx"], "--boot-timeout: has no effect on a command without --config"),
        (
            ["--introspect", "off", "--introspect-token-file", "x", TARGET],
            "has no effect without --introspect HOST:PORT",
        ),
        (["--log", "syslog", "--log-format", "console", TARGET], "--log-format: 'console' is for people at a terminal"),
        (["--daemon", "--parent-death-signal", "15", TARGET], "--parent-death-signal: does not go with --daemon"),
        (["--workers", "0", "--bind", "x", "m"], "3 problems"),
    ],
)
def test_a_wrong_command_line_is_a_sentence_and_exit_2(program: Program, argv: list[str], sentence: str) -> None:
    """Never a traceback; nothing on stdout."""
    answer = program.run(*argv)

    assert answer.code == 2
    assert answer.err.startswith("prod-run: cannot understand the command line: ")
    assert sentence in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""


def test_a_wrong_variable_is_a_sentence_and_exit_78(program: Program) -> None:
    """So that a service manager can tell a bad configuration from a bad day."""
    answer = program.run(TARGET, environ={"PROD_RUN_WROKERS": "2", "PROD_RUN_EXPORT_SECRET": "X"})

    assert answer.code == 78
    assert "PROD_RUN_WROKERS        there is no such setting. Did you mean PROD_RUN_WORKERS?" in answer.err
    assert "PROD_RUN_EXPORT_SECRET  only goes with a command" in answer.err


def test_a_directory_that_cannot_be_entered_is_exit_69(program: Program, tmp_path: Path) -> None:
    """The sentence names the directory, the reason, and the flag or the variable."""
    (tmp_path / "file").write_text("")

    missing = program.run("--chdir", f"{tmp_path}/no", TARGET)
    no_directory = program.run(TARGET, environ={"PROD_RUN_CHDIR": f"{tmp_path}/file"})

    assert (missing.code, no_directory.code) == (69, 69)
    assert f"--chdir: cannot enter {tmp_path}/no: No such file or directory" in missing.err
    assert f"PROD_RUN_CHDIR: cannot enter {tmp_path}/file: Not a directory" in no_directory.err


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_directory_without_permission_is_exit_69(program: Program, tmp_path: Path) -> None:
    """What root could do, the service's user may not."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    # Imported first: the other user may not read this interpreter's library, if it is in root's home.
    code = f"""
import os, sys
import click, launcher.cli, launcher.cpus, launcher.exec, launcher.settings
os.setgid(65534)
os.setuid(65534)
sys.argv = ["prod-run", "--chdir", {str(private)!r}, {TARGET!r}]
launcher.cli.main()
"""
    answer = program.run(code=code)

    assert answer.code == 69
    assert "Permission denied. Name a directory that this user may enter" in answer.err


def test_an_address_in_use_is_exit_69_naming_the_holder(program: Program) -> None:
    """The first question of whoever reads the line is: by whom?"""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        answer = program.run("--bind", f"127.0.0.1:{port}", TARGET)

    assert answer.code == 69
    assert f"127.0.0.1:{port}: in use by " in answer.err
    assert f"(PID {os.getpid()})" in answer.err


def test_a_running_instance_keeps_its_explicit_name(program: Program, tmp_path: Path) -> None:
    """The second start says who has it, and leaves no socket behind."""
    first = program.start("--name", "shop", TARGET, "hold")
    try:
        assert first.stdout.readline()
        second = program.run("--name", "shop", "--bind", f"unix:{tmp_path}/x.sock", TARGET)
    finally:
        first.communicate(timeout=20)

    assert second.code == 69
    assert f"shop: a running prod-run already has this name: PID {first.pid}" in second.err
    assert not (tmp_path / "x.sock").exists()


def test_a_running_instance_with_a_default_name_is_no_obstacle(program: Program) -> None:
    """One line says how the second one is called."""
    first = program.start(TARGET, "hold")
    try:
        assert first.stdout.readline()
        second = program.run(TARGET)
    finally:
        first.communicate(timeout=20)

    assert second.told["name"] == f"shop.web-{second.told['pid']}"
    assert second.err == (
        f"prod-run: the name shop.web is taken by PID {first.pid}: this instance is called {second.told['name']}\n"
    )


def test_everything_that_is_settled_reaches_the_supervisor(program: Program) -> None:
    """All settings, the listeners and the arguments, in the same process."""
    process = program.start(
        *("-w", "3", "-b", "web=127.0.0.1:0", "--preload", "never", "--boot-timeout", "5s"),
        *("--drain-delay", "500ms", "--drain-timeout", "1m", "--max-surge", "1", "--restart", "on-failure"),
        *("--log-level", "debug", "--name", "shop", TARGET, "--verbose", "two\nlines"),
    )  # fmt: skip
    told = program.end(process).told

    assert told["pid"] == process.pid
    assert (told["target"], told["arguments"]) == (TARGET, ["--verbose", "two\nlines"])
    assert (told["name"], told["workers"], told["max_surge"]) == ("shop", 3, 1)
    assert (told["preload"], told["restart"], told["log_level"]) == ("never", "on-failure", "debug")
    assert (told["boot_timeout"], told["drain_delay"], told["drain_timeout"]) == (5.0, 0.5, 60.0)
    assert [listener["name"] for listener in told["listeners"]] == ["web"]
    assert told["umask"] == -1
    assert told["subreaper"] == 1


def test_only_what_the_interpreter_needs_is_in_the_environment_at_exec(program: Program) -> None:
    """All else, secrets included, travels in a sealed memfd, complete."""
    secrets = {"DATABASE_URL": "x://u:p@h", "PROD_RUN_WORKERS": "2", "TZ": "UTC", "LC_ALL": "C", "ODD": "a\nb=c\udcff"}
    told = program.run(TARGET, environ=secrets).told

    assert told["caller"].items() >= secrets.items()
    assert told["environ"].keys().isdisjoint({"DATABASE_URL", "PROD_RUN_WORKERS", "ODD", "XDG_RUNTIME_DIR"})
    assert told["environ"].items() >= {"TZ": "UTC", "LC_ALL": "C", "PATH": os.environ["PATH"]}.items()
    assert told["seals"] == 0b1111
    assert told["workers"] == 2


def test_nothing_that_the_caller_leaked_reaches_the_supervisor(program: Program) -> None:
    """0 to 2, listeners, lock, two memfds and the ends of the first zygote; no descriptor of a careless shell."""
    reader, writer = os.pipe()
    try:
        told = program.run("-b", "127.0.0.1:0", TARGET, pass_fds=(reader, writer)).told
    finally:
        os.close(reader)
        os.close(writer)

    files = [text.removesuffix(" (deleted)") for text in told["open"].values()]
    assert sorted(re.sub(r":\[\d+\]$", "", text) for text in files if not text.startswith("pipe:")) == sorted(
        [f"{told['runtime_directory']}/lock", "/memfd:prod-run-environ", "/memfd:prod-run-handoff", "socket", "socket"]
    )
    pipes = {int(fd) for fd, text in told["open"].items() if text.startswith("pipe:")}
    assert len(pipes) == 5
    assert {0, 1, 2} < pipes
    assert not {reader, writer} & pipes


def test_closed_standard_streams_are_replaced(program: Program) -> None:
    """No listener ever gets the number of stdout."""
    process = program.start("-b", "127.0.0.1:0", TARGET, preexec_fn=lambda: [os.close(0), os.close(2)])
    told = program.end(process).told

    assert (told["open"]["0"], told["open"]["2"]) == ("/dev/null", "/dev/null")
    assert told["listeners"][0]["fd"] > 2


def test_signals_are_blocked_across_the_exec_and_pending_ones_kept(program: Program) -> None:
    """A SIGTERM that comes early is answered by the supervisor, not lost and not a traceback."""

    def block_and_raise() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)

    told = program.run(TARGET, preexec_fn=block_and_raise).told

    assert signal.SIGTERM in told["pending"]
    catchable = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    assert set(told["blocked"]) == catchable


def test_the_soft_limit_of_descriptors_is_raised_and_the_callers_kept(program: Program) -> None:
    """For the service the hard limit; the app gets its own back."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = (200, hard)
    told = program.run(TARGET, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit)).told

    assert told["open_files"] == 200
    assert told["limits"] == [hard, hard]


def test_the_directory_keeps_the_links_by_which_it_was_named(program: Program, tmp_path: Path) -> None:
    """`current` may point elsewhere by the next reload."""
    release = tmp_path / "releases" / "1"
    release.mkdir(parents=True)
    current = tmp_path / "current"
    current.symlink_to(release)

    by_pwd = program.run(TARGET, cwd=current, environ={"PWD": str(current)}).told
    stale = program.run(TARGET, cwd=current, environ={"PWD": "/somewhere/else"}).told
    by_flag = program.run("--chdir", "current/.", "-b", "unix:x.sock", TARGET, cwd=tmp_path).told

    assert by_pwd["directory"] == str(current)
    assert stale["directory"] == str(release)
    assert by_flag["directory"] == str(current)
    assert by_flag["cwd"] == str(release)
    assert by_flag["listeners"][0]["path"].endswith("/x.sock")
    assert (release / "x.sock").exists()


def test_the_interpreter_is_the_one_beside_the_script_as_it_was_called(tmp_path: Path) -> None:
    """A shebang names the release; the link in the path that was called does not."""
    real = tmp_path / "releases" / "1" / "bin"
    real.mkdir(parents=True)
    (real / "python").write_text("")
    (tmp_path / "current").symlink_to(real.parent)
    called = f"{tmp_path}/current/bin/prod-run"

    assert whereabouts.interpreter_beside(called, f"{real}/python3") == f"{tmp_path}/current/bin/python"
    assert whereabouts.interpreter_beside(f"{tmp_path}/elsewhere/prod-run", f"{real}/python3") == f"{real}/python3"
    (real / "python").unlink()
    assert whereabouts.interpreter_beside(called, f"{real}/python3") == f"{real}/python3"


def test_the_supervisor_loads_nothing_from_the_command_line(program: Program) -> None:
    """A fresh program: no click, no site-packages before the standard library."""
    told = program.run(TARGET).told

    assert {"click", "launcher.cli", "launcher.exec", "launcher.settings"}.isdisjoint(told["modules"])
    assert told["executable"] == sys.executable
    package = told["path"].index(program.environ["PYTHONPATH"])
    assert all("site-packages" not in folder for folder in told["path"][:package])


def test_descriptors_that_systemd_passed_are_adopted(program: Program) -> None:
    """LISTEN_PID is ours: nothing is bound, and the workers are restarted always."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port, fd = sock.getsockname()[1], sock.fileno()
        code = (
            "import os,sys\n"
            f"os.dup2({fd}, 3)\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='web')\n"
            f"os.execv(sys.executable, [sys.executable, '-P', '-m', 'launcher', {TARGET!r}])"
        )
        told = program.run(code=code, pass_fds=(fd,)).told

    assert [(one["name"], one["address"], one["fd"]) for one in told["listeners"]] == [("web", f"127.0.0.1:{port}", 3)]
    assert told["restart"] == "always"


def test_descriptors_for_another_process_are_not_taken(program: Program) -> None:
    """A wrapper script in between has another PID."""
    told = program.run(TARGET, environ={"LISTEN_PID": "1", "LISTEN_FDS": "1"}).told

    assert told["listeners"] == []
    assert told["restart"] == "on-failure"


@pytest.mark.parametrize("flag", ["--help", "--help-all", "--version", "--show-config"])
def test_what_only_prints_exits_with_0_and_starts_nothing(program: Program, flag: str) -> None:
    """Also into a pipe that nobody reads."""
    answer = program.run(flag, TARGET)
    reader, writer = os.pipe()
    os.close(reader)
    unread = program.run(flag, stdout=writer)
    os.close(writer)

    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[0].split()[0] in {"Usage:", "prod-run", "workers"}
    assert (unread.code, unread.err) == (0, "")


@pytest.mark.parametrize("flag", ["--help", "--version", "--show-config"])
def test_a_closed_or_full_stdout_is_no_traceback(program: Program, flag: str) -> None:
    """Nobody listens: fine.  Nothing was written though somebody does: exit 71."""
    closed = program.run(flag, preexec_fn=lambda: os.close(1))
    with open("/dev/full", "w", encoding="ascii") as full:
        lost = program.run(flag, stdout=full)

    assert (closed.code, closed.err) == (0, "")
    assert lost.code == 71
    assert lost.err == "prod-run: cannot start: No space left on device\n"


def test_ctrl_c_ends_a_slow_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals are blocked from the first line on, but not while a name server may take half a minute."""
    seen = []
    monkeypatch.setattr(
        listeners,
        "resolve",
        lambda places: (
            seen.append((signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGINT))) or places
        ),
    )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()), signal.getsignal(signal.SIGINT)
    try:
        launching.resolved((addresses.parse("db.example:80"),))
        launching.resolved((addresses.parse("127.0.0.1:80"),))

        (names, numbers) = seen
        assert names[0].isdisjoint({signal.SIGINT, signal.SIGTERM, signal.SIGQUIT})
        assert names[1] == signal.SIG_DFL
        assert {signal.SIGINT, signal.SIGTERM, signal.SIGQUIT} <= numbers[0]
        assert signal.getsignal(signal.SIGINT) == before[1]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before[0])


def test_the_version_names_the_interpreter(program: Program) -> None:
    """Two facts that every bug report needs."""
    version = ".".join(map(str, sys.version_info[:3]))

    assert re.fullmatch(rf"prod-run \S+ \(Python {re.escape(version)}\)\n", program.run("--version").out)


def test_show_config_names_the_origin_of_each_value(program: Program) -> None:
    """The question is always: where does this come from?"""
    out = program.run("--workers", "3", "--show-config", TARGET, environ={"PROD_RUN_BIND": "web=:80"}).out

    assert re.search(r"^workers +3 +flag --workers$", out, re.MULTILINE)
    assert re.search(r"^bind +web=:80 +environment PROD_RUN_BIND$", out, re.MULTILINE)
    assert re.search(r"^restart +always +default, since something listens$", out, re.MULTILINE)
    assert re.search(r"^name +shop.web +the target$", out, re.MULTILINE)
    assert "\033" not in out


def test_show_config_reports_problems_instead(program: Program) -> None:
    """A table of values that would be refused helps nobody."""
    answer = program.run("--show-config", "--workers", "x", TARGET)

    assert (answer.code, answer.out) == (2, "")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["top", "--onc"], 2, "--onc: 'top' has no such option"),
        (["logs", "--json"], 2, "--json: 'logs' has no such option"),
        (["logs", "shop"], 2, "shop: it is no worker's slot"),
        (["stacks", "shop"], 2, "shop: it is no worker's slot"),
        (["stacks", "-1"], 2, "-1: it is no worker's slot"),
        (["reload", "--help"], 0, "Usage: prod-ctl"),
        (["logs", "0", "1"], 2, "logs: it takes at most one argument"),
        (["upgrade"], 2, "upgrade: not in this version"),
        (["--socket", "/nowhere/x", "status"], 69, "/nowhere/x: no running prod-run answers there"),
        (["--socket=/nowhere/x", "health"], 69, "/nowhere/x: no running prod-run answers there"),
        (["relaod"], 2, "relaod: there is no such verb. Did you mean reload?"),
        (["status", "--bogus"], 2, "--bogus: 'status' has no such option"),
        (["status", "much"], 2, "status: it takes no argument"),
        (["scale"], 2, "scale: it takes one argument"),
        (["reload", "--timeout", "soon"], 2, "--timeout: 'soon' is not a duration"),
        (["reload", "--wait", "--timeout", "0"], 2, "would give no time at all"),
        (["status", "--timeout", "99999999999999999999"], 2, "is longer than a year"),
        (["--socket"], 2, "its value is missing"),
        ([], 2, "Usage: prod-ctl"),
        (["--help"], 0, "Usage: prod-ctl"),
        (["--version"], 0, "prod-ctl "),
    ],
)
def test_prod_ctl_says_what_is_wrong_with_its_words(
    words: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused with a sentence, never accepted and ignored."""
    try:
        found, text = ctl.run(words), ""
    except LauncherError as error:
        found, text = error.exit_code, str(error)

    assert found == code
    assert sentence in text + capsys.readouterr().out


def test_a_socket_that_is_found_in_two_ways_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systemd's RuntimeDirectory=prod-run/shop lies where instances are looked for, too."""
    place = tmp_path / "prod-run" / "shop"
    place.mkdir(parents=True)
    monkeypatch.setattr(ctl, "_is_live", lambda path: path.startswith(str(tmp_path)))  # others may run on this machine

    found = ctl.find_socket({"XDG_RUNTIME_DIR": str(tmp_path), "RUNTIME_DIRECTORY": str(place)}, 12345)

    assert found == str(place / "control.sock")
