"""
What an app behind a proxy sees of a request.

Owns the WSGI and the ASGI middleware, and which headers are taken away.  Whoever is asked, an app that reads
forwarding headers by itself must not meet a forgery:
- from a peer that is not trusted, it sees none of both families;
- from one that is, only the chosen family, cut to what trusted proxies wrote; the other one is never seen.

What was there before stands under `ORIGINAL`.  Must never answer a request by itself.
"""

from __future__ import annotations

from launcher.proxy import forwarded, x_forwarded
from launcher.proxy.nodes import UNIX
from launcher.proxy.policy import FORWARDED
from launcher.proxy.walking import SCHEMES, Seen

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping
    from typing import Any

    from launcher.proxy.policy import Policy

    Scope = MutableMapping[str, Any]
    WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
    AsgiApp = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

# In a WSGI environ the keys that were changed, with their values before (none for those that were not there);
# in an ASGI scope its client, scheme and headers as they came.
ORIGINAL = "prod_run.original"

# A name that goes on behind these goes with them: nothing else begins like this.
_FAMILIES = (x_forwarded.PREFIX, x_forwarded.REAL_IP, forwarded.NAME)
_IN_ENVIRON = tuple("HTTP_" + name.upper().replace("-", "_") for name in _FAMILIES)
_IN_SCOPE = (b"x-", b"x_", b"forwarded")  # a quick look before a thorough one

_ADDRESSED = ("REMOTE_ADDR", "REMOTE_HOST", "REMOTE_PORT", "wsgi.url_scheme", "HTTP_HOST")


class Wsgi:
    """A WSGI application behind a proxy."""

    def __init__(self, app: WsgiApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Correct the environ, where the server's access log finds it as well, and pass it on."""
        if self._policy.headers:
            _correct(environ, self._policy)
        return self._app(environ, start_response)


class Asgi:
    """An ASGI application behind a proxy."""

    def __init__(self, app: AsgiApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        """Pass a corrected copy of the scope on."""
        if self._policy.headers and scope["type"] in {"http", "websocket"}:
            scope = _corrected(scope, self._policy)
        await self._app(scope, receive, send)


def judge(headers: dict[str, list[str]], peer: str, policy: Policy) -> Seen:
    """
    Say what to believe of a request.

    `headers` are those of both families by their names in lower case, each with its fields in their order; `peer` is
    the address of the connection, `unix:` for a unix socket.
    """
    if not policy.trust.is_trusted(peer):
        return Seen()
    if policy.headers == FORWARDED:
        return forwarded.read(headers, policy.trust)
    headers.pop(forwarded.NAME, None)
    return x_forwarded.read(headers, policy.trust)


def _correct(environ: dict[str, Any], policy: Policy) -> None:
    before = {key: environ[key] for key in environ if key.startswith(_IN_ENVIRON)}
    # Servers tell a peer on a unix socket by an empty address.
    peer = environ.get("REMOTE_ADDR", "?") or UNIX
    headers = {key.removeprefix("HTTP_").lower().replace("_", "-"): [value] for key, value in before.items()}
    seen = judge(headers, peer, policy)
    after: dict[str, Any] = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in seen.headers}
    if seen.client:
        after["REMOTE_ADDR"] = seen.client.host
        if "REMOTE_HOST" in environ:  # of waitress: the proxy's address again, since nobody looks up its name
            after["REMOTE_HOST"] = seen.client.host
        after["REMOTE_PORT"] = str(seen.client.port) if seen.client.port else None
    if seen.scheme:
        after["wsgi.url_scheme"] = "https" if SCHEMES[seen.scheme] else "http"
    if seen.host:
        after["HTTP_HOST"] = seen.host
    original = {key: environ[key] for key in _ADDRESSED if key in after and key in environ}
    environ[ORIGINAL] = original | {key: value for key, value in before.items() if after.get(key) != value}
    for key in before:
        del environ[key]
    environ.update(after)
    if environ.get("REMOTE_PORT", "") is None:
        del environ["REMOTE_PORT"]  # it was the proxy's


def _corrected(scope: Scope, policy: Policy) -> Scope:
    headers: dict[str, list[str]] = {}
    kept: list[tuple[bytes, bytes]] = []
    for name, value in scope["headers"]:
        lower = name.lower()
        if not lower.startswith(_IN_SCOPE):
            kept.append((name, value))
            continue
        text = lower.decode("latin-1")
        if not text.replace("_", "-").startswith(_FAMILIES):
            kept.append((name, value))
        elif "_" not in text:
            # A header with an underscore is never believed: proxies that replace X-Forwarded-For let
            # X_Forwarded_For pass, and an app below CGI's rules cannot tell them apart.
            headers.setdefault(text, []).append(value.decode("latin-1"))
    seen = judge(headers, _peer(scope), policy)
    if seen.host:
        kept = [(name, value) for name, value in kept if name.lower() != b"host"]
        kept.append((b"host", seen.host.encode("latin-1")))
    kept += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in seen.headers]
    original = {key: scope.get(key) for key in ("client", "scheme", "headers")}
    corrected = {**scope, "headers": kept, ORIGINAL: original}
    if seen.client:
        corrected["client"] = tuple(seen.client)
    if seen.scheme:
        plain = "ws" if scope["type"] == "websocket" else "http"
        corrected["scheme"] = plain + "s" * SCHEMES[seen.scheme]
    return corrected


def _peer(scope: Scope) -> str:
    client, server = scope.get("client"), scope.get("server")
    if client:
        return str(client[0]) or UNIX
    # No client alone proves nothing: uvicorn also has none for a TCP connection that was reset meanwhile.
    # A server without a port is a unix socket (ASGI, HTTP connection scope).
    return UNIX if server and server[1] is None else "?"
