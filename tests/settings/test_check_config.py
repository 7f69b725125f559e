"""`prod-run --check-config`: everything short of starting, all that is wrong at once."""

from __future__ import annotations

import json
import os
import pty
import shutil
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Answer, Program

APP = """
import environ
import launcher
from launcher import Worker


def near(instance, attribute, value):
    if value != "near":
        raise ValueError(f"{value!r} is too far")


@environ.config(prefix="SHOP")
class Config:
    @environ.config
    class Web:
        port = environ.var(converter=int, help="where to listen")
        place = environ.var("near", validator=near)

        @environ.config
        class Tls:
            certificate = environ.var(help="a path")
            key = launcher.secret(help="its key")

        tls = environ.group(Tls)

    @environ.config
    class Mail:
        patience = environ.var("5s", converter=launcher.duration)
        password = launcher.secret()

    web = environ.group(Web)
    mail = environ.group(Mail)
    database = launcher.url(schemes=["postgres"], help="where the orders are")


print("the app talks while it is imported")


def main(worker: Worker[Config]) -> None:
    raise SystemExit("the target was called")
"""
GOOD = {
    "SHOP_WEB_PORT": "8000",
    "SHOP_WEB_TLS_CERTIFICATE": "/etc/cert.pem",
    "SHOP_WEB_TLS_KEY": "key-hunter2",
    "SHOP_MAIL_PASSWORD": "mail-hunter2",
    "SHOP_DATABASE": "postgres://shop:url-hunter2@db/shop",
}
SECRETS = ("key-hunter2", "mail-hunter2", "url-hunter2")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A directory with an app that has three groups and three secrets."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "shop.py").write_text(APP)
    return folder


def check(program: Program, app: Path, *words: str, environ: dict[str, str] | None = None) -> dict[str, Any]:
    """Ask for JSON and read it."""
    answer = asked(program, app, "--format", "json", *words, environ=environ)
    report: dict[str, Any] = json.loads(answer.out)
    assert answer.code == (0 if report["ok"] else 78)
    return report


def asked(program: Program, app: Path, *words: str, environ: dict[str, str] | None = None) -> Answer:
    """Ask for whatever is wanted."""
    return program.run("--check-config", *words, "shop:main", environ=GOOD if environ is None else environ, cwd=app)


def names(findings: list[dict[str, str]]) -> list[str]:
    """Return the names, in their order."""
    return [finding["name"] for finding in findings]


def test_a_good_configuration_is_exit_0_and_starts_nothing(program: Program, app: Path) -> None:
    """The verdict is on stdout; what the app prints is not."""
    answer = asked(program, app)

    assert answer.code == 0
    assert answer.out.splitlines()[-1] == "shop:main: the configuration is good"
    assert "the app talks" not in answer.out
    assert "the app talks while it is imported" in answer.err
    assert "the target was called" not in answer.out + answer.err


