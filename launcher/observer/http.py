"""
The part of HTTP/1.1 that probes and people with curl need (RFC 9112): GET and HEAD, no bodies.

Owns the reading of one request and the writing of one response.
Pure: bytes in, a request or a refusal out.  What is ambiguous is refused: a proxy before us might read it otherwise.
"""

from __future__ import annotations

from launcher.lean import NamedTuple

LARGEST_HEADER = 8 * 1024  # bytes, with the request line
METHODS = ("GET", "HEAD")
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}
TEXT = "text/plain; charset=utf-8"

_END = b"\r\n\r\n"
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_ONCE = ("host", "authorization", "content-length")


class Request(NamedTuple):
    """One request."""

    method: str
    path: str
    options: tuple[str, ...]  # of the query: `verbose`, `format=json`
    host: str  # with its port; empty: HTTP/1.0 said none
    authorization: str
    accept: str
    keeps_alive: bool
    has_body: bool = False


class Reply(NamedTuple):
    """What is to be answered."""

    status: int
    body: bytes
    kind: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()


class RefusedError(Exception):
    """This is no request that can be answered; `reply` says why, and then the connection ends."""

    def __init__(self, status: int, why: str) -> None:
        """Make the reply."""
        super().__init__(why)
        self.reply = Reply(status, f"{why}\n".encode())


def read(data: bytes) -> tuple[Request | None, int]:
    """
    Read one request from the beginning of what came; None if it is not complete.

    Returns:
        The request, and how many bytes it took.

    Raises:
        RefusedError: this can never be one.
    """
    begin = 2 if data.startswith(b"\r\n") else 0  # RFC 9112 §2.2: after a body that was counted wrong
    end = data.find(_END, begin, begin + LARGEST_HEADER)
    if end < 0:
        if len(data) - begin >= LARGEST_HEADER:
            raise RefusedError(431, f"a request has at most {LARGEST_HEADER} bytes here")
        return None, 0
    try:
        line, *lines = data[begin:end].decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        raise RefusedError(400, "a request is ASCII") from None
    method, target, version = _request_line(line)
    fields = _fields(lines)
    host, path, options = _target(target, fields.get("host", ""))
    if version == "HTTP/1.1" and "host" not in fields:
        raise RefusedError(400, "HTTP/1.1 needs a Host")
    wishes = [wish.strip().lower() for wish in fields.get("connection", "").split(",")]
    request = Request(
        method,
        path,
        options,
        host,
        fields.get("authorization", ""),
        fields.get("accept", ""),
        "close" not in wishes and (version == "HTTP/1.1" or "keep-alive" in wishes),
        _has_body(fields),
    )
    return request, end + len(_END)


def write(reply: Reply, *, is_head: bool = False, closes: bool = False) -> bytes:
    """Write a response; that to HEAD says how long the body would be."""
    lines = [
        f"HTTP/1.1 {reply.status} {REASONS[reply.status]}",
        f"Content-Type: {reply.kind}",
        f"Content-Length: {len(reply.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        f"Connection: {'close' if closes else 'keep-alive'}",
        *(f"{name}: {value}" for name, value in reply.headers),
    ]
    head = "\r\n".join(lines).encode("ascii") + _END
    return head if is_head else head + reply.body


def _request_line(line: str) -> tuple[str, str, str]:
    parts = line.split(" ")
    if len(parts) != 3 or not parts[0] or not _TOKEN.issuperset(parts[0]) or not _is_plain(line):  # noqa: PLR2004
        raise RefusedError(400, "this is no HTTP request")
    method, target, version = parts
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        is_other = version.startswith("HTTP/") and version[5:6].isdigit()
        raise RefusedError(505 if is_other else 400, "HTTP/1.1 or HTTP/1.0 is spoken here")
    return method, target, version


def _fields(lines: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        # A blank before the colon, or a line that goes on: what one program skips the next one believes.
        if not colon or not name or not _TOKEN.issuperset(name) or not _is_plain(value):
            raise RefusedError(400, "a header is not `Name: value`")
        name, value = name.lower(), value.strip(" \t")
        if name in fields and name in _ONCE:
            raise RefusedError(400, f"there are two headers {name.title()}")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def _target(target: str, host: str) -> tuple[str, str, tuple[str, ...]]:
    if target[:7].lower() == "http://":  # RFC 9112 §3.2.2: its authority stands for the Host
        host, slash, path = target[7:].partition("/")
        target = slash + path or "/"
    if not target.startswith("/"):
        raise RefusedError(400, "the path does not begin with a slash")
    path, _, query = target.partition("?")
    return host, path, tuple(filter(None, query.split("&")))


def _has_body(fields: dict[str, str]) -> bool:
    length = fields.get("content-length", "0")
    if not length.isdecimal():
        raise RefusedError(400, "Content-Length is not a number")
    return "transfer-encoding" in fields or length.strip("0") != ""


def _is_plain(text: str) -> bool:
    return text.replace("\t", " ").isprintable()
