"""HAProxy and nginx in front of prod-run, each in the foreground and in a directory of its own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import LIMIT, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

HAPROXY = """
global
  log stderr format raw local0
  stats socket {stats}
defaults
  mode {mode}
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout check 5s
  log global
  option httplog
  retries 3
  option redispatch 1
  option httpchk GET {check} HTTP/1.1
  http-check send hdr Host check
frontend front
  bind fd@{front}
  {directives}
  default_backend back
backend back
  {of_back}
  default-server check inter 100ms fall 1 {options}
{servers}
"""
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_buffer_size 64k;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream back {{
    {servers}
    keepalive 8;
  }}
  server {{
    listen 127.0.0.1:{port};
    {directives}
    location / {{
      proxy_pass http://back;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
    }}
  }}
}}
"""


class Haproxy:
    """A running HAProxy; `address` is where clients connect."""

    def __init__(self, address: tuple[str, int], stats: Path) -> None:
        self.address = address
        self._stats = stats

    def checks(self) -> dict[str, str]:
        """Return for each server what became of its last health check, such as L7OK; nothing before it begins."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(LIMIT)
            try:
                connection.connect(str(self._stats))
            except ConnectionRefusedError:
                return {}  # bound, and not yet listening
            connection.sendall(b"show stat\n")
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        head, *lines = answer.decode().removeprefix("# ").strip().split("\n")
        rows = [dict(zip(head.split(","), line.split(","), strict=False)) for line in lines]
        return {row["svname"]: row["check_status"] for row in rows if row["svname"].startswith("server")}


@contextlib.contextmanager
def haproxy(
    folder: Path,
    backends: Sequence[tuple[str, int]],
    *,
    mode: str = "http",
    directives: str = "",
    of_back: str = "",
    options: str = "",
    probes: Sequence[tuple[str, int]] = (),
) -> Iterator[Haproxy]:
    """Start HAProxy in front of these addresses; it asks `probes` for /readyz if there are any, else for /."""
    if not shutil.which("haproxy"):
        pytest.skip("haproxy is not installed")
    ports = [f" port {port}" for _, port in probes] or [""] * len(backends)
    pairs = zip(backends, ports, strict=True)
    servers = "\n".join(f"  server server{i} {host}:{port}{probe}" for i, ((host, port), probe) in enumerate(pairs))
    check = "/readyz" if probes else "/"
    stats = folder / "haproxy.sock"
    with socket.create_server(("127.0.0.1", 0)) as front, (folder / "haproxy.log").open("wb") as log:
        path = folder / "haproxy.cfg"
        path.write_text(
            HAPROXY.format(
                stats=stats,
                mode=mode,
                directives=directives,
                of_back=of_back,
                front=front.fileno(),
                options=options,
                servers=servers,
                check=check,
            )
        )
        argv = ["haproxy", "-f", path, "-db"]
        process = subprocess.Popen(argv, pass_fds=[front.fileno()], stdout=log, stderr=log)
        with ended(process):
            until(lambda: stats.exists() or process.poll() is not None, "haproxy starts")
            assert process.poll() is None, (folder / "haproxy.log").read_text()
            yield Haproxy(front.getsockname(), stats)


@contextlib.contextmanager
def nginx(folder: Path, backends: Sequence[tuple[str, int]], *, directives: str = "") -> Iterator[tuple[str, int]]:
    """Start nginx in front of these addresses; returns where clients connect."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not program:
        pytest.skip("nginx is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    servers = "\n".join(f"server {host}:{port} max_fails=0;" for host, port in backends)
    path = folder / "nginx.conf"
    path.write_text(NGINX.format(folder=folder, port=address[1], servers=servers, directives=directives))
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-p", folder, "-c", path, "-e", "stderr"], stdout=log, stderr=log, start_new_session=True
        )
        with ended(process):
            until(lambda: (folder / "nginx.pid").exists() or process.poll() is not None, "nginx starts")
            assert process.poll() is None, (folder / "nginx.log").read_text()
            yield address


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Have a process end with the test."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(LIMIT)
