"""
What can be said of a configuration without a start: `--check-config`, `--show-config`, `--help-config`.

Owns the examination: settings, the target and its configuration (by the code of a start), addresses, limits.
Must never start a worker, keep an address, or leave anything on the disk.
"""

from __future__ import annotations

import os
import sys

from launcher import check_log, check_places, ingress_settings, privileges, settings, whereabouts
from launcher.errors import ConfigError, Exit, LauncherError, Problem, UnavailableError, UsageError
from launcher.lean import NamedTuple
from launcher.supervisor import listeners

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from launcher.appconfig.load import Row
    from launcher.runtime.prepare import Prepared, Wanted
    from launcher.settings import Machine, Settings

_TARGET = "MODULE:ATTRIBUTE"
_NOWHERE = ("missing", "cannot be read", "not set")  # what a row's origin says of a value that is not there
_IN_USE = "in use"  # how the sentence begins for an address that somebody serves

# Who kills what has not stopped in time; the variable that shows that we are under it; and the default in seconds,
# since neither tells a process how long it really waits.
_BUDGETS = (
    ("KUBERNETES_SERVICE_HOST", "Kubernetes", "terminationGracePeriodSeconds", 30.0),
    ("INVOCATION_ID", "systemd", "TimeoutStopSec=", 90.0),
)


class Asked(NamedTuple):
    """A command line and what belongs to it, as `settings.resolve` takes them."""

    words: tuple[str, ...]
    flags: Mapping[str, tuple[str, ...]]
    environ: Mapping[str, str]
    env_files: Mapping[str, str]
    machine: Machine


class Finding(NamedTuple):
    """A problem or a note; `origin` is where the value came from, empty where that is not known."""

    name: str
    origin: str
    reason: str
    remedy: str


class Report(NamedTuple):
    """What was found; nothing in it is a secret's value."""

    target: str
    problems: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    not_checked: tuple[str, ...]  # secrets, and the target if it cannot be imported without them
    settings: tuple[settings.Row, ...]
    variables: tuple[Row, ...]
    traceback: str  # the app's, if its import failed


def exit_code(report: Report) -> int:
    """Return what the shell gets."""
    return Exit.CONFIG if report.problems else Exit.DONE


def step_aside() -> int:
    """
    Keep standard output for the answer: what the target prints there goes to standard error.

    Returns:
        The descriptor for the answer.
    """
    output = os.dup(1)
    os.dup2(2, 1)
    # As at a start: a target that reads must not wait for somebody at a terminal.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    return output


def judge(asked: Asked) -> Report:
    """
    Look at everything that a start would need, and find all that is wrong with it.

    Raises:
        UsageError: no target is named.
    """
    if not asked.words:
        raise UsageError(Problem(_TARGET, "missing", "For example: prod-run --check-config shop.web:main"))
    chosen, problems = _resolve(asked)
    inherited = listeners.activated(os.environ, os.getpid())
    try:
        _enter(chosen)
    except UnavailableError as error:  # nothing can be found from there
        return _report(asked, chosen, None, (*problems, *error.problems), ())
    notes = _beyond_budget(chosen, os.environ) + check_log.doubts(chosen.log)
    found = check_places.account(chosen)
    # What root opens before it becomes somebody else; all that follows is that user's.
    unusable = [
        *check_places.unusable((*chosen.bind, *check_places.introspect(chosen)), inherited, found),
        *check_places.unusable_pidfile(chosen, found),
    ]
    is_nobody = _become(chosen, problems)
    wanted = _wanted(chosen, is_without_secrets="without-secrets" in asked.flags)
    is_known = chosen.target or chosen.command.words
    prepared = _prepare(wanted) if is_known and not is_nobody else None
    problems += _missing_command(chosen, prepared)
    try:
        unusable += check_places.unusable(() if chosen.bind else check_places.implicit(prepared, inherited), ())
    except ConfigError as error:
        problems += error.problems
    problems += check_places.without_token(chosen)
    for problem in unusable:
        is_by_another = problem.reason.startswith(_IN_USE) and f"(PID {os.getpid()})" not in problem.reason
        (notes if is_by_another else problems).append(problem)
    if prepared and prepared.target and chosen.before:
        from launcher.runtime import before  # noqa: PLC0415  in the process that imports the target

        problems += before.problems(chosen.before)
    return _report(asked, chosen, prepared, problems, notes)


