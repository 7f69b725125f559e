"""
What a row of the table is.

Owns the value and its defaults.  A row says what is documented, where, how each program spells it, how it is looked
at, and what is seen; where a program differs, what is seen there instead, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from tests.init.world import World

PROGRAMS = ("tini", "dumb-init", "prod-run")
# Where a behaviour is written down.  "transparent" is a word of both READMEs; what it takes is listed row by row.
TINI = "tini"
DUMB_INIT = "dumb-init"
BOTH = "both"
TRANSPARENT = "both: transparent"


class Differs(NamedTuple):
    """What is seen with one program instead, and why; without `seen` the program has no such thing to look at."""

    why: str
    seen: object = None


class Row(NamedTuple):
    """
    One behaviour.

    `tini`, `dumb_init` and `prod_run` are what is typed before the command; more than one spelling of the same
    thing is separated by " or "; empty means that there is none, and then `differs` says why.
    """

    behaviour: str
    source: str
    scenario: Callable[[World], object]
    seen: object
    tini: str = "tini --"
    dumb_init: str = "dumb-init --"
    prod_run: str = "prod-run --"
    differs: Mapping[str, Differs] = MappingProxyType({})
    is_slow: bool = False

    @property
    def key(self) -> str:
        """What the row is called in a test's name."""
        return self.scenario.__name__.removeprefix("_").replace("_", "-")

    def spelled(self, program: str) -> tuple[str, ...]:
        """Return how a program is called for this; nothing if it has no such thing."""
        text = {"tini": self.tini, "dumb-init": self.dumb_init, "prod-run": self.prod_run}[program]
        return tuple(text.split(" or ")) if text else ()

    def expected(self, program: str) -> object:
        """Return what is to be seen with a program."""
        differing = self.differs.get(program)
        return differing.seen if differing else self.seen
