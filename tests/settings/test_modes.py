"""What prod-run does instead of a start: which modes there are, what they print, and what they never print."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from launcher.cli import FORMATS
from launcher.settings_table import MODES
from tests.appconfig.canary import leaks

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Program

APP = """
import environ
import launcher


@environ.config(prefix="SHOP")
class Config:
    port = environ.var(8000, converter=int, help="where to listen")
    token = launcher.secret(help="of the payment service")


def main(config: Config) -> None:
    raise SystemExit("the target was called")
"""
ENVIRON = {"SHOP_PORT": "81", "SHOP_TOKEN": "hunter2-token"}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A directory with a small app."""
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


def test_every_mode_of_the_table_is_built() -> None:
    """What the help offers can be asked for; the rest are modifiers, and the filter."""
    assert {setting.name for setting in MODES} - FORMATS.keys() == {"without-secrets", "format", "envsubst"}


def test_show_config_shows_the_targets_variables_too(program: Program, app: Path) -> None:
    """Value and origin of each; a secret's value is masked."""
    (app / "prod.env").write_text("SHOP_PORT=82\n")
    words = ("--show-config", "--env-file", "prod.env", "shop:main")
    answer = program.run(*words, environ={"SHOP_TOKEN": "hunter2-token"}, cwd=app)

    assert (answer.code, answer.err) == (0, "")
    assert re.search(r"^env-file +prod.env +flag --env-file$", answer.out, re.MULTILINE)
    assert re.search(r"^SHOP_PORT +82 +prod.env:1$", answer.out, re.MULTILINE)
    assert re.search(r"^SHOP_TOKEN +<secret> +environment$", answer.out, re.MULTILINE)


def test_show_config_shows_what_there_is_and_names_the_rest(program: Program, app: Path) -> None:
    """Who asks what is set has a problem already; judging is another mode's task."""
    answer = program.run("--show-config", "shop:main", environ={"SHOP_PORT": "x"}, cwd=app)

    assert (answer.code, answer.err) == (0, "")
    assert re.search(r"^SHOP_PORT +x +environment$", answer.out, re.MULTILINE)
    assert re.search(r"^SHOP_TOKEN +missing$", answer.out, re.MULTILINE)
    assert answer.out.splitlines()[-1] == (
        "Something is wrong with SHOP_PORT, SHOP_TOKEN: see prod-run --check-config shop:main"
    )


def test_show_config_makes_no_templates(program: Program, app: Path) -> None:
    """It is only asked for values."""
    (app / "a.tmpl").write_text("${NOTHING}")
    answer = program.run("--show-config", "--template", "a.tmpl:a", "shop:main", environ=ENVIRON, cwd=app)

    assert answer.code == 0
    assert "wrong" not in answer.out
    assert not (app / "a").exists()


@pytest.mark.parametrize(
    "words", [("shop:main",), ("--config", "shop:Config"), ("--config", "shop:Config", "shop:main")]
)
def test_help_config_prints_the_variables_without_needing_one(
    program: Program, app: Path, words: tuple[str, ...]
) -> None:
    """Whoever has to set them has not set them yet."""
    answer = program.run("--help-config", *words, cwd=app)

    assert (answer.code, answer.err) == (0, "")
    assert re.search(r"^SHOP_PORT +default 8000 +where to listen$", answer.out, re.MULTILINE)
    assert re.search(r"^SHOP_TOKEN +secret, required +of the payment service$", answer.out, re.MULTILINE)


