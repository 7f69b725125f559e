"""
What the example's Containerfile says, instruction by instruction.

Owns the reading of it, as far as this one needs it: no heredocs, no ARG, no escape but the backslash.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import NamedTuple

from tests.containers.debian import REPOSITORY

PATH = REPOSITORY / "examples/containers/Containerfile"
CONTEXT = REPOSITORY
# Dockerfile reference.
INSTRUCTIONS = {
    *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "ONBUILD", "RUN"),
    *("SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
}


class Instruction(NamedTuple):
    """One of them, and what follows it."""

    name: str
    rest: str

    @property
    def words(self) -> list[str]:
        """What follows, as words without flags; of the exec form its words."""
        rest = re.sub(r"^(--\S+\s+)+", "", self.rest)
        rest = rest.removeprefix("CMD ") if self.name == "HEALTHCHECK" else rest
        return json.loads(rest) if rest.startswith("[") else shlex.split(rest)

    @property
    def is_exec_form(self) -> bool:
        """Say whether no shell stands between."""
        return self.rest.endswith("]")


def stages() -> list[list[Instruction]]:
    """Return the instructions of each stage."""
    text = re.sub(r"^#.*\n", "", PATH.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found = [Instruction(*line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]
    starts = [index for index, one in enumerate(found) if one.name == "FROM"]
    assert starts[0] == 0
    return [found[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def final(name: str) -> Instruction:
    """Return the one instruction of this name in the last stage, which is the image."""
    (found,) = [one for one in stages()[-1] if one.name == name]
    return found
