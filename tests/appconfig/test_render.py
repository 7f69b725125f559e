"""Templates in memory: all problems at once, what holds a secret, and the command that looks at the result."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

import pytest

from launcher.appconfig.place import Staged
from launcher.appconfig.render import Inputs, check, render_all
from launcher.appconfig.templates import Template, template

SECRET = "correct-horse-battery"  # noqa: S105 - a canary
INPUTS = Inputs({"PORT": "80"}, {"PW": SECRET, "URL": f"pg://u:{SECRET}@h/d"}, None, 3, "host1")


@pytest.fixture
def no_descriptors_lost() -> object:
    """Compare the open descriptors before and after."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


pytestmark = pytest.mark.usefixtures("no_descriptors_lost")

# ── in memory ──


def make(directory: Path, name: str, text: str, rest: str = "out") -> Template:
    """Write a template and name it."""
    (directory / name).write_text(text)
    return template(f"{directory / name}:{directory / rest}")


def test_all_problems_of_all_templates_come_at_once(tmp_path: Path) -> None:
    """Both dialects, and one that is not there; nothing is written."""
    pytest.importorskip("jinja2")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    templates = [
        make(tmp_path, "a.tmpl", "$X\n ${Y%z}", "1"),
        make(tmp_path, "b.j2", "{{ Z }}{{ env('W') }}", "2"),
        template(f"{tmp_path}/nope:{tmp_path}/3"),
        template(f"{tmp_path}/folder:{tmp_path}/4"),
        template(f"{tmp_path}/fifo:{tmp_path}/1"),
    ]

    _, problems = render_all(templates, INPUTS)

    assert [f"{name.removeprefix(f'{tmp_path}/')} {reason}" for name, reason, _ in problems] == [
        f"1 is the DEST of two templates, {tmp_path}/a.tmpl and {tmp_path}/fifo",
        "a.tmpl:1:1 X is not set",
        "a.tmpl:2:2 '${Y%' is the start of no form that is known here",
        "b.j2:1 Z is not defined",
        "b.j2:1 W is not set",
        "nope cannot be read: No such file or directory",
        "folder cannot be read: Is a directory",
        "fifo cannot be read: it is not a regular file",
    ]
    assert not any((tmp_path / name).exists() for name in "1234")


@pytest.mark.parametrize(
    ("name", "text", "used"),
    [
        ("a.tmpl", "${PW:+yes}", {"PW"}),
        ("a.tmpl", "${PORT:-$PW}", {"PW"}),
        ("a.j2", "{% if secret('PW') %}{% endif %}", {"PW"}),
        # PW is the password of URL, so what holds the one holds the other
        ("a.tmpl", "${PW}", {"PW", "URL"}),
        ("a.j2", "{{ file('secret.txt') }}", {"PW", "URL"}),
        ("a.j2", "{{ env('URL')|tojson }}", {"PW", "URL"}),
        ("a.j2", "{{ file('secret.txt')|urlencode }}", {"PW", "URL"}),
    ],
)
def test_a_template_with_a_secret_is_closed_to_others(tmp_path: Path, name: str, text: str, used: set[str]) -> None:
    """By default 0600; 0640 at most if it was said; also where the secret came by another way."""
    pytest.importorskip("jinja2")
    (tmp_path / "secret.txt").write_text(SECRET)
    plain = make(tmp_path, name, text)

    results, problems = render_all([plain], INPUTS)
    open_ones = [render_all([plain._replace(mode=mode)], INPUTS)[1] for mode in (0o644, 0o660, 0o700, 0o604)]
    closed_ones = [render_all([plain._replace(mode=mode)], INPUTS)[1] for mode in (0o600, 0o640, 0o400, 0o440)]

    assert problems == []
    assert results[0].mode == 0o600
    assert results[0].secrets == used
    assert closed_ones == [[]] * 4
    assert all("holds a secret" in found[0].reason for found in open_ones)
    assert all(SECRET not in str(found) for found in open_ones)


