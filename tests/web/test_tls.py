"""TLS to the backend: certificates, clients' certificates, rotation, and the drain."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from launcher.appconfig.secret_files import Files
from launcher.handoff import Ingress
from launcher.proxy import Policy
from launcher.runtime import tls
from launcher.runtime.servers import proxied, refusals
from tests.processes.running import title, until
from tests.web.certificates import Authority, Pair
from tests.web.seeing import BALANCER, SEEN, Seen, ask, connect, v1
from tests.web.serving import APP, SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.running import Running
    from tests.web.load import Load

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="the openssl command is not installed")
WITH_TLS = ("uvicorn", "gunicorn")
APPLICATIONS = {"uvicorn": "fastapi_app:app", "gunicorn": "flask_app:app"}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Return an authority that issues into a directory of its own."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    return Authority(folder)


def subject(running: Running, authority: Authority) -> str:
    """Return whose certificate is served to a new connection."""
    with connect(running, tls=authority.client()) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        certificate = connection.getpeercert() or {}
    return str(dict(pair for row in certificate["subject"] for pair in row)["commonName"])


@pytest.mark.parametrize("name", WITH_TLS)
@pytest.mark.parametrize("preload", ["always", "never"])
def test_tls_is_spoken(
    name: str, preload: str, start: Callable[..., Running], app: Callable[..., Path], authority: Authority
) -> None:
    """The application sees https; who speaks no TLS is no client, and does no harm."""
    app(SEEN)
    flags = (*authority.issue("web").flags, "--preload", preload)
    running = start("--bind", "127.0.0.1:0", *flags, *SERVERS[name])
    running.wait_for(event="committed")
    with connect(running) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b'["127' not in plain.recv(4096)
    with connect(running, tls=authority.client()) as connection:
        found = [Seen(*json.loads(ask(connection))) for _ in range(3)]

    assert [(one.host, one.scheme) for one in found] == [("127.0.0.1", "https")] * 3
    assert running.stop() == 0
    assert "Traceback" not in running.text()


@pytest.mark.parametrize("name", WITH_TLS)
def test_a_proxy_header_comes_before_tls(
    name: str, start: Callable[..., Running], app: Callable[..., Path], authority: Authority
) -> None:
    """Both together; a header inside of TLS is a client's."""
    app(SEEN)
    flags = (*authority.issue("web").flags, "--proxy-protocol", "v1", "--trust", "127.0.0.1")
    running = start("--bind", "127.0.0.1:0", *flags, *SERVERS[name])
    running.wait_for(event="committed")
    with connect(running, first=v1(), tls=authority.client()) as connection:
        assert json.loads(ask(connection))[:3] == [*BALANCER, "https"]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(running, tls=authority.client())

    assert running.stop() == 0


@pytest.mark.parametrize("name", WITH_TLS)
def test_only_clients_of_the_authority_are_admitted(
    name: str, start: Callable[..., Running], app: Callable[..., Path], authority: Authority, tmp_path: Path
) -> None:
    """Without a certificate, or with one of somebody else's, there is no answer."""
    app(SEEN)
    (tmp_path / "others").mkdir()
    other = Authority(tmp_path / "others", "others")
    flags = (*authority.issue("web").flags, "--tls-client-ca", authority.cert)
    running = start("--bind", "127.0.0.1:0", *flags, *SERVERS[name])
    running.wait_for(event="committed")
    for pair in (None, other.issue("client")):
        # With TLS 1.3 the client learns of it from its first reading.
        assert not answer(running, authority.client(pair))
    with connect(running, tls=authority.client(authority.issue("client"))) as connection:
        assert json.loads(ask(connection))[2] == "https"

    assert running.stop() == 0
    assert "Traceback" not in running.text()


def answer(running: Running, context: ssl.SSLContext) -> bytes:
    """Ask once; return nothing if that is refused."""
    try:
        with connect(running, tls=context) as connection:
            return ask(connection)
    except (ssl.SSLError, ConnectionError):
        return b""


@pytest.mark.parametrize("name", WITH_TLS)
@pytest.mark.parametrize("how", ["reload", "watch"])
def test_a_new_certificate_under_load(
    name: str,
    how: str,
    start: Callable[..., Running],
    examples: Path,
    authority: Authority,
    load: Callable[..., Load],
) -> None:
    """SIGHUP, or --watch by itself, serves the new one; every request is answered, on a kept connection or a new one."""
    pair = authority.issue("web")
    flags = (*pair.flags, *(("--watch",) if how == "watch" else ()))
    running = start("--chdir", examples, "--bind", "127.0.0.1:0", "--workers", 2, *flags, APPLICATIONS[name])
    running.wait_for(event="committed")
    clients = load(running.address(), ca=authority.cert, fast=4, fast_close=4, slow=2, post=2)
    clients.settle()
    for number in range(2):
        since = running.mark()
        pair.replace(authority.issue(f"new-{number}"))
        if how == "reload":
            assert running.reload()["event"] == "committed", running.text()
        else:
            assert running.wait_for(event="committed", since=since)
        until(lambda number=number: subject(running, authority) == f"new-{number}", "the new certificate")
        clients.settle()

    assert clients.finish() == [], running.text()
    assert running.stop() == 0
    assert "Traceback" not in running.text()


