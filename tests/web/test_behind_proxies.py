"""What applications see of a request behind a proxy, on each server library."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import PROD_RUN
from tests.web.seeing import BALANCER, FORWARDED_FOR, SEEN, Seen, ask, connect, v1, v2
from tests.web.serving import SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.running import Running

HEADERS = (FORWARDED_FOR, "X-Forwarded-Proto: https", "X-Forwarded-Host: www.shop.example")
WITH_PROXY = ("uvicorn", "gunicorn")
VERSIONS = {"v1": v1, "v2": v2}


def seen(where: Running | tuple[str, int] | Path, *headers: str, first: bytes = b"") -> Seen:
    """Ask once, on a connection of its own."""
    with connect(where, first=first) as connection:
        return Seen(*json.loads(ask(connection, *headers)))


@pytest.mark.parametrize("name", SERVERS)
def test_a_trusted_proxy_is_believed(name: str, start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """The right-most address that is no proxy of ours, its scheme and its host; what a client added is cut off."""
    app(SEEN)
    trust = ("--proxy-headers", "x-forwarded", "--trust", "127.0.0.0/8,10.0.0.1", "--trust", "198.51.100.9")
    running = start("--bind", "127.0.0.1:0", *trust, *SERVERS[name])
    running.wait_for(event="committed")
    spoofed = FORWARDED_FOR.replace(": ", ": 127.0.0.1, 10.9.9.9, ")
    found = [seen(running, *HEADERS), seen(running, spoofed, *HEADERS[1:], "Forwarded: for=192.0.2.1")]

    assert [one[:4] for one in found] == [("203.0.113.7", 0, "https", "www.shop.example")] * 2
    assert all("forwarded" not in one.headers and "x-forwarded-for" in one.headers for one in found)
    assert running.stop() == 0


@pytest.mark.parametrize("name", SERVERS)
def test_forwarded_of_rfc_7239_is_believed(name: str, start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """The other family, and only that: X-Forwarded-For is then a client's."""
    app(SEEN)
    running = start("--bind", "127.0.0.1:0", "--proxy-headers", "forwarded", "--trust", "127.0.0.1", *SERVERS[name])
    running.wait_for(event="committed")
    forwarded = 'Forwarded: for=192.0.2.1, for="[2001:db8::7]:4711";proto=https;host=www.shop.example'

    assert seen(running, forwarded, *HEADERS) == (
        "2001:db8::7", 4711, "https", "www.shop.example", ["forwarded"],
    )  # fmt: skip
    assert running.stop() == 0