def show(asked: Asked) -> Report:
    """
    Look at the settings and, if a target is named, at its variables.

    Raises:
        UsageError, ConfigError: a setting is wrong.
        UnavailableError: the directory of --chdir cannot be entered.
    """
    chosen = settings.resolve(asked.words, asked.flags, asked.environ, asked.machine, env_files=asked.env_files)
    if not (chosen.target or chosen.command.words):
        return _report(asked, chosen, None, (), ())
    _enter(chosen)
    privileges.drop(privileges.account(chosen), os.environ)
    prepared = _prepare(_wanted(chosen)._replace(templates=(), template_check="", export_secrets=()))
    return _report(asked, chosen, prepared, (), ())


def describe(asked: Asked, form: str) -> str:
    """
    Describe the variables of the target, or of the class of --config.

    Raises:
        LauncherError: there is no such class, or it cannot be imported.
    """
    chosen = settings.resolve(asked.words, asked.flags, asked.environ, asked.machine, env_files=asked.env_files)
    if not (chosen.target or chosen.config):
        raise UsageError(Problem(_TARGET, "missing", "For example: prod-run --help-config shop.web:main"))
    _enter(chosen)
    privileges.drop(privileges.account(chosen), os.environ)
    cls = _declared(chosen)
    from launcher.appconfig.describe import FORMS  # noqa: PLC0415  attrs and environ, which the target has loaded

    return FORMS[form](cls)


def _resolve(asked: Asked) -> tuple[Settings, list[Problem]]:
    """
    Resolve what can be, and list what is wrong with the rest.

    Raises:
        UsageError: nothing is left that could be looked at.
    """
    words, flags, environ = asked[:3]
    problems: list[Problem] = []
    while True:
        try:
            return settings.resolve(words, flags, environ, asked.machine, env_files=asked.env_files), problems
        except LauncherError as error:
            # What is only wrong since another setting was left out is no news.
            problems = problems or list(error.problems)
            wrong = {problem.name.partition(" ")[0] for problem in error.problems}  # without the line of the env file
            if wrong & ingress_settings.NAMES:
                wrong |= ingress_settings.NAMES  # they are only right together
            fewer = {name: texts for name, texts in flags.items() if f"--{name}" not in wrong}
            left = {name: value for name, value in environ.items() if name not in wrong}
            if (fewer, left) == (flags, environ) and not (words and _TARGET in wrong):
                raise
        words, flags, environ = () if _TARGET in wrong else words, fewer, left


def _enter(chosen: Settings) -> None:
    """Go where a zygote would be, with what it would have."""
    from launcher.runtime.prepare import is_ours  # noqa: PLC0415  before the target's directory leads sys.path

    whereabouts.enter(chosen, os.environ, sys.argv[0])
    for name in filter(is_ours, list(os.environ)):
        del os.environ[name]
    # The script's own directory stands there now, unless Python was told to be safe (-P).
    sys.path[: 0 if sys.flags.safe_path else 1] = [os.getcwd()]
    sys.argv[:] = chosen.command.words or [chosen.target, *chosen.arguments]


def _become(chosen: Settings, problems: list[Problem]) -> bool:
    """Be who the service would be; say whether that is impossible and the target must not be imported as root."""
    try:
        privileges.drop(privileges.account(chosen), os.environ)
    except LauncherError as error:
        problems += error.problems
        return os.geteuid() == 0
    return False


def _wanted(chosen: Settings, *, is_without_secrets: bool = False) -> Wanted:
    from launcher.runtime.prepare import Wanted, secrets_dirs  # noqa: PLC0415

    return Wanted(
        target=chosen.target,
        interface=chosen.interface,
        is_factory=chosen.is_factory,
        server_options=chosen.server_options,
        ingress=chosen.ingress,
        config=chosen.config,
        env_files=chosen.env_files,
        secrets_dirs=secrets_dirs(chosen.secrets_dirs),
        templates=chosen.templates,
        template_check=chosen.template_check,
        without_secrets=is_without_secrets,
        is_command=bool(chosen.command.words),
        export_secrets=chosen.command.export_secrets,
        stall_timeout=chosen.stall_timeout,
    )


