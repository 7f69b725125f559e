"""
Text with references to variables: GNU envsubst's dialect, and a strict one.

Owns both grammars, what each form means, and the sentence for every mistake: bytes and values in, bytes out.
Must never look at the environment, read a file, or put a variable's value into a sentence.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from launcher.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

DEEPEST = 32  # references inside each other's words; no file that people write comes near

# POSIX names are ASCII. Possessive, so that `${` and a megabyte of letters is looked at once.
_NAME = rb"[A-Za-z_][A-Za-z0-9_]*+"
_GNU = re.compile(rb"\$(?:(%b)|\{(%b)\})" % (_NAME, _NAME))
_GNU_UNFINISHED = re.compile(rb"\$(?:\{?%b|\{)?\Z" % _NAME)

_REFERENCE = rb"""
      \$(?P<name>%b)
    | \$\{(?P<braced>%b)\}
    | \$\{(?P<opened>%b)(?P<operator>:?[-+?=])
    | \$(?P<unknown>\{)
    | \$(?P<dollar>\$)
""" % (_NAME, _NAME, _NAME)
_IN_TEXT = re.compile(_REFERENCE, re.VERBOSE)
_IN_WORD = re.compile(_REFERENCE + rb"| \\(?P<escaped>[\\${}]) | (?P<brace>\{) | (?P<close>\})", re.VERBOSE)
_EXCERPT = re.compile(rb"\$\{[!-/:-@[-`|~]?\w{0,40}[!-/:-@[-`|~]?")

_FORMS = "Write ${X}, ${X:-default}, ${X:+text}, ${X:?message} or ${X:=default}; $$ is a dollar sign"


class Fault(NamedTuple):
    """One mistake, and where it is: an offset in bytes."""

    offset: int
    reason: str
    remedy: str


class Place(NamedTuple):
    """Where in a file, as editors count: from 1, in characters."""

    line: int
    column: int


class Reference(NamedTuple):
    """A reference to a variable; `source[start:end]` is how it was written."""

    name: bytes
    operator: bytes  # empty, or one of - + ? = with or without a colon before it
    word: tuple[bytes | Reference, ...]  # what stands after the operator
    start: int
    end: int


class Parsed(NamedTuple):
    """A template that was read; `names` are all variables it refers to, used or not, in order, repeated ones too."""

    source: bytes
    nodes: tuple[bytes | Reference, ...]
    names: tuple[bytes, ...]
    faults: tuple[Fault, ...]


class Result(NamedTuple):
    """A template with its values; `text` is of no use if there are faults, which stand in the order of the file."""

    text: bytes
    faults: tuple[Fault, ...]


# ── GNU ──


def gnu(source: bytes, values: Mapping[bytes, bytes], only: Collection[bytes] | None = None) -> bytes:
    """
    Substitute as GNU envsubst does: `$NAME` and `${NAME}`, nothing else, and an unset variable is empty.

    `only` are the names to substitute; None means all, and an empty one none at all.
    """

    def value(reference: re.Match[bytes]) -> bytes:
        name = reference[1] or reference[2]
        return values.get(name, b"") if only is None or name in only else reference[0]

    return _GNU.sub(value, source)


def gnu_names(source: bytes) -> list[bytes]:
    """Return the names that a text refers to, in its order, repeated ones too."""
    return [reference[1] or reference[2] for reference in _GNU.finditer(source)]


def gnu_whole(source: bytes) -> int:
    """Say how much of a text can be substituted before the rest of it has come: no reference is cut in two."""
    unfinished = _GNU_UNFINISHED.search(source, source.rfind(b"$") if b"$" in source else len(source))
    return unfinished.start() if unfinished else len(source)


# ── strict ──


class _Frame:
    """A `${…` that is not closed yet; the outermost is the template itself."""

    __slots__ = ("braces", "name", "nodes", "operator", "start")

    def __init__(self, start: int, name: bytes, operator: bytes) -> None:
        self.start = start
        self.name = name
        self.operator = operator  # empty: a form that does not exist, read to its end only to find the next
        self.nodes: list[bytes | Reference] = []
        self.braces = 0  # plain ones that are open in it


class _Reader:
    """Reads a template once, from its start to its end."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.frames = [_Frame(0, b"", b"")]
        self.names: list[bytes] = []
        self.faults: list[Fault] = []
        self.is_too_deep = False

    def read(self) -> Parsed:
        position = 0
        while token := (_IN_WORD if len(self.frames) > 1 else _IN_TEXT).search(self.source, position):
            self.frames[-1].nodes.append(self.source[position : token.start()])
            self.take(token)
            position = token.end()
        self.frames[-1].nodes.append(self.source[position:])
        self.end()
        return Parsed(self.source, tuple(self.frames[0].nodes), tuple(self.names), tuple(self.faults))

    def take(self, token: re.Match[bytes]) -> None:
        kind = token.lastgroup
        assert kind is not None, token  # noqa: S101 - each alternative has a group
        frame, text = self.frames[-1], token[kind]
        match kind:
            case "name" | "braced":
                self.names.append(text)
                frame.nodes.append(Reference(text, b"", (), *token.span()))
            case "operator":
                self.names.append(token["opened"])
                self.open(token.start(), token["opened"], text)
            case "unknown":
                self.open(token.start(), b"", b"")
            case "close" if not frame.braces:
                self.close(token.end())
            case _:
                frame.braces += {"brace": 1, "close": -1}.get(kind, 0)
                frame.nodes.append(text)

    def open(self, start: int, name: bytes, operator: bytes) -> None:
        if len(self.frames) > DEEPEST:
            # Said once. Its brace is counted as a plain one, so that the rest is still read rightly.
            if not self.is_too_deep:
                self.faults.append(Fault(start, f"more than {DEEPEST} references are inside each other", ""))
            self.is_too_deep = True
            self.frames[-1].braces += 1
            return
        if not operator:
            found = _EXCERPT.match(self.source, start)
            written = (found[0] if found else b"${").decode("ascii", "backslashreplace")
            self.faults.append(Fault(start, f"{written!r} is the start of no form that is known here", _FORMS))
        self.frames.append(_Frame(start, name, operator))

    def close(self, end: int) -> None:
        frame = self.frames.pop()
        if frame.operator:
            self.frames[-1].nodes.append(Reference(frame.name, frame.operator, tuple(frame.nodes), frame.start, end))

    def end(self) -> None:
        # What an unclosed one has swallowed is most likely the rest of the file: it is looked at as such.
        for frame in self.frames[1:]:
            if frame.operator:
                name = frame.name.decode()
                self.faults.append(Fault(frame.start, f"the reference to {name} is not closed", "Add the missing }"))
            self.frames[0].nodes += frame.nodes


def parse(source: bytes) -> Parsed:
    """Read a template of the strict dialect, with every mistake in its form."""
    return _Reader(source).read()


def substitute(
    parsed: Parsed, values: Mapping[bytes, bytes], missing: str = "error", only: Collection[bytes] | None = None
) -> Result:
    """
    Put values into a template of the strict dialect.

    Args:
        parsed: the template.
        values: the variables. They are not read again for references.
        missing: what `$X` and `${X}` are if X is not set: `error`, `empty`, or `keep` them as they stand.
        only: the names to substitute; references to others stay as they were written.
    """
    render = _Render(parsed.source, values, missing, only)
    text = render.expand(parsed.nodes)
    return Result(text, tuple(sorted((*parsed.faults, *render.faults))))


class _Render:
    """One template being filled; what `${X:=word}` assigns ends with it."""

    def __init__(
        self, source: bytes, values: Mapping[bytes, bytes], missing: str, only: Collection[bytes] | None
    ) -> None:
        self.source = source
        self.values = values
        self.missing = missing
        self.only = only
        self.assigned: dict[bytes, bytes] = {}
        self.faults: list[Fault] = []

    def expand(self, nodes: tuple[bytes | Reference, ...]) -> bytes:
        return b"".join(node if isinstance(node, bytes) else self.value(node) for node in nodes)

    def value(self, reference: Reference) -> bytes:
        name, operator, word, start, end = reference
        if self.only is not None and name not in self.only:
            return self.source[start:end]
        value = self.assigned.get(name, self.values.get(name))
        if value == b"" and operator.startswith(b":"):
            value = None
        if operator.endswith(b"+"):
            return b"" if value is None else self.expand(word)
        if value is not None:
            return value
        match operator[-1:]:
            case b"-":
                return self.expand(word)
            case b"=":
                self.assigned[name] = self.expand(word)
                return self.assigned[name]
            case b"?":
                return self.required(reference)
        return self.absent(reference)

    def required(self, reference: Reference) -> bytes:
        # As it is written, where a shell would expand it: a value could be a secret.
        written = b"".join(
            node if isinstance(node, bytes) else self.source[node.start : node.end] for node in reference.word
        )
        state = "not set, or empty" if reference.operator.startswith(b":") else "not set"
        message = written.decode(errors="backslashreplace").strip() or "required"
        self.faults.append(Fault(reference.start, f"{reference.name.decode()} is {state}: {message}", ""))
        return b""

    def absent(self, reference: Reference) -> bytes:
        if self.missing == "error":
            name = reference.name.decode()
            remedy = f"Set it, or write ${{{name}:-default}}"
            self.faults.append(Fault(reference.start, f"{name} is not set", remedy))
        return self.source[reference.start : reference.end] if self.missing == "keep" else b""


def places(source: bytes, faults: tuple[Fault, ...]) -> list[Place]:
    """Return the place of each fault; they must stand in the order of the file, which is walked once."""
    found = []
    position, line, column = 0, 1, 1
    for fault in faults:
        passed = source[position : fault.offset]
        newlines = passed.count(b"\n")
        line += newlines
        column = (1 if newlines else column) + _length(passed.rpartition(b"\n")[2])
        position = fault.offset
        found.append(Place(line, column))
    return found


def _length(text: bytes) -> int:
    return len(text.decode(errors="surrogateescape"))


def problems(file: str, parsed: Parsed, result: Result) -> list[Problem]:
    """Name each fault `file:line:column`."""
    found = zip(result.faults, places(parsed.source, result.faults), strict=True)
    return [Problem(f"{file}:{line}:{column}", fault.reason, fault.remedy) for fault, (line, column) in found]