def test_what_a_file_was_made_of_is_known(tmp_path: Path) -> None:
    """`--watch` must look at the template and at all that it read; a relative path starts beside the template."""
    pytest.importorskip("jinja2")
    (tmp_path / "part").write_text("x")
    result = render_all([make(tmp_path, "a.j2", "{{ file('part') }}{{ file('/etc/hostname', ) }}")], INPUTS)[0][0]

    assert result.reads == (str(tmp_path / "a.j2"), str(tmp_path / "part"), "/etc/hostname")
    assert (result.secrets, result.mode) == (frozenset(), None)


def test_destinations_are_absolute_and_private_ones_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory of a later generation is another one; what was written means the directory of this one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t").write_text("x")

    assert render_all([template("t:out-{generation}")], INPUTS)[0][0].path == str(tmp_path / "out-3")


# ── the check ──


def run_check(tmp_path: Path, code: str, *, timeout: float = 30.0) -> list[str]:
    """Check one staged file with a Python program; `{src}` is its argument."""
    items = [Staged(str(tmp_path / "dest"), str(tmp_path / "temp"), -1)]
    (tmp_path / "temp").write_text("content")
    command = (sys.executable, "-S", "-c", code, "{src}")
    found = check(command, items, lambda text: text.replace(SECRET, "<hidden>"), timeout)
    return [f"{p.name} {p.reason}" for p in found]


def test_a_check_sees_the_candidate(tmp_path: Path) -> None:
    """`{src}` is the staged file, or the one in place if it is the same already; 0 is good."""
    assert run_check(tmp_path, "import sys; assert open(sys.argv[1]).read() == 'content'") == []
    unchanged = [Staged(str(tmp_path / "temp"), "", -1)]
    assert check((sys.executable, "-c", "open(__import__('sys').argv[1])", "{src}"), unchanged, str) == []


def test_a_refusal_is_told_without_secrets(tmp_path: Path) -> None:
    """Code and last lines, redacted before they are cut."""
    code = f"import sys; print('x\\n' * 9); print('bad: {SECRET}', file=sys.stderr); sys.exit(3)"

    assert run_check(tmp_path, code) == [
        f"{tmp_path}/dest {sys.executable} refuses it (exit code 3): x | x | x | x | bad: <hidden>"
    ]
    assert "(signal 9): it printed nothing" in run_check(tmp_path, "import os; os.kill(os.getpid(), 9)")[0]
    assert "\\udcff" in run_check(tmp_path, "import os; os.write(1, bytes([255])); os._exit(1)")[0]


def test_a_check_that_cannot_be_run_is_told() -> None:
    """The command is named, and why."""
    found = check(("/nope/x", "{src}"), [Staged("/dest", "", -1)], str)

    assert [p.reason for p in found] == ["/nope/x cannot be run: No such file or directory"]


def test_a_check_that_does_not_end_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """Also a grandchild, which holds the output and would be waited for in vain."""
    os.mkfifo(tmp_path / "alive")
    reader = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    os.close(os.open(tmp_path / "alive", os.O_WRONLY))  # a FIFO that never had a writer knows of no hang-up
    code = f"import os, signal; os.open('{tmp_path}/alive', os.O_WRONLY); os.fork(); signal.pause()"

    found = run_check(tmp_path, code, timeout=0.5)
    ended = select.poll()
    ended.register(reader)

    assert "did not end within 0.5 seconds" in found[0]
    assert ended.poll(10_000) == [(reader, select.POLLHUP)]  # the last writer is gone
    os.close(reader)


def test_no_shell_is_in_the_way(tmp_path: Path) -> None:
    """A path with blanks and dollars is one argument, as it is."""
    path = tmp_path / "a b; $HOME `x`"
    path.write_text("x")
    code = f"import sys; assert sys.argv[1:] == ['--file={path}']"

    assert check((sys.executable, "-c", code, "--file={src}"), [Staged("d", str(path), -1)], str) == []
