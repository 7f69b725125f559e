"""
Env files, in python-dotenv's syntax without interpolation.

Owns the grammar, the line that each value came from, and the order: a later file wins over an earlier one,
the real environment over all.  Must never put a value, or a piece of a line, into a sentence.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from launcher.appconfig.secret_files import FileError, Files, decoded
from launcher.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

_SPACE = re.compile(r"\s*")
_BLANKS = re.compile(r"[^\S\n]*")
_EXPORT = re.compile(r"(?:export[^\S\n]+)?")
_NAME = re.compile(r"'([^']+)'|([^'=#\s][^=#\s]*)")
_REST_OF_LINE = re.compile(r"[^\n]*")
_END = re.compile(r"[^\S\n]*(?:#[^\n]*)?(?:\n|\Z)")
_UNQUOTED_COMMENT = re.compile(r"\s+#.*")
_QUOTED = {
    "'": re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL),
    '"': re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL),
}
_ESCAPES = {
    "'": {"\\": "\\", "'": "'"},
    '"': {"\\": "\\", "'": "'", '"': '"', "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"},
}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class EnvFiles(NamedTuple):
    """The variables of the real environment and of env files, where those of files stand, and what is wrong."""

    environ: Mapping[str, str]
    origins: Mapping[str, str]  # NAME -> "prod.env:12"
    problems: tuple[Problem, ...]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.origins!r}, {self.problems!r})"


class _Statement(NamedTuple):
    """One statement: its name and value, or what is wrong, and where the next begins."""

    end: int
    name: str = ""
    value: str = ""
    fault: str = ""
    remedy: str = ""


def read(paths: tuple[str, ...], environ: Mapping[str, str], files: Files | None = None) -> EnvFiles:
    """
    Lay the real environment over env files.

    Args:
        paths: the files; a later one wins.
        environ: the real environment; it wins over all.
        files: reads them; give the one of `Surroundings`, and a file that holds secrets too is read once.
    """
    files = files or Files()
    merged: dict[str, str] = {}
    origins: dict[str, str] = {}
    problems: list[Problem] = []
    for path in paths:
        try:
            contents = files.read(path)
        except FileError as error:
            problems.append(Problem(path, error.reason.removeprefix(f"{path} "), error.remedy))
            continue
        if contents is None:
            problems.append(Problem(path, "does not exist", "Make the env file, or name another one"))
            continue
        text = decoded(contents.data)
        if text is None:
            problems.append(Problem(path, "is not UTF-8 text", "Save it as UTF-8"))
            continue
        values, wrong = parse(text, path)
        problems += wrong
        merged |= {name: value for name, (value, _) in values.items()}
        origins |= {name: f"{path}:{line}" for name, (_, line) in values.items()}
    own = {name: origin for name, origin in origins.items() if name not in environ}
    return EnvFiles({**merged, **environ}, own, tuple(problems))


def parse(text: str, path: str) -> tuple[dict[str, tuple[str, int]], tuple[Problem, ...]]:
    """
    Read the text of an env file.

    Returns:
        For each name its value and line (the last one, if it stands there twice), and what is wrong.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    values: dict[str, tuple[str, int]] = {}
    problems: list[Problem] = []
    at, line = 0, 1
    while True:
        start = _end_of(_SPACE, text, at)
        line += text.count("\n", at, start)
        if start == len(text):
            return values, tuple(problems)
        statement = _checked(_statement(text, start))
        if statement.fault:
            problems.append(Problem(f"{path}:{line}", statement.fault, statement.remedy))
        elif statement.name:
            values[statement.name] = (statement.value, line)
        at = statement.end
        line += text.count("\n", start, at)


def _statement(text: str, at: int) -> _Statement:
    at = _end_of(_EXPORT, text, at)
    if text.startswith("#", at):
        return _Statement(_end_of(_REST_OF_LINE, text, at))
    named = _NAME.match(text, at)
    if named is None:
        return _wrong(text, at, "has no name", "Write NAME=VALUE, or put a # before a comment")
    name = named[1] or named[2]
    at = _end_of(_BLANKS, text, named.end())
    if not text.startswith("=", at):
        # Continued lines of a value that lacks its quotes look like this: they are not shown.
        return _wrong(text, at, "is not NAME=VALUE", "Put a value of several lines into double quotes")
    after = _end_of(_BLANKS, text, at + 1)
    quote = text[after : after + 1]
    if quote in _QUOTED:
        return _quoted(text, after, name, quote)
    rest = _REST_OF_LINE.match(text, after)
    value = rest[0] if rest else ""
    # `A=#b` is a value, `A= #b` an empty one with a comment.
    is_comment = value.startswith("#") and after > at + 1
    return _Statement(after + len(value), name, "" if is_comment else _UNQUOTED_COMMENT.sub("", value).rstrip())


def _quoted(text: str, at: int, name: str, quote: str) -> _Statement:
    quoted = _QUOTED[quote].match(text, at)
    if quoted is None:
        return _wrong(text, at, "has a quote that is never closed", f"Close it with {quote}")
    ended = _END.match(text, quoted.end())
    if ended is None:
        return _wrong(
            text, quoted.end(), "goes on behind the closing quote", "Write a quote in the value as \\" + quote
        )
    escapes = _ESCAPES[quote]
    return _Statement(ended.end(), name, _ESCAPE.sub(lambda found: escapes.get(found[1], found[0]), quoted[1]))


def _wrong(text: str, at: int, fault: str, remedy: str) -> _Statement:
    return _Statement(_end_of(_REST_OF_LINE, text, at), fault=fault, remedy=remedy)


def _checked(statement: _Statement) -> _Statement:
    # execve(2) ends every variable at its first NUL, and the name at its first "=".
    if "\0" in statement.name + statement.value:
        return statement._replace(fault="contains a NUL", remedy="Encode binary values, for example in base64")
    if "=" in statement.name:
        return statement._replace(fault="has a = in its name", remedy="Write NAME=VALUE")
    return statement


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
