"""
The settings that decide.

Owns their names in the machine.
Pure: a value.
"""

from __future__ import annotations

from launcher.lean import NamedTuple


class Policy(NamedTuple):
    """The settings that decide; times in seconds."""

    workers: int
    max_surge: int
    preload: str
    restart: str
    boot_timeout: float
    drain_delay: float
    drain_timeout: float
    stall_timeout: float = 0.0  # 0: off
    max_rss: int = 0  # bytes; 0: off
    max_age: float = 0.0  # 0: off
    restart_of_web: str = "always"  # in place of `restart` once the target is known to be a web application
    is_workers_given: bool = True  # else such a target may say how many
    listens: bool = False  # clients may wait in a queue; a web application always does
    before: str = ""  # the init task of each generation, as written; empty: none
    is_command: bool = False  # every copy is a process group that is sent signals, and hears nothing else
    is_prepared: bool = True  # else a generation is workers alone
    watch: bool = False  # a zygote is needed as long as its generation serves
    rewrites: tuple[tuple[int, int], ...] = ()  # signal → the one that commands get; 0: none
    successes: tuple[int, ...] = ()  # exit codes that count as 0