def test_problems_of_every_kind_are_reported_in_one_run(program: Program, app: Path) -> None:
    """Three nested groups, two templates, three secrets, settings, an env file, an address: nothing hides another."""
    (app / "a.conf.tmpl").write_text("port ${SHOP_WEB_PORT}\nname ${SERVER_NAME}\n")
    (app / "b.conf.tmpl").write_text("key ${SHOP_WEB_TLS_KEY}\n")
    (app / "prod.env").write_text("SHOP_WEB_PLACE=far\nthis is no statement\n")
    (app / "key").mkdir()
    words = ("--env-file", "prod.env", "--bind", "unix:/nowhere/shop.sock", "--template", "a.conf.tmpl:a.conf")
    words += ("--template", "b.conf.tmpl:b.conf:0644", "--drain-timeout", "30")
    environ = {
        "PROD_RUN_WORKERS": "many",
        "SHOP_WEB_PORT": "eighty",
        "SHOP_WEB_TLS_KEY_FILE": str(app / "key"),
        "SHOP_MAIL_PATIENCE": "5",
        "SHOP_DATABASE": "mysql://shop:url-hunter2@db/shop",
        "SHOP_WEB_PROT": "80",
    }

    report = check(program, app, *words, environ=environ)
    text = asked(program, app, *words, environ=environ)

    found = {
        "--drain-timeout": "command line",
        "PROD_RUN_WORKERS": "environment",
        "unix:/nowhere/shop.sock": "flag --bind",
        "prod.env:2": "",
        "SHOP_WEB_PORT": "environment",
        "SHOP_WEB_PLACE": "prod.env:1",
        "SHOP_WEB_TLS_CERTIFICATE": "",
        "SHOP_WEB_TLS_KEY": "",
        "SHOP_MAIL_PATIENCE": "environment",
        "SHOP_MAIL_PASSWORD": "",
        "SHOP_DATABASE": "environment",
        "a.conf.tmpl:2:6": "",
        "b.conf.tmpl": "",
    }
    assert {problem["name"]: problem["origin"] for problem in report["problems"]} == found
    assert len(report["problems"]) == len(found)
    assert all(problem["reason"] for problem in report["problems"])
    assert [(note["name"], note["remedy"]) for note in report["notes"]][-1:] == [
        ("SHOP_WEB_PROT", "Did you mean SHOP_WEB_PORT?")
    ]
    section = text.out.partition("\n\n")[0].splitlines()
    assert text.code == 78
    assert section[0] == "problems"
    assert [line.split()[0] for line in section[1:]] == names(report["problems"])
    assert text.out.endswith("\nshop:main: 13 problems, would not start\n")
    assert "url-hunter2" not in text.out + text.err + json.dumps(report)


def test_the_answer_is_aligned_and_coloured_for_people_only(program: Program, app: Path) -> None:
    """Reasons stand in one column; a file gets no escape sequences, a terminal does."""
    environ = {**GOOD, "SHOP_WEB_PORT": "x", "SHOP_MAIL_PATIENCE": "5"}
    lines = asked(program, app, environ=environ).out.splitlines()

    assert len({line.index(reason) for line, reason in zip(lines[1:], ("invalid", "'5' has"), strict=False)}) == 1
    assert "\033" not in "".join(lines)
    leader, follower = pty.openpty()
    process = program.start(
        "--check-config", "shop:main", environ={**environ, "TERM": "xterm"}, cwd=app, stdout=follower
    )
    os.close(follower)
    process.communicate(timeout=20)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert "\033[31mproblems\033[0m" in shown


def test_json_is_one_object_with_the_same_keys_always(program: Program, app: Path) -> None:
    """A program that reads it need not ask what is there; values of secrets are masked."""
    good, bad = check(program, app), check(program, app, environ={})

    keys = ["ok", "target", "problems", "notes", "not_checked", "settings", "variables", "traceback"]
    assert [list(good), list(bad)] == [keys, keys]
    assert (good["ok"], bad["ok"]) == (True, False)
    assert {"name": "workers", "value": "1", "origin": "default"} in good["settings"]
    rows = {row["name"]: row for row in good["variables"]}
    assert rows["SHOP_WEB_PORT"] == {"name": "SHOP_WEB_PORT", "value": "8000", "origin": "environment", "secret": False}
    assert (rows["SHOP_DATABASE"]["value"], rows["SHOP_DATABASE"]["secret"]) == ("<secret>", True)
    assert list(bad["problems"][0]) == ["name", "origin", "reason", "remedy"]


