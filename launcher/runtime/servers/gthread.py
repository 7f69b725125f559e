"""
gunicorn's threaded worker without its arbiter: WSGI.

Owns its configuration, two repairs, and the order in which a worker that is told to stop leaves.
Must never let it catch signals or watch its parent: prod-run does.  Much of what is overridden is not public API:
`LIBRARIES` says which releases are known, tests/web/test_gthread_contract.py what is relied upon.
"""

from __future__ import annotations

import logging
import os
import select
import selectors
import socket
import sys
import time
from functools import partial

from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers import gthread
from gunicorn.workers.gthread import ThreadWorker

from launcher import proxy
from launcher.runtime.servers import draining, refusals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from launcher.api import Worker
    from launcher.runtime.servers import App, Front, Serve

OPTIONS = (
    *("threads", "keepalive", "worker_connections", "sendfile", "worker_tmp_dir"),
    *("limit_request_line", "limit_request_fields", "limit_request_field_size"),
    *("accesslog", "access_log_format", "loglevel", "header_map", "forwarder_headers"),
)
_THREADS = 10
_FAREWELL = 2.0  # seconds for a client to close after us, as gunicorn has it
_MUCH = 65536  # bytes
_FOR_EVER = 365 * 24 * 3600  # seconds: --drain-timeout is the limit, and prod-run keeps it
_SHARED_MEMORY = "/dev/shm"  # noqa: S108  a directory that is writable where the root file system is not


def prepare(app: App, options: Mapping[str, str], front: Front) -> Serve:
    """Configure gunicorn; its threads are only made in the worker."""
    config = Config()
    settings: dict[str, object] = {
        "threads": _THREADS,
        "loglevel": "warning",
        "errorlog": None,  # but to where the app's own records go
        "graceful_timeout": _FOR_EVER,
        # One list of whom to trust is enough, and it is prod-run's.
        "forwarded_allow_ips": "",
        "secure_scheme_headers": {},
        "forwarder_headers": "",  # it believes every peer on a unix socket, though nobody said so
        **options,
    }
    if "worker_tmp_dir" not in settings and os.access(_SHARED_MEMORY, os.W_OK):
        settings["worker_tmp_dir"] = _SHARED_MEMORY
    if front.tls:
        # It only looks whether there is a name, and by default would read the files for every connection.
        settings |= {"certfile": "by prod-run", "ssl_context": lambda _config, _default: front.tls}
    for name, value in settings.items():
        config.set(name, value)
    return lambda worker: _serve(app, config, front, worker)


def _serve(app: App, config: Config, front: Front, worker: Worker[Any]) -> None:
    """Serve until the worker is told to stop and has stopped."""
    sockets = [_Listener(sock) for sock in worker.sockets.values()]
    application = _Application(app)
    server = _Server(0, os.getppid(), sockets, application, 0, config, Logger(config))
    server.application = application
    logging.getLogger("gunicorn.error").propagate = True  # Logger has just said no
    server.pid = os.getpid()
    server.ours, server.front = worker, front
    server.init_process()


class _Application:
    """
    What gunicorn asks for the application.

    While it drains, every answer that begins says close; gunicorn would decide when the request begins.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self.is_draining = False

    def drain(self) -> None:
        """Say close with every answer from now on."""
        self.is_draining = True

    def wsgi(self) -> App:
        """Return it."""

        def tell(environ: dict[str, Any], start_response: Any) -> object:
            # gunicorn's own goes to the files of its error log, of which there are none: Flask's handler writes there.
            environ["wsgi.errors"] = sys.stderr
            environ["wsgi.multiprocess"] = True  # if only while a reload replaces the one worker

            def start(*words: object) -> object:
                if self.is_draining:
                    start_response.__self__.force_close()
                return start_response(*words)

            return self._app(environ, start)

        return tell


class _Listener:
    """A listening socket as gunicorn has them: the real one is `sock`."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


