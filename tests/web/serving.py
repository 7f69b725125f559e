"""The small application that most tests here serve, on each server library, and a client that keeps its connection."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tests.processes.running import LIMIT

if TYPE_CHECKING:
    from tests.processes.running import Running

SERVERS = {
    "uvicorn": ("app:asgi",),
    "gunicorn": ("app:wsgi",),
    "waitress": ("--server-option", "server=waitress", "app:wsgi"),
}
APP = """
import asyncio, os, pathlib, time
VERSION = 1
def answer():
    return f"version {VERSION} pid {os.getpid()}\\n".encode()
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await startup(receive)
        await send({"type": "lifespan.startup.complete"})
        print("opened", VERSION, flush=True)
        await receive()
        print("closed", VERSION, flush=True)
        return await send({"type": "lifespan.shutdown.complete"})
    if scope["path"] == "/block":
        time.sleep(3600)
    if scope["path"].startswith("/sleep/"):
        await asyncio.sleep(float(scope["path"][7:]))
    if scope["path"].startswith("/wait/"):
        pathlib.Path("waiting").touch()
        while not pathlib.Path(scope["path"][6:]).exists():
            await asyncio.sleep(0.01)
    headers = [(b"content-length", str(len(answer())).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer()})
async def startup(receive):
    await receive()
def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/exit":
        os._exit(0)
    if environ["PATH_INFO"].startswith("/sleep/"):
        time.sleep(float(environ["PATH_INFO"][7:]))
    if environ["PATH_INFO"].startswith("/wait/"):
        pathlib.Path("waiting").touch()
        while not pathlib.Path(environ["PATH_INFO"][6:]).exists():
            time.sleep(0.01)
    start_response("200 OK", [("Content-Length", str(len(answer())))])
    return [answer()]
def make():
    print("made", flush=True)
    return wsgi
"""


class Client:
    """One kept connection."""

    def __init__(self, running: Running) -> None:
        self.socket = socket.create_connection(running.address(), LIMIT)

    def ask(self, path: str = "/") -> str:
        """Make a request; return head and body of its answer."""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return self.read()

    def read(self) -> str:
        """Read up to the end of a line of the body, or of the connection."""
        answer = b""
        while not answer.partition(b"\r\n\r\n")[2].endswith(b"\n") and (piece := self.socket.recv(65536)):
            answer += piece
        return answer.decode().lower()