def test_without_secrets_lists_them_as_not_checked(program: Program, app: Path) -> None:
    """CI has no secrets of production; everything else is still checked, templates with them included."""
    (app / "b.conf.tmpl").write_text("key ${SHOP_WEB_TLS_KEY} ${UNKNOWN}\n")
    public = {name: value for name, value in GOOD.items() if "hunter2" not in value}
    missing = ["SHOP_WEB_TLS_KEY", "SHOP_MAIL_PASSWORD", "SHOP_DATABASE"]

    good = asked(program, app, "--without-secrets", environ=public)
    bad = check(program, app, "--without-secrets", "--template", "b.conf.tmpl:b.conf", environ=public)
    wrong = check(program, app, "--without-secrets", environ={**public, "SHOP_DATABASE": "mysql://a:url-hunter2@b/c"})

    assert good.code == 0
    assert "\nnot checked\n" in f"\n{good.out}"
    assert [name for name in missing if f"  {name}  " not in good.out] == []
    assert (bad["not_checked"], names(bad["problems"])) == (missing, ["b.conf.tmpl:1:25"])
    assert names(wrong["problems"]) == ["SHOP_DATABASE"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nothing_of_this_name", "importing it raised ModuleNotFoundError: No module named"),
        ("raise ValueError('half deployed')", "importing it raised ValueError: half deployed"),
        ("def other(): pass", "there is no 'main' in"),
        ("def main(it): pass", "prod-run does not know what to pass for 'it'"),
        ("import sys; sys.exit(3)", "importing it called sys.exit(3)"),
    ],
)
def test_a_target_that_cannot_be_had_is_a_problem_like_others(
    program: Program, app: Path, source: str, reason: str
) -> None:
    """Exit 78, and what else is wrong is in the same list."""
    (app / "shop.py").write_text(source)

    report = check(program, app, "--bind", "nowhere")

    assert names(report["problems"])[0] == "--bind"
    assert any(reason in problem["reason"] for problem in report["problems"][1:])


def test_an_apps_traceback_is_shown_without_its_secrets(program: Program, app: Path) -> None:
    """The first question after "importing it raised ValueError" is: where?"""
    (app / "shop.py").write_text(f"{APP}\nit = launcher.config(Config)\nraise ValueError(it.mail.password.reveal())\n")

    answer = asked(program, app)

    assert answer.code == 78
    assert "traceback\n" in answer.out
    assert "shop.py" in answer.out
    assert "ValueError: <secret SHOP_MAIL_PASSWORD>" in answer.out
    assert not [secret for secret in SECRETS if secret in answer.out + answer.err]


def test_a_busy_address_is_a_note(program: Program, app: Path) -> None:
    """The service that is to be replaced is running: a deploy checks beside it."""
    live = app / "live.sock"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(live))
        unix.listen()
        before = os.stat(live)
        address = f"127.0.0.1:{tcp.getsockname()[1]}"
        report = check(program, app, "--bind", address, "--bind", f"unix:{live}")
        after = os.stat(live)

    assert report["ok"]
    notes = {note["name"]: note["reason"] for note in report["notes"]}
    assert f"(PID {os.getpid()})" in notes[address]
    assert f"(PID {os.getpid()})" in notes[f"unix:{live}"]
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)


