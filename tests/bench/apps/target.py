"""The app as prod-run's target: `main`, serving on `worker.sockets`."""

from __future__ import annotations

import shop
from serving import serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher import Worker


def main(worker: Worker) -> None:
    """Serve until told to stop."""
    shop.report("inside")
    worker.ready()
    shop.report("up")
    serve(
        worker.sockets["default"],
        worker.stopping.fileno(),
        shop.answer,
        is_last=lambda: worker.stopping.is_set() and worker.stopping.last,
        stopped_accepting=lambda: worker.stopping.is_set() and worker.stopped_accepting(),
    )
