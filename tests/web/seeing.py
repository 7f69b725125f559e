"""An application that says what it sees of a request, and connections that begin as proxies begin them."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, NamedTuple

from tests.processes.running import LIMIT

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from tests.processes.running import Running

SEEN = """
import json
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return await send({"type": "lifespan.shutdown.complete"})
    names = {name.decode(): value.decode() for name, value in scope["headers"]}
    host, port = scope["client"] or ("", 0)
    seen = [host, port, scope["scheme"], names["host"], [name for name in names if "forward" in name]]
    body = json.dumps(seen).encode()
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        return await send({"type": "websocket.send", "bytes": body})
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
def wsgi(environ, start_response):
    names = [name for name in environ if name.startswith("HTTP_") and "FORWARD" in name]
    names = [name[5:].lower().replace("_", "-") for name in names]
    seen = [environ["REMOTE_ADDR"], int(environ.get("REMOTE_PORT") or 0), environ["wsgi.url_scheme"]]
    body = json.dumps([*seen, environ["HTTP_HOST"], names]).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
FORWARDED_FOR = "X-Forwarded-For: 203.0.113.7, 198.51.100.9"
BALANCER = ("198.51.100.9", 51234)


class Seen(NamedTuple):
    """What the application saw."""

    host: str
    port: int
    scheme: str
    name: str  # of the Host header
    headers: list[str]  # of forwarding that were left


def v1(client: tuple[str, int] = BALANCER) -> bytes:
    """Write a PROXY header of version 1."""
    return f"PROXY TCP4 {client[0]} 127.0.0.1 {client[1]} 80\r\n".encode()


def v2(client: tuple[str, int] = BALANCER) -> bytes:
    """Write one of version 2."""
    block = ipaddress.ip_address(client[0]).packed + bytes((127, 0, 0, 1)) + client[1].to_bytes(2, "big") + b"\0\x50"
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + len(block).to_bytes(2, "big") + block


def connect(
    where: Running | tuple[str, int] | Path, *, first: bytes = b"", tls: ssl.SSLContext | None = None
) -> socket.socket:
    """Connect, say something first, and then perhaps begin TLS."""
    if isinstance(where, tuple):
        connection = socket.create_connection(where, LIMIT)
    elif hasattr(where, "address"):
        connection = socket.create_connection(where.address(), LIMIT)
    else:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(LIMIT)
        connection.connect(str(where))
    try:
        connection.sendall(first)
        return tls.wrap_socket(connection, server_hostname="localhost") if tls else connection
    except BaseException:
        connection.close()
        raise


def ask(connection: socket.socket, *headers: str) -> bytes:
    """Make a request and return the body of the answer; empty: the connection was closed."""
    text = "\r\n".join(("GET / HTTP/1.1", "Host: shop.example", *headers, "", ""))
    answer = b""
    try:
        connection.sendall(text.encode())
        while b"\r\n\r\n" not in answer:
            piece = connection.recv(65536)
            if not piece:
                return b""
            answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
    except ConnectionError:
        return b""
    return body
