"""The strict dialect: what each form means, and that every mistake is found where it is."""

from __future__ import annotations

import pytest

from launcher.appconfig import envsubst

VALUES = {b"A": b"1", b"E": b"", b"V": b"$A ${A} \\ } \xff", b"_x9": b"x"}


def filled(source: bytes, **options: object) -> bytes:
    """Fill a template that has no faults."""
    parsed = envsubst.parse(source)
    result = envsubst.substitute(parsed, VALUES, **options)  # type: ignore[arg-type]
    assert envsubst.problems("f", parsed, result) == []
    return result.text


def faults(source: bytes, **options: object) -> list[str]:
    """Return the problems of a template, one line each."""
    parsed = envsubst.parse(source)
    found = envsubst.problems("f", parsed, envsubst.substitute(parsed, VALUES, **options))  # type: ignore[arg-type]
    return [f"{name} {reason}" for name, reason, _ in found]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"", b""),
        (b"plain\r\ntext\0 \xff\n", b"plain\r\ntext\0 \xff\n"),
        (b"$A${A}$_x9.$A-b", b"11x.1-b"),
        (b"$V", b"$A ${A} \\ } \xff"),
        (b"<$E>", b"<>"),
        # with a word
        (b"${A-w}${E-w}${N-w}", b"1w"),
        (b"${A:-w}${E:-w}${N:-w}", b"1ww"),
        (b"${A+w}${E+w}${N+w}", b"ww"),
        (b"${A:+w}${E:+w}${N:+w}", b"w"),
        (b"${A?w}${E?w}${A:?w}", b"11"),
        (b"${N=w}$N${N:-v}", b"www"),
        (b"${E=w}$E|${E:=w}$E", b"|ww"),
        (b"${N:-}", b""),
        (b"${N:-${M-${A}}$A${M:-x}}", b"11x"),
        (b"${N:-a\nb}", b"a\nb"),
        # lazily
        (b"${A:-${M}${M:?no}}${N+$M}", b"1"),
        (b"${A:-${N=w}}${N-unassigned}", b"1unassigned"),
        # dollars, backslashes, quotes, braces
        (b"$$A $$$A $$$$", b"$A $1 $$"),
        (b"$ $1 $? $(ls) $((1+2)) `ls` $-$", b"$ $1 $? $(ls) $((1+2)) `ls` $-$"),
        (rb"\$A \\ \} ^\.php\$$", rb"\1 \\ \} ^\.php\$"),
        (rb"${N:-\} \{ \$A \\ \n}", rb"} { $A \ \n"),
        (b"""${N:-{"k": {"v": "$A"}, 'l': "\\}"}}""", b"""{"k": {"v": "1"}, 'l': "}"}"""),
        (b"""${N:-{"k": 'x'}}}""", b"""{"k": 'x'}}"""),
        (b"{$A} {${A}} }{", b"{1} {1} }{"),
    ],
)
def test_each_form_means_what_it_says(source: bytes, expected: bytes) -> None:
    """POSIX's forms, nested and lazy; quotes are literal, braces balanced, and nothing is ever executed."""
    assert filled(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"x $N", ["f:1:3 N is not set"]),
        (b"\n\n  ${N}${N}", ["f:3:3 N is not set", "f:3:7 N is not set"]),
        ("é€\r\n😀${N}".encode(), ["f:2:2 N is not set"]),
        (b"\xff\xff$N", ["f:1:3 N is not set"]),
        (b"${N?}", ["f:1:1 N is not set: required"]),
        (b"${E:?give $V, say ${A:-\\}}}", ["f:1:1 E is not set, or empty: give $V, say ${A:-\\}}"]),
        (b"${N:-$M}", ["f:1:6 M is not set"]),
        (b"${#A}", ["f:1:1 '${#A' is the start of no form that is known here"]),
        (b"${A%.*}${A^^}${A/a/b}${!A}${A[0]}${ A }${}${1}", [
            "f:1:1 '${A%' is the start of no form that is known here",
            "f:1:8 '${A^' is the start of no form that is known here",
            "f:1:14 '${A/' is the start of no form that is known here",
            "f:1:22 '${!A' is the start of no form that is known here",
            "f:1:27 '${A[' is the start of no form that is known here",
            "f:1:34 '${' is the start of no form that is known here",
            "f:1:40 '${' is the start of no form that is known here",
            "f:1:43 '${1' is the start of no form that is known here",
        ]),
        (b"${A:1:2}", ["f:1:1 '${A:' is the start of no form that is known here"]),
        ("${é}".encode(), ["f:1:1 '${' is the start of no form that is known here"]),
        (b"${", ["f:1:1 '${' is the start of no form that is known here"]),
        (b"${A", ["f:1:1 '${A' is the start of no form that is known here"]),
        (b"${A:-x\n$N", ["f:1:1 the reference to A is not closed", "f:2:1 N is not set"]),
        (b"${A:-{}", ["f:1:1 the reference to A is not closed"]),
        (b"${A:-${N:-", ["f:1:1 the reference to A is not closed", "f:1:6 the reference to N is not closed"]),
        # the closing brace of a bad one is its own
        (b"${A:-${#N}${N}}$N", ["f:1:6 '${#N' is the start of no form that is known here", "f:1:16 N is not set"]),
    ],
)  # fmt: skip
def test_every_mistake_is_found_at_its_place(source: bytes, expected: list[str]) -> None:
    """Lines and columns count from 1, in characters; one mistake does not hide the next, nor invent one."""
    assert faults(source) == expected


