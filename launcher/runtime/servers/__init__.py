"""
HTTP servers as libraries, driven inside a worker: one module for each.

Owns the choice of the library, its version, and the options that are passed on to it.  A server's module has
`OPTIONS` (the names of --server-option that make sense here) and `prepare(app, options, front)`, which imports what
the workers will share and returns what each of them runs; it starts no thread and no event loop.
Must never parse HTTP, and never touch a socket: the modules beside this one do that.
"""

from __future__ import annotations

import importlib
import os

from launcher import quantities
from launcher.errors import ConfigError, Problem, TargetError, UsageError
from launcher.handoff import Ingress
from launcher.lean import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType
    from typing import Any

    from launcher.api import Worker
    from launcher.proxy.policy import Policy

    App = Callable[..., Any]
    Serve = Callable[[Worker[Any]], None]


class Library(NamedTuple):
    """A server library, the module here that drives it, and the releases that this module knows."""

    name: str
    module: str
    least: tuple[int, ...]
    below: tuple[int, ...]
    is_plain: bool = False  # it neither speaks TLS, nor lets us read before it does


class Front(NamedTuple):
    """What a connection is in front of HTTP."""

    proxies: Policy | None = None  # who must begin it with a PROXY header; None: nobody
    tls: ssl.SSLContext | None = None


# By interface, the preferred one first.  The driver of each uses what is not public API of it (tests/web hold it).
LIBRARIES = {
    "asgi": (Library("uvicorn", "uvicorn", (0, 51), (1,)),),
    "wsgi": (
        Library("gunicorn", "gthread", (27, 0, 1), (28,)),
        Library("waitress", "waitress", (3, 0, 1), (4,), is_plain=True),
    ),
}
CHOICE = "server"  # the one option that is not the library's own
_FLAG = "--server-option"
LEAST_STALL = 2.0  # seconds: two turns of an idle WSGI server's loop, each with a heartbeat


def address(environ: Mapping[str, str]) -> str:
    """
    Return where a web application listens if nobody said so: as platforms want it, else for this machine alone.

    Raises:
        ConfigError: $PORT is no port.
    """
    port = _number("PORT", environ, 65535, "ports")
    return f"0.0.0.0:{port}" if port else "127.0.0.1:8000"


def workers(environ: Mapping[str, str]) -> int:
    """
    Return the number of workers that platforms ask for; 0 if they do not.

    Raises:
        ConfigError: $WEB_CONCURRENCY is no number.
    """
    return _number("WEB_CONCURRENCY", environ, quantities.MOST_WORKERS, "workers")


def _number(name: str, environ: Mapping[str, str], most: int, unit: str) -> int:
    text = environ.get(name, "")
    try:
        return quantities.whole(text, 1, most, unit) if text else 0
    except quantities.BadValueError as error:
        raise ConfigError(Problem(name, error.reason, error.remedy)) from None


class Option(NamedTuple):
    """One `NAME=VALUE` of --server-option."""

    name: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Option:
        """Read it as it was written; the command line has looked at its form."""
        name, _, value = text.partition("=")
        return cls(name, value)

    @property
    def called(self) -> str:
        """What it is called in errors."""
        return f"{_FLAG} {self.name}={self.value}"


def prepare(
    app: App,
    interface: str,
    texts: Sequence[str],
    ingress: Ingress = Ingress(),  # noqa: B008  a value
    tls: ssl.SSLContext | None = None,
) -> Serve:
    """
    Choose a server for an application and load it.

    Raises:
        UsageError: there is no such server or option, or the server cannot do what is asked of it.
        TargetError: no server is installed, or not one that can be driven.
        ConfigError: a variable that servers read is wrong.
    """
    workers(os.environ)  # gunicorn reads it when it is imported
    options = [Option.parse(text) for text in texts]
    library = _choose(interface, [option for option in options if option.name == CHOICE])
    server = _imported(library)
    options = [option for option in options if option.name != CHOICE]
    wrong = [*_unknown(library, server, options), *_impossible(library, ingress)]
    if wrong:
        raise UsageError(*wrong)
    app, front = _behind_proxies(app, interface, ingress)
    try:
        serve: Serve = server.prepare(app, {option.name: option.value for option in options}, front._replace(tls=tls))
    except (ValueError, TypeError, ImportError) as error:
        # Only the library can tell which of its options it did not like.
        called = ", ".join(option.called for option in options) or f"the environment of {library.name}"
        raise UsageError(Problem(called, f"{library.name} does not take it: {error}")) from error
    return serve


