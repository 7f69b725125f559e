"""
PREPARING (DESIGN §3.5), as far as it is the same for a start, a reload and `--check-config`.

Owns the order: env files, the class of `--config`, the target, the class of its annotations, templates; and the
collecting of everything that is wrong with any of them.  Declared secrets have left os.environ when it is done.
Must never move a template into its place, and never raise for what is wrong.
An app without configuration, env files and templates pays for nothing here: imports stand where they are needed.
"""

from __future__ import annotations

import os
import sys

import launcher
from launcher.errors import ConfigError, Exit, LauncherError, Problem, UsageError, explain
from launcher.handoff import Ingress
from launcher.lean import NamedTuple
from launcher.runtime import forkable, load, multiprocess, records, scrubbing
from launcher.runtime.inputs import Inputs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from launcher.appconfig.load import Loaded
    from launcher.appconfig.place import Staged
    from launcher.appconfig.redact import Redactor
    from launcher.runtime.load import Target
    from launcher.runtime.snapshot import Snapshot
    from launcher.runtime.tls import Made

HEADLINE = "cannot start with this configuration"
_PLATFORMS_SECRETS = "/run/secrets"
SYSTEMD = (
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE"),
    *("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"),
)


class Wanted(NamedTuple):
    """What is to be prepared."""

    target: str
    interface: str = "auto"
    config: str = ""  # MODULE:CLASS; empty: from the target's annotations
    env_files: tuple[str, ...] = ()
    secrets_dirs: tuple[str, ...] = ()  # with the default applied
    templates: tuple[str, ...] = ()  # as written
    template_check: str = ""
    generation: int = 1
    without_secrets: bool = False
    is_factory: bool = False  # the target returns what is to be run
    server_options: tuple[str, ...] = ()  # NAME=VALUE, as written
    ingress: Ingress = Ingress()
    is_command: bool = False  # there is no target: what is prepared is a plain command's environment
    export_secrets: tuple[str, ...] = ()  # what it has in its environment all the same
    stall_timeout: float = 0.0  # seconds; 0: off


class Prepared(NamedTuple):
    """What came of it; nothing is staged if there are problems."""

    target: Target | None
    config: object | None
    loads: tuple[Loaded, ...]  # the declared class first, then what the app loaded itself
    staged: tuple[Staged, ...]
    problems: tuple[Problem, ...]  # everything that could still be found
    warnings: tuple[Problem, ...]
    not_checked: tuple[str, ...]  # secrets that were allowed to be missing
    exit_code: int  # 0, that of the target's problem, or 78
    detail: str  # the app's traceback, cut
    templates: Mapping[str, str]  # the files that they became, by name
    private: tuple[str, ...]  # those of this generation alone
    files: str  # digest of the loaded module files
    snapshot: Snapshot | None  # None: nothing was loaded from anywhere
    reads: tuple[str, ...] = ()  # files that templates were made of, and the templates
    suspected: tuple[Loaded, ...] = ()  # of an import that failed: what it might have declared
    exports: Mapping[str, str] = {}  # secrets for a command's environment; their repr shows no value

    @property
    def redactor(self) -> Redactor:
        """What takes the declared secrets out of a text."""
        from launcher.appconfig.redact import Redactor  # noqa: PLC0415  re and json

        known = (*self.loads, *self.suspected)
        declared = {name: value.reveal() for loaded in known for name, value in loaded.secrets.items()}
        return Redactor({**declared, **self.exports})

    def mask(self, text: str) -> str:
        """Take the declared secrets out of a text."""
        has_secrets = self.exports or any(loaded.secrets for loaded in (*self.loads, *self.suspected))
        return self.redactor.mask(text) if has_secrets else text

    def report(self) -> str:
        """Put everything that is wrong into words, for people."""
        text = explain(HEADLINE, self.problems)
        return f"{text}\n\n{self.detail}" if self.detail else text

    def reason(self) -> str:
        """Put it into one line: the first problem, and how many there are."""
        first, *others = self.problems
        line = f"{first.name}: {first.reason}{'. ' + first.remedy if first.remedy else ''}"
        return f"{len(self.problems)} problems, the first: {line}" if others else line


class _Findings:
    """What is known so far."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.cls: type | None = None
        self.declared: Loaded | None = None
        self.config_problems: list[Problem] = []
        self.target_problems: list[Problem] = []
        self.target_code = Exit.SOFTWARE
        self.details: list[str] = []
        self.suspected: tuple[Loaded, ...] = ()
        self.tls: Made | None = None

    @property
    def loads(self) -> tuple[Loaded, ...]:
        """Return the declared class, and what the app has loaded itself."""
        current = sys.modules.get("launcher.appconfig.current")
        own: tuple[Loaded, ...] = current.loads() if current else ()
        return (self.declared, *own) if self.declared else own

    def add(self, problems: Iterable[Problem]) -> None:
        """Take in problems of the configuration; the same class may have been loaded twice."""
        self.config_problems += [problem for problem in problems if problem not in self.config_problems]


def secrets_dirs(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the directories to look for secrets in: those given, or the platform's."""
    return given or ((_PLATFORMS_SECRETS,) if os.path.isdir(_PLATFORMS_SECRETS) else ())


