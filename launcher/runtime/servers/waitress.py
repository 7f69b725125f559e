"""
waitress in a worker: WSGI, the second choice.

Owns its loop, and the order in which a worker that is told to stop leaves.
Must never let it bind.  tests/web/test_waitress_contract.py holds what is not public API of it.
"""

from __future__ import annotations

import time

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer, create_server
from waitress.task import WSGITask

from launcher.runtime.servers import draining

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from launcher.api import Worker
    from launcher.runtime.servers import App, Front, Serve

OPTIONS = (
    *("threads", "channel_timeout", "cleanup_interval", "connection_limit", "channel_request_lookahead"),
    *("max_request_header_size", "max_request_body_size", "inbuf_overflow", "outbuf_overflow"),
    *("outbuf_high_watermark", "recv_bytes", "send_bytes", "ident", "url_prefix", "url_scheme", "expose_tracebacks"),
)
_THREADS = "10"
_TURN = 1.0  # seconds that a turn of the loop waits if nothing happens
_GLANCE = 0.02  # the same while draining


def prepare(app: App, options: Mapping[str, str], front: Front) -> Serve:  # noqa: ARG001  it has nothing in front
    """Look at the options; threads are only made in the worker."""
    # It would take forwarding headers away before the application, or prod-run, has seen them.
    given: dict[str, Any] = {"threads": _THREADS, "clear_untrusted_proxy_headers": False, **options}
    Adjustments(**given)
    return lambda worker: _Serving(app, given, worker).run()


class _Wakeup:
    """What makes the loop look up when the supervisor says something."""

    def __init__(self, worker: Worker[Any]) -> None:
        self._worker = worker
        self.is_told = False  # to stop

    def readable(self) -> bool:
        """Once is enough: it stays readable for ever."""
        return not self.is_told

    def writable(self) -> bool:
        """Write nothing."""
        return False

    def handle_read_event(self) -> None:
        """Hear what was said."""
        self.is_told = self._worker.stopping.is_set()


class _Serving:
    """One worker's server, from the gate to the end."""

    def __init__(self, app: App, options: Mapping[str, Any], worker: Worker[Any]) -> None:
        self._app = app
        self._options = options
        self._worker = worker
        self._map: dict[int, Any] = {}
        self._is_draining = False

    def run(self) -> None:
        """Serve until the worker is told to stop and has stopped."""
        self._worker.ready()
        sockets = list(self._worker.sockets.values())
        create_server(self._app, map=self._map, sockets=sockets, backlog=draining.BACKLOG, **self._options)
        servers = [item for item in self._map.values() if isinstance(item, BaseWSGIServer)]
        for server in servers:
            server.channel_class = self._channel_class()
        link, wakeup = self._worker._link, _Wakeup(self._worker)
        link.on_stop_soon = self._drain
        wakers = [fd for fd in (link.fileno(), self._worker.stopping.fileno()) if fd >= 0]
        self._map.update(dict.fromkeys(wakers, wakeup))
        while not wakeup.is_told:
            self._turn(_TURN)
        for fd in wakers:
            del self._map[fd]
        self._leave(servers)

    def _drain(self) -> None:
        self._is_draining = True

    def _channel_class(self) -> type[HTTPChannel]:
        serving = self

        class Task(WSGITask):  # type: ignore[misc]
            """A request whose answer says close while draining."""

            def build_response_header(self) -> bytes:
                """Write the head as if the client had asked for the close; the app must not name it (PEP 3333)."""
                if serving._is_draining:
                    self.request.headers["CONNECTION"] = "close"
                head: bytes = super().build_response_header()
                return head

            def get_environment(self) -> dict[str, Any]:
                """Tell a peer on a unix socket by an empty address, as other servers do; waitress has `localhost`."""
                environ: dict[str, Any] = super().get_environment()
                environ["wsgi.multiprocess"] = True  # which waitress by itself never is
                if self.channel.addr[1] is None:
                    environ |= {"REMOTE_ADDR": "", "REMOTE_HOST": "", "REMOTE_PORT": ""}
                return environ

        class Channel(HTTPChannel):  # type: ignore[misc]
            """A connection."""

            task_class = Task

        return Channel

    def _turn(self, seconds: float) -> None:
        self._worker.heartbeat()
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._map, count=1)

    def _leave(self, servers: list[BaseWSGIServer]) -> None:
        """Leave in this order: tell clients to close, accept no more, wait for them, stop."""
        self._drain()
        began, until = time.monotonic(), self._worker._link.stop_until
        while self._worker.stopping.last and draining.may_come(self._worker.sockets.values(), began, until):
            self._turn(_GLANCE)
        for server in servers:
            server.accepting = False
            server.del_channel(self._map)
            server.socket.close()
        self._worker.stopped_accepting()
        began_at = time.time()  # which is what channels look at
        while channels := [c for server in servers for c in server.active_channels.values()]:
            for channel in channels:
                if _is_idle(channel) and time.time() > max(began_at, channel.last_activity) + draining.LINGER:
                    channel.will_close = True
            self._turn(_GLANCE)
        servers[0].task_dispatcher.shutdown()


def _is_idle(channel: HTTPChannel) -> bool:
    """Say whether nobody waits for an answer there; a body that is still being sent is a request in flight."""
    is_sending = channel.request is not None and channel.request.headers_finished
    return not (is_sending or channel.requests or channel.total_outbufs_len)
