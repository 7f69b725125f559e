"""
What is looked at while everything goes well: memory, age, stacks.

Owns the choice of the worker to be recycled, one at a time, and the stacks that an operator asked for.
Pure: decides and orders, never waits and never acts.
"""

from __future__ import annotations

from launcher.supervisor import actions as do
from launcher.supervisor.generation import LEAVING, Phase, State
from launcher.supervisor.processes import identity
from launcher.supervisor.records import DUMP, MEASURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.supervisor.generation import Process
    from launcher.supervisor.overdue import Overdue
    from launcher.supervisor.records import Records

MEBIBYTE = 1024 * 1024


def ask_stacks(records: Records, slot: int, now: float) -> None:
    """Have the workers of a slot, or all (-1), write their stacks; they are taken a moment later."""
    for generation in records.generations():
        for worker in generation.workers.values():
            if worker.pid and worker.state not in LEAVING and slot in (-1, worker.slot):
                worker.watch.stacks_at = now + DUMP
                records._order(do.AskStacks(worker.ticket, worker.pid))


def take_stacks(records: Overdue, now: float) -> None:
    """Log the stacks that were asked for."""
    for process in list(records.processes.by_ticket.values()):
        if process.watch.stacks_at is not None and process.watch.stacks_at <= now:
            records._take_stacks(process)


def recycle(records: Records, now: float) -> None:
    """Choose the next worker that is too large or too old, if nothing else is under way."""
    current = records.current
    if current is None or records.stop or not (records.policy.max_rss or records.policy.max_age):
        return
    serving = [worker for worker in current.staying() if worker.state is State.SERVING]
    for worker in serving:
        if worker.watch.measure_at is not None and worker.watch.measure_at <= now:
            worker.watch.measure_at = now + MEASURE
            records._order(do.Measure(worker.ticket, worker.pid))
    is_calm = records.candidate is None and current.phase is Phase.COMMITTED and current.can_spawn
    if not is_calm or any(w.recycle_for and w.state is not State.STUCK for w in current.workers.values()):
        return
    for worker in serving:
        reason = _reason(records, worker, now)
        if reason:
            worker.recycle_for = reason
            records._log("info", "recycling", **identity(worker), reason=reason)
            return


def _reason(records: Records, worker: Process, now: float) -> str:
    policy, watch = records.policy, worker.watch
    if policy.max_rss and watch.rss > policy.max_rss:
        return f"uses {watch.rss // MEBIBYTE}M, more than --max-rss {policy.max_rss // MEBIBYTE}M"
    if watch.too_old_at is not None and watch.too_old_at <= now:
        return f"older than --max-age {policy.max_age:g}s"
    return ""