@pytest.mark.parametrize("name", WITH_TLS)
def test_the_drain_under_tls(
    name: str, start: Callable[..., Running], app: Callable[..., Path], authority: Authority, tmp_path: Path
) -> None:
    """Kept and idle, or in flight when the stop came: answered, told to close with that answer, and then closed."""
    app(APP)
    flags = authority.issue("web").flags
    running = start("--bind", "127.0.0.1:0", *flags, *SERVERS[name])
    running.wait_for(event="committed")
    (worker,) = running.workers()
    with connect(running, tls=authority.client()) as kept, connect(running, tls=authority.client()) as busy:
        assert ask(kept)
        busy.sendall(b"GET /wait/go HTTP/1.1\r\nHost: x\r\n\r\n")
        until((tmp_path / "waiting").exists, "the request is in flight")
        running.send(signal.SIGTERM)
        until(lambda: "stopping" in title(worker), "the worker has heard it")
        kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answers = [read(kept)]
        (tmp_path / "go").touch()
        answers.append(read(busy))

    assert all(b"version 1" in answer for answer in answers), running.text()
    assert all(b"connection: close" in answer.lower() for answer in answers), running.text()
    assert running.wait() == 0


def read(connection: ssl.SSLSocket | object) -> bytes:
    """Read until the other side closes."""
    answer = b""
    while piece := connection.recv(65536):  # type: ignore[union-attr]
        answer += piece
    return answer


class _Protocol(asyncio.Protocol):
    """What uvicorn would make of the connection."""


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_handshake_that_does_not_begin_holds_no_worker(
    loop: Callable[[], asyncio.AbstractEventLoop], authority: Authority
) -> None:
    """Behind a PROXY header its connection is not uvicorn's yet, and it would have a minute: more than a drain has."""
    pair = authority.issue("web")
    context = tls.make(Ingress(tls_cert=str(pair.cert), tls_key=str(pair.key)), Files()).context
    waiting: set[Any] = set()
    told = refusals.Refusals(logging.getLogger())
    terms = proxied.Terms(Policy.read("", "v1", "127.0.0.1"), _Protocol, context, waiting, told)

    async def look() -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        listener = proxied.Listener(sock, terms)
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(v1())
        while not any(one._task for one in waiting):  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0.01)
        (newcomer,) = waiting
        newcomer.shutdown()
        assert await reader.read() == b""
        await asyncio.gather(newcomer._task, return_exceptions=True)
        assert not waiting
        writer.close()
        listener.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(look(), 30))


@pytest.mark.parametrize("name", WITH_TLS)
def test_workers_that_are_born_later_serve_the_certificate_of_their_generation(
    name: str, start: Callable[..., Running], app: Callable[..., Path], authority: Authority
) -> None:
    """Without preload each worker loads for itself: files that changed meanwhile wait for the reload."""
    app(APP)
    pair = authority.issue("web")
    running = start("--bind", "127.0.0.1:0", "--preload", "never", *pair.flags, *SERVERS[name])
    running.wait_for(event="committed")
    pair.cert.write_text("half a deployment")
    ((before, _),) = running.workers().items()
    os.kill(before, signal.SIGKILL)
    until(lambda: running.workers() and before not in running.workers(), "another worker")

    assert subject(running, authority) == "web"
    assert running.reload()["event"] == "rejected"
    assert subject(running, authority) == "web"
    assert running.stop() == 0


def test_it_is_refused_by_what_cannot(
    start: Callable[..., Running], app: Callable[..., Path], authority: Authority
) -> None:
    """To waitress, which has neither TLS nor PROXY protocol; and a target that brings its own server."""
    app(SEEN + "def main(): ...\n")
    flags = authority.issue("web").flags
    both = start(*flags, "--proxy-protocol", "v1", "--trust", "127.0.0.1", *SERVERS["waitress"])
    own = start(*flags, "app:main")

    assert both.wait() == own.wait() == 2
    assert "waitress has no TLS" in both.text()
    assert "waitress has no PROXY protocol" in both.text()
    assert "--tls-cert: app:main brings its own server" in own.text()


