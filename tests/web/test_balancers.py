"""prod-run as HAProxy and nginx see it (Debian: haproxy, nginx-light)."""

from __future__ import annotations

import json
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import LIMIT, PROD_RUN, until
from tests.web.balancers import Haproxy, haproxy, nginx
from tests.web.seeing import SEEN, Seen, ask
from tests.web.serving import SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.running import Running
    from tests.web.load import Load

CLIENT = "127.0.0.2"  # is not the address of the balancer
WITH_PROXY = ("uvicorn", "gunicorn")
APPLICATIONS = {"FastAPI": "fastapi_app:app", "Flask": "flask_app:app"}


def seen(address: tuple[str, int], *headers: str) -> tuple[int, Seen]:
    """Ask through the balancer; return our own port, and what the application saw."""
    with socket.create_connection(address, LIMIT, source_address=(CLIENT, 0)) as connection:
        return connection.getsockname()[1], Seen(*json.loads(ask(connection, *headers)))


@pytest.mark.parametrize("name", WITH_PROXY)
@pytest.mark.parametrize("mode", ["tcp", "http"])
@pytest.mark.parametrize(("version", "option"), [("v1", "send-proxy"), ("v2", "send-proxy-v2")])
def test_haproxys_proxy_header(
    name: str,
    mode: str,
    version: str,
    option: str,
    start: Callable[..., Running],
    app: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """The client is HAProxy's client, and its health checks are answered by the application."""
    app(SEEN)
    running = start("--bind", "127.0.0.1:0", "--proxy-protocol", version, "--trust", "127.0.0.1", *SERVERS[name])
    running.wait_for(event="committed")
    with haproxy(tmp_path, [running.address()], mode=mode, options=f"{option} check-send-proxy") as balancer:
        until(lambda: balancer.checks() == {"server0": "L7OK"}, "the health check is good")
        for _ in range(3):
            port, found = seen(balancer.address)
            assert found[:3] == (CLIENT, port, "http")

    assert running.stop() == 0
    assert "refused" not in running.text()


@pytest.mark.parametrize("name", SERVERS)
def test_haproxys_forwarded_for(
    name: str, start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """What a client has added to the left of it is not believed."""
    app(SEEN)
    flags = ("--proxy-headers", "x-forwarded", "--trust", "127.0.0.1")
    running = start("--bind", "127.0.0.1:0", *flags, *SERVERS[name])
    running.wait_for(event="committed")
    directives = "option forwardfor\n  http-request set-header X-Forwarded-Proto https"
    with haproxy(tmp_path, [running.address()], directives=directives) as balancer:
        until(lambda: balancer.checks() == {"server0": "L7OK"}, "the health check is good")
        _, found = seen(balancer.address, "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: ftp")

    assert found[:4] == (CLIENT, 0, "https", "shop.example")
    assert running.stop() == 0


@pytest.mark.parametrize("name", SERVERS)
def test_nginx_as_the_how_to_sets_it_up(
    name: str, start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """`$proxy_add_x_forwarded_for` appends; scheme and host are replaced."""
    app(SEEN)
    flags = ("--proxy-headers", "x-forwarded", "--trust", "127.0.0.1")
    running = start("--bind", "127.0.0.1:0", *flags, *SERVERS[name])
    running.wait_for(event="committed")
    with nginx(tmp_path, [running.address()]) as address:
        _, found = seen(address, "X-Forwarded-For: 127.0.0.1, 10.0.0.1", "X-Forwarded-Proto: https")

    assert found[:4] == (CLIENT, 0, "http", "shop.example")
    assert running.stop() == 0


@pytest.mark.parametrize("name", APPLICATIONS)
@pytest.mark.parametrize("kind", ["haproxy", "haproxy with PROXY v2", "nginx"])
def test_a_drain_seen_from_the_balancer(
    name: str, kind: str, start: Callable[..., Running], examples: Path, tmp_path: Path, load: Callable[..., Load]
) -> None:
    """
    `prod-ctl stop` of one of two backends under load: no client notices, and the other takes over.

    HAProxy learns it from /readyz within the delay.  nginx asks nobody and finds the port closed: it asks the other
    backend then, but never again what it has sent already and may not be done twice, so there is no POST.
    """
    proxy = ("--proxy-protocol", "v2", "--trust", "127.0.0.1") if "PROXY" in kind else ()
    words = ("--chdir", examples, "--bind", "127.0.0.1:0", "--introspect", "127.0.0.1:0", "--drain-delay", "2s", *proxy)
    both = [
        start(*words, "--name", f"shop-{i}", "--control", tmp_path / f"{i}.sock", APPLICATIONS[name]) for i in range(2)
    ]
    for running in both:
        running.wait_for(event="committed")
    backends, probes = ([running.address(at) for running in both] for at in ("default", "introspect"))
    options = "send-proxy-v2" if "PROXY" in kind else ""
    is_nginx = kind == "nginx"
    front = nginx(tmp_path, backends) if is_nginx else haproxy(tmp_path, backends, options=options, probes=probes)
    with front as balancer:
        if isinstance(balancer, Haproxy):
            until(lambda: set(balancer.checks().values()) == {"L7OK"}, "both are ready")
        kinds = {"fast": 6, "fast_close": 6, "slow": 3, "slow_close": 3} | (
            {} if is_nginx else {"post": 3, "post_close": 3}
        )
        clients = load(balancer.address if isinstance(balancer, Haproxy) else balancer, **kinds)
        clients.settle()
        prod_ctl = PROD_RUN.with_name("prod-ctl")
        subprocess.run([prod_ctl, "--socket", tmp_path / "0.sock", "stop"], check=True, timeout=LIMIT)
        assert both[0].wait() == 0
        clients.settle(5)

        assert clients.finish() == []
    assert both[1].stop() == 0
