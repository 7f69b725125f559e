"""
prod-run's own settings: how a flag, a variable or a default becomes a value that keeps its origin.

Owns `resolve`, which finds every problem at once, and its result; the rows are in `settings_table`.
Must never read the environment or the machine itself: everything it needs is an argument.
"""

from __future__ import annotations

from launcher import addresses, command_settings, companions, ingress_settings, quantities, service_settings
from launcher.errors import ConfigError, Problem, UsageError
from launcher.handoff import AS_MANY_AS_WORKERS, POLICY_VARIABLE
from launcher.lean import NamedTuple
from launcher.quantities import BadValueError
from launcher.setting import PREFIX, Setting
from launcher.settings_table import BUILT, TABLE

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from launcher.addresses import Address
    from launcher.command_settings import Command
    from launcher.handoff import Ingress
    from launcher.service_settings import Service
    from launcher.setting import Parsed


# What says where env files are cannot stand in one.
_NOT_IN_ENV_FILES = ("env-file", "chdir")

# What prod-run itself sets for workers; a nested prod-run inherits it.
_OF_WORKERS = ("PROD_RUN_TEMPLATE_", POLICY_VARIABLE)


class Row(NamedTuple):
    """One line of `--show-config`."""

    name: str
    value: str
    origin: str


class Settings(NamedTuple):
    """Every setting that is built, resolved; times in seconds."""

    target: str
    arguments: tuple[str, ...]
    workers: int
    bind: tuple[Address, ...]
    interface: str
    preload: str
    boot_timeout: float
    drain_delay: float
    drain_timeout: float
    stall_timeout: float  # 0: off
    max_rss: int  # bytes; 0: off
    max_age: float  # 0: off
    control: str  # a path or `off`; empty: not given
    max_surge: int
    restart: str
    log: str  # stdout, or syslog[:URL]
    log_format: str  # console | logfmt | json; empty: by what stdout is
    log_level: str
    log_capture: bool
    name: str
    is_name_explicit: bool
    chdir: str  # as written; empty: not given
    config: str  # empty: from the target's annotations
    env_files: tuple[str, ...]
    secrets_dirs: tuple[str, ...]  # empty: the platform's
    templates: tuple[str, ...]  # as written
    template_check: str  # as written; empty: none
    watch: bool
    is_factory: bool
    restart_of_web: str  # `restart`, if the target turns out to be a web application
    is_workers_given: bool  # else such a target may say how many
    server_options: tuple[str, ...]  # as written
    ingress: Ingress
    service: Service
    before: str  # as written; empty: nothing
    introspect: Address | None
    is_introspect_explicit: bool
    introspect_token_file: str  # as written; empty: none
    command: Command  # no words: the target is a Python one
    rows: tuple[Row, ...]


class Machine(NamedTuple):
    """What `resolve` must know of the world."""

    count_cpus: Callable[[], int]
    inherits_listeners: bool = False  # systemd passed some


class _Written(NamedTuple):
    """What was written for one setting; `where` names it in a problem."""

    origin: str
    where: str
    texts: tuple[str, ...]


class _Given(NamedTuple):
    """What was written for one setting, where, and what it means; `where` names it in a problem."""

    origin: str
    where: str
    texts: tuple[str, ...]
    values: tuple[Parsed, ...]


def resolve(  # noqa: PLR0917  pure: whatever it needs is an argument
    words: tuple[str, ...],
    flags: Mapping[str, tuple[str, ...]],
    environ: Mapping[str, str],
    machine: Machine,
    found: tuple[Problem, ...] = (),
    env_files: Mapping[str, str] | None = None,
) -> Settings:
    """
    Turn a command line and an environment into settings.

    Args:
        words: the target and its arguments.
        flags: for each setting's name what was written, in order.
        environ: the caller's variables, laid over those of env files.
        machine: the few facts that defaults depend on.
        found: problems of the command line that are known already; a missing target is then no news.
        env_files: for each variable that came from one its place, such as `prod.env:12`.

    Raises:
        UsageError: the command line is wrong (all problems of variables are in it too).
        ConfigError: only `PROD_RUN_` variables are wrong.
    """
    on_line = list(found)
    in_environment: list[Problem] = []
    given: dict[str, _Given] = {}
    places = env_files or {}
    for setting in TABLE:
        place = places.get(setting.variable, "")
        where = f"{setting.variable} ({place})" if place else setting.variable
        if place and setting.name in _NOT_IN_ENV_FILES:
            remedy = f"Write {setting.flag}, or set it in the environment"
            in_environment.append(Problem(where, "says where env files are, so it cannot stand in one", remedy))
            continue
        # A bad variable is reported even where a flag overrides it: it is waiting for the day the flag goes.
        texts = _texts_of_variable(setting, environ)
        if texts:
            origin = place or f"environment {setting.variable}"
            _collect(setting, _Written(origin, where, texts), given, in_environment)
        texts = flags.get(setting.name, ())
        if texts:
            _collect(setting, _Written(f"flag {setting.flag}", setting.flag, texts), given, on_line)
    wheres = {name: row.where for name, row in given.items()}
    is_command = words[:1] == (command_settings.MARK,)
    values = {name: row.values[-1] if row.values else "" for name, row in given.items()}
    for problem in (
        *(command_settings.problems(wheres, is_command=is_command) if words else ()),
        *ingress_settings.problems(_ingress(given), wheres),
        *companions.problems(values, wheres, is_command=is_command),
    ):
        (on_line if problem.name.startswith("--") else in_environment).append(problem)
    in_environment += _unknown_variables(environ, places)
    on_line += _problems_of_target(words, is_optional=bool(found) or _asks_for_a_mode(flags))
    if on_line:
        raise UsageError(*on_line, *in_environment)
    if in_environment:
        raise ConfigError(*in_environment)
    return _settings(words, given, machine)


