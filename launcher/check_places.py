"""
What a start would take for itself, looked at by `--check-config`: addresses, the token, the pidfile.

Owns the trying of each; check.py owns when, since root opens some of them before it becomes somebody else.
Must never keep anything, or leave anything on the disk.
"""

from __future__ import annotations

import os
from functools import partial

from launcher import introspect_listeners, privileges
from launcher.addresses import UNIX, name_all, parse
from launcher.errors import ConfigError, LauncherError, Problem, UnavailableError
from launcher.supervisor import listeners, pidfile, unix_sockets

TYPE_CHECKING = False

if TYPE_CHECKING:
    from launcher.addresses import Address
    from launcher.privileges import Account
    from launcher.runtime.prepare import Prepared
    from launcher.settings import Settings


def implicit(prepared: Prepared | None, inherited: tuple[listeners.Inherited, ...]) -> tuple[Address, ...]:
    """
    Return where a web application listens if nobody says.

    Raises:
        ConfigError: $PORT is no port.
    """
    from launcher.runtime import load, servers  # noqa: PLC0415  loaded with the application

    if inherited or not (prepared and prepared.target) or prepared.target.interface == load.CALLABLE:
        return ()

    return name_all((parse(servers.address(os.environ)),))


def introspect(chosen: Settings) -> tuple[Address, ...]:
    """Return the address of --introspect; the default may be busy, which costs a start one warning."""
    return (chosen.introspect,) if chosen.introspect and chosen.is_introspect_explicit else ()


def without_token(chosen: Settings) -> list[Problem]:
    """Say why there is no token, if there is to be one."""
    try:
        introspect_listeners.token_file(chosen, os.getcwd())
    except ConfigError as error:
        return list(error.problems)
    return []


def account(chosen: Settings) -> Account | None:
    """Return who the service would be; None also if that cannot be, which is reported by itself."""
    try:
        return privileges.account(chosen)
    except LauncherError:
        return None


def unusable(
    places: tuple[Address, ...], inherited: tuple[listeners.Inherited, ...], found: Account | None = None
) -> list[Problem]:
    """Listen at every address for a moment, and say where that cannot be done."""
    problems: list[Problem] = []
    numeric: list[Address] = []
    paths = [place.path for place in places]
    acting_in = partial(privileges.acting_in, found)
    for place in places:
        try:
            numeric += _beside(place, paths.index(place.path)) if place.kind == UNIX else listeners.resolve((place,))
        except UnavailableError as error:
            problems += error.problems
    try:
        for listener in listeners.open_all(privileges.owned(tuple(numeric), found), inherited, acting_in):
            listeners.close(listener)
    except UnavailableError as error:
        problems += error.problems
    return problems


def unusable_pidfile(chosen: Settings, found: Account | None) -> list[Problem]:
    """Say why the pidfile could not be had."""
    if not chosen.service.pidfile:
        return []
    path = os.path.join(os.getcwd(), chosen.service.pidfile)
    try:
        with privileges.acting_in(found, path):
            pidfile.examine(path, privileges.where(chosen, "pidfile"), privileges.trusted(found))
    except UnavailableError as error:
        return list(error.problems)
    return []


def _beside(place: Address, number: int) -> tuple[Address, ...]:
    """
    Have a unix socket made beside its place: what is there, a dead socket for one, is left alone.

    Its name is at least as long as the real one, since the kernel counts; `number` is its own, or that of the first
    with the same path.

    Raises:
        UnavailableError: something is there that a start would not replace.
    """
    folder, name = os.path.split(os.path.join(os.getcwd(), place.path))
    try:
        unix_sockets._refuse_if_taken(place, os.path.join(folder, name))
    except OSError:
        pass  # the directory is not what it should be, which bind(2) will say
    return (place._replace(path=os.path.join(folder, f".{os.getpid()}-{number}".ljust(len(name), "-"))),)
