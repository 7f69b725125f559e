"""
The settings of a service that no service manager starts: who it runs as, its pidfile, its umask, the background.

Owns their rows of the table, the reading of a umask, and the one value that they become.
Must never look at the machine: whether a user exists, `privileges` asks.
"""

from __future__ import annotations

from launcher import quantities
from launcher.lean import NamedTuple
from launcher.quantities import BadValueError
from launcher.setting import Setting

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.setting import Parsed

LARGEST_UMASK = 0o777
LARGEST_ID = 2**32 - 2  # setresuid(2): the last number means "leave it"
UMASK_OF_A_DAEMON = 0o022  # whatever the shell has that it was started from; systemd's default too
AS_IT_IS = -1


class Service(NamedTuple):
    """Who the service is, as written; empty: as started."""

    user: str = ""
    group: str = ""
    umask: int = AS_IT_IS
    pidfile: str = ""
    is_daemon: bool = False


def umask(text: str) -> int:
    """Read a umask, in octal."""
    if not text or not frozenset("01234567").issuperset(text) or int(text, 8) > LARGEST_UMASK:
        raise BadValueError(text, "is not a umask", "Write it in octal, such as 0027")
    return int(text, 8)


def user_or_group(text: str) -> str:
    """Read a name or a number; whether there is such a one is asked later."""
    if text.isascii() and text.isdecimal() and (len(text) > len(str(LARGEST_ID)) or int(text) > LARGEST_ID):
        raise BadValueError(text, "is out of range", f"Write a name, or a number up to {LARGEST_ID}")
    return text


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "user",
        "NAME|UID",
        "",
        "become this user, with its groups, once sockets are bound; nothing of prod-run keeps root's rights",
        read=user_or_group,
        default_words="as started",
        is_rare=True,
    ),
    Setting(
        "group",
        "NAME|GID",
        "",
        "become this group",
        read=user_or_group,
        default_words="the user's",
        is_rare=True,
    ),
    Setting(
        "umask",
        "MODE",
        "",
        "the permissions that files do not get when they are made, in octal",
        read=umask,
        default_words="as started; with --daemon 0022",
        is_rare=True,
    ),
    Setting(
        "pidfile",
        "PATH",
        "",
        "hold the supervisor's PID in this file, which is locked while it runs and gone when it has ended",
        default_words="none",
        is_rare=True,
    ),
    Setting(
        "daemon",
        "",
        "off",
        "run in the background; returns when the first generation is ready, or with the exit code of the start",
        read=quantities.switch,
        is_rare=True,
    ),
)


def service(given: Mapping[str, Parsed]) -> Service:
    """Make the value of what was given; a setting that was not is absent."""
    mask = given.get("umask", AS_IT_IS)
    is_daemon = given.get("daemon") == "on"
    if mask == AS_IT_IS and is_daemon:
        mask = UMASK_OF_A_DAEMON
    assert isinstance(mask, int)  # noqa: S101 - the table and its reader belong together
    return Service(
        str(given.get("user", "")), str(given.get("group", "")), mask, str(given.get("pidfile", "")), is_daemon
    )
