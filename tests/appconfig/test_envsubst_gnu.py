"""`prod-run --envsubst` against the real GNU envsubst: the same bytes, the same exit codes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

import pytest
from hypothesis import given, settings, strategies

from launcher.appconfig import envsubst_filter

GNU = shutil.which("envsubst") or ""
VALUES = {b"A": b"1", b"AB": b"two words", b"E": b"", b"_": b"u", b"V": b"$A ${A} $$ \\$A \xff\xfe\n\n", b"a1": b"x"}

needs_gnu = pytest.mark.skipif(
    "gettext" not in (subprocess.run([GNU, "-V"], capture_output=True, text=True).stdout if GNU else ""),
    reason="GNU envsubst (Debian: gettext-base) is not here",
)

CORPUS = [
    b"", b"\n", b"no newline", b"\r\n$A\r\n", b"$A", b"${A}", b"$A$AB${AB}x$E.$_-$V", b"$NOPE${NOPE}|",
    b"$$A $$ $$$A \\$A \\\\$A '$A' \"$A\" `$A` $(A) $((A))", b"$", b"$ A", b"$1 ${1} $? $@ $# $* $! $- $0",
    b"${A:-d} ${A-d} ${A:=d} ${A:?m} ${A:+y} ${#A} ${A#p} ${A%p} ${A/a/b} ${A^^} ${!A} ${A[0]} ${ A } ${}",
    b"${NOPE:-$A} ${${A}} $${A} ${A$A} ${A ${A}", b"${A", b"${", b"${A\n}", b"$A}", b"{$A}", b"${A}}", b"$a1 $A1",
    b"\0$A\0${A}\0", b"\xff$A\xfe${A}\x80", "é$Aé${A}é$é${é}".encode(), b"$\xc3A", b"$AB\xc3", b"${AB\xc3}",
    b"$A" * 9000, b"x" * 65535 + b"$AB${AB}", b"x" * 65534 + b"$AB", b"x" * 65533 + b"${AB}y", b"$" + b"A" * 70000,
    b"<%= $A %> {{ $A }} $host $request_uri", b"[a-z]$", b"^$|\\.$", b"$\n$A", b"$A\t${A}\v$A\f",
]  # fmt: skip
FORMATS = [
    None,
    b"",
    b"$A",
    b"A",
    b"$A $B",
    b"$A,${AB}",
    b"$A$AB",
    b"${A:-$AB}",
    b"$NOPE",
    b"text ${_} $V",
    b"$$A",
    b"\xff$A",
]

pieces = strategies.sampled_from(
    [
        b"$",
        b"{",
        b"}",
        b"A",
        b"AB",
        b"_",
        b"1",
        b"V",
        b"E",
        b" ",
        b"\n",
        b"\\",
        b"$A",
        b"${AB}",
        b"${",
        b":-",
        b"\xff",
        b"\0",
    ]
)
texts = strategies.lists(pieces, max_size=40).map(b"".join) | strategies.binary(max_size=60)
formats = strategies.none() | strategies.lists(pieces, max_size=8).map(b"".join).filter(lambda text: b"\0" not in text)


def ours(words: list[bytes], text: bytes, environ: dict[bytes, bytes] = VALUES) -> tuple[int, bytes, bytes]:
    """Run the filter in this process; return its exit code, output and messages."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write(text)
        stdin.seek(0)
        fds = (stdin.fileno(), stdout.fileno(), stderr.fileno())
        code = envsubst_filter.run([os.fsdecode(word) for word in words], environ, *fds)
        stdout.seek(0)
        stderr.seek(0)
        return code, stdout.read(), stderr.read()


def theirs(words: list[bytes], text: bytes, environ: dict[bytes, bytes] = VALUES) -> tuple[int, bytes, bytes]:
    """Run GNU's program."""
    done = subprocess.run([b"envsubst", *words], executable=GNU, input=text, env=environ, capture_output=True)
    return done.returncode, done.stdout, done.stderr.replace(b"'envsubst --help'", b"'prod-run --envsubst --help'")


@needs_gnu
@pytest.mark.parametrize("shell_format", FORMATS)
def test_a_corpus_comes_out_the_same(shell_format: bytes | None) -> None:
    """Every text with every format, byte for byte."""
    words = [] if shell_format is None else [b"--", shell_format]

    for text in CORPUS:
        assert ours(words, text) == theirs(words, text), text[:80]


@needs_gnu
@settings(max_examples=150)
@given(text=texts, shell_format=formats)
def test_any_text_comes_out_the_same(text: bytes, shell_format: bytes | None) -> None:
    """What nobody thought of."""
    words = [] if shell_format is None else [b"--", shell_format]

    assert ours(words, text) == theirs(words, text)


@needs_gnu
@pytest.mark.parametrize(
    "shell_format", [text for text in [*FORMATS, *CORPUS[:30]] if text is not None and b"\0" not in text]
)
def test_variables_are_listed_the_same(shell_format: bytes) -> None:
    """In order, repeated ones too, set or not."""
    assert ours([b"-v", b"--", shell_format], b"ignored") == theirs([b"-v", b"--", shell_format], b"ignored")


