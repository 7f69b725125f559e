"""
Templates with their values, in memory, and the command that looks at the result.

Owns the choice of the dialect, the modes that a secret allows, and every problem of every template at once.
Must never write a file: `place` does.
"""

from __future__ import annotations

import os
import signal
import stat
from typing import TYPE_CHECKING, NamedTuple

from launcher.appconfig import envsubst
from launcher.appconfig.redact import Redactor
from launcher.appconfig.templates import SECRET_MODE, SOURCE, clashes
from launcher.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from launcher.appconfig.place import Staged
    from launcher.appconfig.templates import Template

CHECK_TIMEOUT = 30.0  # seconds for one file

_LONGEST_OUTPUT = 1 << 20  # bytes of a check's that are looked at
_SHOWN_LINES = 5


def read_regular(path: str) -> bytes:
    """
    Read a file that a template is made of; a FIFO is not waited for.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is not a regular file")
        return file.read()


class Inputs(NamedTuple):
    """What templates are filled with."""

    variables: Mapping[str, str]
    secrets: Mapping[str, str]  # declared ones, by the same names
    config: object  # `cfg` in Jinja; None if there is none
    generation: int
    hostname: str
    read: Callable[[str], bytes] = read_regular  # templates, and what they ask for with file()

    def value(self, name: str) -> str | None:
        """Return a variable's or secret's value."""
        return self.secrets.get(name, self.variables.get(name))


class Rendered(NamedTuple):
    """One file as it shall be."""

    template: Template
    path: str  # absolute
    content: bytes
    mode: int | None  # None: as the file that is there, or 0644
    secrets: frozenset[str]  # that it was made of
    reads: tuple[str, ...]  # files that it was made of


def render_all(templates: Sequence[Template], inputs: Inputs) -> tuple[list[Rendered], list[Problem]]:
    """Fill all templates; if there are problems, they are all of them, and nothing rendered is of use."""
    problems = clashes(tuple(templates))
    rendered = []
    for template in templates:
        result, found = _render(template, inputs)
        problems += found
        rendered.append(result)
    return rendered, problems


def _render(template: Template, inputs: Inputs) -> tuple[Rendered, list[Problem]]:
    reads: list[str] = []

    def read(path: str) -> bytes:
        reads.append(os.path.join(os.path.dirname(os.path.abspath(template.source)), path))
        return inputs.read(reads[-1])

    content, secrets = b"", frozenset[str]()
    try:
        source = read(os.path.basename(template.source))
    except OSError as error:
        remedy = "Correct the SRC of --template, or the file's permissions"
        problems = [Problem(template.source, f"cannot be read: {error.strerror}", remedy)]
    else:
        fill = _jinja if template.is_jinja else _strict
        content, secrets, problems = fill(source, template.source, inputs, read)
        # A config object can hand over a part of a secret as a plain text, and file() can read one.
        secrets |= {name for name, value in inputs.secrets.items() if _holds(content, name, value)}
        problems += _refuse_open_mode(template, secrets)
    mode = 0o600 if template.mode is None and secrets else template.mode
    path = os.path.abspath(template.path(inputs.generation))
    return Rendered(template, path, content, mode, secrets, tuple(reads)), problems


def _strict(
    source: bytes, file: str, inputs: Inputs, _read: Callable[[str], bytes]
) -> tuple[bytes, frozenset[str], list[Problem]]:
    parsed = envsubst.parse(source)
    # Also what stands in an unused branch: whether a file is secret must not change with a variable.
    names = {name: os.fsdecode(name) for name in parsed.names}
    values = {name: inputs.value(text) for name, text in names.items()}
    given = {name: value.encode(errors="surrogateescape") for name, value in values.items() if value is not None}
    result = envsubst.substitute(parsed, given)
    secrets = inputs.secrets.keys() & names.values()
    return result.text, frozenset(secrets), envsubst.problems(file, parsed, result)


def _jinja(
    source: bytes, file: str, inputs: Inputs, read: Callable[[str], bytes]
) -> tuple[bytes, frozenset[str], list[Problem]]:
    try:
        from launcher.appconfig import jinja  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if error.name not in {"jinja2", "markupsafe"}:
            raise
        remedy = "Install it: pip install 'prod-run[jinja]'"
        return b"", frozenset(), [Problem(file, f"needs {error.name}, which is not installed", remedy)]
    filled = jinja.fill(source, file, inputs, read)
    return filled.text, filled.secrets, filled.problems


def _holds(content: bytes, name: str, secret: str) -> bool:
    return Redactor({name: secret}).mask_bytes(content) != content


def _refuse_open_mode(template: Template, secrets: frozenset[str]) -> list[Problem]:
    if not secrets or template.mode is None or not template.mode & ~SECRET_MODE:
        return []
    reason = f"holds a secret ({', '.join(sorted(secrets))}), and its mode {template.mode:04o} lets others at it"
    return [Problem(template.source, reason, f"Write {template.source}:{template.destination}:0600, or 0640")]


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would wait for its writer (fifo(7))


# ── the check ──


def check(
    command: Sequence[str], staged: Iterable[Staged], redact: Callable[[str], str], timeout: float = CHECK_TIMEOUT
) -> list[Problem]:
    """
    Run `--template-check` for every file, before any is moved.

    Args:
        command: its words; `{src}` in them is the file to look at.
        staged: the files.
        redact: takes the secrets out of what the command printed.
        timeout: seconds for one file.
    """
    problems = []
    for item in staged:
        words = [word.replace(SOURCE, item.temporary or item.path) for word in command]
        reason = _run(words, redact, timeout)
        if reason:
            problems.append(Problem(item.path, f"{command[0]} {reason}", "Correct its template"))
    return problems


def _run(words: list[str], redact: Callable[[str], str], timeout: float) -> str:
    import subprocess  # noqa: PLC0415 - only a check needs it

    # Not a pipe: a grandchild could keep it open after the command's end.
    with open(os.memfd_create("template-check"), "w+b") as output:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, process_group=0
            )
        except OSError as error:
            return f"cannot be run: {error.strerror}"
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"did not end within {timeout:g} seconds"
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code == 0:
            return ""
        output.seek(0)
        return f"refuses it ({_ending(code)}): {_shown(output.read(_LONGEST_OUTPUT), redact)}"


def _ending(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"signal {-code}"


def _shown(output: bytes, redact: Callable[[str], str]) -> str:
    # The whole is redacted before it is cut, or half a secret would not be known for one.
    lines = redact(output.decode(errors="surrogateescape")).splitlines()
    if len(output) == _LONGEST_OUTPUT:
        lines = lines[:-1]
    text = " | ".join([line.strip() for line in lines if line.strip()][-_SHOWN_LINES:])
    return text.encode(errors="backslashreplace").decode() or "it printed nothing"
