"""The request parser: what it takes, what it refuses, and that nothing at all breaks it."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.observer import http
from launcher.observer.http import LARGEST_HEADER, RefusedError, Reply


def ask(line: str = "GET /readyz HTTP/1.1", *headers: str) -> bytes:
    """Write a request; a Host is added unless some header is given."""
    return "\r\n".join([line, *(headers or ("Host: 10.0.0.1:8900",)), "", ""]).encode("latin-1")


def refusal(data: bytes) -> tuple[int, str]:
    """Return status and sentence of the refusal of these bytes."""
    with pytest.raises(RefusedError) as refused:
        http.read(data)
    return refused.value.reply.status, refused.value.reply.body.decode()


def test_a_request_is_taken_apart() -> None:
    """Method, path, options, host, and whether the connection goes on."""
    data = ask(
        "HEAD /livez?verbose&x=1 HTTP/1.1", "Host: [::1]:8900", "authorization:  Bearer abc ", "Accept: text/plain"
    )
    request, length = http.read(data + b"GET /next")

    assert length == len(data)
    assert request == http.Request("HEAD", "/livez", ("verbose", "x=1"), "[::1]:8900", "Bearer abc", "text/plain", True)


@pytest.mark.parametrize("cut", range(1, len(ask())))
def test_a_request_may_come_in_any_pieces(cut: int) -> None:
    """Until its last byte is there it is none."""
    assert http.read(ask()[:-cut]) == (None, 0)


@pytest.mark.parametrize(
    ("line", "headers", "goes_on"),
    [
        ("GET / HTTP/1.1", ("Host: x",), True),
        ("GET / HTTP/1.1", ("Host: x", "Connection: close"), False),
        ("GET / HTTP/1.1", ("Host: x", "Connection: te, Close"), False),
        ("GET / HTTP/1.0", ("Host: x",), False),
        ("GET / HTTP/1.0", ("Connection: Keep-Alive",), True),
    ],
)
def test_the_client_says_whether_the_connection_goes_on(line: str, headers: tuple[str, ...], goes_on: bool) -> None:  # noqa: FBT001
    """RFC 9112 §9.3."""
    request, _ = http.read(ask(line, *headers))

    assert request is not None
    assert request.keeps_alive is goes_on


@pytest.mark.parametrize(
    ("data", "status", "sentence"),
    [
        (b"hello\r\n\r\n", 400, "no HTTP request"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, "no HTTP request"),
        (ask("GET  / HTTP/1.1"), 400, "no HTTP request"),
        (ask("GET / HTTP/1.1 "), 400, "no HTTP request"),
        (ask("G@T / HTTP/1.1"), 400, "no HTTP request"),
        (ask("GET /\x00 HTTP/1.1"), 400, "no HTTP request"),
        (ask("GET /é HTTP/1.1"), 400, "a request is ASCII"),
        (ask("GET readyz HTTP/1.1"), 400, "does not begin with a slash"),
        (ask("OPTIONS * HTTP/1.1"), 400, "does not begin with a slash"),
        (ask("GET / HTTP/2.0"), 505, "HTTP/1.1 or HTTP/1.0"),
        (ask("GET / HTTX/1.1"), 400, "HTTP/1.1 or HTTP/1.0"),
        (ask("GET / HTTP/1.1", "Accept: x"), 400, "needs a Host"),
        (ask("GET / HTTP/1.1", "Host: a", "host: b"), 400, "two headers Host"),
        (ask("GET / HTTP/1.1", "Host: a", "Content-Length: 0", "Content-Length: 0"), 400, "two headers"),
        (ask("GET / HTTP/1.1", "Host: a", "Content-Length: +1"), 400, "not a number"),
        (ask("GET / HTTP/1.1", "Host : a"), 400, "not `Name: value`"),
        (ask("GET / HTTP/1.1", "Host: a", " folded"), 400, "not `Name: value`"),
        (ask("GET / HTTP/1.1", "Host: a\x00b"), 400, "not `Name: value`"),
        (ask("GET / HTTP/1.1", "Host: a\nX: b"), 400, "not `Name: value`"),
        (ask("GET / HTTP/1.1", "no colon"), 400, "not `Name: value`"),
        (b"GET /" + b"x" * LARGEST_HEADER, 431, "at most 8192 bytes"),
        (ask("GET / HTTP/1.1", "Host: a", "X: " + "y" * LARGEST_HEADER), 431, "at most 8192 bytes"),
    ],
)
def test_what_is_wrong_or_ambiguous_is_refused(data: bytes, status: int, sentence: str) -> None:
    """Each with the code that says whose fault it is."""
    found = refusal(data)

    assert (found[0], sentence in found[1]) == (status, True)


def test_the_authority_of_an_absolute_path_stands_for_the_host() -> None:
    """RFC 9112 §3.2.2: otherwise the Host rule could be walked around."""
    request, _ = http.read(ask("GET http://evil.example/status HTTP/1.1", "Host: 127.0.0.1"))

    assert request is not None
    assert (request.host, request.path) == ("evil.example", "/status")


@pytest.mark.parametrize("header", ["Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: 00005"])
def test_a_body_is_seen(header: str) -> None:
    """Whoever answers has to know that what follows is no request."""
    request, _ = http.read(ask("POST / HTTP/1.1", "Host: x", header))

    assert request is not None
    assert request.has_body


def test_a_response_says_what_it_is() -> None:
    """Length, type, no storing, no guessing; to HEAD the same without the body."""
    reply = Reply(200, b"ok\n", headers=(("Allow", "GET"),))
    head, _, body = http.write(reply).partition(b"\r\n\r\n")

    assert body == b"ok\n"
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: 3",
        b"Cache-Control: no-store",
        b"X-Content-Type-Options: nosniff",
        b"Connection: keep-alive",
        b"Allow: GET",
    ]
    assert http.write(reply, is_head=True) == head + b"\r\n\r\n"
    assert b"Connection: close" in http.write(reply, closes=True)


# ── whatever comes ──

WORDS = b"GET |HEAD |/|http://|a.b| HTTP/1.1| HTTP/1.0|\r\n|\n|\r|\r\n\r\n|:| |\t|\0|\x7f|\xff|0|9|?|&|="
HEADERS = b"Host|Host: x|Connection: close|Content-Length: |Transfer-Encoding: chunked"
PIECES = st.sampled_from([*WORDS.split(b"|"), *HEADERS.split(b"|")])
NOISE = st.lists(PIECES | st.binary(max_size=8), max_size=40).map(b"".join)


@settings(max_examples=500)
@given(NOISE)
def test_whatever_comes_is_a_request_a_refusal_or_not_complete(data: bytes) -> None:
    """Nothing else ever happens, and never more is taken than came."""
    try:
        request, length = http.read(data)
    except RefusedError as error:
        http.write(error.reply)
        return

    assert 0 <= length <= len(data)
    assert (request is None) == (length == 0)


@settings(max_examples=500)
@given(NOISE, st.sampled_from([b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET /a?b HTTP/1.1\r\nHost: x\r\nX: y", b""]))
def test_what_is_taken_another_parser_reads_in_the_same_way(noise: bytes, before: bytes) -> None:
    """h11 is the other one: it is stricter in places, but it must never see another request in the same bytes."""
    data = before + noise + b"\r\n\r\n"
    try:
        request, _ = http.read(data)
    except RefusedError:
        return
    other = h11.Connection(h11.SERVER)
    other.receive_data(data)
    try:
        event = other.next_event()
    except h11.RemoteProtocolError:
        return

    assert isinstance(event, h11.Request)
    assert request is not None
    assert (request.method, request.path) == (event.method.decode(), path_of(event.target.decode()))
    hosts = [value.decode() for name, value in event.headers if name == b"host"]
    if not event.target.lower().startswith(b"http://"):
        assert request.host == "".join(hosts)


def path_of(target: str) -> str:
    """Return the path of a target, absolute or not."""
    if target.lower().startswith("http://"):
        target = "/" + target[7:].partition("/")[2] if "/" in target[7:] else "/"
    return target.partition("?")[0]
