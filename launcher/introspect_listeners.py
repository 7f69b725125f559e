"""
The sockets of the introspection port.

Owns where it listens: the address that was asked for, and beside it a unix socket in the runtime directory, which is
the private way in.  They are bound by the command line, like those of the app, and passed on to each observer.
Must never accept a connection, and never let a default that cannot be had stop a start.
"""

from __future__ import annotations

import os

from launcher.addresses import UNIX, Address
from launcher.errors import ConfigError, Problem, UnavailableError
from launcher.supervisor import listeners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.handoff import Listener
    from launcher.settings import Settings
    from launcher.supervisor.listeners import Acting

SOCKET = "introspect.sock"
TOKEN_FILE = "introspect-token-file"  # noqa: S105 - the name of a setting


def open_all(
    places: tuple[Address, ...],
    directory: str,
    tell: Callable[[str], None],
    *,
    is_explicit: bool,
    acting_in: Acting | None = None,
) -> tuple[Listener, ...]:
    """
    Listen at the address that was asked for, none or one, and in the runtime directory if there is one.

    Raises:
        UnavailableError: an explicit address cannot be had; then nothing is left open.
    """
    if not places:
        return ()
    problem: Problem | None = None
    opened: tuple[Listener, ...] = ()
    try:
        opened = listeners.open_all(places, (), acting_in)
    except UnavailableError as error:
        if is_explicit:
            raise
        problem = error.problems[0]
    if directory and places[0].kind != UNIX:
        path = f"{directory}/{SOCKET}"
        try:
            place = Address(SOCKET, UNIX, f"unix:{path}", path=path, mode=0o600)
            opened += listeners.open_all((place,), (), acting_in)
        except UnavailableError as error:
            tell(f"no private introspection: {error.problems[0].sentence}")
    if problem:
        instead = f"only through {opened[0].address}" if opened else "nowhere"
        tell(f"introspection {instead}: {problem.sentence}")
    return opened


def token_file(settings: Settings, directory: str) -> str:
    """
    Name the token's file with its whole path; empty if there is none.

    Raises:
        ConfigError: it holds no token, or cannot be read.
    """
    if not settings.introspect_token_file:
        return ""
    path = os.path.join(directory, settings.introspect_token_file)
    try:
        with open(path, "rb") as file:
            reason = "" if file.read(4096).strip() else "is empty"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    if reason:
        where = next(row.origin.partition(" ")[2] for row in settings.rows if row.name == TOKEN_FILE)
        raise ConfigError(Problem(where, f"{path} {reason}", "Write the token into it, and let this user read it"))
    return path
