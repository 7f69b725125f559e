"""The strict dialect against a POSIX shell's here-document: the same, except where it must not be."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings, strategies

from launcher.appconfig import envsubst

SHELL = shutil.which("dash") or shutil.which("sh") or ""
VALUES = {b"A": b"1", b"B": b"two  words", b"E": b"", b"V": b"$A ${A} \\ \" ' } `x` \xc3\xa9"}
END = b"END_OF_TEMPLATE"

needs_sh = pytest.mark.skipif(not SHELL, reason="no POSIX shell is here")

# What both read alike: no backslash, backquote, quote or command, and no plain brace within a word.
plain = strategies.text("ab .:-+?=#%/*~!@[]()<>|&;,\n\té", min_size=1, max_size=6).map(str.encode)
names = strategies.sampled_from([b"A", b"B", b"E", b"V", b"N", b"M"])
operators = strategies.sampled_from([b"-", b":-", b"+", b":+", b"=", b":=", b"?", b":?"])
bare = names.map(lambda name: b"$" + name + b".") | names.map(lambda name: b"${" + name + b"}")


def with_word(words: strategies.SearchStrategy[bytes]) -> strategies.SearchStrategy[bytes]:
    """Put words into references, and those into words."""
    reference = strategies.tuples(names, operators, strategies.lists(words, max_size=3).map(b"".join))
    return reference.map(lambda parts: b"${%b%b%b}" % parts) | plain


nodes = strategies.recursive(plain | bare, with_word, max_leaves=8)
templates = strategies.lists(nodes | strategies.sampled_from([b"{", b"}"]), max_size=6).map(b"".join)


def shell(template: bytes) -> bytes | None:
    """Let the shell fill a template; None if it refuses."""
    script = b"cat <<%b\n%b\n%b\n" % (END, template, END)
    done = subprocess.run([SHELL], input=script, env=VALUES | {b"PATH": b"/usr/bin:/bin"}, capture_output=True)
    return done.stdout.removesuffix(b"\n") if done.returncode == 0 else None


def strict(template: bytes) -> bytes | None:
    """Fill it here; None if there are faults."""
    result = envsubst.substitute(envsubst.parse(template), VALUES, missing="empty")
    return None if result.faults else result.text


@needs_sh
@settings(max_examples=200)
@given(templates)
def test_any_template_is_filled_as_a_shell_would(template: bytes) -> None:
    """Set, empty and unset; nested; assigned; required."""
    assert strict(template) == shell(template)


@needs_sh
@pytest.mark.parametrize("operator", ["-", ":-", "+", ":+", "=", ":=", "?", ":?"])
@pytest.mark.parametrize("name", ["A", "E", "N"])
@pytest.mark.parametrize("word", ["", "w", "${A}", "${N:-${M-x}$A}", "a\nb"])
def test_every_form_with_every_state(name: str, operator: str, word: str) -> None:
    """The table of POSIX 2.6.2, cell by cell."""
    template = f"<${{{name}{operator}{word}}}|${name}>".encode()

    assert strict(template) == shell(template)


@needs_sh
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (rb"\$A", rb"\1"),  # a backslash is literal outside of words: regular expressions
        (rb"a\\b", rb"a\\b"),
        (b"a\\\nb", b"a\\\nb"),
        (b'${N:-"w"}', b'"w"'),  # quotes are literal
        (b'${N:-{"k":1}}', b'{"k":1}'),  # braces are balanced
        (b"$((1+2))", b"$((1+2))"),  # nothing is ever computed or executed
        (b"$(echo x)", b"$(echo x)"),
        (b"`echo x`", b"`echo x`"),
        (b"$$", b"$"),
        (b"$#", b"$#"),  # nor has a file parameters
        (b"${#A}", None),  # what is not supported is refused
        (b"${A%1}", None),
        (b"${A#1}", None),
    ],
)
def test_where_it_must_not_be_a_shell(template: bytes, expected: bytes | None) -> None:
    """The differences that are meant, each still one: if the shell agreed, the line would not belong here."""
    assert strict(template) == expected
    assert shell(template) != expected
