"""What the middleware changes, and what it leaves."""

from __future__ import annotations

import asyncio
from typing import Any
from wsgiref.validate import validator

import pytest

from launcher.proxy import ORIGINAL, Asgi, Policy, Wsgi
from tests.proxy.asking import PEER, asgi, fields, wsgi

X = Policy.read("x-forwarded", "", "10.0.0.0/8")
F = Policy.read("forwarded", "", "10.0.0.0/8, unix:")
CHAIN = [("X-Forwarded-For", "6.6.6.6, 203.0.113.9:4712"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Port", "443")]


def test_wsgi_keeps_what_was_there() -> None:
    """The keys that were changed, with their values before; nothing else."""
    environ = wsgi(X, [*CHAIN, ("Accept", "*/*"), ("Forwarded", "for=6.6.6.6")])

    assert environ.pop(ORIGINAL) == {
        "REMOTE_ADDR": PEER,
        "REMOTE_PORT": "4711",
        "wsgi.url_scheme": "http",
        "HTTP_X_FORWARDED_FOR": "6.6.6.6, 203.0.113.9:4712",
        "HTTP_FORWARDED": "for=6.6.6.6",
    }
    assert environ == {
        "REMOTE_ADDR": "203.0.113.9",
        "REMOTE_PORT": "4712",
        "wsgi.url_scheme": "https",
        "HTTP_HOST": "inner.example",
        "HTTP_ACCEPT": "*/*",
        "HTTP_X_FORWARDED_FOR": "203.0.113.9:4712",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_FORWARDED_PORT": "443",
    }


def test_asgi_keeps_what_was_there() -> None:
    """The scope's own client, scheme and headers; the scope that came is not touched."""
    headers = [*CHAIN, ("Accept", "*/*"), ("X-Forwarded-Host", "shop.example")]
    came = asgi(Policy.read("", "", ""), headers)
    scope = asgi(X, headers)

    assert scope[ORIGINAL] == {"client": (PEER, 4711), "scheme": "http", "headers": came["headers"]}
    assert (scope["client"], scope["scheme"]) == (("203.0.113.9", 4712), "https")
    assert fields(scope) == {
        "Accept": "*/*",
        "host": "shop.example",
        "x-forwarded-for": "203.0.113.9:4712",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "shop.example",
        "x-forwarded-port": "443",
    }


def test_a_proxys_port_is_not_the_clients() -> None:
    """Unknown is better than wrong."""
    headers = [("X-Forwarded-For", "203.0.113.9")]

    assert "REMOTE_PORT" not in wsgi(X, headers)
    assert asgi(X, headers)["client"] == ("203.0.113.9", 0)


def test_a_proxys_host_is_not_the_clients() -> None:
    """RFC 3875 §4.1.9: a name, or else the address; a server that has neither gets none."""
    headers = [("X-Forwarded-For", "203.0.113.9")]

    assert wsgi(X, headers, REMOTE_HOST=PEER)["REMOTE_HOST"] == "203.0.113.9"
    assert wsgi(X, headers, REMOTE_HOST=PEER)[ORIGINAL]["REMOTE_HOST"] == PEER
    assert "REMOTE_HOST" not in wsgi(X, headers)


def test_nothing_is_touched_while_it_is_off() -> None:
    """The headers are the app's own business then."""
    off = Policy.read("off", "", "")

    assert wsgi(off, CHAIN)["HTTP_X_FORWARDED_FOR"] == "6.6.6.6, 203.0.113.9:4712"
    assert ORIGINAL not in wsgi(off, CHAIN)
    assert fields(asgi(off, CHAIN))["X-Forwarded-For"] == "6.6.6.6, 203.0.113.9:4712"


@pytest.mark.parametrize("name", ["X_Forwarded_For", "x-forwarded_for", "X_Real_IP", "x_forwarded-host"])
def test_an_underscore_is_no_hyphen(name: str) -> None:
    """A proxy replaces the one, and lets the other pass: gunicorn #2799, oauth2-proxy CVE-2025-64484."""
    scope = asgi(X, [(name, "6.6.6.6"), ("x-forwarded-for", "203.0.113.9")])

    assert scope["client"][0] == "203.0.113.9"
    assert fields(scope) == {"host": "inner.example", "x-forwarded-for": "203.0.113.9"}


@pytest.mark.parametrize(
    ("proto", "kind", "expected"),
    [
        ("https", "http", "https"),
        ("https", "websocket", "wss"),
        ("wss", "websocket", "wss"),
        ("wss", "http", "https"),
        ("WS", "http", "http"),
        ("http", "websocket", "ws"),
        ("gopher", "http", "plain"),
        ("https; secure", "http", "plain"),
    ],
)
def test_the_scheme_fits_the_kind_of_the_request(proto: str, kind: str, expected: str) -> None:
    """Proxies write https for wss, and the reverse."""
    headers = [("X-Forwarded-Proto", proto)]
    found = wsgi(X, headers, **{"wsgi.url_scheme": "plain"})["wsgi.url_scheme"]

    assert asgi(X, headers, type=kind, scheme="plain")["scheme"] == expected
    assert found == expected.replace("ws", "http")


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"client": None, "server": ("/run/shop.sock", None)}, "203.0.113.9"),
        ({"client": ("", 0), "server": None}, "203.0.113.9"),
        # uvicorn has no client for a TCP connection that was reset already, either: sent and gone, it would count
        # as a request over the unix socket.
        ({"client": None, "server": ("10.0.0.2", 80)}, None),
        ({"client": None}, None),
        ({"client": None, "server": None}, None),
    ],
)
def test_a_unix_socket_is_trusted_by_name_only(scope: dict[str, Any], expected: str | None) -> None:
    """An address that is missing is no proof of one."""
    found = asgi(F, [("Forwarded", "for=203.0.113.9")], **{"server": None, **scope})

    assert (found["client"][0] if found["client"] else None) == expected
    assert ("forwarded" in fields(found)) is (expected is not None)