def test_a_log_target_that_nobody_minds_is_a_note(program: Program, app: Path) -> None:
    """A start does not wait for a syslog receiver, but a deploy wants to know; one that is there is no news."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver, socket.create_server(("127.0.0.1", 0)) as tcp:
        receiver.bind(str(app / "log"))
        port = tcp.getsockname()[1]
        there = [
            check(program, app, "--log", f"syslog:{place}") for place in (f"unix:{app}/log", f"tcp://127.0.0.1:{port}")
        ]
    gone = [
        check(program, app, "--log", f"syslog:{place}") for place in (f"unix:{app}/none", f"tcp://127.0.0.1:{port}")
    ]

    assert all(report["ok"] for report in (*there, *gone))
    assert not any("--log" in names(report["notes"]) for report in there)
    assert all("--log" in names(report["notes"]) for report in gone)


def test_an_address_that_cannot_be_had_is_a_problem(program: Program, app: Path) -> None:
    """A name that is not known, a user that is not there, a file in the way, one address twice."""
    (app / "file").write_text("")
    words = ("unix:x.sock?user=nobody-of-this-name", "unix:file", "203.0.113.1:80", "unix:a", "unix:b", "c=unix:a")
    words += ("one=127.0.0.1:48711",)
    bind = [word for address in (*words, "two=127.0.0.1:48711") for word in ("--bind", address)]

    found = {problem["name"]: problem["reason"] for problem in check(program, app, *bind)["problems"]}

    assert found["unix:x.sock"] == "there is no user 'nobody-of-this-name' on this system"
    assert found["unix:file"] == "a file is there that is not a socket"
    assert "does not have the address" in found["203.0.113.1:80"]
    assert found["127.0.0.1:48711"].startswith("in use")
    assert found["unix:a"].startswith("in use")
    assert "unix:b" not in found


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_the_introspection_port_is_looked_at_too(program: Program, app: Path, content: str | None) -> None:
    """An address that cannot be had, a token that is none; a busy default only costs a start a warning."""
    if content is not None:
        (app / "token").write_text(content)
    words = ("--introspect", "203.0.113.1:81", "--introspect-token-file", "token")
    found = {problem["name"]: problem for problem in check(program, app, *words)["problems"]}
    (app / "token").write_text("a good one")
    good = check(program, app, "--introspect", "127.0.0.1:0", "--introspect-token-file", "token")
    private = check(program, app, "--introspect", "unix:i.sock")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        busy = check(program, app, "--introspect", address)

    assert "does not have the address" in found["203.0.113.1:81"]["reason"]
    assert found["203.0.113.1:81"]["origin"] == "flag --introspect"
    assert f"{app}/token" in found["--introspect-token-file"]["reason"]
    assert (good["ok"], private["ok"], busy["ok"], address in names(busy["notes"])) == (True, True, True, True)
    assert not (app / "i.sock").exists()


def test_nothing_is_changed_or_left(program: Program, app: Path) -> None:
    """No socket, no rendered file, no temporary one; a dead socket and the present file stay as they are."""
    (app / "a.conf.tmpl").write_text("port ${SHOP_WEB_PORT}\n")
    (app / "a.conf").write_text("as it was")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(app / "dead.sock"))
    before = state(app)

    words = ("--bind", "unix:new.sock?mode=0600", "--bind", "unix:dead.sock", "--template", "a.conf.tmpl:a.conf")
    refused = check(program, app, *words, "--template-check", "grep nothing {src}")
    after_refusal = state(app)
    report = check(program, app, *words, "--template-check", "grep port {src}")

    assert (report["problems"], len(refused["problems"])) == ([], 1)
    assert (after_refusal, state(app)) == (before, before)
    assert list(Path(program.environ["XDG_RUNTIME_DIR"]).iterdir()) == []


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what is in a folder, each with what a change would change."""
    found = {path.name: path.lstat() for path in folder.iterdir()}
    return {name: (entry.st_ino, entry.st_mode, entry.st_mtime_ns) for name, entry in found.items()}


@pytest.mark.parametrize(
    ("environ", "words", "is_noted"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ("--drain-delay", "10s"), True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, (), False),
        ({"INVOCATION_ID": "0"}, ("--drain-timeout", "2m"), True),
        ({"INVOCATION_ID": "0"}, ("--drain-delay", "10s"), False),
        ({}, ("--drain-timeout", "2m"), False),
    ],
)
def test_a_drain_longer_than_the_platform_waits_is_noted(
    program: Program, app: Path, environ: dict[str, str], words: tuple[str, ...], *, is_noted: bool
) -> None:
    """Neither says how long it waits, so this is no problem."""
    report = check(program, app, *words, environ={**GOOD, **environ})

    assert ("--drain-timeout" in names(report["notes"])) is is_noted
    assert report["ok"]


def test_settings_of_an_env_file_are_judged_where_they_stand(program: Program, app: Path) -> None:
    """The place in the file is said."""
    (app / "prod.env").write_text("PROD_RUN_WORKERS=3\nPROD_RUN_DRAIN_TIMEOUT=5\n")

    report = check(program, app, "--env-file", "prod.env")

    assert [(problem["name"], problem["origin"]) for problem in report["problems"]] == [
        ("PROD_RUN_DRAIN_TIMEOUT (prod.env:2)", "prod.env:2")
    ]
    assert {"name": "workers", "value": "3", "origin": "prod.env:1"} in report["settings"]