# ── what can be wrong with the files ────────────────────────────────────────────────────────────────


def said(pair: Pair, ca: Path | str = "") -> str:
    """Return all that is said of these files."""
    made = tls.make(Ingress(tls_cert=str(pair.cert), tls_key=str(pair.key), tls_client_ca=str(ca)), Files())
    assert bool(made.context) == (not made.problems)
    text = "\n".join(problem.sentence for problem in (*made.problems, *made.warnings))
    if pair.key.is_file():
        key = pair.key.read_text()
        assert not any(line in text for line in key.splitlines()[1:-1] if line)
    return text


def test_good_files_give_no_words(authority: Authority) -> None:
    """The key is for its owner, the certificate may be for everybody."""
    assert said(authority.issue("web"), authority.cert) == ""


def test_one_file_may_hold_both(authority: Authority) -> None:
    """As HAProxy has it."""
    pair = authority.issue("web")
    pair.key.write_text(pair.key.read_text() + pair.cert.read_text())
    assert said(Pair(pair.key, pair.key)) == ""


def test_what_is_wrong_is_said(authority: Authority) -> None:
    """Each with its file and what to do."""
    one, two = authority.issue("one"), authority.issue("two")
    missing = one.cert.with_name("missing")
    empty = one.cert.with_name("empty")
    empty.touch(0o600)

    assert "--tls-key: " in said(Pair(one.cert, two.key))
    assert "is not the key of the certificate in" in said(Pair(one.cert, two.key))
    assert said(Pair(missing, missing)).count("does not exist") == 2
    assert "holds no certificate in PEM" in said(Pair(one.key, one.key))
    assert "holds no private key in PEM" in said(Pair(one.cert, one.cert))
    assert said(Pair(empty, empty)).count("in PEM") == 2
    assert "--tls-client-ca: " in said(one, empty)
    assert "is a directory" in said(one, one.cert.parent)


def test_a_passphrase_is_not_asked_for(authority: Authority) -> None:
    """OpenSSL would, at the terminal, and wait for ever."""
    import subprocess

    pair = authority.issue("web")
    encrypted = pair.key.with_suffix(".encrypted")
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", pair.key, "-out", encrypted, "-passout", "pass:word"], check=True
    )
    encrypted.chmod(0o600)
    assert "is encrypted" in said(Pair(pair.cert, encrypted))


def test_a_certificate_that_expired_is_a_warning(authority: Authority) -> None:
    """A start that fails for it would help nobody; the context is there."""
    assert "expired on 20" in said(authority.issue("old", days=-1))


def test_a_key_that_others_can_read_is_a_warning(authority: Authority) -> None:
    """As for every secret."""
    pair = authority.issue("web")
    pair.key.chmod(0o644)
    pair.cert.chmod(0o644)
    assert said(pair).count("can be read by every user") == 1
    assert str(pair.key) in said(pair)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (b"\x17\x0d491231235959Z\x17\x0d500101000000Z", ("20491231235959Z", "19500101000000Z")),
        (b"\x18\x0f20500101000000Z\x18\x0f99991231235959Z", ("20500101000000Z", "99991231235959Z")),
    ],
)
@pytest.mark.parametrize("version", [b"", b"\xa0\x03\x02\x01\x02"])
def test_the_times_of_a_certificate(version: bytes, times: bytes, expected: tuple[str, str]) -> None:
    """Both forms of RFC 5280 section 4.1.2.5, and long lengths."""
    body = version + b"\x02\x01\x07" + b"\x30\x00" + b"\x30\x81\x80" + bytes(128) + element(times)
    assert tls.validity(element(element(body + bytes(300)))) == expected


def element(content: bytes) -> bytes:
    """Write a sequence (X.690 section 8.1.3)."""
    length = len(content)
    head = bytes([length]) if length < 128 else b"\x82" + length.to_bytes(2, "big")
    return b"\x30" + head + content


def test_check_config_looks_at_the_files(
    start: Callable[..., Running], app: Callable[..., Path], authority: Authority
) -> None:
    """All problems at once, those of files and of flags; a warning is a note."""
    app(SEEN)
    old, other = authority.issue("old", days=-1), authority.issue("other")
    good = start("--check-config", *old.flags, "app:wsgi")
    bad = start("--check-config", "--tls-cert", old.cert, "--tls-key", other.key, "--tls-client-ca", "no", "app:wsgi")

    assert good.wait() == 0
    assert "expired on" in good.text()
    assert bad.wait() == 78
    assert "is not the key of" in bad.text()
    assert "does not exist" in bad.text()