@pytest.mark.parametrize("name", SERVERS)
def test_a_stranger_is_not_believed(name: str, start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Who is no proxy of ours says nothing about others, and an app that looks by itself sees nothing of it."""
    app(SEEN)
    running = start("--bind", "127.0.0.1:0", "--proxy-headers", "x-forwarded", "--trust", "10.0.0.1", *SERVERS[name])
    running.wait_for(event="committed")
    with connect(running) as connection:
        port = connection.getsockname()[1]
        found = Seen(*json.loads(ask(connection, *HEADERS, "Forwarded: for=192.0.2.1;proto=https")))

    assert found == ("127.0.0.1", port, "http", "shop.example", [])
    assert running.stop() == 0


@pytest.mark.parametrize("name", SERVERS)
def test_without_the_setting_headers_are_the_apps(
    name: str, start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """Nothing is believed, neither by the library, and nothing is taken away."""
    app(SEEN)
    running = start("--bind", "127.0.0.1:0", *SERVERS[name])
    running.wait_for(event="committed")
    found = seen(running, *HEADERS, "Forwarded: for=192.0.2.1")

    assert (found.host, found.scheme, found.name) == ("127.0.0.1", "http", "shop.example")
    assert set(found.headers) == {"forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
    assert running.stop() == 0


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("trust", ["unix:", "127.0.0.1"])
def test_a_peer_on_a_unix_socket_is_trusted_by_its_name(
    name: str, trust: str, start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """It has no address, so only `unix:` says that it may be believed; not `localhost`, nor an empty one."""
    app(SEEN)
    running = start("--bind", "unix:s", "--proxy-headers", "x-forwarded", "--trust", trust, *SERVERS[name])
    running.wait_for(event="committed")
    found = seen(tmp_path / "s", *HEADERS)

    assert (found.host, found.scheme) == (("198.51.100.9", "https") if trust == "unix:" else ("", "http"))
    assert running.stop() == 0


def test_a_client_does_not_say_what_the_applications_prefix_is(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Not all proxies take SCRIPT_NAME away, and it moves the path past rules of theirs; gunicorn trusts unix sockets."""
    app(SEEN.replace('environ["HTTP_HOST"]', 'environ["SCRIPT_NAME"] + "|" + environ["PATH_INFO"]'))
    running = start("--bind", "unix:s", *SERVERS["gunicorn"])
    running.wait_for(event="committed")
    with connect(tmp_path / "s") as connection:
        connection.sendall(
            b"GET /public/admin HTTP/1.1\r\nHost: x\r\nSCRIPT_NAME: /public\r\nConnection: close\r\n\r\n"
        )
        answer = connection.makefile("rb").read()

    assert b'"|/public/admin"' in answer
    assert running.stop() == 0


@pytest.mark.parametrize("name", WITH_PROXY)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_proxy_header_names_the_client(
    name: str, version: str, start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """For all requests of its connection; who sends none, or one of another version, is not let in."""
    app(SEEN)
    running = start("--bind", "127.0.0.1:0", "--proxy-protocol", version, "--trust", "127.0.0.1", *SERVERS[name])
    running.wait_for(event="committed")
    header = VERSIONS[version]()
    with connect(running, first=header) as connection:
        found = [Seen(*json.loads(ask(connection, FORWARDED_FOR))) for _ in range(3)]
    assert [one[:3] for one in found] == [(*BALANCER, "http")] * 3

    (other,) = VERSIONS.keys() - {version}
    for first in (b"", VERSIONS[other](), header[1:], b"\x16\x03\x01\x02\x00"):
        with connect(running, first=first) as connection:
            assert not ask(connection), first
    running.wait_for(f"sent no PROXY header of {version}")
    assert running.stop() == 0
    assert "Traceback" not in running.text()


@pytest.mark.parametrize("name", WITH_PROXY)
def test_a_stranger_with_a_proxy_header_is_not_let_in(
    name: str, start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """Trust is ours to give; what was refused is said once, however often it comes."""
    app(SEEN)
    running = start("--bind", "127.0.0.1:0", "--proxy-protocol", "v1", "--trust", "10.0.0.1,unix:", *SERVERS[name])
    running.wait_for(event="committed")
    for _ in range(5):
        with connect(running, first=v1()) as connection:
            assert not ask(connection)
    assert running.stop() == 0

    assert running.text().count("127.0.0.1 is not a trusted proxy") == 1


@pytest.mark.parametrize("name", WITH_PROXY)
def test_proxy_protocol_over_a_unix_socket(
    name: str, start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """The client is the header's; one that names nobody leaves the proxy itself."""
    app(SEEN)
    running = start("--bind", "unix:s", "--proxy-protocol", "v1", "--trust", "unix:", *SERVERS[name])
    running.wait_for(event="committed")

    assert seen(tmp_path / "s", first=v1())[:2] == BALANCER
    assert seen(tmp_path / "s", first=b"PROXY UNKNOWN\r\n").host == ""
    assert running.stop() == 0


@pytest.mark.parametrize("name", WITH_PROXY)
def test_the_client_of_a_proxy_header_is_whose_forwarding_headers_count(
    name: str, start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """Two proxies one behind the other: a TCP balancer in front of us, one that speaks HTTP in front of that."""
    app(SEEN)
    flags = ("--proxy-protocol", "v2", "--proxy-headers", "x-forwarded", "--trust", "127.0.0.1,198.51.100.9")
    running = start("--bind", "127.0.0.1:0", *flags, *SERVERS[name])
    running.wait_for(event="committed")

    assert seen(running, *HEADERS, first=v2()).host == "203.0.113.7"
    assert seen(running, *HEADERS, first=v2(("203.0.113.99", 1)))[:3] == ("203.0.113.99", 1, "http")
    assert running.stop() == 0


@pytest.mark.parametrize("name", WITH_PROXY)
def test_a_proxy_that_says_nothing_holds_nobody(
    name: str, start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """More connections than threads, with half a header or with a whole one and no request: others are answered."""
    app(SEEN)
    running = start("--bind", "127.0.0.1:0", "--proxy-protocol", "v1", "--trust", "127.0.0.1", *SERVERS[name])
    running.wait_for(event="committed")
    silent = [connect(running, first=first) for first in (v1()[:9], v1()) * 6]
    try:
        assert seen(running, first=v1()).host == BALANCER[0]
    finally:
        for connection in silent:
            connection.close()
    assert running.stop() == 0


def test_a_websocket_has_the_client_of_the_proxy_header(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """The protocol changes in the midst of a connection; the client stays."""
    app(SEEN)
    running = start("--bind", "127.0.0.1:0", "--proxy-protocol", "v1", "--trust", "127.0.0.1", "app:asgi")
    running.wait_for(event="committed")
    key = base64.b64encode(bytes(16)).decode()
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13")
    with connect(running, first=v1()) as connection:
        connection.sendall("\r\n".join(("GET / HTTP/1.1", "Host: x", *upgrade, "", "")).encode())
        stream = connection.makefile("rb")
        while stream.readline() not in {b"\r\n", b""}:
            pass
        _, length = stream.read(2)
        found = Seen(*json.loads(stream.read(length)))
        stream.close()

    assert found[:3] == (*BALANCER, "ws")
    assert running.stop() == 0


RAW = """
import os
from launcher import Worker, proxy
def main(worker: Worker):
    policy = proxy.from_environment(os.environ)
    listener = worker.sockets["default"]
    listener.settimeout(0.1)
    worker.ready()
    while not worker.stopping.is_set():
        try:
            connection, client, _ = proxy.accept(listener, policy)
        except TimeoutError:
            continue
        except proxy.RefusedError:
            continue
        with connection:
            connection.sendall(f"hello {client.host}".encode())
"""


def test_an_app_with_raw_sockets_knows_whom_to_trust(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """The example of the how-to: flags and variables come to `launcher.proxy.from_environment`."""
    app(RAW)
    trust = {"PROD_RUN_TRUST": "10.0.0.1 127.0.0.1"}
    running = start("--bind", "127.0.0.1:0", "--proxy-protocol", "v1", "app:main", env=trust)
    running.wait_for(event="committed")

    with connect(running, first=v1()) as connection:
        assert connection.recv(100) == b"hello 198.51.100.9"
    with connect(running, first=v2()) as connection:
        assert not ask(connection)
    assert running.stop() == 0


NESTED = """
import subprocess, sys
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    inner = [*sys.argv[1:], "--show-config", "--introspect", "off", "app:main"]
    print(subprocess.run(inner, capture_output=True, text=True).stdout, flush=True)
    worker.stopping.wait()
"""


def test_a_prod_run_that_an_app_starts_believes_nobody(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """What a worker is told of proxies is no setting: the connections of the one inside are others."""
    app(NESTED)
    running = start("--proxy-headers", "x-forwarded", "--trust", "127.0.0.1", "app:main", PROD_RUN)

    assert running.wait_for("proxy-headers  ")["text"].split() == ["proxy-headers", "off", "default"]
    assert running.wait_for("trust  ")["text"].split() == ["trust", "nobody", "default"]
    assert running.stop() == 0
