"""
Everything prod-run can fail with.

Owns the one tree of exceptions; each knows its exit code and how to explain itself to a stranger.
Must never print or exit: only `cli`, `ctl` and `supervisor.main` turn an error into text.
"""

from __future__ import annotations

from launcher.lean import NamedTuple


class Exit:
    """
    Exit codes of prod-run and prod-ctl (sysexits.h, and the shell's 126, 127, 128+N).

    The table in docs/reference/exit-codes.md is printed from `EXIT_CODES`.
    """

    DONE = 0
    REJECTED = 1
    USAGE = 2
    UNAVAILABLE = 69
    SOFTWARE = 70
    OS_ERROR = 71
    TEMPORARY = 75
    CONFIG = 78


EXIT_CODES: tuple[tuple[str, str], ...] = (
    ("0", "stopped as asked (also when stragglers were killed at the drain limit), or all work finished"),
    ("2", "wrong command line"),
    ("69", "an address, socket, directory or name cannot be had"),
    ("70", "the target cannot be imported, or the first generation did not become ready"),
    ("71", "the operating system refused"),
    ("78", "configuration, secrets, templates or a `PROD_RUN_` variable invalid"),
    (
        "with `--restart never`, as of one command",
        "the first non-zero code of the copies, by slot, 128+N for a signal, 126 or 127 if it cannot be run, else 0",
    ),
)


CTL_EXIT_CODES: tuple[tuple[str, str], ...] = (
    ("0", "done, committed, or ready (`health`)"),
    ("1", "rejected or rolled back, or not ready (`health`)"),
    ("2", "wrong command line, or a number or slot that cannot be"),
    ("69", "nobody there, more than one there, or no private introspection socket (`top`, `logs`)"),
    ("75", "timed out, pre-empted, or prod-run is stopping or ended first"),
)


class Problem(NamedTuple):
    """One thing that is wrong: its name, what is wrong with it, and what to do."""

    name: str
    reason: str
    remedy: str = ""

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        return _sentence(self)


class LauncherError(Exception):
    """The base of all errors that prod-run explains; `problems` holds every one that was found."""

    exit_code: int = Exit.SOFTWARE
    headline: str = "cannot start"

    def __init__(self, *problems: Problem) -> None:
        super().__init__(explain(self.headline, problems))
        self.problems = problems


class UsageError(LauncherError):
    """The command line is wrong."""

    exit_code = Exit.USAGE
    headline = "cannot understand the command line"


class ConfigError(LauncherError):
    """Configuration, secrets, templates or a `PROD_RUN_` variable are invalid."""

    exit_code = Exit.CONFIG
    headline = "cannot start with this configuration"


class UnavailableError(LauncherError):
    """An address, socket, directory or name cannot be had."""

    exit_code = Exit.UNAVAILABLE


class TargetError(LauncherError):
    """The target cannot be imported, found or called."""

    exit_code = Exit.SOFTWARE


class SystemRefusedError(LauncherError):
    """The operating system refused something that prod-run cannot do without."""

    exit_code = Exit.OS_ERROR


def explain(headline: str, problems: tuple[Problem, ...]) -> str:
    """
    Put problems into words: one line for one, an aligned list for several.

    The first word of every line is the name, so that a reader (or grep) finds it.
    """
    if len(problems) == 1:
        return f"{headline}: {_sentence(problems[0])}"
    width = max((len(problem.name) for problem in problems), default=0)
    lines = [f"{headline}: {len(problems)} problems"]
    lines += [f"  {p.name:<{width}}  {_reason(p)}" for p in problems]
    return "\n".join(lines)


def _sentence(problem: Problem) -> str:
    return f"{problem.name}: {_reason(problem)}" if problem.name else _reason(problem)


def _reason(problem: Problem) -> str:
    return f"{problem.reason}. {problem.remedy}" if problem.remedy else problem.reason
