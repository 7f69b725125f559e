"""
The templates of a generation, as far as its preparation goes: rendered, staged beside their places, and checked.

Owns what stands in for values that cannot be had, so that everything else that is wrong is found too.
Must never move a file into its place: the zygote does, at the very end.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.appconfig import place, render, templates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from launcher.appconfig.load import Loaded
    from launcher.appconfig.place import Staged
    from launcher.errors import Problem
    from launcher.runtime.prepare import Wanted
    from launcher.runtime.snapshot import RecordedFiles


class Made(NamedTuple):
    """What became of the templates; nothing is staged if there are problems."""

    staged: tuple[Staged, ...]
    paths: Mapping[str, str]  # by the names of the templates
    private: tuple[str, ...]  # those of this generation alone
    reads: tuple[str, ...]  # files that they were made of
    problems: tuple[Problem, ...]


class Unknown:
    """Stands for a configuration that could not be loaded: whatever a template asks of it is there."""

    def __getattr__(self, name: str) -> Unknown:
        return self

    def __getitem__(self, key: object) -> Unknown:
        return self

    def __call__(self, *_: object, **__: object) -> Unknown:
        """Return the next thing that is not known."""
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __str__(self) -> str:
        return "unknown"


class _Anything(dict[str, str]):
    """Stands for the secrets while nobody knows which are declared: a name that is no variable may be one."""

    def __contains__(self, name: object) -> bool:
        return True

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ARG002  there always is a value
        """Return the variable of this name, or something."""
        return os.environ.get(name, "unknown")


def make(
    wanted: Wanted,
    loads: tuple[Loaded, ...],
    config: object,
    redact: Callable[[str], str],
    files: RecordedFiles,
    *,
    is_known: bool,
    is_certain: bool,
) -> Made:
    """
    Render all templates, write them beside their places, and have them checked.

    Args:
        wanted: the templates, their check, and the generation whose files they are.
        loads: the configuration.
        config: what templates call `cfg`; None: there is none.
        redact: takes the secrets out of what the check printed.
        files: takes in what templates are made of, so that `--watch` knows what changed since then.
        is_known: it is known what the app declares.
        is_certain: nothing else is wrong; otherwise nothing stays staged, and nothing is checked.
    """
    chosen = [templates.template(text) for text in wanted.templates]
    unknown = _unknown_values(loads)
    secrets = {name: value.reveal() for loaded in loads for name, value in loaded.secrets.items()}
    hidden = {row.name for loaded in loads for row in loaded.rows if row.is_secret}

    def read(path: str) -> bytes:
        data = render.read_regular(path)
        files.note(path, data)
        return data

    inputs = render.Inputs(
        {**os.environ, **unknown},
        {**secrets, **{name: value for name, value in unknown.items() if name in hidden}} if is_known else _Anything(),
        config,
        wanted.generation,
        os.uname().nodename,
        read,
    )
    rendered, problems = render.render_all(chosen, inputs)
    staged: list[Staged] = []
    if not problems:
        staged, problems = place.stage(rendered)
    is_certain = is_certain and not unknown
    if staged and wanted.template_check and is_certain:
        try:
            problems = render.check(templates.check_command(wanted.template_check), staged, redact)
        except BaseException:  # Ctrl-C in --check-config
            place.discard(staged)
            raise
    if problems or not is_certain:
        place.discard(staged)
        staged = []
    paths = {template.name: item.path for template, item in zip(chosen, rendered, strict=True)}
    private = tuple(item.path for item in rendered if item.template.is_private)
    reads = tuple(path for item in rendered for path in item.reads)
    return Made(tuple(staged), paths, private, reads, tuple(problems))


def _unknown_values(loads: tuple[Loaded, ...]) -> dict[str, str]:
    """Make values for variables that are missing or wrong: their templates need not be reported for that too."""
    wrong = {problem.name for loaded in loads for problem in loaded.problems}
    names = {row.name for loaded in loads for row in loaded.rows if row.name in wrong}
    # Found nowhere else in a file, which would be taken for one that holds a secret.
    return {name: f"unknown-{os.urandom(8).hex()}" for name in names if not os.environ.get(name)}