def is_ours(name: str) -> bool:
    """Say whether a variable is meant for prod-run, and not for the app."""
    return name in SYSTEMD or (name.startswith("PROD_RUN_") and not name.startswith("PROD_RUN_TEMPLATE_"))


def prepare(wanted: Wanted, recorded: Snapshot | None = None) -> Prepared:
    """
    Do everything that is short of starting; works on os.environ.

    Args:
        wanted: what to prepare.
        recorded: of a generation that was prepared before: what is to be loaded again, with its templates made.
    """
    us = os.getpid()
    found = _Findings(Inputs(wanted, recorded))
    found.add(found.inputs.lay_over_env_files(is_ours))
    multiprocess.offer()
    found.inputs.surround_on_demand()
    _face_clients(wanted.ingress, found)
    if wanted.config:
        _load_declared(wanted, found)
    target = None if wanted.is_command else _import_target(wanted, found)
    if os.getpid() != us:
        os._exit(0)  # the module forked, and this is the child: there must not be two of us
    if target and target.interface == load.CALLABLE and "environ" in sys.modules:
        _load_annotated(wanted, target, found)
    exports = _exports(wanted, found) if wanted.export_secrets else {}
    found.add(scrubbing.scrub(found.loads))
    files = forkable.module_files()  # before templates, which a later process of the generation does not make again
    return _finish(wanted, target, found, files, exports)


def _face_clients(ingress: Ingress, found: _Findings) -> None:
    """Make the TLS context, and say to an app that reads sockets or headers by itself whom it may believe."""
    os.environ.update(ingress.variables)
    if not (ingress.tls_cert and ingress.tls_key):
        return
    from launcher.runtime import tls  # noqa: PLC0415  ssl, which only TLS pays for

    found.tls = tls.make(ingress, found.inputs.files())
    found.add(found.tls.problems)


# ── configuration and target ────────────────────────────────────────────────────────────────────────


def _load_declared(wanted: Wanted, found: _Findings) -> None:
    """Load the class of `--config`."""
    try:
        cls = load.find(wanted.config)
    except LauncherError as error:
        found.add(error.problems)
        found.details.append(getattr(error, "detail", ""))
        return
    from launcher.appconfig.schema import is_declaration  # noqa: PLC0415

    if not is_declaration(cls):
        found.add(
            [Problem(f"--config {wanted.config}", "is no environ-config class", "Name a class with @environ.config")]
        )
        return
    _load(cls, found)
    found.add(scrubbing.scrub(found.loads))


def _import_target(wanted: Wanted, found: _Findings) -> Target | None:
    try:
        target = load.load(wanted.target, wanted.interface, is_factory=wanted.is_factory)
        return _with_server(wanted, target, found)
    except LauncherError as error:
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            # The app asked for its configuration while it was imported: what is wrong with that is the news,
            # but not that there is none.
            found.add(p for p in cause.problems if not (found.config_problems and p.name == "launcher.config()"))
            return None
        found.target_problems += error.problems
        found.target_code = error.exit_code
        found.details.append(getattr(error, "detail", ""))
        _suspect(cause, found)
        return None


def _with_server(wanted: Wanted, target: Target, found: _Findings) -> Target:
    """Have a web application served by a server library, which is imported here so that workers share it."""
    if target.interface == load.CALLABLE:
        _require_use(wanted, target)
        return target
    from launcher.runtime import servers  # noqa: PLC0415  only web targets pay for it

    servers.require_heartbeats(wanted.stall_timeout)
    context = found.tls.context if found.tls else None
    serve = servers.prepare(target.function, target.interface, wanted.server_options, wanted.ingress, context)
    return target._replace(function=serve, worker_parameter="worker")


def _require_use(wanted: Wanted, target: Target) -> None:
    """Refuse what a plain callable would leave without effect."""
    flags = ("--server-option",) * bool(wanted.server_options) + ("--tls-cert",) * bool(wanted.ingress.tls_cert)
    remedy = "Leave it out; or if the target is a web application, say so with --interface"
    problems = [Problem(flag, f"{wanted.target} brings its own server", remedy) for flag in flags]
    if wanted.stall_timeout and not target.worker_parameter:
        reason = f"{wanted.target} takes no Worker, so nobody calls worker.heartbeat()"
        problems.append(
            Problem("--stall-timeout", reason, "Leave it out, or write `def main(worker: launcher.Worker)`")
        )
    if problems:
        raise UsageError(*problems)


