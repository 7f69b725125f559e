"""
Sentry in a pre-forked app: `init` in each worker, after the fork.

    SENTRY_DSN=http://key@127.0.0.1:9/1 prod-run --chdir examples/observability --restart never errors:main

It wants `pip install sentry-sdk`.  What ends a worker is reported by itself: prod-run passes an uncaught exception to
sys.excepthook, which the SDK has taken, and the SDK sends what is left when the process exits.
The SDK sends from a thread: `init` at import would make one in the process that is forked.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import sentry_sdk

if TYPE_CHECKING:
    from launcher import Worker


def main(worker: Worker) -> None:
    """Fail, handled first and then unhandled."""
    sentry_sdk.init(dsn=os.environ.get("SENTRY_DSN"), release="shop@1", shutdown_timeout=5)
    sentry_sdk.set_tags({"slot": worker.slot, "generation": worker.generation})
    worker.ready()
    try:
        {}["sku"]
    except KeyError as error:
        sentry_sdk.capture_exception(error)
    message = "the shop is closed"
    raise RuntimeError(message)