def _missing_command(chosen: Settings, prepared: Prepared | None) -> list[Problem]:
    """Say whether a command is not there, or not to be run; os.environ has the PATH of env files by now."""
    from shutil import which  # noqa: PLC0415

    if prepared is None or not chosen.command.words:
        return []
    command = chosen.command.words[0]
    path = which(command)
    if path is None:
        return [Problem(command, "cannot be run: it is not in PATH, or no program", "See `command -v`")]
    interpreter = _interpreter_of(path)
    if interpreter and not os.access(interpreter, os.X_OK):
        return [
            Problem(command, f"cannot be run: its first line names {interpreter}", "Install it, or correct the line")
        ]
    return []


def _interpreter_of(path: str) -> str:
    """Return what a script's first line names (execve(2)); empty if it is no such script, or cannot be read."""
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except OSError:
        return ""
    words = line[2:].split() if line.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else ""


def _prepare(wanted: Wanted) -> Prepared:
    """Prepare a generation, and take back what that laid beside the places of templates."""
    from launcher.runtime.prepare import prepare  # noqa: PLC0415

    prepared = prepare(wanted)
    if prepared.staged:
        from launcher.appconfig import place  # noqa: PLC0415

        place.discard(prepared.staged)
    return prepared


def _declared(chosen: Settings) -> type:
    from launcher.runtime import load  # noqa: PLC0415

    if chosen.config:
        found: object = load.find(chosen.config)
    else:
        function = load.load(chosen.target, chosen.interface, is_factory=chosen.is_factory).function
        from launcher.appconfig.annotations import find_class  # noqa: PLC0415  inspect and typing

        found = find_class(function)
    from launcher.appconfig.schema import is_declaration  # noqa: PLC0415  attrs and environ

    if not is_declaration(found):
        reason = "is no environ-config class" if chosen.config else "names no environ-config class in its annotations"
        remedy = "Write --config MODULE:CLASS with a class made by @environ.config"
        raise ConfigError(Problem(chosen.config or chosen.target, reason, remedy))
    assert isinstance(found, type)  # noqa: S101  a declaration is one
    return found


def _beyond_budget(chosen: Settings, environ: Mapping[str, str]) -> list[Problem]:
    """Say whether draining may take longer than whoever stops us waits for."""
    seconds = chosen.drain_delay + chosen.drain_timeout
    return [
        Problem(
            "--drain-timeout",
            f"with --drain-delay up to {seconds:g} s pass before a stop, and {who} kills everything after {limit:g} s, "
            f"unless its {name} says otherwise",
            f"Make {name} longer than {seconds:g} s, or --drain-timeout shorter",
        )
        for variable, who, name, limit in _BUDGETS
        if variable in environ and seconds >= limit
    ]


def _report(
    asked: Asked, chosen: Settings, prepared: Prepared | None, problems: Iterable[Problem], notes: Iterable[Problem]
) -> Report:
    rows = tuple(row for loaded in prepared.loads for row in loaded.rows) if prepared else ()
    origins = {row.name: row.origin for row in rows if row.origin not in _NOWHERE}
    for name, places in (("bind", chosen.bind), ("introspect", check_places.introspect(chosen))):
        origins |= {place.text: next(row.origin for row in chosen.rows if row.name == name) for place in places}
    has_secrets = prepared and any(loaded.secrets for loaded in prepared.loads)
    mask = prepared.redactor.mask if prepared and has_secrets else str

    def found(problem: Problem) -> Finding:
        name, reason, remedy = (mask(text) for text in problem)
        return Finding(name, origins.get(problem.name) or _origin(problem.name), reason, remedy)

    return Report(
        (chosen.command.words or asked.words or ("",))[0],
        tuple(map(found, (*problems, *(prepared.problems if prepared else ())))),
        tuple(map(found, (*notes, *(prepared.warnings if prepared else ())))),
        _not_checked(prepared, chosen.target) if prepared else (),
        tuple(row._replace(value=mask(row.value)) for row in chosen.rows),
        rows,
        mask(prepared.detail) if prepared else "",
    )


def _not_checked(prepared: Prepared, target: str) -> tuple[str, ...]:
    # A module that asks for its configuration while it is imported comes no further without its secrets.
    is_half_imported = bool(target) and prepared.target is None and not prepared.problems
    return (*prepared.not_checked, target) if is_half_imported else prepared.not_checked


def _origin(name: str) -> str:
    """Say where a setting with a problem came from."""
    if name.startswith("--") or name == _TARGET:
        return "command line"
    name, _, place = name.partition(" (")
    if name.startswith("PROD_RUN_"):
        return place.rstrip(")") or "environment"
    return ""
