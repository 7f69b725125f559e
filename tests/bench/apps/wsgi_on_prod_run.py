"""The WSGI app under prod-run, which has no hooks: the report is made where its driver says that it is ready."""

from __future__ import annotations

import shop
from wsgi import app

from launcher import Worker

__all__ = ["app"]
_ready = Worker.ready


def ready(worker: Worker) -> None:
    """Report a worker that is about to serve, and then that it may."""
    shop.report("inside")
    _ready(worker)
    shop.report("up")


Worker.ready = ready  # type: ignore[method-assign]
