"""
One setting of prod-run.

Owns the value that a row of the table is.
Must never know any setting: `settings_table` does.
"""

from __future__ import annotations

from launcher import quantities
from launcher.lean import NamedTuple

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.addresses import Address

    Parsed = str | int | float | Address

PREFIX = "PROD_RUN_"


class Setting(NamedTuple):
    """One setting; `form` is what its value looks like, empty for a switch that takes none."""

    name: str
    form: str
    default: str  # as `read` takes it; empty: worked out from the rest, and `default_words` says how, or when not
    meaning: str
    read: Callable[[str], Parsed] = quantities.plain
    default_words: str = ""
    short: str = ""
    is_repeatable: bool = False
    has_variable: bool = True
    is_rare: bool = False  # shown by --help-all only

    @property
    def flag(self) -> str:
        """The flag's long form."""
        return f"--{self.name}"

    @property
    def shown_default(self) -> str:
        """The default in words, with where it is another one; empty if there is nothing to say."""
        return "; ".join(words for words in (self.default, self.default_words) if words)

    @property
    def variable(self) -> str:
        """The variable's name; empty if there is none."""
        return PREFIX + self.name.upper().replace("-", "_") if self.has_variable else ""
