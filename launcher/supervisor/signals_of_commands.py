"""
What becomes of a signal to the supervisor of plain commands.

Owns the rule: every signal goes on to every copy's process group, in order, as --rewrite has it; SIGTERM and SIGINT
begin the stop as well, whose time limit they start.
Pure: it orders, and never waits or acts.
"""

from __future__ import annotations

from launcher import signals
from launcher.lean_posix import signal
from launcher.signals import Ask, name_of
from launcher.supervisor import actions as do
from launcher.supervisor import events as on
from launcher.supervisor.generation import LEAVING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.supervisor.machine import Machine
    from launcher.supervisor.records import Records

_SUSPENDING = signals.SUSPENDING
_STOPPING = (signal.SIGTERM, signal.SIGINT)


def term(rewrites: tuple[tuple[int, int], ...]) -> int:
    """Return what tells a command to end: SIGTERM, or what that is rewritten to."""
    return dict(rewrites).get(signal.SIGTERM, 0) or int(signal.SIGTERM)


def came(machine: Machine, number: int, now: float) -> None:
    """Record a signal."""
    sent = dict(machine.policy.rewrites).get(number, signal.SIGSTOP if number in _SUSPENDING else number)
    if sent == 0:
        return
    if number in _STOPPING and machine.stop is None:
        machine.stop_number = sent  # it goes out with the stop, after --drain-delay
        machine.record(on.Asked(Ask.STOP, name_of(number)), now)
        return
    machine.to_pass_on.append(sent)
    if number in _SUSPENDING:
        machine.to_pass_on.append(0)


def pass_on(records: Records) -> None:
    """Order what was recorded, as soon as there is a command to get it."""
    pids = [
        worker.pid
        for generation in records.generations()
        for worker in generation.workers.values()
        if worker.pid and (worker.state not in LEAVING or records.stop)
    ]
    if not pids or not records.to_pass_on:
        return
    for number in records.to_pass_on:
        records.orders += [do.SignalGroup(pid, number) for pid in pids] if number else [do.Suspend()]
    records.to_pass_on = []
