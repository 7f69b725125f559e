"""Twenty secrets, in every form and given in every way, are in nothing that prod-run says or starts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher import cli, ctl, signals
from tests.processes import spilling
from tests.processes.running import LIMIT, PROD_RUN, Running, descendants, title, until
from tests.processes.spilling import WORDS, leaks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.processes.conftest import Strace

SPILLS = ("nowhere", "import", "converter", "converter of a secret", "validator", "validator of a secret")
COMMANDS = [
    (f"--{mode}", *(("--format", form) if len(forms) > 1 else ()))
    for mode, forms in cli.FORMATS.items()
    for form in forms
]
ARGUMENTS = {"scale": ("2",), "events": ("--past",), "reload": ("--wait",)}
ENDING = (signals.Ask.STOP, signals.Ask.STOP_NOW)
# Shows all that it is given: what a check prints is in the reason.
CHECK = "sh -c 'cat \"$0\"; exit 3' {src}"


def run(*argv: object, cwd: Path, env: dict[str, str]) -> tuple[int, str]:
    """Run a program to its end, or until it has said enough; return its exit code and all that it said."""
    clean = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    process = subprocess.Popen(
        [str(word) for word in argv],
        cwd=cwd,
        env={**clean, "LANG": "C.UTF-8", "XDG_RUNTIME_DIR": str(cwd / "run"), **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        said, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
    return process.returncode, said.decode(errors="backslashreplace")


def test_the_search_finds_every_form_of_every_value() -> None:
    """Or all that follows shows nothing; and every way to give a secret is taken."""
    for value in spilling.VALUES:
        for form in spilling.forms(value):
            assert leaks(f"zz{form}zz"), form
    assert {spilling.way(number) for number in range(20)} == set(spilling.WAYS)
    assert len(set(spilling.VALUES)) == 20


@pytest.mark.parametrize("place", SPILLS)
def test_no_command_in_any_format_shows_one(tmp_path: Path, place: str) -> None:
    """Whatever can be asked instead of a start, and a start that is refused; the app's own words hold them all."""
    given = spilling.write(tmp_path, place)
    (tmp_path / "run").mkdir(mode=0o700)
    said = {}
    for words in COMMANDS if place in ("nowhere", "import") else [c for c in COMMANDS if c[0] == "--check-config"]:
        said[words] = run(PROD_RUN, *words, *WORDS, "app:main", cwd=tmp_path, env=given)
    if place != "nowhere":
        said["start",] = run(PROD_RUN, "--log-level", "debug", *WORDS, "app:main", cwd=tmp_path, env=given)

    assert {words: found for words, (_, text) in said.items() if (found := leaks(text))} == {}
    is_good = place == "nowhere"
    assert said["--check-config", "--format", "text"][0] == (0 if is_good else 78), said
    if is_good:
        shown = said[("--show-config",)][1]
        assert [n for n in range(20) if not any(f"SHOP_S{n:02} " in line for line in shown.splitlines())] == []
    else:
        assert any(word in said["start",][1] for word in ("ValueError", "<secret SHOP_S00>")), "it was spilt"


@pytest.mark.parametrize("words", [("--check-config",), ("--check-config", "--format", "json"), ()])
def test_what_the_check_of_a_template_prints_is_hidden(tmp_path: Path, words: tuple[str, ...]) -> None:
    """It is given a file that holds them all, and shows it."""
    given = spilling.write(tmp_path, "nowhere")
    (tmp_path / "run").mkdir(mode=0o700)
    template = ("--template", "leak.tmpl:leak", "--template-check", CHECK)

    code, said = run(PROD_RUN, *words, *template, *WORDS, "app:main", cwd=tmp_path, env=given)

    assert (code, leaks(said)) == (78, [])
    assert "refuses it (exit code 3): " in said
    assert "<secret SHOP_S" in said
    assert not (tmp_path / "leak").exists()


@pytest.fixture
def syslog(tmp_path: Path) -> Iterator[list[str]]:
    """Receive what comes to the socket `log`, as a syslog daemon would."""
    said: list[str] = []

    def receive() -> None:
        while (datagram := receiver.recv(1 << 18)) != b"end":
            said.append(datagram.decode(errors="backslashreplace") + "\n")

    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ender,
    ):
        receiver.bind(str(tmp_path / "log"))
        thread = threading.Thread(target=receive)
        thread.start()
        yield said
        ender.sendto(b"end", str(tmp_path / "log"))
        thread.join()


