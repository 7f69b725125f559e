"""
A real Chromium for a test.

Owns its process and its profile; keeps what the page complained of and how often it was loaded.  It is told what to do
over a pipe (the DevTools protocol), so nothing else need be installed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from tests.processes.running import LIMIT, NotSeenError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium")
_FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--remote-debugging-pipe",
)
# Chromium reads descriptor 3 and writes 4; a number above what the shells can name may be what we got.
_ENTRY = """
import os, sys
for number, wanted in zip([os.dup(int(word)) for word in sys.argv[1:3]], (13, 14)):
    os.dup2(number, wanted)
os.dup2(13, 3), os.dup2(14, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One Chromium with one page."""

    def __init__(self, profile: Path) -> None:
        """Start it; `profile` is a directory of its own."""
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        argv = [str(CHROMIUM), *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ENTRY, str(theirs_in), str(theirs_out), *argv],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = ours_in, ours_out
        self._received = b""
        self._number = 0
        self._session = ""
        self._context = ""
        self.complaints: list[str] = []
        self.loads = 0
        self.begin()

    def begin(self) -> None:
        """Have a page that knows nothing of the one before."""
        self._session = ""
        if self._context:
            self._call("Target.disposeBrowserContext", browserContextId=self._context)
        self._context = self._call("Target.createBrowserContext")["browserContextId"]
        target = self._call("Target.createTarget", url="about:blank", browserContextId=self._context)["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.complaints, self.loads = [], 0
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self._call(f"{domain}.enable")

    def close(self) -> None:
        """End it and all its processes: they are one session of their own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait(LIMIT)
        os.close(self._in)
        os.close(self._out)

    # ── what a test does ──

    def open(self, url: str) -> None:
        """Load a page and wait until it is there."""
        before = self.loads
        self._call("Page.navigate", url=url)
        self.wait_for_load(before)

    def wait_for_load(self, before: int) -> None:
        """Wait until more pages were loaded than `before`."""
        deadline = time.monotonic() + LIMIT
        while self.loads == before:
            self._take(deadline)

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page, also where the page's own scripts are turned off."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def text(self, selector: str = "body") -> str:
        """Return what a person sees of an element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def wait_for(self, script: str, what: str) -> Any:
        """Wait until an expression is true."""
        deadline = time.monotonic() + LIMIT
        while not (value := self.run(script)):
            if time.monotonic() > deadline:
                message = f"not seen on the page: {what}\n{self.text()}\n{self.complaints}"
                raise NotSeenError(message)
            select.select([self._in], [], [], 0.05)
        return value

    def look(self, *, width: int = 1280, height: int = 900, is_dark: bool = False, touch: bool = False) -> None:
        """Have a window of this size, in the light or in the dark."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}]
        self._call("Emulation.setEmulatedMedia", features=scheme)

    def turn_off_scripts(self) -> None:
        """As some people do."""
        self._call("Emulation.setScriptExecutionDisabled", value=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Say anything else of the protocol."""
        return self._call(method, **parameters)

    def screenshot(self, path: Path) -> None:
        """Draw the whole page into a PNG file."""
        answer = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    # ── the pipe ──

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + LIMIT
        while True:
            told = self._take(deadline)
            if told.get("id") == number:
                if "error" in told:
                    raise AssertionError(told["error"])
                return dict(told["result"])

    def _take(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._in, 1 << 16) if ready else b""
            if not piece:
                message = "chromium says nothing"
                raise NotSeenError(message)
            self._received += piece
        raw, _, self._received = self._received.partition(b"\0")
        told: dict[str, Any] = json.loads(raw)
        if told.get("sessionId") == self._session:
            self._note(told)
        return told

    def _note(self, told: dict[str, Any]) -> None:
        match told.get("method"):
            case "Page.loadEventFired":
                self.loads += 1
            case "Log.entryAdded":
                self.complaints.append(told["params"]["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(told["params"]["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.complaints.append(str(told["params"]["args"]))


@contextlib.contextmanager
def tunnel(path: Path) -> Iterator[int]:
    """Have a TCP port that leads to a unix socket, as `ssh -L PORT:SOCKET` makes one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_forward, args=(listener, path), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts


def _forward(listener: socket.socket, path: Path) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_carry, args=(client, path), daemon=True).start()


def _carry(client: socket.socket, path: Path) -> None:
    with client, socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(str(path))
        except OSError:
            return  # prod-run is gone
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join(LIMIT)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
