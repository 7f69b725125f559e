"""
`prod-run --envsubst`: a filter in the place of GNU's program of that name.

Owns its words, its messages and its exit codes (GNU's: 0 or 1), and the copying of standard input to output.
Must never read a configuration, or start anything.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import launcher
from launcher.appconfig import envsubst

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_READ = 65536  # bytes at a time
_DONE, _FAILED = 0, 1  # GNU's only codes
_SIGPIPE = 141  # what a shell sees of a filter whose reader has gone: 128 + SIGPIPE

_SHORT = {b"h": b"help", b"v": b"variables", b"V": b"version"}
_LONG = (b"help", b"variables", b"version", b"dialect", b"missing")  # in the order of GNU's own messages
_CHOICES = {b"dialect": (b"gnu", b"strict"), b"missing": (b"error", b"empty", b"keep")}

_TOO_MANY = b"envsubst: too many arguments"
_TOO_FEW = b"envsubst: missing arguments"
_NEVER_MISSING = b"envsubst: --missing needs --dialect strict; in GNU's, an unset variable is empty"
_HELP = b"""\
Usage: prod-run --envsubst [OPTION]... [SHELL-FORMAT]

Copies standard input to standard output, with the values of environment
variables in the place of $NAME and ${NAME}.  With a SHELL-FORMAT, only the
variables that it refers to are replaced.

  -v, --variables     print the names that SHELL-FORMAT refers to, and end
      --dialect=gnu   as GNU envsubst, byte for byte (the default)
      --dialect=strict
                      with ${X:-default} ${X:+text} ${X:?message} ${X:=default}
                      and $$; mistakes are errors, and then nothing is printed
      --missing=error|empty|keep
                      strict: what a variable that is not set is (default: error)
  -h, --help          print this, and end
  -V, --version       print the version, and end
