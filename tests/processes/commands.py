"""
Asking the prod-run of a test through its control socket.

Owns the finding of that socket: others may run on this machine.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.processes.running import PROD_RUN

if TYPE_CHECKING:
    from pathlib import Path

Ctl = Callable[..., subprocess.CompletedProcess[str]]


def make_ctl(folder: Path) -> Ctl:
    """Make what talks to the one prod-run of a test, by prod-ctl."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        found = [*(folder / "run").glob("prod-run/*/control.sock"), folder / "none"]
        argv = [str(word) for word in (PROD_RUN.with_name("prod-ctl"), "--socket", found[0], *words)]
        environment = {"PATH": os.environ["PATH"]}
        return subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=60, check=False)

    return run


def is_serving(ctl: Ctl, sentence: str) -> bool:
    """Say whether it is so by its own words."""
    return sentence in ctl("health").stdout
