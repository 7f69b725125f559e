"""HAProxy as the sender of PROXY headers (Debian: haproxy)."""

from __future__ import annotations

import shutil
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from launcher.proxy import Address, Policy, accept, tlvs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from launcher.proxy import Accepted

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")

LIMIT = 30.0  # seconds; never reached when all is well
CONFIGURATION = """
global
  log stderr format raw local0
defaults
  mode tcp
  timeout connect 20s
  timeout client 20s
  timeout server 20s
  unique-id-format shop-%rt
frontend front
  bind {front}
  use_backend back
backend back
  option tcp-check
  tcp-check expect string well
  server app {back} {options}
"""


@contextmanager
def balancer(tmp_path: Path, family: int, options: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Start HAProxy between a front that a client can connect to and a listener, both of which are given."""
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with socket.socket(family) as front, socket.socket(family) as back:
        for listener in (front, back):
            listener.bind((host, 0))
            listener.listen()
            listener.settimeout(LIMIT)
        # A socket that is handed over listens before HAProxy has started: there is nothing to wait for.
        address = f"{'ipv6' if ':' in host else 'ipv4'}@{host}:{back.getsockname()[1]}"
        path = tmp_path / "haproxy.cfg"
        path.write_text(CONFIGURATION.format(front=f"fd@{front.fileno()}", back=address, options=options))
        argv = ["haproxy", "-f", str(path), "-db"]
        with (tmp_path / "haproxy.log").open("wb") as log:
            process = subprocess.Popen(argv, pass_fds=[front.fileno()], stdout=log, stderr=log)
        try:
            yield front, back
        except TimeoutError as error:
            pytest.fail(f"{error}\n{(tmp_path / 'haproxy.log').read_text()}")
        finally:
            process.kill()
            process.wait(LIMIT)


def relayed(front: socket.socket, back: socket.socket, version: str) -> tuple[socket.socket, Accepted]:
    """Send something through HAProxy, and accept it."""
    client = socket.create_connection(front.getsockname()[:2], LIMIT)
    client.sendall(b"hello")
    return client, accept(back, Policy.read("", version, "127.0.0.1,::1"), timeout=LIMIT)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize(("version", "option"), [("v1", "send-proxy"), ("v2", "send-proxy-v2")])
def test_haproxys_client_is_ours(tmp_path: Path, family: int, version: str, option: str) -> None:
    """Both versions, both families: its address and port, where it connected to, and all of its bytes."""
    with balancer(tmp_path, family, option) as (front, back):
        client, (connection, address, header) = relayed(front, back, version)
        with client, connection:
            connection.sendall(connection.recv(100).upper())

            assert address == Address(*client.getsockname()[:2])
            assert header is not None
            assert header.destination == Address(*front.getsockname()[:2])
            assert client.recv(100) == b"HELLO"


def test_haproxys_values_and_checksum_are_read(tmp_path: Path) -> None:
    """CRC32c as another program computes it, and a unique ID."""
    options = "send-proxy-v2 proxy-v2-options crc32c,unique-id"
    with balancer(tmp_path, socket.AF_INET, options) as (front, back):
        client, (connection, address, header) = relayed(front, back, "v2")
        with client, connection:
            assert header is not None
            assert address == Address(*client.getsockname())
            assert header.find(tlvs.CRC32C) is not None
            assert (header.find(tlvs.UNIQUE_ID) or b"").startswith(b"shop-")


@pytest.mark.parametrize(("version", "option"), [("v1", "send-proxy"), ("v2", "send-proxy-v2")])
def test_haproxys_health_check_is_let_in(tmp_path: Path, version: str, option: str) -> None:
    """
    In version 2 it comes as LOCAL: no client but HAProxy itself.

    The check waits for an answer: one that only connects resets the connection at once.
    """
    with balancer(tmp_path, socket.AF_INET, f"{option} check check-send-proxy inter 100ms") as (_, back):
        connection, client, header = accept(back, Policy.read("", version, "127.0.0.1"), timeout=LIMIT)
        with connection:
            connection.sendall(b"well")

            assert header is not None
            assert client.host == "127.0.0.1"
            assert (header.source is None) is (version == "v2")