@pytest.mark.parametrize(
    ("form", "is_traced"),
    [
        ("logfmt", False),
        ("json", False),
        pytest.param("console", False, marks=pytest.mark.slow),
        pytest.param("syslog", False, marks=pytest.mark.slow),
        pytest.param("logfmt", True, marks=pytest.mark.slow),
    ],
)
def test_nothing_of_a_running_tree_shows_one(
    start: Callable[..., Running],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    syslog: list[str],
    form: str,
    *,
    is_traced: bool,
) -> None:
    """Output, every verb of prod-ctl, every signal, environments, arguments; each execve but the caller's own."""
    given = {**spilling.write(tmp_path, "nowhere"), "SPT_NOENV": "1"}
    strace: Strace | None = request.getfixturevalue("strace") if is_traced else None
    before = strace("-e", "trace=execve", "-v", "-s", "65536") if strace else ()
    template = ("--template", "leak.tmpl:leak", "--template-check", "true {src}")
    words = (
        "-w",
        2,
        "--control",
        "ctl.sock",
        "--introspect",
        f"unix:{tmp_path}/observer.sock",
        "--log-level",
        "debug",
        *template,
        *WORDS,
    )
    words += ("--log", f"syslog:unix:{tmp_path}/log") if form == "syslog" else ("--log-format", form)
    running = start(*words, "app:main", env=given, before=before)

    def log() -> str:
        return "".join(syslog) if form == "syslog" else running.text()

    until(lambda: "committed generation=1" in log(), "a commit")
    said = {"tree": "".join(tree(running))}
    said |= {f"ctl {' '.join(words)}": ask(tmp_path, *words) for words in verbs()}
    for row in signals.TABLE:
        if row.ask not in ENDING:
            running.send(signal.Signals(row.signal))
    spilling.spill(tmp_path, "import")
    said["rejected"] = ask(tmp_path, "reload", "--wait")
    spilling.spill(tmp_path, "main")
    said["main raised"] = ask(tmp_path, "reload", "--wait")
    spilling.spill(tmp_path, "stop")
    assert "committed" in ask(tmp_path, "reload", "--wait")
    said |= {f"after, ctl {' '.join(words)}": ask(tmp_path, *words) for words in verbs()}
    said["tree after"] = "".join(tree(running))
    assert running.stop() == 0
    said["log"] = log()
    said["output"] = running.text()
    execs = [line for line in strace.log() if "execve(" in line] if strace else []

    assert {what: found for what, text in said.items() if (found := leaks(text))} == {}
    assert "ValueError" in said["rejected"]
    assert "a worker ended" in said["main raised"]
    assert said["log"].count("ValueError: <secret SHOP_S00>") >= 1 + 2  # one in main, two at the stop
    assert "Config(s00=<secret>" in said["log"]
    assert leaks((tmp_path / "leak").read_text()), "the template's file has them"
    assert [line[:200] for line in execs[1:] if leaks(line)] == []
    if strace:
        assert leaks(execs[0]), "the search in a trace finds them"
        assert any('["true", "' in line for line in execs), "the template's check was seen"


def tree(running: Running) -> list[str]:
    """Return the environment, as it was at exec, and the arguments of every process."""
    until(lambda: len(running.workers()) >= 2, "two workers")
    family = [running.pid, *descendants(running.pid)]
    assert len(family) >= 4, [title(pid) for pid in family]
    read = [Path(f"/proc/{pid}/{name}") for pid in family for name in ("environ", "cmdline")]
    found = []
    for path in read:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # over meanwhile: a leftover, a run of a check
            found.append(path.read_bytes().decode(errors="backslashreplace"))
    assert any("PATH=" in text for text in found), "environments are not hidden"
    return found


def verbs() -> list[tuple[str, ...]]:
    """Return all that prod-ctl can be asked, for people and for programs, but the end."""
    return [
        (*flags, verb, *ARGUMENTS.get(verb, ()))
        for verb in ctl.VERBS
        if verb != "stop"
        for flags in ((), ("--json",))
        if verb != "logs" or not flags  # it shows what the sink gets, as it is
    ]


def ask(folder: Path, *words: str) -> str:
    """Return what prod-ctl says."""
    code, said = run(PROD_RUN.with_name("prod-ctl"), "--socket", folder / "ctl.sock", *words, cwd=folder, env={})
    assert code in (0, 1), said
    return said