def suggestion(word: str, known: tuple[str, ...], prefix: str = "") -> str:
    """Say which known word was probably meant; empty if none is near.  A prefix that all share brings nobody nearer."""
    from difflib import get_close_matches  # noqa: PLC0415 - 5 ms that only a mistake costs

    stems = [one.removeprefix(prefix) for one in known]
    near = get_close_matches(word.removeprefix(prefix), stems, n=1, cutoff=0.6)
    return f"Did you mean {prefix}{near[0]}?" if near else ""


def _texts_of_variable(setting: Setting, environ: Mapping[str, str]) -> tuple[str, ...]:
    text = environ.get(setting.variable, "") if setting.has_variable else ""
    if not text:
        return ()  # empty is unset: compose files write PROD_RUN_WORKERS=${WORKERS:-}
    return tuple(text.split()) if setting.is_repeatable else (text,)


def _collect(setting: Setting, written: _Written, given: dict[str, _Given], problems: list[Problem]) -> None:
    origin, where, texts = written
    values: list[Parsed] = []
    for text in texts if setting.is_repeatable else texts[-1:]:
        try:
            values.append(setting.read(text))
        except BadValueError as error:
            problems.append(Problem(where, error.reason, error.remedy))
    if setting.name == "bind" and len(values) == len(texts):
        try:
            values = list(addresses.name_all(_addresses(tuple(values))))
        except BadValueError as error:
            problems.append(Problem(where, error.reason, error.remedy))
    given[setting.name] = _Given(origin, where, texts, tuple(values))


def _unknown_variables(environ: Mapping[str, str], places: Mapping[str, str]) -> list[Problem]:
    known = tuple(setting.variable for setting in TABLE if setting.has_variable)
    # Never the value: it may be a secret with a name that was mistyped.
    return [
        Problem(
            f"{name} ({places[name]})" if name in places else name,
            "there is no such setting",
            suggestion(name.upper(), known, PREFIX) or "Unset it, or see `prod-run --help` for the names",
        )
        for name, value in sorted(environ.items())
        if name.startswith(PREFIX)
        and name not in known
        and not name.startswith(_OF_WORKERS)
        and not is_service_link(name, value)
    ]


