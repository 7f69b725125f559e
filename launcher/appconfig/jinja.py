"""
Jinja2 templates: the extra `prod-run[jinja]`.

Owns the environment they run in, the functions they may call, and the sentence for every mistake.
Must never give them a clock, chance, a loader or a value to put into a sentence: the same inputs make the same bytes.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import ChainableUndefined, StrictUndefined, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from launcher.appconfig.exposure import names_bare_secret
from launcher.appconfig.masked import MASK, Secret, reveals
from launcher.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from launcher.appconfig.render import Inputs

_LONGEST_QUOTE = 80  # characters of a template's line in a sentence
_LINE_ENDS = re.compile(r"\r\n|\r|\n")  # Jinja's; splitlines() knows more
_MASKS = (MASK, ":***@")  # what secrets and URLs show of themselves
_MISSING: Any = object()
_KNOWN = "Known are env, secret, required, cfg, file, hostname and generation; a variable is env('NAME')"


class Filled(NamedTuple):
    """What a template became; `text` is of no use if there are problems."""

    text: bytes
    problems: list[Problem]
    secrets: frozenset[str]  # names that it asked for


def fill(source: bytes, file: str, inputs: Inputs, read: Callable[[str], bytes]) -> Filled:
    """
    Put values into a template.

    Args:
        source: the template, in UTF-8; other bytes pass through.
        file: its path, for the sentences.
        inputs: the values.
        read: returns the bytes of a file that the template names, or raises OSError.
    """
    text = source.decode(errors="surrogateescape")
    functions = _Functions(text, file, inputs, read)
    environment = _environment(functions, "\r\n" if b"\r\n" in source else "\n")
    rendered = ""
    try:
        tree = environment.parse(text)
        unknown = _unknown_names(environment, tree, functions)
        template = environment.from_string(text)
        rendered, is_revealed = reveals(lambda: template.render(unknown))
        if is_revealed or names_bare_secret(tree, inputs.config):
            functions.secrets.add("in cfg")
    except TemplateSyntaxError as error:
        # Its message is made of the template alone.
        functions.say(f"{(error.message or 'is no template').rstrip('.')}", line=error.lineno)
    except Exception as error:  # noqa: BLE001 - what `cfg` and filters raise is anything, and may hold a value
        if not functions.problems:  # it is likely to be a consequence of these
            _explain(error, functions)
    if any(mask in rendered and mask not in text for mask in _MASKS):
        functions.say("joins a secret of cfg to a text, which hides it", "Write .reveal() behind it", line=0)
    return Filled(rendered.encode(errors="surrogateescape"), functions.problems, frozenset(functions.secrets))


class _Functions:
    """What a template may call. A failure is noted, and the template goes on, so that all of them are found."""

    def __init__(self, text: str, file: str, inputs: Inputs, read: Callable[[str], bytes]) -> None:
        self.text = text
        self.file = file
        self.inputs = inputs
        self.read = read
        self.problems: list[Problem] = []
        self.secrets: set[str] = set()

    def env(self, name: str, default: Any = _MISSING) -> Any:
        """Return a variable's value; one that is not set and has no default is a problem."""
        value = self._value(name)
        if value is not None:
            return value
        if default is _MISSING:
            self.say(f"{self._named(name)} is not set", "Set it, or give env() a default=")
            return ""
        return default

    def required(self, name: str, why: str = "required") -> str:
        """Return a variable's value; neither unset nor empty will do."""
        value = self._value(name)
        if not value:
            self.say(f"{self._named(name)} is not set, or empty: {self._named(why, 'required')}")
        return value or ""

    def secret(self, name: str) -> str:
        """Return a declared secret's value."""
        if name in self.inputs.secrets:
            return self._value(name) or ""
        remedy = "Declare it in the config class, or use env() if it is none"
        self.say(f"{self._named(name)} is not a secret that is declared and there", remedy)
        return ""

    def file_content(self, path: str) -> str:
        """Return the text of a file; a relative path starts at the template's directory."""
        try:
            return self.read(path).decode(errors="surrogateescape")
        except OSError as error:
            self.say(f"{self._named(path, 'a file')} cannot be read: {error.strerror}")
            return ""

    def printed(self, value: Any) -> Any:
        """Show a secret of `cfg` to the file, where it would hide itself from a log."""
        return value.reveal() if isinstance(value, Secret) else value

    def say(self, reason: str, remedy: str = "", line: int | None = None) -> None:
        """Note a problem; without a line it is the one that is running."""
        line = _running_line() if line is None else line
        self.problems.append(Problem(f"{self.file}:{line}" if line else self.file, reason, remedy))

    def _value(self, name: str) -> str | None:
        if name in self.inputs.secrets:
            self.secrets.add(name)
        return self.inputs.value(name)

    def _named(self, written: str, otherwise: str = "a variable whose name is computed") -> str:
        # What does not stand in the template was made of values.
        return written if written in self.text else otherwise


def _environment(functions: _Functions, newline: str) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        finalize=functions.printed,
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        newline_sequence=newline,  # type: ignore[arg-type,unused-ignore]  # one of three literals
    )
    del environment.globals["lipsum"], environment.filters["random"]  # chance would make every render a change
    environment.globals.update(
        env=functions.env,
        required=functions.required,
        secret=functions.secret,
        file=functions.file_content,
        hostname=functions.inputs.hostname,
        generation=functions.inputs.generation,
    )
    if functions.inputs.config is not None:
        environment.globals["cfg"] = functions.inputs.config
    return environment


def _unknown_names(
    environment: ImmutableSandboxedEnvironment, tree: nodes.Template, functions: _Functions
) -> Mapping[str, ChainableUndefined]:
    """Note every name that nothing could define, and return stand-ins, with which the rest can be looked at."""
    unknown = meta.find_undeclared_variables(tree) - environment.globals.keys()
    lines = sorted({(n.lineno, n.name) for n in tree.find_all(nodes.Name) if n.ctx == "load" and n.name in unknown})
    for line, name in lines:
        remedy = "This app has no config class" if name == "cfg" else _KNOWN
        functions.say(f"{name} is not defined", remedy, line=line)
    return {name: ChainableUndefined() for name in unknown}


def _explain(error: Exception, functions: _Functions) -> None:
    # Not its message: `{}[secret('X')]` would put the secret there.
    line, trace = 0, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    quote = _LINE_ENDS.split(functions.text)[line - 1].strip()[:_LONGEST_QUOTE] if line else ""
    functions.say(f"{type(error).__name__} in {quote!r}" if quote else type(error).__name__, line=line)


def _running_line() -> int:
    """Return the line of the template whose function is being called."""
    frame = sys._getframe()
    while frame.f_back:
        frame = frame.f_back
        template = frame.f_globals.get("__jinja_template__")
        if template is not None:
            return int(template.get_corresponding_lineno(frame.f_lineno))
    return 0