def test_a_unix_socket_is_an_empty_address_for_wsgi() -> None:
    """As gunicorn says it; no address at all is not that."""
    headers = [("Forwarded", "for=203.0.113.9")]
    environ: dict[str, Any] = {"HTTP_FORWARDED": "for=203.0.113.9"}
    Wsgi(lambda *_: [], F)(environ, lambda *_: None)

    assert wsgi(F, headers, peer="")["REMOTE_ADDR"] == "203.0.113.9"
    assert wsgi(X, [("X-Forwarded-For", "203.0.113.9")], peer="")["REMOTE_ADDR"] == ""
    assert environ == {ORIGINAL: {"HTTP_FORWARDED": "for=203.0.113.9"}}


def test_lifespan_passes_as_it_is() -> None:
    """It has neither client nor headers."""
    seen: list[object] = []

    async def app(scope: Any, receive: object, send: object) -> None:
        seen.append(scope)

    async def nothing(*_: object) -> None:
        return None

    scope: dict[str, Any] = {"type": "lifespan"}
    asyncio.run(Asgi(app, X)(scope, nothing, nothing))

    assert seen == [scope]
    assert seen[0] is scope


def test_wsgi_stays_wsgi() -> None:
    """PEP 3333, as wsgiref's validator sees it on both sides of the middleware."""
    from wsgiref.util import setup_testing_defaults

    environ: dict[str, Any] = {"REMOTE_ADDR": PEER, "HTTP_X_FORWARDED_FOR": "203.0.113.9", "QUERY_STRING": ""}
    setup_testing_defaults(environ)
    begun: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(environ["REMOTE_ADDR"]).encode()]

    def start_response(status: str, headers: object, exc_info: object = None) -> Any:
        begun.append(status)
        return lambda _: None

    result: Any = validator(Wsgi(validator(app), X))(environ, start_response)
    body = b"".join(result)
    result.close()

    assert (begun, body) == (["200 OK"], b"203.0.113.9")