@needs_gnu
@pytest.mark.parametrize(
    "line",
    [
        "-v", "a b", "-v a b", "-x", "-vx $A", "-hx", "--bogus", "--vari $A", "--v", "--v=3", "--variables=x $A",
        "--help=3", "$A -v", "-- -v", "-v -- $A", "-", "-v -", "-v -v $A", "---", "a b -x", "--var $A --", "-v $A --",
        "--vers=1", "-- a b", "-\xe9", "--\xe9", "-v- $A",
    ],
)  # fmt: skip
@pytest.mark.parametrize("environ", [VALUES, VALUES | {b"POSIXLY_CORRECT": b""}])
def test_words_are_understood_the_same(line: str, environ: dict[bytes, bytes]) -> None:
    """Options anywhere, abbreviated, refused: with GNU's sentences and its exit code 1."""
    words = [word.encode("latin-1") for word in line.split(" ")]

    assert ours(words, b"x $A y", environ) == theirs(words, b"x $A y", environ)


@pytest.mark.parametrize("words", [["-h"], ["--help", "a", "b"], ["-vh"], ["--he"], ["-V"], ["-Vh"], ["--vers", "-v"]])
def test_help_and_version_are_our_own(words: list[str]) -> None:
    """They win over wrong operands, and end with 0."""
    code, text, messages = ours([os.fsencode(word) for word in words], b"")

    assert (code, messages) == (0, b"")
    assert b"prod-run" in text


@needs_gnu
@pytest.mark.parametrize("target", ["/dev/full", "closed"])
@pytest.mark.parametrize("words", [[], [b"-v", b"$A"], [b""], [b"-v", b""]])
def test_failed_output_is_told_the_same(target: str, words: list[bytes]) -> None:
    """ENOSPC and EBADF are a sentence and 1; nothing to write is no failure."""
    fd = os.open(
        "/dev/full" if target == "/dev/full" else "/dev/null", os.O_WRONLY if target == "/dev/full" else os.O_RDONLY
    )
    read, write = os.pipe()
    with open(os.devnull, "rb") as empty, open(read, "rb") as messages:
        code = envsubst_filter.run([os.fsdecode(word) for word in words], VALUES, empty.fileno(), fd, write)
        os.close(write)
        done = subprocess.run(
            [b"envsubst", *words], executable=GNU, stdin=empty, stdout=fd, stderr=subprocess.PIPE, env=VALUES
        )
        os.close(fd)

        assert (code, messages.read()) == (done.returncode, done.stderr)


@needs_gnu
def test_a_directory_as_input_is_told_the_same() -> None:
    """EISDIR is a sentence and 1."""
    with tempfile.TemporaryFile() as out:
        fd = os.open("/", os.O_RDONLY)
        code = envsubst_filter.run([], VALUES, fd, out.fileno(), out.fileno())
        done = subprocess.run(["envsubst"], executable=GNU, stdin=fd, capture_output=True, env=VALUES)
        os.close(fd)
        out.seek(0)

        assert (code, out.read()) == (done.returncode, done.stderr)


def test_a_reader_that_has_gone_ends_it_as_a_signal_would() -> None:
    """`prod-run --envsubst | head -1`: 141 and no words, as a shell sees SIGPIPE."""
    read, write = os.pipe()
    os.close(read)
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
        stdin.write(b"$A\n" * 99)
        stdin.seek(0)
        code = envsubst_filter.run([], VALUES, stdin.fileno(), write, stderr.fileno())
        os.close(write)
        stderr.seek(0)

        assert (code, stderr.read()) == (141, b"")


def test_what_has_come_is_passed_on_before_the_end() -> None:
    """A filter in a pipe does not hold lines back; a reference cut in two waits for its rest."""
    (to_filter, ours_in), (from_filter, ours_out) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(ours_in)
        os._exit(envsubst_filter.run([], VALUES, to_filter, ours_out, 2))
    os.close(to_filter)
    os.close(ours_out)

    os.write(ours_in, b"$A and ${A")
    first = os.read(from_filter, 100)
    os.write(ours_in, b"B}")
    os.close(ours_in)
    second = os.read(from_filter, 100)
    os.close(from_filter)

    assert (first, second) == (b"1 and ", b"two words")
    assert os.waitpid(child, 0)[1] == 0


# ── the strict dialect as a filter ──


STRICT = [b"--dialect", b"strict"]


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        ([], b"$A ${NOPE:-d} $$\n", (0, b"1 d $\n", b"")),
        ([], b"a\n $NOPE ${A%x}", (1, b"", b"envsubst: standard input:2:2: NOPE is not set. Set it, or write ${NOPE:-default}\nenvsubst: standard input:2:8: '${A%' is the start of no form")),
        ([b"--missing=empty"], b"<$NOPE>", (0, b"<>", b"")),
        ([b"--missing", b"keep"], b"<$NOPE>", (0, b"<$NOPE>", b"")),
        ([b"$A"], b"$A $host", (0, b"1 $host", b"")),
        ([b"-v", b"$A ${B:-$C}"], b"", (0, b"A\nB\nC\n", b"")),
        ([b"-v", b"${A%x}"], b"", (1, b"", b"envsubst: SHELL-FORMAT:1:1: '${A%' is the start")),
        ([b"--missing=no"], b"", (1, b"", b"envsubst: 'no' is no choice of --missing: error, empty, keep\n")),
        ([b"--dialect"], b"", (1, b"", b"envsubst: option '--dialect' requires an argument\n")),
        ([b"--dialect=gnu", b"--missing=keep"], b"", (1, b"", b"envsubst: --missing needs --dialect strict")),
    ],
)  # fmt: skip
def test_the_strict_filter(words: list[bytes], text: bytes, expected: tuple[int, bytes, bytes]) -> None:
    """All faults with their places, 1, and then nothing on standard output."""
    code, out, messages = ours([*STRICT, *words], text)

    assert (code, out) == expected[:2]
    assert messages.startswith(expected[2])
    assert bool(messages) == bool(expected[2])