def is_service_link(name: str, value: str) -> bool:
    """
    Say whether Kubernetes set this variable, for a Service whose name starts with `prod-run`.

    https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    if name.endswith(("_SERVICE_HOST", "_SERVICE_PORT")) or "_SERVICE_PORT_" in name:
        return True
    if name.endswith("_PORT"):
        return value.startswith(("tcp://", "udp://", "sctp://")) or _is_port_of_link(name.removesuffix("_PORT"))
    return _is_port_of_link(name.removesuffix("_PROTO").removesuffix("_ADDR"))


def _is_port_of_link(name: str) -> bool:
    stem, _, protocol = name.rpartition("_")
    _, port, number = stem.rpartition("_PORT_")
    return protocol in {"TCP", "UDP", "SCTP"} and port != "" and number.isdigit()


def _asks_for_a_mode(flags: Mapping[str, tuple[str, ...]]) -> bool:
    """Say whether something else than a start is asked for, so that a target may be missing."""
    return any(setting.name in flags for setting in TABLE if not setting.has_variable)


def _problems_of_target(words: tuple[str, ...], *, is_optional: bool) -> list[Problem]:
    if words[:1] == (command_settings.MARK,):
        missing = Problem("-- COMMAND", "missing", "For example: prod-run -- nginx -g 'daemon off;'")
        return [] if command_settings.words_of(words) else [missing]
    if not words:
        return [] if is_optional else [Problem("MODULE:ATTRIBUTE", "missing", "For example: prod-run shop.web:main")]
    try:
        quantities.target(words[0])
    except BadValueError as error:
        return [Problem("MODULE:ATTRIBUTE", error.reason, error.remedy)]
    return []


def _settings(words: tuple[str, ...], given: dict[str, _Given], machine: Machine) -> Settings:
    bind = _addresses(given["bind"].values) if "bind" in given else ()
    is_web = _value("interface", given) in {"wsgi", "asgi"}
    listens = bool(bind) or machine.inherits_listeners or is_web
    command = command_settings.words_of(words)
    target = words[0] if words and not command else ""
    count = _number(_value("workers", given))
    workers = count or machine.count_cpus()
    computed: dict[str, tuple[Parsed, str, str]] = {
        "max-surge": (AS_MANY_AS_WORKERS, "as many as workers", "default"),
        "restart": (
            "always" if listens else "on-failure",
            "",
            "default, since something listens" if listens else "default, unless it is a web application",
        ),
        "control": ("", "control.sock in the runtime directory", "default"),
        "name": (quantities.name_of_target(target), "" if target else "the target's module", "the target"),
        "chdir": ("", "the directory it was started in", "default"),
    }
    if command:
        computed.update(command_settings.defaults(command[0], workers, listens=listens))
    values = {name: _value(name, given) if name in given else made[0] for name, made in computed.items()}
    introspect = values.get("introspect", _value("introspect", given))
    rows = [_row(setting, given, computed) for setting in BUILT]
    if not count:
        rows[0] = rows[0]._replace(value=f"{workers} (auto)")
    return Settings(
        target=target,
        arguments=() if command else words[1:],
        workers=workers,
        bind=bind,
        interface=str(_value("interface", given)),
        preload=str(_value("preload", given)),
        boot_timeout=_seconds(_value("boot-timeout", given)),
        drain_delay=_seconds(_value("drain-delay", given)),
        drain_timeout=_seconds(_value("drain-timeout", given)),
        stall_timeout=_seconds(_value("stall-timeout", given)),
        max_rss=_number(_value("max-rss", given)),
        max_age=_seconds(_value("max-age", given)),
        control=str(values["control"]),
        max_surge=_number(values["max-surge"]),
        restart=str(values["restart"]),
        log=str(_value("log", given)),
        log_format=str(_value("log-format", given)),
        log_level=str(values.get("log-level", _value("log-level", given))),
        log_capture=_value("no-log-capture", given) == "off",
        name=str(values["name"]),
        is_name_explicit="name" in given,
        chdir=str(values["chdir"]),
        config=str(_value("config", given)),
        env_files=_texts("env-file", given),
        secrets_dirs=_texts("secrets-dir", given),
        templates=_texts("template", given),
        template_check=str(_value("template-check", given)),
        watch=_value("watch", given) == "on",
        restart_of_web=str(_value("restart", given)) if "restart" in given else "always",
        is_workers_given="workers" in given,
        is_factory=_value("factory", given) == "on",
        server_options=_texts("server-option", given),
        ingress=_ingress(given),
        service=service_settings.service({name: row.values[-1] for name, row in given.items() if row.values}),
        before=str(_value("before", given)),
        introspect=introspect if isinstance(introspect, addresses.Address) else None,
        is_introspect_explicit="introspect" in given,
        introspect_token_file=str(_value("introspect-token-file", given)),
        command=command_settings.command(command, {name: row.values for name, row in given.items()}),
        rows=tuple(rows),
    )


def _value(name: str, given: dict[str, _Given]) -> Parsed:
    if name in given:
        return given[name].values[-1]
    setting = next(setting for setting in BUILT if setting.name == name)
    return setting.read(setting.default) if setting.default else ""


def _texts(name: str, given: dict[str, _Given]) -> tuple[str, ...]:
    return tuple(map(str, given[name].values)) if name in given else ()


def _ingress(given: dict[str, _Given]) -> Ingress:
    return ingress_settings.ingress({name: ",".join(map(str, row.values)) for name, row in given.items()})


def given_texts(name: str, flags: Mapping[str, tuple[str, ...]], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return what was written for a setting before anything is resolved; a flag beats its variable."""
    setting = next(setting for setting in BUILT if setting.name == name)
    return tuple(flags.get(name, ())) or _texts_of_variable(setting, environ)


def _row(setting: Setting, given: dict[str, _Given], computed: Mapping[str, tuple[Parsed, str, str]]) -> Row:
    if setting.name in given:
        texts = given[setting.name].texts
        return Row(setting.name, " ".join(texts if setting.is_repeatable else texts[-1:]), given[setting.name].origin)
    if setting.name in computed:
        value, words, origin = computed[setting.name]
        return Row(setting.name, words or str(value), origin)
    return Row(setting.name, setting.default or setting.default_words, "default")


def _addresses(values: tuple[Parsed, ...]) -> tuple[Address, ...]:
    return tuple(value for value in values if isinstance(value, addresses.Address))


def _number(value: Parsed) -> int:
    assert isinstance(value, int), value  # noqa: S101 - the table and its readers belong together
    return value


def _seconds(value: Parsed) -> float:
    assert isinstance(value, float), value  # noqa: S101
    return value