def require_heartbeats(stall_timeout: float) -> None:
    """
    Look whether --stall-timeout (seconds; 0: off) leaves an idle server the time for its heartbeats.

    Raises:
        UsageError: it does not.
    """
    if 0 < stall_timeout < LEAST_STALL:
        reason = f"{stall_timeout:g}s is too short for a web server, which gives its heartbeat once a second"
        raise UsageError(Problem("--stall-timeout", reason, f"Write {LEAST_STALL:g}s or more"))


def _imported(library: Library) -> ModuleType:
    """Import the module that drives a library; gunicorn reads $WEB_CONCURRENCY then, and fails at an empty one."""
    is_empty = os.environ.get("WEB_CONCURRENCY") == ""
    if is_empty:
        del os.environ["WEB_CONCURRENCY"]
    try:
        return importlib.import_module(f"{__name__}.{library.module}")
    finally:
        if is_empty:
            os.environ["WEB_CONCURRENCY"] = ""


def _behind_proxies(app: App, interface: str, ingress: Ingress) -> tuple[App, Front]:
    """Have the application see clients instead of proxies, if that is wanted."""
    if not ingress.trust:
        return app, Front()
    from launcher import proxy  # noqa: PLC0415  only who is behind a proxy pays for it

    policy = proxy.Policy.read(ingress.proxy_headers, ingress.proxy_protocol, ingress.trust)
    if policy.headers:
        app = proxy.Asgi(app, policy) if interface == "asgi" else proxy.Wsgi(app, policy)
    return app, Front(policy if policy.protocol else None)


def _impossible(library: Library, ingress: Ingress) -> list[Problem]:
    """Say what this library cannot do."""
    if not library.is_plain:
        return []
    asked = (("--tls-cert", ingress.tls_cert, "TLS"), ("--proxy-protocol", ingress.proxy_protocol, "PROXY protocol"))
    return [
        Problem(flag, f"{library.name} has no {what}", "Run: pip install 'prod-run[wsgi]', and leave server= out")
        for flag, value, what in asked
        if value not in {"", "off"}
    ]


def _choose(interface: str, choices: list[Option]) -> Library:
    libraries = LIBRARIES[interface]
    if choices:
        libraries = tuple(library for library in libraries if library.name == choices[-1].value)
        if not libraries:
            names = " or ".join(library.name for library in LIBRARIES[interface])
            reason = f"is not a server for {interface.upper()} applications"
            raise UsageError(Problem(choices[-1].called, reason, f"Write {names}, or leave it out"))
    for library in libraries:
        found = _installed(library.name)
        if found:
            _require_version(library, found)
            return library
    extra = libraries[0].name if choices else f"prod-run[{interface}]"
    reason = f"no server for {interface.upper()} applications is installed"
    raise TargetError(Problem(f"the {interface.upper()} application", reason, f"Run: pip install '{extra}'"))


def _installed(name: str) -> str:
    """Return the version of an installed package; empty if there is none."""
    from importlib import metadata  # noqa: PLC0415  only web targets pay for it

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _require_version(library: Library, found: str) -> None:
    numbers = tuple(int(part) if part.isdecimal() else 0 for part in found.split(".")[:3])
    if library.least <= numbers < library.below:
        return
    wanted = f"{library.name}>={_dotted(library.least)},<{_dotted(library.below)}"
    reason = f"{library.name} {found} is installed, and prod-run drives {wanted}"
    raise TargetError(Problem(library.name, reason, f"Run: pip install '{wanted}'"))


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _unknown(library: Library, server: ModuleType, options: list[Option]) -> list[Problem]:
    known: tuple[str, ...] = server.OPTIONS
    unknown = [option for option in options if option.name not in known]
    if not unknown:
        return []
    import difflib  # noqa: PLC0415  only a mistake pays for it

    problems = []
    for option in unknown:
        near = difflib.get_close_matches(option.name, known, 1)
        remedy = f"Did you mean {near[0]}?" if near else f"Those of {library.name} are {', '.join(known)}"
        problems.append(Problem(option.called, f"prod-run passes no such option to {library.name}", remedy))
    return problems
