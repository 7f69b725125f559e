"""
Who is to go, and who is to come.

Owns the counting: workers are replaced, spares kept and zygotes ended by comparing how many there are with
how many are wanted.  A former generation may keep as many workers as the current one still lacks; that one
rule covers the full reload, the rolling one, the restart of singletons and the way back.
Pure: it orders, and never waits or acts.
"""

from __future__ import annotations

from launcher.handoff import AS_MANY_AS_WORKERS
from launcher.supervisor import actions as do
from launcher.supervisor import restoring
from launcher.supervisor.generation import LEAVING, SPARE, TASK, ZYGOTE, Generation, Phase, Process, State
from launcher.supervisor.overdue import Overdue
from launcher.supervisor.records import GRACE
from launcher.supervisor.stopping import Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

AT_ONCE = 32  # forks asked of a zygote at a time: its socket and the descriptors in flight are bounded


class Staffing(Overdue):
    """The part of the machine that counts."""

    __slots__ = ()

    # ── who is to go ────────────────────────────────────────────────────────────────────────────

    def _retire(self, now: float) -> None:
        self._dismiss_spares(now)
        self._end_tasks(now)
        if self.stop and self.stop.stage is not Stage.DELAY:
            for generation in self.generations():
                self._drain(generation.staying(), "stop", now)
            return
        if self.candidate:
            self._drain(self.candidate.beyond(self._gate()), "scale", now)
        lacking = self.wanted
        if self.current and self._is_draining_first():
            self._drain(self.current.staying(), "reload", now)
        elif self.current:
            self._drain(self.current.beyond(self.wanted), "scale", now)
            first = [w for w in self.current.staying() if w.recycle_for] if self.policy.max_surge == 0 else []
            self._drain(first or self.current.outlived(), "recycle", now)
            lacking -= self.current.up(self.wanted)
        former: list[Process] = []
        for generation in reversed(self.others):
            if generation.phase is Phase.REJECTED:
                self._drain(generation.staying(), "rejected", now)
            else:
                former += generation.staying()
        # Those that serve are kept first, whichever generation they are of.
        former.sort(key=lambda worker: not worker.is_up)
        self._drain(former[max(0, lacking) :], "reload", now)

    def _dismiss_spares(self, now: float) -> None:
        draining = self.stop is not None and self.stop.stage is not Stage.DELAY
        for generation in self.generations():
            spare = generation.spare
            if spare and spare.state not in LEAVING and (draining or generation is not self.current):
                spare.enter(State.DRAINING, now + GRACE)
                self._order(do.Dismiss(spare.ticket))

    def _end_tasks(self, now: float) -> None:
        """Have init tasks stop whose generation was given up while they ran."""
        tasks = [g.task for g in self.generations() if g.task and g.phase is not Phase.BEFORE]
        self._drain([task for task in tasks if task.state not in LEAVING], "rejected", now)

    def _drain(self, workers: list[Process], reason: str, now: float) -> None:
        if workers and reason == "reload" and self._is_replacing():
            self.extend(self.policy.drain_timeout)  # their successors come only then
        for worker in workers:
            served = worker.state in (State.SERVING, State.ENTERED)
            limit = self.policy.drain_timeout if served else min(GRACE, self.policy.drain_timeout)
            worker.enter(State.DRAINING, now + limit)
            is_last = reason == "stop"
            self._order(do.Stop(worker.ticket, worker.pid, reason, is_last, now + limit, self.stop_number))

    def _end_zygotes(self, now: float) -> None:
        """End the zygotes that nobody needs, each after its last worker, and drop what is over."""
        for generation in self.generations():
            zygote = generation.zygote
            if zygote is None or zygote.state in (*LEAVING, State.RESTORING) or self._needs_zygote(generation):
                continue
            if zygote.state is State.PREPARING:  # it would hear us only when the import ends
                self._kill(zygote, now)
            else:
                zygote.enter(State.DRAINING, now + GRACE)
                self._order(do.EndZygote(zygote.ticket))
        for generation in [g for g in self.others if g is not self.fallback and not g.processes()]:
            self.others.remove(generation)
            if generation.phase is Phase.RETIRING:
                self._log("info", "retired", generation=generation.number)

    def _needs_zygote(self, generation: Generation) -> bool:
        done = generation.imports_anew and not generation.zygote_stays
        given_up = generation.unrespawnable and not generation.is_watched
        if generation.phase is not Phase.PREPARING and (done or given_up):
            return False
        if generation.present():
            return True
        if generation.task and generation.task.state is not State.STUCK:
            return True
        stopping = self.stop is not None and self.stop.stage is not Stage.DELAY
        return not stopping and generation in (self.current, self.candidate, self.fallback)

    # ── who is to come ──────────────────────────────────────────────────────────────────────────

    def _spawn(self, now: float) -> None:
        if self.stop and self.stop.stage is not Stage.DELAY:
            return
        for generation in () if restoring.is_under_way(self) else self._respawning():
            for slot in self._lacking(generation):
                if generation.backoff(slot).until > now:
                    continue
                if slot == ZYGOTE:
                    self._start_zygote(generation, now)
                elif slot == SPARE:
                    self._start_spare(generation, now)
                elif slot == TASK:
                    self._start_task(generation, now)
                elif self._has_room(generation):
                    self._start_worker(generation, slot, now)
                else:
                    break

    def _respawning(self) -> list[Generation]:
        """Return the generations whose missing processes are to be started."""
        filling = self.candidate if self.candidate and self.candidate.phase is not Phase.PREPARING else None
        return [g for g in (filling, self.current, self.fallback) if g]

    def _lacking(self, generation: Generation) -> Iterator[int]:
        """Yield what a generation should have and has not: its zygote, or slots and then a spare."""
        if generation.lacks_zygote:
            yield ZYGOTE
        if generation is self.fallback or (generation is self.current and self._is_draining_first()):
            return
        if not generation.can_spawn:
            # A spare needs no zygote: it must not idle while one is prepared, or cannot be had.
            first = next(generation.missing(self.wanted), None)
            if generation is self.current and generation.has_spare and first is not None:
                yield first
            return
        if generation.phase is Phase.BEFORE:
            if generation.task is None:
                yield TASK
            return
        yield from generation.missing(self._gate() if generation is self.candidate else self.wanted)
        # Only asked when the slots are dealt with: one of them may just have taken the spare.
        if generation is self.current and generation.wants_spare:
            yield SPARE

    def _has_room(self, generation: Generation) -> bool:
        if sum(w.state is State.ORDERED for w in generation.workers.values()) >= AT_ONCE:
            return False
        if self.policy.max_surge == AS_MANY_AS_WORKERS:
            return True
        if self.policy.max_surge == 0 and any(g.present() for g in self.generations() if g is not generation):
            return False  # singletons: two generations never run at once
        return sum(g.present() for g in self.generations()) < self.wanted + self.policy.max_surge

    def _is_draining_first(self) -> bool:
        """Say whether singletons are being replaced: the old ones end before the new ones start."""
        return self.policy.max_surge == 0 and self.candidate is not None and self.candidate.phase is Phase.FILLING

    def _is_replacing(self) -> bool:
        """Say whether a reload takes one worker after the other: nobody can say in advance how long it takes."""
        rolling = self.current is not None and self.current.phase is Phase.ROLLING
        return self._is_draining_first() or (rolling and self.policy.max_surge != AS_MANY_AS_WORKERS)

    def _gate(self) -> int:
        """Return how many workers of the candidate must be ready for the commit."""
        surge = self.policy.max_surge
        rolling = self.current is not None and 0 < surge < self.wanted
        return surge if rolling else self.wanted

    def _start_spare(self, generation: Generation, now: float) -> None:
        if generation.zygote:
            spare = self.processes.order(generation, SPARE, now, now + self.policy.boot_timeout)
            spare.zygote = generation.zygote.ticket
            generation.spare = spare
            self._order(do.Park(spare.ticket, spare.zygote, generation.number))

    def _start_worker(self, generation: Generation, slot: int, now: float) -> None:
        if self._is_replacing():
            self.extend(self.policy.boot_timeout)
        spare = generation.spare
        if spare and generation.has_spare:
            generation.spare, generation.workers[spare.ticket] = None, spare
            spare.slot, spare.started = slot, now
            spare.enter(State.BOOTING, now + self.policy.boot_timeout)
            self._order(do.Go(spare.ticket, slot))
            return
        worker = self.processes.order(generation, slot, now, now + self.policy.boot_timeout)
        generation.workers[worker.ticket] = worker
        self._bear(worker)

    def _start_task(self, generation: Generation, now: float) -> None:
        generation.task = self.processes.order(generation, TASK, now, now + self.policy.boot_timeout)
        self.extend(self.policy.boot_timeout)
        self._bear(generation.task)

    def _bear(self, process: Process) -> None:
        generation = process.generation
        if generation.zygote and not generation.imports_anew:
            process.zygote = generation.zygote.ticket
            self._order(do.ForkWorker(process.ticket, process.zygote, generation.number, process.slot))
        else:
            self._order(do.ExecWorker(process.ticket, generation.number, process.slot))

    def _start_zygote(self, generation: Generation, now: float) -> None:
        generation.zygote = self.processes.order(generation, ZYGOTE, now, now + self.policy.boot_timeout)
        self._order(do.StartZygote(generation.zygote.ticket, generation.number))