def _suspect(error: BaseException | None, found: _Findings) -> None:
    """Load every class in sight of a failed import, for its secrets alone: the app's words may hold one."""
    if "environ" not in sys.modules:
        return
    from launcher.appconfig.load import load as load_class  # noqa: PLC0415
    from launcher.appconfig.schema import is_declaration  # noqa: PLC0415

    spaces = [vars(module) for module in list(sys.modules.values()) if hasattr(module, "__dict__")]
    frames = error.__traceback__ if error else None
    while frames:  # the module that failed is not in sys.modules any more
        spaces.append(frames.tb_frame.f_globals)
        frames = frames.tb_next
    classes = {item for space in spaces for item in list(space.values()) if is_declaration(item)}
    found.suspected = tuple(load_class(cls, found.inputs.places()) for cls in classes)


def _load_annotated(wanted: Wanted, target: Target, found: _Findings) -> None:
    """Load the class that the target's annotations name."""
    from launcher.appconfig.annotations import find_class  # noqa: PLC0415

    cls = find_class(target.function)
    if cls is None:
        return
    if not wanted.config:
        _load(cls, found)
    elif found.cls and cls is not found.cls:
        reason = f"its annotations ask for {cls.__qualname__}, and --config names {wanted.config}"
        found.add([Problem(wanted.target, reason, "Leave --config out, or make the two the same")])


def _load(cls: type, found: _Findings) -> None:
    from launcher.appconfig import current  # noqa: PLC0415
    from launcher.appconfig.load import load as load_class  # noqa: PLC0415

    while launcher.before_config:
        launcher.before_config.pop()()
    found.cls, found.declared = cls, load_class(cls, found.inputs.places())
    records.protect_also(found.declared)  # the import that follows may log
    if found.declared.problems:
        found.add(found.declared.problems)
    else:
        current.provide(cls, found.declared.instance)


# ── the end ─────────────────────────────────────────────────────────────────────────────────────────


def _exports(wanted: Wanted, found: _Findings) -> Mapping[str, str]:
    from launcher.runtime import exporting  # noqa: PLC0415  only commands that asked for it

    exports = exporting.find(wanted.export_secrets, found.loads, found.inputs.places())
    found.add(exports.problems)
    return exports


def _finish(
    wanted: Wanted, target: Target | None, found: _Findings, files: str, exports: Mapping[str, str]
) -> Prepared:
    loads = found.loads
    not_checked: tuple[str, ...] = ()
    if wanted.without_secrets:
        rows = [row for loaded in loads for row in loaded.rows]
        not_checked = tuple(row.name for row in rows if row.is_secret and row.origin == "missing")
        found.config_problems = [p for p in found.config_problems if p.name not in not_checked]
    first = loads[0] if found.declared or len(loads) == 1 else None
    done = Prepared(
        target=target,
        config=first.instance if first else None,
        loads=loads,
        staged=(),
        problems=(),
        warnings=(
            *(warning for loaded in loads for warning in loaded.warnings),
            *(found.tls.warnings if found.tls else ()),
        ),
        not_checked=not_checked,
        exit_code=Exit.DONE,
        detail="",
        templates={},
        private=(),
        files=files,
        snapshot=None,
        suspected=found.suspected,
        exports=exports,
    )
    if wanted.templates:
        done = _with_templates(wanted, found, done, is_broken=first is not None and first.instance is None)
    snapshot = found.inputs.snapshot(done.templates, is_needed=bool(loads or found.tls))
    return _judged(found, done._replace(snapshot=snapshot))


def _with_templates(wanted: Wanted, found: _Findings, done: Prepared, *, is_broken: bool) -> Prepared:
    from launcher.appconfig.templates import template  # noqa: PLC0415

    templates = [template(text) for text in wanted.templates]
    if found.inputs.recorded:
        paths = found.inputs.recorded.templates
        done = done._replace(templates=paths, private=tuple(paths[item.name] for item in templates if item.is_private))
    else:
        from launcher.runtime import rendering  # noqa: PLC0415

        is_known = done.target is not None or found.declared is not None or wanted.is_command
        made = rendering.make(
            wanted,
            done.loads,
            rendering.Unknown() if is_broken or not is_known else done.config,
            done.mask,
            found.inputs.files(),
            is_known=is_known,
            is_certain=not (found.config_problems or found.target_problems),
        )
        found.add(made.problems)
        done = done._replace(staged=made.staged, templates=made.paths, private=made.private, reads=made.reads)
    done = done._replace(reads=(*done.reads, *(os.path.abspath(item.source) for item in templates)))
    for item in templates:
        os.environ[item.variable] = done.templates[item.name]
    return done


def _judged(found: _Findings, done: Prepared) -> Prepared:
    """Collect what is wrong; the app's own words may hold a secret."""
    news = [problem for problem in found.target_problems if problem not in found.config_problems]
    problems = [*found.config_problems, *news]
    if not problems:
        return done
    return done._replace(
        problems=tuple(Problem(p.name, done.mask(p.reason), done.mask(p.remedy)) for p in problems),
        exit_code=Exit.CONFIG if found.config_problems else found.target_code,
        detail=done.mask("\n\n".join(dict.fromkeys(filter(None, found.details)))),
    )