class _Server(ThreadWorker):  # type: ignore[misc]
    """gunicorn's worker, which leaves without losing a request."""

    ours: Worker[Any]
    front: Front
    application: _Application
    alive: bool
    _is_told = False
    _told_at = 0.0  # monotonic seconds
    _has_said = False

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        # Not in gunicorn's poller: its Python costs more than all else that is done for a connection's end.
        self._last = select.epoll()
        self._parting: dict[int, tuple[float, socket.socket]] = {}  # by descriptor, in the order of the deadlines
        self._refusals = refusals.Refusals(logging.getLogger("gunicorn.error"))

    def init_signals(self) -> None:
        """Leave the signals to prod-run."""

    def is_parent_alive(self) -> bool:
        """Leave the parent's death to the kernel (prctl(2), PR_SET_PDEATHSIG); the parent changes at adoption."""
        return True

    def notify(self) -> None:
        """Say that the accepting thread is alive."""
        self.ours.heartbeat()

    def run(self) -> None:
        """Accept, after the gate."""
        self.ours.ready()
        link = self.ours._link
        link.on_stop_soon = self.application.drain
        self._wakers = [fd for fd in (link.fileno(), self.ours.stopping.fileno()) if fd >= 0]
        for fd in self._wakers:
            self.poller.register(fd, selectors.EVENT_READ, self._look)
        self.poller.register(self._last, selectors.EVENT_READ, self._hear_the_last)
        super().run()

    def _look(self, _: object) -> None:
        """Hear what the supervisor said; once told to stop, hear no more: that stays readable for ever."""
        self._is_told = self.ours.stopping.is_set()
        if self._is_told:
            self.application.drain()
            self._told_at = time.monotonic()
            for fd in self._wakers:
                self.poller.unregister(fd)
            self._wakers = []

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Do one turn of the loop; the last worker empties the queue before it stops accepting."""
        super().wait_for_and_dispatch_events(0.01 if self._is_told and self.alive else timeout)
        while self._parting and next(iter(self._parting.values()))[0] <= time.monotonic():
            self._let_go(next(iter(self._parting)))
        if self.alive and self._is_told:
            # gunicorn from here on: `Connection: close`, 2 s for what is kept alive, what is in flight is finished.
            until = self.ours._link.stop_until
            self.alive = self.ours.stopping.last and draining.may_come(self.sockets, self._told_at, until)

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001  gunicorn's signature
        """Accept or not; the last time is for good, and then nobody shall queue here any more."""
        super().set_accept_enabled(enabled)
        if not (enabled or self.alive or self._has_said):
            self._has_said = True
            for listener in self.sockets:
                listener.close()
            self.ours.stopped_accepting()

    def _cap_keepalive(self, deadline: float) -> None:
        """Close what idles by then, that which never said anything included: gunicorn gives it the keep-alive time."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def handle(self, conn: Any) -> object:
        """Answer one request in a thread of the pool; a close that follows waits for nobody."""
        again: object = self._introduce(conn)
        if again is None:
            again = super().handle(conn)
        if again is False:
            try:
                # As early as that: most clients have closed before the accepting thread comes to look.
                conn.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the client was quicker
            conn.close = partial(self._part, conn)  # the accepting thread calls it
        return again

    def _part(self, conn: Any, *, graceful: bool) -> None:  # noqa: ARG002  gunicorn's signature
        """
        Close when the client has closed too, which knows that no more comes (RFC 9112, 9.6).

        gunicorn waits for that here, in the accepting thread, for up to 2 s: three clients that do not close kept a
        fourth one waiting for 6 s.
        """
        sock = conn.sock
        if _has_closed(sock):
            sock.close()
            return
        try:
            self._last.register(sock, select.EPOLLIN)
        except OSError:  # epoll_ctl(2): ENOSPC, ENOMEM; gunicorn would call `close` again, and this worker would end
            sock.close()
            return
        self.nr_conns += 1  # a stop waits for it
        self._parting[sock.fileno()] = time.monotonic() + _FAREWELL, sock

    def _hear_the_last(self, _: object) -> None:
        for fd, _mask in self._last.poll(0):
            if _has_closed(self._parting[fd][1]):
                self._let_go(fd)

    def _let_go(self, fd: int) -> None:
        _, sock = self._parting.pop(fd)
        self._last.unregister(fd)  # epoll(7): closing is not enough if a child of the app's has a copy
        self.nr_conns -= 1
        sock.close()

    def _introduce(self, conn: Any) -> object:
        """
        Have the proxy say who the client is; None: go on, else what `handle` is to return.

        gunicorn would look for the header inside of TLS, let connections without one in, and forget the client
        after the first request.
        """
        if not self.front.proxies or getattr(conn, "is_introduced", False):
            return None
        if not conn.wait_for_data(gthread.DEFAULT_WORKER_DATA_TIMEOUT):
            return gthread._DEFER
        try:
            accepted = proxy.receive(conn.sock, self.front.proxies)
        except proxy.RefusedError as error:
            self._refusals.tell(error)
            return False
        if accepted.header and accepted.header.source:
            conn.client = tuple(accepted.client)
        # The client may have nothing to say yet, and must not hold a thread while it waits.
        conn.is_introduced, conn.data_ready = True, False
        return None


def _has_closed(sock: socket.socket) -> bool:
    """
    Say whether the client has.

    What it says instead is thrown away: closing over it would reset what the client has not read.
    """
    try:
        return not sock.recv(_MUCH, socket.MSG_DONTWAIT)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
