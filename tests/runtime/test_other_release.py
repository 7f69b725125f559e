"""A supervisor that another release of prod-run started asks this one for a generation."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from launcher import protocol
from launcher.errors import Exit
from launcher.supervisor.interpreter import BOOT, CHANNEL

ROOT = Path(__file__).parents[2]


def test_what_speaks_another_protocol_is_refused_with_a_sentence() -> None:
    """Nothing else of the order is read: another release may say it in other words."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(60)
    ours.send(protocol.encode("prepare", protocol=protocol.VERSION + 1, supervisor=os.getpid(), target="app:main"))
    with subprocess.Popen(
        ["sh", "-c", f'exec {CHANNEL}<&0 "$@"', "sh", sys.executable, "-c", BOOT],
        stdin=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        theirs.close()
        answer = protocol.decode(ours.recv(protocol.LARGEST))
        _, said = process.communicate(timeout=60)

    assert (answer.verb, answer.number("code"), process.returncode) == ("refused", Exit.SOFTWARE, Exit.SOFTWARE)
    assert f"speaks protocol {protocol.VERSION}, the running one {protocol.VERSION + 1}: restart it" in answer.text(
        "reason"
    )
    assert said == b""
    ours.close()