def test_relative_paths_are_found_from_chdir(program: Program, app: Path, tmp_path: Path) -> None:
    """As at a start: the target, env files and templates."""
    (app / "prod.env").write_text("SHOP_WEB_PORT=81\nPROD_RUN_WORKERS=3\n")
    environ = {name: value for name, value in GOOD.items() if name != "SHOP_WEB_PORT"}
    words = ("--check-config", "--format", "json", "--chdir", "app", "--env-file", "prod.env", "shop:main")

    report = json.loads(program.run(*words, environ=environ, cwd=tmp_path).out)
    nowhere = program.run("--check-config", "--chdir", "no", "shop:main", environ=environ, cwd=tmp_path)

    assert report["ok"]
    assert {"name": "workers", "value": "3", "origin": "prod.env:2"} in [
        {**row, "origin": row["origin"].removeprefix("app/")} for row in report["settings"]
    ]
    assert nowhere.code == 78
    assert "--chdir  cannot enter" in nowhere.out


def test_the_target_sees_what_it_would_see_at_a_start(program: Program, app: Path) -> None:
    """No variable of prod-run or systemd, its own directory first, its own words, and nothing to read."""
    (app / "shop.py").write_text(
        "import json, os, sys\n"
        "def main(): pass\n"
        "print(json.dumps([sorted(os.environ), sys.path[0], sys.argv, sys.stdin.read()]), file=sys.stderr)\n"
    )
    environ = {"PROD_RUN_WORKERS": "2", "NOTIFY_SOCKET": "/x", "SHOP": "1", "PROD_RUN_TEMPLATE_X": "/y"}

    process = program.start("--check-config", "shop:main", "--fast", environ=environ, cwd=app)
    seen, first, argv, read = json.loads(process.communicate("somebody types", timeout=20)[1])

    assert {"SHOP", "PROD_RUN_TEMPLATE_X"} <= set(seen)
    assert {"PROD_RUN_WORKERS", "NOTIFY_SOCKET"}.isdisjoint(seen)
    assert (first, argv, read) == (str(app), ["shop:main", "--fast"], "")


def test_threads_of_the_target_do_not_keep_it(program: Program, app: Path) -> None:
    """Nor does what the target registered for the end of a worker run."""
    (app / "shop.py").write_text(
        "import atexit, threading\n"
        "lock = threading.Lock(); lock.acquire()\n"
        "threading.Thread(target=lock.acquire).start()\n"
        "atexit.register(print, 'ended as a worker would')\n"
        "def main(): pass\n"
    )

    answer = asked(program, app)

    assert (answer.code, answer.err) == (0, "")


def test_a_question_that_makes_no_sense_is_exit_2(program: Program, app: Path) -> None:
    """No target, a format of another mode, two modes, a modifier alone."""
    for words, sentence in {
        ("--check-config",): "MODULE:ATTRIBUTE: missing",
        ("--check-config", "--format", "yaml", "shop:main"): "--format: 'yaml' is no format here",
        ("--check-config", "--format", "env", "shop:main"): "--format: 'env' is no format here",
        ("--format", "json", "shop:main"): "--format: 'json' is no format here",
        ("--check-config", "--help-config", "shop:main"): "--help-config: does not go with --check-config",
        ("--without-secrets", "shop:main"): "--without-secrets: only goes with --check-config",
        ("--check-config", "--wrokers", "2", "shop:main"): "--wrokers: there is no such option",
    }.items():
        answer = program.run(*words, cwd=app)

        assert (answer.code, answer.out) == (2, "")
        assert sentence in answer.err


@pytest.mark.skipif(sys.flags.safe_path, reason="the script's directory is not on the path")
def test_what_lies_beside_the_script_is_not_found(program: Program, app: Path, tmp_path: Path) -> None:
    """`/venv/bin` holds programs, not the target's modules."""
    script = tmp_path / "bin" / "prod-run"
    script.parent.mkdir()
    script.write_text("from launcher.cli import main\nmain()\n")
    shutil.move(app / "shop.py", script.parent / "shop.py")

    code = f"import os, sys; os.execv(sys.executable, [sys.executable, {str(script)!r}, '--check-config', 'shop:main'])"
    answer = program.run(code=code, cwd=app)

    assert answer.code == 78
    assert "there is no module 'shop'" in answer.out
