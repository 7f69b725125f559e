"""Jinja2 templates: what they may use, that every mistake is found, and that no sentence holds a value."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from launcher.appconfig.masked import Secret
from launcher.appconfig.render import Inputs
from launcher.appconfig.urls import Url

pytest.importorskip("jinja2", reason="the extra prod-run[jinja] is not installed")

CANARY = "canary-hunter2"
URL = "postgres://app:canary-pass@db:5432/shop"
CONFIG = SimpleNamespace(
    db=SimpleNamespace(host="db", port=5432, password=Secret(CANARY), url=Url(URL)), names=["a", "b"], plain=CANARY
)
INPUTS = Inputs({"PORT": "80", "EMPTY": "", "ODD": "\udcff"}, {"PW": CANARY, "URL": URL}, CONFIG, 7, "host1")
FILES = {"motd": b"hello\n", "odd": b"\xff"}


def read(path: str) -> bytes:
    """Read one of two files."""
    if path in FILES:
        return FILES[path]
    raise OSError(2, "No such file or directory")


def fill(source: str, inputs: Inputs = INPUTS) -> tuple[bytes, list[str], frozenset[str]]:
    """Fill a template; return text, problems in one line each, and secrets."""
    from launcher.appconfig import jinja

    text, problems, secrets = jinja.fill(source.encode(errors="surrogateescape"), "f.j2", inputs, read)
    return text, [f"{name} {reason}" for name, reason, _ in problems], secrets


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", b""),
        ("x\n", b"x\n"),
        ("a\r\nb {{ env('PORT') }}\r\n", b"a\r\nb 80\r\n"),
        ("{{ env('PORT') }}{{ env('NOPE', default=1) }}{{ env('NOPE', '') }}{{ env('EMPTY') }}", b"801"),
        ("{{ required('PORT') }} {{ required('PORT', 'for the listener') }}", b"80 80"),
        ("{{ cfg.db.host }}:{{ cfg.db.port + 1 }}", b"db:5433"),
        ("{{ cfg|attr('names')|join(',') }} {{ cfg.names|tojson }}", b'a,b ["a", "b"]'),
        ("{{ file('motd') }}|", b"hello\n|"),
        ("{{ file('odd') }}{{ env('ODD') }}\udcfe", b"\xff\xff\xfe"),
        ("{{ hostname }} {{ generation }}", b"host1 7"),
        ("{% for n in cfg.names %}\n{{ n }}\n{% endfor %}\nx", b"a\nb\nx"),
        ("{% if env('NOPE', none) is none %}no{% else %}{{ required('NOPE') }}{% endif %}", b"no"),
        ("<{{ '<&>' }}>{{ '{{' }}", b"<<&>>{{"),
    ],
)
def test_what_a_template_can_say(source: str, expected: bytes) -> None:
    """Bytes are kept as they are: newlines, the last one, what is not UTF-8; nothing is escaped."""
    assert fill(source) == (expected, [], frozenset())


@pytest.mark.parametrize(
    ("source", "expected", "used"),
    [
        ("{{ secret('PW') }}", CANARY, {"PW"}),
        ("{{ env('PW') }}", CANARY, {"PW"}),
        ("{{ required('PW') }}", CANARY, {"PW"}),
        ("{% if env('PW') %}x{% endif %}", "x", {"PW"}),
        ("{{ cfg.db.password }}", CANARY, {"in cfg"}),
        ("{{ cfg.db.url }}", URL, {"in cfg"}),
    ],
)
def test_a_secret_comes_out_and_is_known(source: str, expected: str, used: set[str]) -> None:
    """A file is what a secret may go to; that it did decides about the file's mode."""
    assert fill(source) == (expected.encode(), [], frozenset(used))