def test_no_value_is_ever_in_a_sentence() -> None:
    """A message of `?` is shown as it was written, since what it refers to may be a secret."""
    values = {b"S": b"hunter2", b"T": b"hunter2"}
    source = b"${N:?$S ${T}} ${N} ${M?${S:-x}} ${#S} ${S:1} ${S/hunter/} ${N:-${S}${M}}"
    parsed = envsubst.parse(source)

    found = envsubst.problems("f", parsed, envsubst.substitute(parsed, values))

    assert len(found) == 7
    assert "hunter2" not in str(found)


def test_what_is_missing_can_be_empty_or_kept() -> None:
    """`missing` is about plain references only: a word says itself what is to be."""
    assert filled(b"<$N|${N}|${N:-w}>", missing="empty") == b"<||w>"
    assert filled(b"<$N|${N}|${N:-w$N}|$E>", missing="keep") == b"<$N|${N}|w$N|>"
    assert faults(b"${N?}", missing="empty") == ["f:1:1 N is not set: required"]


def test_only_listed_names_are_substituted() -> None:
    """Other references stay as they were written, their words included; a mistake in a form remains one."""
    assert filled(b"$host ${A} ${N:-$A}", only={b"A"}) == b"$host 1 ${N:-$A}"
    assert filled(b"$A ${N}", only=()) == b"$A ${N}"
    assert faults(b"${host%x}", only={b"A"})


def test_names_are_all_that_a_template_refers_to() -> None:
    """Also in branches that are not taken, and in messages."""
    assert envsubst.parse(b"$A ${A:-$B} ${C:?$D} $$E $1 ${#F}").names == (b"A", b"A", b"B", b"C", b"D")


def test_an_assignment_ends_with_its_template() -> None:
    """`${N:=w}` changes neither the variables nor the next template."""
    assert filled(b"${N:=w}") == b"w"
    assert faults(b"$N")
    assert b"N" not in VALUES


@pytest.mark.parametrize("opening", [b"${A:-", b"${#", b"${N:+{"])
def test_depth_has_a_limit_and_one_sentence(opening: bytes) -> None:
    """No depth leads to a RecursionError, and the limit is said once."""
    deep, deepest = envsubst.DEEPEST + 9, envsubst.DEEPEST
    closing = b"}" * opening.count(b"{")
    allowed = b"${N:-" * deepest + b"x" + b"}" * deepest
    sentence = f"more than {deepest} references are inside each other"

    assert filled(allowed) == b"x"
    assert sum(sentence in line for line in faults(opening * deep + closing * deep)) == 1


def test_what_is_too_deep_still_ends_where_it_ends() -> None:
    """Its closing braces are its own: what follows is in the word that it was in, and unused."""
    deep = envsubst.DEEPEST + 9

    assert len(faults(b"${A:-" * deep + b"}" * (deep - 1) + b"$N}")) == 1


@pytest.mark.parametrize(
    "piece", [b"${A:-", b"$$", b"${", b"$", b"${N:-{", b"}", b"\\", b"${A", b"$A", b"${#A}", b"${A:-$A}", b"{", b"\n$N"]
)
def test_work_grows_with_the_length_and_no_faster(piece: bytes) -> None:
    """A reader that looks back, or goes back, would not come to the end of this."""
    source = piece * 60_000 + b"A" * 60_000
    parsed = envsubst.parse(source)
    result = envsubst.substitute(parsed, VALUES)

    assert len(envsubst.problems("f", parsed, result)) <= 60_001
    assert len(parsed.nodes) <= 2 * len(source) + 1


@pytest.mark.parametrize(
    ("source", "whole"),
    [(b"a", 1), (b"a$", 1), (b"a${", 1), (b"a${B", 1), (b"a$B", 1), (b"a$B-", 4), (b"a${B}", 5), (b"$B$", 2), (b"", 0)],
)
def test_a_text_in_pieces_is_cut_between_references(source: bytes, whole: int) -> None:
    """What could still become a reference waits for the rest."""
    assert envsubst.gnu_whole(source) == whole
