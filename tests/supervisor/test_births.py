"""How processes come to be, where the kernel refuses."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from launcher.supervisor import actions as do
from launcher.supervisor import copies
from launcher.supervisor import events as on
from launcher.supervisor.births import Births


def test_a_copy_that_cannot_be_forked_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again and again: one pipe each time would be the end of the supervisor."""

    def start(*_: object) -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(copies, "start", start)
    handoff = SimpleNamespace(
        log_capture=True, command=("nginx", "-g"), environ_fd=-1, interpreter="python", zygote=None
    )
    births = Births(handoff, {}, MagicMock(), MagicMock())  # type: ignore[arg-type]
    before = os.listdir("/proc/self/fd")

    events = births.exec_copy(do.ExecWorker(7, 1, 0))

    assert events == [on.StartFailed(7, f"cannot start nginx: {os.strerror(errno.EAGAIN)}")]
    assert len(os.listdir("/proc/self/fd")) == len(before)