def test_help_config_has_three_formats(program: Program, app: Path) -> None:
    """For a terminal, a README, and an env file in which nothing is set yet."""
    out = {
        form: program.run("--help-config", "--format", form, "shop:main", cwd=app).out
        for form in FORMATS["help-config"]
    }

    assert out["text"] == program.run("--help-config", "shop:main", cwd=app).out
    assert "| `SHOP_PORT` | default 8000 | where to listen |" in out["markdown"]
    assert "#SHOP_PORT=" in out["env"]
    assert all(line.startswith("#") or not line for line in out["env"].splitlines())


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ((), 2, "MODULE:ATTRIBUTE: missing. For example: prod-run --help-config shop.web:main"),
        (("os:getcwd",), 78, "os:getcwd: names no environ-config class in its annotations. Write --config"),
        (("--config", "shop:main"), 78, "shop:main: is no environ-config class"),
        (("nothing:main",), 70, "there is no module 'nothing'"),
        (("--workers", "0", "shop:main"), 2, "--workers: '0' is out of range"),
    ],
)
def test_help_config_says_why_it_has_nothing_to_say(
    program: Program, app: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    """One sentence on stderr."""
    answer = program.run("--help-config", *words, cwd=app)

    assert (answer.code, answer.out) == (code, "")
    assert sentence in answer.err


# ── the filter ──


def test_envsubst_is_a_filter_with_a_grammar_of_its_own(program: Program) -> None:
    """Its words are not prod-run's: `--variables`, `-V`, a SHELL-FORMAT, and its exit codes."""

    def run(*words: str, text: str = "") -> tuple[int, str]:
        process = program.start("--envsubst", *words, environ={"A": "1", "PROD_RUN_NONSENSE": "x"})
        out, err = process.communicate(text, timeout=20)
        return process.returncode, out + err

    assert run(text="$A ${A} $B|") == (0, "1 1 |")
    assert run("$A", text="$A $B") == (0, "1 $B")
    assert run("--variables", "$A ${B}") == (0, "A\nB\n")
    assert run("--dialect", "strict", "--missing", "keep", text="${A:-2} ${B}") == (0, "1 ${B}")
    code, said = run("--dialect", "strict", text="${B}")
    assert (code, said.startswith("envsubst: standard input:1:1: ")) == (1, True)
    assert run("--workers")[0] == 1


def test_envsubst_is_only_the_first_word(program: Program) -> None:
    """Anywhere else it would be a start that was meant to be a filter; behind the target it is the target's."""
    answer = program.run("--workers", "2", "--envsubst", "shop:main")

    assert answer.code == 2
    assert "--envsubst: must be the first word" in answer.err
    assert program.run("shop:main", "--envsubst").told["arguments"] == ["--envsubst"]


def test_envsubst_loads_neither_click_nor_what_a_start_needs(program: Program) -> None:
    """A filter is called hundreds of times by a script."""
    code = "import os, sys; sys.argv[1:] = ['--envsubst', '-V']; from launcher import cli\n"
    code += "os._exit = lambda code: print(*sys.modules) or sys.exit(code)\ncli.main()"
    answer = program.run(code=code)

    assert answer.code == 0
    loaded = set(answer.out.splitlines()[-1].split())
    assert "launcher.appconfig.envsubst_filter" in loaded
    assert {"click", "launcher.exec", "launcher.settings", "attr", "environ", "inspect", "socket"}.isdisjoint(loaded)


def test_envsubst_ends_by_a_signal_as_other_filters_do(program: Program) -> None:
    """No signal is blocked, and Ctrl-C is no traceback."""
    process = program.start("--envsubst")
    process.stdin.write("x\n" * 70_000)  # more than a pipe holds: once it is taken, the filter is at work
    process.stdin.flush()
    assert process.stdout.read(2) == "x\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (-signal.SIGINT, "")


@pytest.mark.skipif(not os.path.exists("/usr/bin/envsubst"), reason="gettext-base is not installed")
def test_envsubst_agrees_with_gnus_program(program: Program) -> None:
    """The same text, options and exit codes, through the whole program."""
    for words in ((), ("$A",), ("-v", "$A $B"), ("a", "b"), ("-v",)):
        ours = program.start("--envsubst", *words, environ={"A": "x y"})
        out, _ = ours.communicate("$A ${A}$B $$A {$A ${A:-1}\n", timeout=20)
        gnu = subprocess.run(
            ["/usr/bin/envsubst", *words],
            input="$A ${A}$B $$A {$A ${A:-1}\n",
            env={"A": "x y"},
            capture_output=True,
            text=True,
        )

        assert (ours.returncode, out) == (gnu.returncode, gnu.stdout)


# ── canaries ──

CANARIES = tuple(f'Canary{n:02}/@ "ü%\\{n:02}' for n in range(20))
PLACES = ("environment", "file", "directory", "url", "env file")

DECLARED = """
import environ
import launcher


def refuse(value):
    raise ValueError(f"cannot use {value!r} {value}")


def check(instance, attribute, value):
    raise ValueError("%r in %r" % (value, instance))


@environ.config(prefix="SHOP")
class Config:
    # the fields
"""
# What an app may do with its secrets while prod-run looks: each a way in which a value has got into a log.
APPS = {
    "good": "",
    "raises at import": "raise ValueError(plain(0), config.s1, vars(config), attrs.asdict(config))",
    "raises with a chain": "try:\n    raise KeyError(plain(2))\nexcept KeyError as error:\n    raise RuntimeError(plain(3)) from error",
    "exits with it": "sys.exit(plain(4))",
    "prints what hides itself": "print(config, repr(config), '%r' % (vars(config),), attrs.asdict(config))",
    "logs what hides itself": "logging.warning('%r %s', config, vars(config))",
    "is a third party's %r": "raise TypeError('bad argument %r' % (Client(plain(5)),))",
    "has a target that cannot be called": "main = plain(6)",
    "percent-encodes": "raise ValueError(urllib.parse.quote(plain(7), safe=''))",
    "encodes as base64": "raise ValueError(base64.b64encode(plain(8).encode()))",
    "writes JSON": "raise ValueError(json.dumps([plain(9), plain(10)]))",
}
HEADER = """
import attrs, base64, json, logging, sys, urllib.parse
import launcher
from declared import Config

config = launcher.config(Config)


class Client:
    def __init__(self, dsn):
        self.dsn = dsn
    def __repr__(self):
        return f"Client(dsn={self.dsn!r})"


def plain(number):
    value = getattr(config, f"s{number}")
    return value.reveal() if hasattr(value, "reveal") else value


def main(config: Config) -> None: ...
"""


def declared(app: Path, options: dict[int, str]) -> dict[str, str]:
    """Declare the canaries, lay each somewhere, and return the environment."""
    fields = []
    environ: dict[str, str] = {}
    (app / "secrets").mkdir(exist_ok=True)
    lines = []
    for number, canary in enumerate(CANARIES):
        name = f"SHOP_S{number}"
        where = PLACES[number % len(PLACES)]
        kind = "url" if where == "url" else "secret"
        fields.append(f"    s{number} = launcher.{kind}({options.get(number, '')})")
        value = f"postgres://shop:{quoted(canary)}@db/shop" if where == "url" else canary
        if where == "file":
            (app / f"{name}.txt").write_text(value)
            environ[f"{name}_FILE"] = str(app / f"{name}.txt")
        elif where == "directory":
            (app / "secrets" / name.lower()).write_text(value)
        elif where == "env file":
            lines.append(f"{name}={json.dumps(value, ensure_ascii=False)}")
        else:
            environ[name] = value
    (app / "declared.py").write_text(DECLARED.replace("    # the fields", "\n".join(fields)))
    (app / "prod.env").write_text("\n".join(lines))
    (app / "a.tmpl").write_text("".join(f"${{SHOP_S{number}}}\n" for number in range(20)) + "${NOT_THERE}\n")
    return environ


def quoted(text: str) -> str:
    """Percent-encode for a URL."""
    from urllib.parse import quote

    return quote(text, safe="")


def commands() -> list[tuple[str, ...]]:
    """List every mode in every format, as the code has them, and a start that is refused."""
    found: list[tuple[str, ...]] = [("--wrokers",), ("--workers", "0")]
    for mode, forms in FORMATS.items():
        found += [(f"--{mode}", *(("--format", form) if len(forms) > 1 else ())) for form in forms]
    return [*found, ("--check-config", "--template", "a.tmpl:a"), ("--check-config", "--without-secrets")]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_no_output_has_a_secret_in_any_form(program: Program, tmp_path: Path, command: tuple[str, ...]) -> None:
    """20 values from five kinds of places; raw, percent-encoded, base64 and escaped; whatever the app does."""
    refusing = {6: "converter=refuse", 7: "validator=check", 10: "converter=int", 3: "schemes=['https']"}
    apps = [*((source, {}) for source in APPS.values()), ("", refusing)]
    if command[0].removeprefix("--") not in {"check-config", "show-config", "help-config"}:
        apps = apps[:1]  # they do not look at the target
    for app, options in apps:
        environ = declared(tmp_path, options)
        (tmp_path / "shop.py").write_text(f"{HEADER}\n{app}\n")
        words = ("--secrets-dir", "secrets", "--env-file", "prod.env", "--config", "declared:Config", *command)

        answer = program.run(*words, "shop:main", environ=environ, cwd=tmp_path)

        said = answer.out + answer.err
        assert said
        assert [(app, canary, found) for canary in CANARIES if (found := leaks(said, canary))] == []


def test_the_canaries_are_really_there(program: Program, tmp_path: Path) -> None:
    """The search would find one: an app that prints what it has revealed is not prod-run's output, and is found."""
    environ = declared(tmp_path, {})
    (tmp_path / "shop.py").write_text(f"{HEADER}\nprint(*map(plain, range(20)))\n")
    words = ("--secrets-dir", "secrets", "--env-file", "prod.env", "--check-config")

    answer = program.run(*words, "shop:main", environ=environ, cwd=tmp_path)

    assert answer.code == 0, answer.out
    found = [canary for canary in CANARIES if leaks(answer.err, canary)]
    assert len(found) >= 16  # all but the URLs, which hide their passwords
    assert [canary for canary in CANARIES if leaks(answer.out, canary)] == []
