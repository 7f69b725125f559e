"""`worker.sockets["web"]`: what its author learns if no socket is called that."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from launcher import Worker
from launcher.supervisor import address_holder


def test_a_name_that_no_socket_has_is_answered_with_those_there_are() -> None:
    """And with what to do: mostly `--bind` was forgotten."""
    with socket.socket() as sock:
        worker: Worker[None] = Worker(sockets={"web": sock})

        assert worker.sockets["web"] is sock
        assert worker.sockets.get("wbe") is None
        with pytest.raises(KeyError, match=r"wbe: no socket is called that \(there are web\); .* --bind"):
            _ = worker.sockets["wbe"]
    with pytest.raises(KeyError, match=r"default: no socket is called that \(there is none\)"):
        _ = Worker[None]().sockets["default"]


@pytest.mark.parametrize("title", ["prod-run: c [supervisor]", "prod-run: app [supervisor]", "nginx"])
def test_who_holds_an_address_is_called_without_its_role(title: str) -> None:
    """The kernel keeps 15 bytes of a title (prctl(2)), in the middle of a word."""
    name = title.partition(" [")[0]
    code = f"open('/proc/self/comm', 'w').write({title!r}); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert address_holder.describe(process.pid) == f"{name[:15]} (PID {process.pid})"
        process.communicate(b"\n")
