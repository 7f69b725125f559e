"""
Every decision of the supervisor.

Theory of operation: `record` writes down a fact and decides nothing; `decide` compares what is with
what is wanted and orders what is missing.  Every order leaves a mark (a state), so deciding twice orders
nothing twice, and every state that waits for somebody has a deadline.  `records` holds the facts,
`staffing` the counting, `upkeep` what is looked at while all goes well; here stand the reload and the stop.

Pure: it never waits, never acts, never asks the time.
"""

from __future__ import annotations

from launcher.errors import Exit as Code
from launcher.lean_posix import signal
from launcher.signals import Ask
from launcher.supervisor import actions as do
from launcher.supervisor import checking, restoring, signals_of_commands, status, upkeep, weighing
from launcher.supervisor import events as on
from launcher.supervisor.generation import Failure, Generation, Phase, State
from launcher.supervisor.records import GRACE, in_shell
from launcher.supervisor.staffing import Staffing
from launcher.supervisor.stopping import Stage, Stopping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.supervisor.policy import Policy

HANDOVER = 1.0  # seconds that `committed` waits for old workers to say that they stopped accepting
SECOND_STOP = 1.0  # seconds after which a second SIGTERM is a wish of its own, not an echo
ALL = -1  # slots


class Machine(Staffing):
    """The supervisor's mind: facts go in, orders come out."""

    __slots__ = ("decided_at", "numbers")

    def __init__(self, policy: Policy, now: float, chance: Callable[[], float]) -> None:
        super().__init__(policy, now, chance)
        self.numbers = 0  # of generations so far
        self.decided_at = now

    # ── the two halves ──────────────────────────────────────────────────────────────────────────

    def handle(self, event: on.Event, now: float) -> list[do.Action]:
        """Record one event and decide."""
        self.record(event, now)
        return self.decide(now)

    def record(self, event: on.Event, now: float) -> None:
        """Write down a fact; `now` is monotonic seconds."""
        match event:
            case on.Asked():
                self._on_asked(event, now)
            case on.Signalled(number):
                signals_of_commands.came(self, number, now)
            case on.ScaleAsked(workers, origin):
                self._scale(workers, origin)
            case on.StacksAsked(slot):
                upkeep.ask_stacks(self, slot, now)
            case _:
                self.note(event, now)

    def decide(self, now: float) -> list[do.Action]:
        """Compare what is with what is wanted; return what is to be done, in order."""
        self._expire(now)
        self._lose_the_silent(now)
        self._judge()
        self._advance_stop(now)
        restoring.tend(self, now)  # before anybody is started
        self._commit(now)
        upkeep.recycle(self, now)
        self._retire(now)
        self._spawn(now)
        checking.tend(self, now)
        upkeep.take_stacks(self, now)
        self._announce(now)
        self._begin_reload(now)
        self._declare_done(now)
        self._end_zygotes(now)
        signals_of_commands.pass_on(self)
        self._finish(now)
        self.decided_at = now
        orders, self.orders = self.orders, []
        return orders

    def next_deadline(self) -> float | None:
        """
        Say when `decide` must be called again even if nothing happens.

        Returns:
            Monotonic seconds, or None if there is nothing to wait for.  May lie in the past: then at once.
        """
        times: list[float | None] = [p.deadline for p in self.processes.by_ticket.values()]
        times += self.processes.leftovers.values()
        times += [self.announce_by, self.weigh_by, self.stop.deadline if self.stop else None]
        times.append(checking.deadline(self))
        times.append(restoring.deadline(self))
        if not (self.stop and self.stop.stage is not Stage.DELAY):
            lacking = [(g, slot) for g in self._respawning() for slot in self._lacking(g)]
            retries = [g.backoff(slot).until for g, slot in lacking if slot < 0 or self._has_room(g)]
            # What could have been started by now waits for an event, not for the time.
            times += [until for until in retries if until > self.decided_at]
        # A worker that is too old may have to wait for its turn, with that time in the past.
        looks = [time for p in self.processes.by_ticket.values() for time in p.watch.times()]
        times += [time for time in looks if time is not None and time > self.decided_at]
        return min((time for time in times if time is not None), default=None)

    def _on_asked(self, asked: on.Asked, now: float) -> None:  # noqa: C901  a table
        match asked.ask:
            case Ask.STOP if self.stop is None:
                self._begin_stop(asked.origin, now)
            case Ask.STOP if self.stop:
                if self.stop.asked_at is None:
                    self.stop.asked_at = now
                elif now - self.stop.asked_at > SECOND_STOP:
                    self._hurry(asked.origin, now)
            case Ask.STOP_NOW:
                if self.stop is None:
                    self._begin_stop(asked.origin, now)
                self._hurry(asked.origin, now)
            case Ask.RELOAD if self.stop:
                self._log("info", "ignored reload: stopping", origin=asked.origin)
            case Ask.RELOAD:
                if self._is_reloading() and not self.reload_asked:
                    self._log("info", "remembered reload: one is under way", origin=asked.origin)
                self.reload_asked = asked.origin
            case Ask.MORE | Ask.FEWER:
                self._scale(self.wanted + (1 if asked.ask is Ask.MORE else -1), asked.origin)
            case Ask.REPORT:
                self.orders += status.report(self, now)
                upkeep.ask_stacks(self, ALL, now)
            case Ask.UPGRADE:
                self._log("warning", "ignored upgrade: not in this version", origin=asked.origin)

    def _scale(self, workers: int, origin: str) -> None:
        if self.stop and self.stop.stage is not Stage.DELAY:
            self._log("info", "ignored scale: stopping", origin=origin)
            return
        self.wanted = max(1, workers)
        self._log("info", "scaled", workers=self.wanted, origin=origin)

    # ── decide ──────────────────────────────────────────────────────────────────────────────────

    def _judge(self) -> None:
        """Draw the consequence of a generation's failure: it alone has to go."""
        if self.candidate and self.candidate.failure:
            self._reject(self.candidate.failure)
        current = self.current
        if current and current.failure:
            if current.phase is Phase.ROLLING and self.fallback:
                self._roll_back(current, self.fallback, current.failure)
            current.failure = None

    def _begin_reload(self, now: float) -> None:
        if self.stop or not self.reload_asked or self._is_reloading() or restoring.is_under_way(self):
            return
        if not self._is_weighed(now):
            return
        refusal = weighing.refusal(self.weight, self.wanted, self.policy.max_surge)
        self.weigh_by = self.weight = None
        self.numbers += 1
        self.candidate = Generation(self.numbers, self.reload_asked, now)
        self.reload_asked = self.result = ""
        self._log("info", "preparing", generation=self.numbers, origin=self.candidate.origin)
        if self.current:
            # The time is the sender's to add: it must be later than the signal that asked.
            self._order(do.Notify(("RELOADING=1", f"STATUS={status.told(self)}")))
        if refusal:
            self._reject(Failure(refusal, "", Code.SOFTWARE))
            return
        self.extend(self.policy.boot_timeout)
        if self.policy.is_prepared:
            self._start_zygote(self.candidate, now)
            return
        self.candidate.phase, self.candidate.imports_anew, self.candidate.takes_worker = Phase.FILLING, True, False
        self._retire(now)  # of singletons the old ones end first
        self._spawn(now)

    def _is_weighed(self, now: float) -> bool:
        """Say whether a reload can begin: it is known whether there is memory for it, or nobody says so in time."""
        if self.current is None:
            return True
        if self.weigh_by is None:
            pids = [worker.pid for worker in self.current.staying() if worker.state is State.SERVING]
            zygote = self.current.zygote.pid if self.current.zygote else 0
            self.weigh_by = now + weighing.WEIGH
            more = weighing.beside(self.wanted, self.policy.max_surge)
            self._order(do.Weigh(zygote, tuple(pids[: weighing.MOST_WEIGHED]), more))
            return False
        return self.weight is not None or now >= self.weigh_by

    def _is_reloading(self) -> bool:
        rolling = self.current is not None and self.current.phase is Phase.ROLLING
        return self.candidate is not None or rolling or self.announce_by is not None

    def _commit(self, now: float) -> None:
        new = self.candidate
        if new and new.phase is Phase.FILLING and new.up(self._gate()) >= self._gate():
            former, self.current, self.candidate = self.current, new, None
            new.phase = Phase.ROLLING
            self.announce_by = now
            for worker in new.staying():
                if worker.state is State.READY:
                    self._became_ready(worker, now)
            if former:
                former.phase = Phase.RETIRING
                self.others.append(former)
                self.fallback = former
                self.announce_by = now + HANDOVER
        if self.current and self.current.phase is Phase.ROLLING and self.current.up(self.wanted) >= self.wanted:
            self.current.phase = Phase.COMMITTED
            self.fallback = None
            # `committed` was said of the first workers; unless a stop came between, which has the last word.
            if self.announce_by is None and self.stop is None:
                self._say_rolled_out(self.current, now)
            restoring.settle(self.current)
            if self.current.zygote and self.current.zygote.state is State.WARM:
                self._order(do.Confirm(self.current.zygote.ticket))

    def _announce(self, now: float) -> None:
        if self.announce_by is None or self.current is None:
            return
        handing_over = any(
            worker.state is State.DRAINING and not worker.stopped_accepting
            for generation in self.others
            if generation.phase is Phase.RETIRING
            for worker in generation.workers.values()
        )
        if self.announce_by <= now or not handing_over:
            self.announce_by = None
            rolling = {"rolling": "yes"} if self.current.phase is Phase.ROLLING else {}  # it can still fail
            self._log("info", "committed", **self._figures(self.current, now), **rolling)
            self.announce_up()

    def _say_rolled_out(self, current: Generation, now: float) -> None:
        self._log("info", "rolled out", **self._figures(current, now))
        if self.stop is None:
            self._order(do.Notify((f"STATUS={status.told(self)}",)))

    def _figures(self, current: Generation, now: float) -> dict[str, str | float]:
        up, after = f"{current.up(self.wanted)}/{self.wanted}", f"{now - current.since:.2f}s"
        return {"generation": current.number, "workers": up, "after": after}

    def _reject(self, failure: Failure, result: str = "rejected") -> None:
        rejected, self.candidate = self.candidate, None
        if rejected is None:
            return
        if result == "rejected" and self.policy.max_surge == 0 and self.current and rejected.phase is Phase.FILLING:
            result = "rolled-back"  # the old workers were told to go already
        rejected.phase = Phase.REJECTED
        if result != "pre-empted" and self.current:
            self.current.grow_stale(rejected.since, failure.reason)
        self.others.append(rejected)
        kept = (("kept", self.current.number),) if self.current else ()
        fields = (("generation", rejected.number), *kept, ("reason", failure.reason))
        self._order(do.Log("info" if result == "pre-empted" else "error", result, fields, failure.detail))
        if self.stop is None and self.current:
            self.announce_up(f"generation {rejected.number} {result}: {failure.reason}")
        elif self.stop is None:
            self.result = f"generation {rejected.number} rejected: {failure.reason}"
            self._order(do.Notify((f"STATUS={self.result}",)))
            self.stop = Stopping("the first generation failed", failure.code)

    def _roll_back(self, failed: Generation, kept: Generation, failure: Failure) -> None:
        self.others.remove(kept)
        self.others.append(failed)
        # If work that was done filled the gate, no client saw it yet, and none has to.
        failed.phase = Phase.RETIRING if failed.has_served else Phase.REJECTED
        kept.phase = Phase.COMMITTED
        kept.grow_stale(failed.since, failure.reason)
        self.current, self.fallback, self.announce_by = kept, None, None
        fields = (("generation", failed.number), ("kept", kept.number), ("reason", failure.reason))
        self._order(do.Log("error", "rolled-back", fields, failure.detail))
        self.announce_up(f"generation {failed.number} rolled-back: {failure.reason}")

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    def _begin_stop(self, origin: str, now: float) -> None:
        serving = self.current is not None and bool(self.current.workers)
        self.stop = Stopping(origin, Code.DONE, now, now + (self.policy.drain_delay if serving else 0.0))
        self.reload_asked, self.announce_by, self.weigh_by = "", None, None
        self._log("info", "stopping", origin=origin)
        self._order(do.Notify(("STOPPING=1", f"STATUS={status.told(self)}")))
        for worker in self.current.workers.values() if self.current and self.policy.drain_delay else ():
            if worker.state is State.SERVING:
                self._order(do.Forewarn(worker.ticket))
        self.extend(self.policy.drain_delay + self.policy.drain_timeout)

    def _hurry(self, origin: str, now: float) -> None:
        if self.stop is None or self.stop.immediate:
            return
        self.stop.immediate = True
        if self.stop.stage is not Stage.DRAIN:  # there each process has its own deadline
            self.stop.deadline = now
        self._log("warning", "stopping at once: workers are killed", origin=origin)

    def _advance_stop(self, now: float) -> None:
        if self.stop is None:
            return
        if self.candidate:
            self.stop.is_refilling = None if self._is_draining_first() else False
            self._reject(Failure("stopping", "", Code.DONE), result="pre-empted")
        if self.stop.stage is Stage.DELAY and self._is_delay_over(self.stop, now):
            self.stop.enter(Stage.DRAIN, None)
            self._order(do.CloseListeners())
        if self.stop.immediate:
            for process in self.processes.by_ticket.values():
                if process.state not in (State.KILLED, State.STUCK):
                    self._kill(process, now)

    def _is_delay_over(self, stop: Stopping, now: float) -> bool:
        """Say whether all can drain; between two singletons one of the old comes back first, to empty the queue."""
        is_due = stop.deadline is None or now >= stop.deadline
        if is_due and stop.is_refilling is None and self._leaves_queue(stop):
            limit = min(self.policy.boot_timeout, self.policy.drain_timeout)
            stop.is_refilling, stop.deadline = True, now + limit
            self.extend(limit + self.policy.drain_timeout)
            return False
        return is_due or (stop.is_refilling is True and not self._leaves_queue(stop))

    def _leaves_queue(self, stop: Stopping) -> bool:
        """Say whether clients may wait, nobody serves them, and somebody soon could."""
        current = self.current
        if stop.immediate or not self.policy.listens or current is None or current.imports_anew:
            return False  # what lies on disk may be what was to be reloaded
        return current.can_spawn and all(worker.state is not State.SERVING for worker in current.workers.values())

    def _declare_done(self, now: float) -> None:
        current = self.current
        is_asked = self.weigh_by is not None or self._is_reloading()
        if self.stop or current is None or is_asked or not current.done.keys() >= set(range(self.wanted)):
            return
        self.stop = Stopping("all work is done", self._code_of(current.done))
        self._log("info", "finished: all work is done")
        self._advance_stop(now)
        self._retire(now)
        checking.tend(self, now)  # by nobody, if the one that did is told to go

    def _code_of(self, ends: dict[int, int]) -> int:
        """Return the first exit code of all copies that is no success; `ends` is by slot."""
        codes = [in_shell(code) for _, code in sorted(ends.items()) if not self.succeeded(code)]
        return codes[0] if codes else Code.DONE

    def _finish(self, now: float) -> None:
        stop = self.stop
        if stop is None:
            return
        is_anybody_left = any(p.state is not State.STUCK for p in self.processes.by_ticket.values())
        if stop.stage is Stage.DRAIN and not is_anybody_left:
            stop.enter(Stage.SWEEP, now + GRACE)
            stop.orphans_left = -1
            for pgid in self.processes.leftovers:
                # A fork that died late was in its zygote's group at first: look again, not 5 s later.
                self._order(do.SignalGroup(pgid, 0))
            number = signal.SIGKILL if stop.immediate else signal.SIGTERM
            self._order(do.SweepOrphans(number, tuple(self.processes.leftovers)))
        elif stop.stage is Stage.SWEEP and stop.deadline is not None and now >= stop.deadline:
            stop.enter(Stage.LAST_SWEEP, now + GRACE)
            self._order(do.SweepOrphans(signal.SIGKILL))
        if stop.is_over(now, leftovers=is_anybody_left or bool(self.processes.leftovers)):
            stop.enter(Stage.OVER, None)
            # The copies' codes are the result, also where only some had come to their end.
            if self.policy.restart == "never" and not stop.code:
                stop.code = self._code_of({**(self.current.done if self.current else {}), **self.ends})
            self._log("info", "stopped", reason=stop.reason, code=stop.code)
            self._order(do.Exit(stop.code))
