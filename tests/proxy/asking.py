"""Questions that the tests ask of the middleware, as a server would."""

from __future__ import annotations

import asyncio
from typing import Any

from launcher.proxy import Asgi, Policy, Wsgi

PEER = "10.0.0.1"

Headers = list[tuple[str, str]]


def wsgi(policy: Policy, headers: Headers, peer: str = PEER, **more: Any) -> dict[str, Any]:
    """Return the environ that an app sees; fields of one name are joined, as servers do."""
    environ: dict[str, Any] = {
        "REMOTE_ADDR": peer,
        "REMOTE_PORT": "4711",
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "inner.example",
        **more,
    }
    for name, value in headers:
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: object) -> list[bytes]:
        seen.append(environ)
        return [b"answer"]

    assert Wsgi(app, policy)(environ, lambda *_: None) == [b"answer"]
    return seen[0]


def asgi(policy: Policy, headers: Headers, peer: str = PEER, **more: Any) -> dict[str, Any]:
    """Return the scope that an app sees."""
    scope = {
        "type": "http",
        "scheme": "http",
        "client": (peer, 4711),
        "server": ("10.0.0.2", 80),
        "headers": [
            (b"host", b"inner.example"),
            *((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers),
        ],
        **more,
    }
    seen: list[Any] = []

    async def app(scope: Any, receive: object, send: object) -> None:
        seen.append(scope)

    async def nothing(*_: object) -> None:
        return None

    asyncio.run(Asgi(app, policy)(scope, nothing, nothing))
    found: dict[str, Any] = seen[0]
    return found


def fields(scope: dict[str, Any]) -> dict[str, str]:
    """Return the headers of a scope by name."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
