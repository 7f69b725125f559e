"""What stands in the way of a fork."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import socket, sys
sys.path.insert(0, sys.argv[1])
from launcher.runtime import forkable
a, b = (socket.socketpair() if sys.argv[2] == "connected" else (None, None))
print(len(forkable.obstacles()))
"""


def obstacles(what: str) -> int:
    """Return how many there are in a process whose outputs are connections, as those of a unit of systemd's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = [sys.executable, "-c", CODE, str(ROOT), what]
        subprocess.run(argv, stdout=theirs, stderr=theirs, check=True, timeout=60)
        return int(ours.recv(100))


def test_outputs_that_are_connections_stand_in_nobodys_way() -> None:
    """They are the journal's, with --no-log-capture; a connection of the app's is named."""
    assert obstacles("alone") == 0
    assert obstacles("connected") == 2
