"""
Who may see what: the public tier for everybody who can connect, the private one for the unix socket and the token.

Owns the judgement of one request.  Pure: the token comes in, a decision out.
A page in somebody's browser can be led to us under a name of its choosing (DNS rebinding), but not under a number.
"""

from __future__ import annotations

from _operator import _compare_digest  # what `hmac` has, without `hashlib`

from launcher.lean import NamedTuple
from launcher.observer.http import Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.observer.http import Request

_SCHEME = "bearer "
_BYTE = 255


class Judgement(NamedTuple):
    """What a request may see, or why it gets nothing at all."""

    is_private: bool
    refusal: Reply | None = None


def judge(
    request: Request, read_token: Callable[[], bytes] | None, *, by_socket: bool, wants_private: bool
) -> Judgement:
    """
    Decide; `read_token` is None if there is no token file, and returns nothing if it cannot be read.

    A wrong token is refused even where none is needed: whoever sends one wants to know.
    """
    if by_socket:
        # The socket may stand behind a port of somebody's own machine (`ssh -L`), and so before that one's browser.
        if "." in request.host and not is_number(request.host):
            return Judgement(False, Reply(403, b"through the socket, ask for localhost, not for a name with a dot\n"))
        return Judgement(is_private=True)
    if read_token is not None and request.authorization:
        token = read_token()
        given = request.authorization[len(_SCHEME) :].strip().encode()
        is_bearer = request.authorization[: len(_SCHEME)].lower() == _SCHEME
        if not (token and is_bearer and _compare_digest(given, token)):
            return Judgement(False, _unauthorized("wrong token"))
        if not is_number(request.host):
            return Judgement(False, Reply(403, b"with a token, ask by IP address or as localhost, not by name\n"))
        return Judgement(is_private=True)
    if not wants_private:
        return Judgement(is_private=False)
    if read_token is not None:
        return Judgement(False, _unauthorized("a token is needed here"))
    return Judgement(False, Reply(403, b"private: ask through the unix socket, or give --introspect-token-file\n"))


def is_number(host: str) -> bool:
    """Say whether a Host is an IP address, or localhost, which resolvers keep to this machine (RFC 6761)."""
    if host.startswith("["):
        inner, bracket, port = host[1:].partition("]")
        is_port = not port or (port[0] == ":" and port[1:].isdecimal())
        return bool(bracket) and is_port and ":" in inner and frozenset("0123456789abcdefABCDEF:.").issuperset(inner)
    name, colon, port = host.partition(":")
    if colon and not port.isdecimal():
        return False
    parts = name.split(".")
    is_ipv4 = len(parts) == 4 and all(part.isdecimal() and len(part) < 4 and int(part) <= _BYTE for part in parts)  # noqa: PLR2004
    return is_ipv4 or name.lower() == "localhost"


def _unauthorized(why: str) -> Reply:
    return Reply(401, f"{why}\n".encode(), headers=(("WWW-Authenticate", 'Bearer realm="prod-run"'),))