"""


class _Usage(Exception):  # noqa: N818 - it says how to call, not what broke
    """The words are wrong; `args[0]` is the sentence."""

    has_advice = True


class _Operands(_Usage):
    """There are too few or too many operands; GNU gives no advice then."""

    has_advice = False


class _Words(NamedTuple):
    options: dict[bytes, bytes]  # by their long name; a switch has no text
    operands: list[bytes]


def run(words: Sequence[str], environ: Mapping[bytes, bytes], stdin: int, stdout: int, stderr: int) -> int:
    """
    Be the filter.

    Args:
        words: the command line after `--envsubst`.
        environ: the variables, as in `os.environb`.
        stdin: a descriptor, as the next two.
        stdout: where the text goes.
        stderr: where messages go.

    Returns:
        The exit code: 0, or 1 for wrong words, faults in a template, and failed input or output.
    """
    try:
        options, operands = _read_words([os.fsencode(word) for word in words], b"POSIXLY_CORRECT" in environ)
        if b"version" in options:
            _write(stdout, b"envsubst (prod-run) %b\n" % launcher.__version__.encode())
        elif b"help" in options:
            _write(stdout, _HELP)
        else:
            _check(options, operands)
            filtering = _strict if options.get(b"dialect") == b"strict" else _gnu
            return filtering(options, operands, environ, (stdin, stdout, stderr))
    except _Usage as error:
        advice = b"Try 'prod-run --envsubst --help' for more information.\n" if error.has_advice else b""
        return _say(stderr, error.args[0] + b"\n" + advice)
    except BrokenPipeError:
        return _SIGPIPE
    except OSError as error:
        doing = b'error while reading "standard input"' if error.filename == "standard input" else b"write error"
        return _say(stderr, b"envsubst: %b: %b\n" % (doing, os.strerror(error.errno or 0).encode()))
    return _DONE


# ── the two dialects ──


def _gnu(
    options: dict[bytes, bytes], operands: list[bytes], environ: Mapping[bytes, bytes], fds: tuple[int, int, int]
) -> int:
    if b"variables" in options:
        _write(fds[1], b"".join(name + b"\n" for name in envsubst.gnu_names(operands[0])))
        return _DONE
    only = frozenset(envsubst.gnu_names(operands[0])) if operands else None
    waiting = b""
    while chunk := _read(fds[0]):
        waiting += chunk
        whole = envsubst.gnu_whole(waiting)
        _write(fds[1], envsubst.gnu(waiting[:whole], environ, only))
        waiting = waiting[whole:]
    _write(fds[1], envsubst.gnu(waiting, environ, only))
    return _DONE


def _strict(
    options: dict[bytes, bytes], operands: list[bytes], environ: Mapping[bytes, bytes], fds: tuple[int, int, int]
) -> int:
    only = None
    if operands:
        listed = envsubst.parse(operands[0])
        if listed.faults:
            return _report(fds[2], "SHELL-FORMAT", listed, envsubst.Result(b"", listed.faults))
        if b"variables" in options:
            _write(fds[1], b"".join(name + b"\n" for name in listed.names))
            return _DONE
        only = frozenset(listed.names)
    parsed = envsubst.parse(b"".join(iter(lambda: _read(fds[0]), b"")))
    result = envsubst.substitute(parsed, environ, options.get(b"missing", b"error").decode(), only)
    if result.faults:
        return _report(fds[2], "standard input", parsed, result)
    _write(fds[1], result.text)
    return _DONE


def _report(stderr: int, file: str, parsed: envsubst.Parsed, result: envsubst.Result) -> int:
    lines = [
        f"envsubst: {name}: {reason}{'. ' + remedy if remedy else ''}\n"
        for name, reason, remedy in envsubst.problems(file, parsed, result)
    ]
    return _say(stderr, "".join(lines).encode())


# ── words, as getopt_long(3) reads them ──


def _read_words(words: list[bytes], is_posix: bool) -> _Words:  # noqa: FBT001 - what POSIXLY_CORRECT says
    options: dict[bytes, bytes] = {}
    operands: list[bytes] = []
    rest = iter(words)
    for word in rest:
        if word == b"--":
            operands += rest
        elif word.startswith(b"--"):
            name, has_text, text = word[2:].partition(b"=")
            name = _full_name(name, word)
            if name not in _CHOICES and has_text:
                raise _Usage(b"envsubst: option '--%b' doesn't allow an argument" % name)
            options[name] = _choice(name, text if has_text else next(rest, None)) if name in _CHOICES else b""
        elif word.startswith(b"-") and word != b"-":
            options |= {_switch(word[i : i + 1]): b"" for i in range(1, len(word))}
        else:
            operands.append(word)
            if is_posix:  # getopt(3): then options end at the first operand
                operands += rest
    return _Words(options, operands)


def _full_name(written: bytes, word: bytes) -> bytes:
    """Find the option that a word is short for; none begins with another's whole name."""
    found = [name for name in _LONG if name.startswith(written)]
    if not found:
        raise _Usage(b"envsubst: unrecognized option '--%b'" % written)
    if len(found) > 1:
        possible = b" ".join(b"'--%b'" % name for name in found)
        raise _Usage(b"envsubst: option '%b' is ambiguous; possibilities: %b" % (word, possible))
    return found[0]


def _switch(letter: bytes) -> bytes:
    if letter not in _SHORT:
        raise _Usage(b"envsubst: invalid option -- '%b'" % letter)
    return _SHORT[letter]


def _choice(name: bytes, text: bytes | None) -> bytes:
    if text is None:
        raise _Usage(b"envsubst: option '--%b' requires an argument" % name)
    if text not in _CHOICES[name]:
        choices = b", ".join(_CHOICES[name])
        raise _Usage(b"envsubst: '%b' is no choice of --%b: %b" % (text, name, choices))
    return text


def _check(options: dict[bytes, bytes], operands: list[bytes]) -> None:
    if len(operands) > 1:
        raise _Operands(_TOO_MANY)
    if b"variables" in options and not operands:
        raise _Operands(_TOO_FEW)
    if b"missing" in options and options.get(b"dialect") != b"strict":
        raise _Usage(_NEVER_MISSING)


# ── descriptors ──


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _READ)
    except OSError as error:
        error.filename = "standard input"
        raise


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _say(stderr: int, message: bytes) -> int:
    try:
        _write(stderr, message)
    except OSError:
        pass  # nobody can be told
    return _FAILED
