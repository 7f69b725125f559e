"""Env files: python-dotenv's syntax without interpolation, and a sentence for each line that is none."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies

from launcher.appconfig.env_file import EnvFiles, parse, read

CANARY = "canary-7f3a"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=b", {"A": ("b", 1)}),
        ("\n\n  A = b c \n", {"A": ("b c", 3)}),
        ("export A=b\nexport=c", {"A": ("b", 1), "export": ("c", 2)}),
        (
            "# A=b\nB=c # d\nC=c#d\nD= # d\nE=#d\nF=",
            {n: (v, i + 2) for i, (n, v) in enumerate(zip("BCDEF", ("c", "c#d", "", "#d", ""), strict=True))},
        ),
        ("A='b # \\' \\\\ \\n'", {"A": ("b # ' \\ \\n", 1)}),
        ('A="b # \\" \\\\ \\n\\t\\x" # c', {"A": ('b # " \\ \n\t\\x', 1)}),
        ('A="b\nc"\nB=d', {"A": ("b\nc", 1), "B": ("d", 3)}),
        ("A=$B ${C}", {"A": ("$B ${C}", 1)}),
        ("\ufeffA=b\r\nB='c\r\nd'\r\n", {"A": ("b", 1), "B": ("c\nd", 2)}),
        ("A=b\nA=c", {"A": ("c", 2)}),
        ("'A b'=c", {"A b": ("c", 1)}),
        ("A=b'c'", {"A": ("b'c'", 1)}),
        ("", {}),
    ],
)
def test_each_form_of_a_line(text: str, expected: dict[str, tuple[str, int]]) -> None:
    """The value, and the line where its name stands."""
    assert parse(text, "prod.env") == (expected, ())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"={CANARY}", "has no name"),
        (CANARY, "is not NAME=VALUE"),
        (f"A {CANARY}=x", "is not NAME=VALUE"),
        (f'A="{CANARY}', "has a quote that is never closed"),
        (f"A='{CANARY}\\'", "has a quote that is never closed"),
        (f"A='b' {CANARY}", "goes on behind the closing quote"),
        (f"A={CANARY}\0", "contains a NUL"),
        (f"'A={CANARY}'=b", "has a = in its name"),
    ],
)
def test_a_bad_line_is_named_but_not_shown(line: str, reason: str) -> None:
    """File and line, what to write instead; a line that was broken in two may be half of a secret."""
    values, problems = parse(f"\n\nB=1\n{line}\nC=2\n", "prod.env")

    assert [(problem.name, problem.reason) for problem in problems] == [("prod.env:4", reason)]
    assert all(problem.remedy for problem in problems)
    assert CANARY not in repr(problems)
    assert values["B"] == ("1", 3)
    assert values["C"] == ("2", 5)


def test_all_bad_lines_are_told_at_once() -> None:
    """An operator repairs the file once."""
    _, problems = parse("A\n=\nB=1\nC='", "x")

    assert [problem.name for problem in problems] == ["x:1", "x:2", "x:4"]


PIECES = strategies.sampled_from(
    [
        *"AB=#'\"\\ \t\n\r$x",
        "\r\n",
        "export ",
        "A=",
        "='",
        '="',
        "\\n",
        "\\'",
        '\\"',
        " #",
        "\x0b",
        "\x1c",
        "\xa0",
        "\x85",
        "é",
        "\u2028",
    ]
)


@settings(max_examples=300)
@given(strategies.lists(PIECES, max_size=25).map("".join))
def test_it_agrees_with_python_dotenv(text: str) -> None:
    """Where python-dotenv finds a value this finds it too, and where it passes over a line there is a problem."""
    dotenv = pytest.importorskip("dotenv")
    parser = pytest.importorskip("dotenv.parser")
    logging.getLogger("dotenv.main").disabled = True
    theirs = dotenv.dotenv_values(stream=io.StringIO(text, newline=None), interpolate=False)
    bindings = list(parser.parse_stream(io.StringIO(text, newline=None)))
    unclear = sum(binding.error or (binding.key is not None and binding.value is None) for binding in bindings)
    impossible = sum("=" in (binding.key or "") and binding.value is not None for binding in bindings)

    values, problems = parse(text, "x")

    # A name without = is None there, and overwrites a value before it; here it is a problem.
    expected = {}
    for binding in bindings:
        if binding.key is not None and binding.value is not None and "=" not in binding.key:
            expected[binding.key] = binding.value
    assert {name: value for name, (value, _) in values.items()} == expected
    assert len(problems) == unclear + impossible
    assert {name for name, value in theirs.items() if value is not None and "=" not in name} <= values.keys()


@given(strategies.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No input makes it fail, and every line number is one of the file."""
    values, problems = parse(text, "x")

    lines = [line for _, line in values.values()] + [int(problem.name.removeprefix("x:")) for problem in problems]
    assert all(1 <= line <= len(text) + 1 for line in lines)


def test_the_later_file_wins_and_the_environment_over_all(tmp_path: Path) -> None:
    """Each value's origin is the line that it really came from."""
    (tmp_path / "a").write_text("A=a\nB=a\nC=a\n")
    (tmp_path / "b").write_text("\nB=b\nC=b\n")

    found = read((f"{tmp_path}/a", f"{tmp_path}/b"), {"C": "real", "D": "real"})

    assert found.environ == {"A": "a", "B": "b", "C": "real", "D": "real"}
    assert found.origins == {"A": f"{tmp_path}/a:1", "B": f"{tmp_path}/b:2"}
    assert found.problems == ()


def test_every_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """All of them are told, each once by its path; an empty file is none."""
    (tmp_path / "latin").write_bytes(b"A=\xff" + CANARY.encode())
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "bad").write_text(f"{CANARY}\n")
    paths = (*(f"{tmp_path}/{name}" for name in ("gone", "latin", "empty", "bad")), str(tmp_path))

    found = read(paths, {})

    assert found == EnvFiles({}, {}, found.problems)
    assert [(p.name, p.reason) for p in found.problems] == [
        (f"{tmp_path}/gone", "does not exist"),
        (f"{tmp_path}/latin", "is not UTF-8 text"),
        (f"{tmp_path}/bad:1", "is not NAME=VALUE"),
        (str(tmp_path), "is a directory"),
    ]
    assert CANARY not in repr(found)


def test_values_are_not_in_a_repr(tmp_path: Path) -> None:
    """Env files hold passwords too."""
    (tmp_path / "a").write_text(f"A={CANARY}")

    assert CANARY not in repr(read((f"{tmp_path}/a",), {"B": CANARY}))
