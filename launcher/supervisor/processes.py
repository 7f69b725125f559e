"""
Who is who among the supervisor's children.

Owns the names of every process (its ticket from the order on, its PID as soon as it has one), the exits
that came before their announcement, and what is left of the groups of the dead.
Pure: never decides, never acts.
"""

from __future__ import annotations

from launcher.lean import NamedTuple
from launcher.signals import name_of
from launcher.supervisor.generation import Generation, Process


class Dead(NamedTuple):
    """How somebody ended, and the last ticket that had been given out by then."""

    code: int
    note: str
    cpu: float  # seconds
    last_ticket: int


class Processes:
    """The register of all children that were ordered, and of those that were not."""

    __slots__ = ("by_pid", "by_ticket", "last_ticket", "leftovers", "orphans", "unclaimed")

    def __init__(self) -> None:
        self.by_ticket: dict[int, Process] = {}
        self.by_pid: dict[int, Process] = {}
        self.unclaimed: dict[int, Dead] = {}  # by PID: the dead that nobody announced yet
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

    def bury(self, pid: int, code: int, note: str = "", cpu: float = 0.0) -> None:
        """Note the death of somebody unknown: perhaps the announcement is still to come (DESIGN §2)."""
        self.unclaimed[pid] = Dead(code, note, cpu, self.last_ticket)

    def claim(self, process: Process) -> Dead | None:
        """Return how a process ended that died before it was announced."""
        dead = self.unclaimed.get(process.pid)
        # Whoever was ordered later only has the same number.
        return self.unclaimed.pop(process.pid) if dead and process.ticket <= dead.last_ticket else None

    def strike(self, process: Process) -> None:
        """Take a process off the lists."""
        del self.by_ticket[process.ticket]
        self.by_pid.pop(process.pid, None)

    def overdue(self, now: float) -> list[Process]:
        """Return those whose deadline has come."""
        return [p for p in self.by_ticket.values() if p.deadline is not None and p.deadline <= now]

    def settle_orphans(self) -> None:
        """Count the unclaimed dead as orphans once nobody is left who could claim them."""
        if self.unclaimed:
            first = min((p.ticket for p in self.by_ticket.values() if not p.pid), default=self.last_ticket + 1)
            for pid in [pid for pid, dead in self.unclaimed.items() if dead.last_ticket < first]:
                del self.unclaimed[pid]
                self.orphans += 1


def in_words(code: int, note: str = "") -> str:
    """Say how a process ended: `exit 3`, `SIGKILL`, `SIGSEGV (core dumped)`."""
    how = f"exit {code}" if code >= 0 else name_of(-code)
    return f"{how} ({note})" if note else how


def in_short(process: Process) -> str:
    """Name a process in a sentence."""
    return f"worker {process.slot}" if process.is_worker else f"the {process.role}"


def identity(process: Process) -> dict[str, int]:
    """Name a process in the fields of a log line."""
    slot = {"slot": process.slot} if process.is_worker else {}
    pid = {"pid": process.pid} if process.pid else {}
    return {**slot, "generation": process.generation.number, **pid}
