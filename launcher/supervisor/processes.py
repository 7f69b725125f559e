"""
Who is who among the supervisor's children.

Owns the names of every process (its ticket from the order on, its PID as soon as it has one), the exits
that came before their announcement, and what is left of the groups of the dead.
Pure: never decides, never acts.
"""

from __future__ import annotations

import signal

from launcher.supervisor.generation import Generation, Process


class Processes:
    """The register of all children that were ordered, and of those that were not."""

    __slots__ = ("by_pid", "by_ticket", "last_ticket", "leftovers", "orphans", "unclaimed")

    def __init__(self) -> None:
        self.by_ticket: dict[int, Process] = {}
        self.by_pid: dict[int, Process] = {}
        self.unclaimed: dict[int, int] = {}  # pid → exit code, of the dead that nobody announced yet
        self.leftovers: dict[int, float] = {}  # process group → when it gets SIGKILL
        self.orphans = 0  # adopted and reaped
        self.last_ticket = 0

    def order(self, generation: Generation, slot: int, now: float, deadline: float) -> Process:
        """Register a process that is about to be ordered."""
        self.last_ticket += 1
        process = Process(self.last_ticket, generation, slot, now, deadline)
        self.by_ticket[process.ticket] = process
        return process

    def knows(self, ticket: int) -> bool:
        """Say whether this ticket is on the list."""
        return ticket in self.by_ticket

    def name(self, process: Process, pid: int) -> None:
        """Note the PID of a process."""
        process.pid = pid
        self.by_pid[pid] = process
        # A number that is alive again cannot be the group of a dead one any more.
        self.leftovers.pop(pid, None)

    def strike(self, process: Process) -> None:
        """Take a process off the lists."""
        del self.by_ticket[process.ticket]
        self.by_pid.pop(process.pid, None)

    def overdue(self, now: float) -> list[Process]:
        """Return those whose deadline has come."""
        return [p for p in self.by_ticket.values() if p.deadline is not None and p.deadline <= now]

    def settle_orphans(self) -> None:
        """Count the unclaimed dead as orphans once nobody is left who could claim them."""
        if self.unclaimed and all(p.pid for p in self.by_ticket.values()):
            self.orphans += len(self.unclaimed)
            self.unclaimed.clear()


def in_words(code: int) -> str:
    """Say how a process ended: `exit 3`, `SIGKILL`."""
    if code >= 0:
        return f"exit {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
