"""What prod-run relies upon in waitress beyond its documentation."""

from __future__ import annotations

import inspect

import pytest
from waitress import server, wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer
from waitress.task import Task, WSGITask

from launcher.runtime.servers import waitress as driver


@pytest.mark.parametrize("name", [*driver.OPTIONS, *("backlog", "sockets")])
def test_the_options_are_there(name: str) -> None:
    """Every option that is passed on is one of waitress's adjustments."""
    assert name in dict(Adjustments._params)


def test_what_is_used_is_there() -> None:
    """The loop's turn, the class of channels and of tasks, and the header that makes a task close."""
    assert list(inspect.signature(wasyncore.loop).parameters) == ["timeout", "use_poll", "map", "count"]
    assert BaseWSGIServer.channel_class is HTTPChannel
    assert HTTPChannel.task_class is WSGITask
    assert 'self.request.headers.get("CONNECTION", "")' in inspect.getsource(Task.build_response_header)
    for name in ("request", "requests", "total_outbufs_len", "last_activity", "will_close"):
        assert f"self.{name} = " in inspect.getsource(HTTPChannel) or f"\n    {name} = " in inspect.getsource(
            HTTPChannel
        )
    assert HTTPRequestParser.headers_finished is False
    for name in ("active_channels", "task_dispatcher", "accepting"):
        assert name in inspect.getsource(BaseWSGIServer)
    assert "clear_untrusted_proxy_headers" in dir(Adjustments)  # or it takes forwarding headers away
    assert '("localhost", None)' in inspect.getsource(server)  # which is how a peer on a unix socket is told