@pytest.mark.parametrize(
    "source", ["{{ 'x' ~ cfg.db.password }}", "{{ cfg.db.password|string }}", "{{ cfg.db.url ~ '' }}"]
)
def test_a_mask_never_gets_into_a_file(source: str) -> None:
    """A secret that is joined to a text hides itself: the service would start with a wrong password."""
    assert fill(source)[1] == ["f.j2 joins a secret of cfg to a text, which hides it"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ A }}\n{{ B }}{% if C %}{{ A }}{% endif %}", ["f.j2:1 A is not defined", "f.j2:2 A is not defined", "f.j2:2 B is not defined", "f.j2:2 C is not defined"]),
        ("{{ env('X') }}\n\n{{ required('Y', 'for mail') }}{{ required('EMPTY') }}\n{{ secret('PORT') }}{{ file('nope') }}", [
            "f.j2:1 X is not set",
            "f.j2:3 Y is not set, or empty: for mail",
            "f.j2:3 EMPTY is not set, or empty: required",
            "f.j2:4 PORT is not a secret that is declared and there",
            "f.j2:4 nope cannot be read: No such file or directory",
        ]),
        ("{{ A.b.c }}\n{{ env('X')|upper }}{% for i in A %}{% endfor %}", ["f.j2:1 A is not defined", "f.j2:2 A is not defined", "f.j2:2 X is not set"]),
        ("{{ env('X') + 1 }}", ["f.j2:1 X is not set"]),
        ("\n{{ cfg.nope }}", ["f.j2:2 UndefinedError in '{{ cfg.nope }}'"]),
        ("\n{{ 1 + '1' }}", ["f.j2:2 TypeError in \"{{ 1 + '1' }}\""]),
        ("{{ 1 / 0 }}", ["f.j2:1 ZeroDivisionError in '{{ 1 / 0 }}'"]),
        ("a\n{% if %}", ["f.j2:2 Expected an expression, got 'end of statement block'"]),
        ("a\n{% for x in y %}", ["f.j2:2 Unexpected end of template. Jinja was looking for the following tags: 'endfor' or 'else'. The innermost block that needs to be closed is 'for'"]),
        ("{{ 'x'|nope }}", ["f.j2:1 No filter named 'nope'"]),
        ("\n{% include 'x' %}", ["f.j2:2 TypeError in \"{% include 'x' %}\""]),
        ("a\x0bb\n{{ 1 / 0 }}", ["f.j2:2 ZeroDivisionError in '{{ 1 / 0 }}'"]),
    ],
)  # fmt: skip
def test_every_mistake_is_found_with_its_line(source: str, expected: list[str]) -> None:
    """Unknown names and missing values all together; what follows from them is not told again."""
    assert fill(source)[1] == expected


def test_a_missing_config_is_said() -> None:
    """`cfg` of an app without a config class is not defined."""
    assert fill("{{ cfg.x }}", INPUTS._replace(config=None))[1] == ["f.j2:1 cfg is not defined"]


@pytest.mark.parametrize(
    "source",
    [
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ env.__func__.__globals__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ '{0.__class__}'.format(1) }}{{ cfg.__class__ }}",
        "{{ cfg.names.append('x') }}",
        "{{ lipsum() }}",
        "{{ [1, 2]|random }}",
        "{{ now() }}",
    ],
)
def test_the_sandbox_has_no_way_out_and_no_chance(source: str) -> None:
    """Code, changes, clock and chance are refused: the same inputs make the same bytes."""
    assert fill(source)[1]
    assert CONFIG.names == ["a", "b"]


@pytest.mark.parametrize(
    "source",
    [
        "{{ {}[secret('PW')] }}",
        "{{ env(secret('PW')) }}{{ required(cfg.plain, cfg.plain) }}{{ secret(cfg.plain) }}{{ file(cfg.plain) }}",
        "{{ required('NOPE', 'not ' ~ secret('PW')) }}",
        "{{ secret('PW')|nope }}{{ cfg[cfg.plain] }}",
        "{{ cfg[cfg.plain] }}",
        "{{ secret('PW') + 1 }}",
        "{{ cfg.db.password + 'x' }}{{ cfg.db.password|tojson }}",
        "{{ range(secret('PW')) }}",
        "{{ '%d' % secret('PW') }}",
    ],
)
def test_no_sentence_holds_a_value(source: str) -> None:
    """Whatever a template does with a secret, its failure does not tell it."""
    _, problems, _ = fill(source)

    assert problems
    assert "canary" not in str(problems)


def test_an_absent_jinja_is_one_clear_sentence(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is named, with the command that installs it."""
    import sys

    from launcher.appconfig.render import render_all
    from launcher.appconfig.templates import Template

    source = tmp_path_factory.mktemp("t") / "x.j2"
    source.write_text("x")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "launcher.appconfig.jinja", raising=False)
    monkeypatch.delattr("launcher.appconfig.jinja", raising=False)

    _, problems = render_all([Template(str(source), "d")], INPUTS)

    assert [(p.reason, p.remedy) for p in problems] == [
        ("needs jinja2, which is not installed", "Install it: pip install 'prod-run[jinja]'")
    ]
