"""
A Flask application.

    prod-run --chdir examples/web flask_app:app
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from flask import Flask, Response, request

if TYPE_CHECKING:
    from collections.abc import Iterator

app = Flask(__name__)


@app.get("/")
def hello() -> Response:
    """Say which process answers."""
    return Response(f"hello from {os.getpid()}\n", mimetype="text/plain")


@app.get("/slow")
def slow() -> Response:
    """Take half a second."""
    time.sleep(0.5)
    return hello()


@app.post("/length")
def length() -> Response:
    """Count the bytes that were sent."""
    return Response(f"{len(request.get_data())}\n", mimetype="text/plain")


@app.get("/big/<int:mebibytes>")
def big(mebibytes: int) -> Response:
    """Send so much, piece by piece."""

    def pieces() -> Iterator[bytes]:
        for _ in range(16 * mebibytes):
            yield bytes(65536)

    return Response(pieces(), mimetype="application/octet-stream")
