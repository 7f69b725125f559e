"""
What the supervisor knows, and how it comes to know it.

Owns the facts: the generations, their processes, who asked for what.  Each event is written down here,
and a mark is left where something must follow (`failure`, `reload_asked`, `stop`); what follows is
decided in `machine`.
Pure: it never waits, never acts, never asks the time.
"""

from __future__ import annotations

from launcher.errors import Exit as Code
from launcher.lean_posix import signal
from launcher.supervisor import actions as do
from launcher.supervisor import checking, preparing, restoring, signals_of_commands, status
from launcher.supervisor import events as on
from launcher.supervisor.generation import LEAVING, SPARE, TASK, UP, Failure, Generation, Phase, Process, State
from launcher.supervisor.pacing import Bucket
from launcher.supervisor.processes import Processes, identity, in_words
from launcher.supervisor.stopping import Stage, Stopping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.supervisor.policy import Policy
    from launcher.supervisor.processes import Dead

MEASURE = 5.0  # seconds between two looks at a worker's memory
GRACE = 5.0  # seconds for what nobody waits for: rejected workers, zygotes, leftovers, a SIGKILL to work
DUMP = 0.5  # seconds that a process has to write its stacks before it is killed
MARGIN = 15.0  # seconds on top of a limit, for the kills and the sweep after it
MISSES = 2  # looks at an unchanged heartbeat, half a stall's time apart
ENTERED_IS_READY = 1.0  # seconds that a target without a Worker must live (DESIGN §3.2)


class Records:
    """All facts, and the orders that follow from a fact alone."""

    __slots__ = (
        "announce_by",
        "bucket",
        "candidate",
        "chance",
        "checking",
        "current",
        "ends",
        "errands",
        "fallback",
        "orders",
        "others",
        "policy",
        "processes",
        "reload_asked",
        "result",
        "stop",
        "stop_number",
        "to_pass_on",
        "wanted",
        "weigh_by",
        "weight",
    )

    def __init__(self, policy: Policy, now: float, chance: Callable[[], float]) -> None:
        self.policy = policy
        self.chance = chance
        self.checking = checking.Checking()
        self.wanted = policy.workers
        self.bucket = Bucket(policy.workers, now)
        self.processes = Processes()
        self.current: Generation | None = None  # committed: it serves
        self.candidate: Generation | None = None  # no client sees it
        self.fallback: Generation | None = None  # what a failure while rolling goes back to
        self.others: list[Generation] = []  # on their way out, oldest first
        self.errands: list[restoring.Errand] = []
        self.reload_asked = "start"  # by whom; empty: nobody
        self.result = ""  # what became of the last reload, if it failed
        self.weigh_by: float | None = None  # a reload waits until then for the figures
        self.weight: on.Weighed | None = None
        self.announce_by: float | None = None
        self.stop: Stopping | None = None
        self.ends: dict[int, int] = {}  # slot → exit code, of commands that ended by the stop
        self.stop_number = signals_of_commands.term(policy.rewrites)
        self.to_pass_on: list[int] = []  # signals that came before there was a command to get them
        self.orders: list[do.Action] = []

    def generations(self) -> list[Generation]:
        """Return all generations of which anything is left."""
        return [*self.others, *(g for g in (self.current, self.candidate) if g)]

    def note(self, event: on.Event, now: float) -> None:
        """Write down what happened; `now` is monotonic seconds."""
        match event:
            case on.ProcessExited():
                self._on_exited(event, now)
            case on.GroupGone(pgid):
                self.processes.leftovers.pop(pgid, None)
            case on.OrphansLeft(count):
                if self.stop:
                    self.stop.orphans_left = count
            case on.Weighed():
                self.weight = event if self.weigh_by is not None else None
            case on.Asked() | on.Signalled() | on.ScaleAsked() | on.StacksAsked() | on.Tick():
                pass
            case on.Started() | on.Hello() if not self.processes.knows(event.ticket):
                # Given up before it had a PID; its channel is closed, so it ends by itself.
                self.processes.unclaimed.pop(event.pid, None)
            case _:
                process = self.processes.by_ticket.get(event.ticket)
                if process is not None:
                    self._on_said(process, event, now)

    # ── what was said ───────────────────────────────────────────────────────────────────────────

    def _on_said(self, process: Process, event: on.Event, now: float) -> None:  # noqa: C901, PLR0912, PLR0915  a table
        match event:
            case on.Started(_, pid):
                self._claim(process, pid, now)
            case on.Hello(_, pid):
                self._claim(process, pid, now)
                if process.state is not State.ORDERED or not self.processes.knows(process.ticket):
                    return
                if process.slot == SPARE:
                    process.enter(State.PARKED, None)
                else:
                    process.enter(State.BOOTING, process.deadline)
                    self._order(do.Go(process.ticket, process.slot))
            case on.StartFailed(_, reason):
                self._log("error", "cannot start", **identity(process), reason=reason)
                self._over(process)
                self._failed(process, reason, now, code=Code.OS_ERROR)
            case _ if process.slot == TASK:
                self._on_task_said(process, event, now)
            case on.Entered() if process.state is State.BOOTING:
                process.enter(State.ENTERED, now + ENTERED_IS_READY)
            case on.BecameReady() if process.state in (State.BOOTING, State.ENTERED):
                self._became_ready(process, now)
            case on.Beat(_, value):
                watch = process.watch
                watch.misses = watch.misses + 1 if value == watch.beat else 0
                watch.beat = value
                if watch.misses >= MISSES and process.state is State.SERVING:
                    process.enter(State.SERVING, now)  # at once: it might beat again before the next look
            case on.Lived() | on.Extended():
                self._on_notified(process, event, now)
            case on.Measured(_, rss):
                process.watch.rss = rss
            case on.Raised() if process.generation.phase in (Phase.FILLING, Phase.ROLLING):
                process.raised = event
            case on.StoppedAccepting():
                process.stopped_accepting = True
            case on.StatusGiven(_, text):
                process.status = text
            case on.CheckMade() | on.Checked():
                checking.note(self, process, event, now)
            case on.Prepared() if process.state is State.PREPARING:
                preparing.prepared(self, process, event, now)
                self.extend(self.policy.boot_timeout)
            case on.Prepared(placed=placed):
                process.placed = placed  # given up, and yet they are there
            case on.Restored(_, errand):
                restoring.done(self, process, errand)
            case on.Refused() if process.state is State.PREPARING:
                process.enter(State.DRAINING, now + GRACE)
                preparing.refused(self, process, event, now)
            case on.ChannelClosed():
                process.mute = True
                if process.state in (State.PREPARING, State.WARM, State.READY, State.PARKED):
                    # Nothing can be asked of it any more.  Mostly its end follows at once, and tells more.
                    process.enter(process.state, min(process.deadline or now + GRACE, now + GRACE))
            case _:
                pass  # said too late: the process has been told to go since

    def _on_notified(self, process: Process, event: on.Lived | on.Extended, now: float) -> None:
        if isinstance(event, on.Lived):
            process.watch.misses, process.watch.beat = 0, -1.0  # the next look sees something new
        elif process.state in (State.BOOTING, State.DRAINING) and process.deadline:
            until = now + event.seconds
            if process.state is State.DRAINING and process.is_worker and until > process.deadline:
                self._order(do.StopLater(process.ticket, until))
            process.enter(process.state, max(process.deadline, until))
            self.extend(event.seconds)  # who is above waits for it, too

    def _on_task_said(self, task: Process, event: on.Event, now: float) -> None:
        match event:
            case on.Begun() if task.state is State.BOOTING:
                task.enter(State.RUNNING, task.deadline)
                self._log("info", "running --before", **identity(task), what=self.policy.before)
            case on.Refused() if task.state is State.RUNNING:
                task.enter(State.DRAINING, now + GRACE)
                task.generation.failure = Failure(event.reason, event.detail, event.code)
            case on.ChannelClosed():
                task.mute = True

    def _became_ready(self, worker: Process, now: float) -> None:
        if worker.generation is self.candidate or worker.generation.phase is Phase.REJECTED:
            # Held; without end if it is rejected already.  One that closed its channel cannot be let go.
            worker.enter(State.READY, now + GRACE if worker.mute else None)
            return
        policy, watch = self.policy, worker.watch
        # Twice in a stall's time: what stood still twice has stood still for all of it.
        beats = policy.stall_timeout > 0 and worker.generation.takes_worker
        worker.enter(State.SERVING, now + policy.stall_timeout / 2 if beats else None)
        if policy.max_age:
            watch.too_old_at = now + policy.max_age * (0.9 + 0.2 * self.chance())
        if policy.max_rss:
            watch.measure_at = now + MEASURE
        worker.generation.has_served = True
        self._order(do.Serve(worker.ticket))

    # ── who died ────────────────────────────────────────────────────────────────────────

    def _on_exited(self, death: on.ProcessExited, now: float) -> None:
        process = self.processes.by_pid.get(death.pid)
        if process is not None:
            self._ended(process, death, now)
            return
        self.processes.bury(*death)
        for pgid in self.processes.leftovers:
            self._order(do.SignalGroup(pgid, 0))
        if self.stop and self.stop.stage in (Stage.SWEEP, Stage.LAST_SWEEP):
            self._order(do.SweepOrphans(0))

    def _claim(self, process: Process, pid: int, now: float) -> None:
        if process.pid:
            return
        self.processes.name(process, pid)
        dead = self.processes.claim(process)
        if dead:
            self._ended(process, dead, now)
        elif process.state in (State.KILLED, State.STUCK):
            self._kill(process, now)

    def _ended(self, process: Process, death: on.ProcessExited | Dead, now: float) -> None:
        code = death.code
        self._over(process)
        restoring.ended(process, code)
        in_a_hurry = self.stop is not None and self.stop.immediate
        self.processes.leftovers[process.pid] = now if in_a_hurry else now + GRACE
        if not in_a_hurry:
            self._order(do.SignalGroup(process.pid, signal.SIGTERM))
        if process.state in LEAVING:
            if self.stop and self.policy.is_command and process.is_worker:
                self.ends[process.slot] = code
            if process.is_worker:
                self._log_end("info", "ended worker", process, death, now)
            return
        if process.is_worker and self._is_done(process, code):
            process.generation.done[process.slot] = code
            self._log_end("info", "finished worker", process, death, now)
            return
        if process.slot == TASK and process.state is State.RUNNING and code == 0:
            process.generation.phase = Phase.FILLING
            self._log_end("info", "finished --before", process, death, now)
            return
        self._log_end("error", f"lost {process.role}", process, death, now)
        who = f"--before {self.policy.before}" if process.slot == TASK else f"a {process.role} ended"
        self._failed(process, f"{who}: {in_words(code, death.note)}", now)

    def _is_done(self, worker: Process, code: int) -> bool:
        """Say whether this end means that the work is done (DESIGN §3.6)."""
        if self.policy.restart == "never":
            # A reload must not commit because its workers fail quickly.
            return self.succeeded(code) or worker.generation is not self.candidate or self.current is None
        return self.policy.restart == "on-failure" and self.succeeded(code)

    def succeeded(self, code: int) -> bool:
        """Say whether an exit code, or minus a signal, counts as 0 (--success-exit-status)."""
        return code == 0 or in_shell(code) in self.policy.successes

    def _over(self, process: Process) -> None:
        """Strike a process off all lists."""
        self.processes.strike(process)
        self._order(do.Forget(process.ticket))
        generation = process.generation
        if process.is_worker:
            del generation.workers[process.ticket]
        elif generation.zygote is process:
            generation.zygote = None
        elif generation.spare is process:
            generation.spare = None
        elif generation.task is process:
            generation.task = None

    def _failed(self, process: Process, reason: str, now: float, code: int = Code.SOFTWARE) -> None:
        """Draw the consequence of an end that nobody asked for."""
        generation = process.generation
        if process.state in LEAVING:
            return
        if process.slot == SPARE:
            self._pace(process, now)  # nobody misses it: not a reason to reject or roll back
            return
        if generation.phase in (Phase.PREPARING, Phase.BEFORE, Phase.FILLING, Phase.ROLLING):
            said = process.raised
            failure = Failure(f"{reason}: {said.reason}", said.detail, code) if said else Failure(reason, "", code)
            generation.failure = generation.failure or failure
        is_missed = process.is_worker or generation.is_watched or not generation.imports_anew
        if is_missed and generation.phase in (Phase.ROLLING, Phase.COMMITTED, Phase.RETIRING):
            self._pace(process, now)

    def _pace(self, process: Process, now: float) -> None:
        backoff = process.generation.backoff(process.slot)
        backoff.forget(now - process.started)
        if process.state in UP and self.bucket.take(self.wanted, now):
            # Not earlier than its replacement may be tried again, which failed while this one was being recycled.
            backoff.until = max(backoff.until, now)
            return
        delay = backoff.fail(now, self.chance)
        self._log("info", "delayed respawn", **identity(process), by=f"{delay:.2f}s")

    def _kill(self, process: Process, now: float) -> None:
        process.enter(State.KILLED, now + GRACE)
        if process.pid:
            self._order(do.Kill(process.pid))

    # ── what the manager above hears (sd_notify(3)) ─────────────────────────────────────────────

    def extend(self, seconds: float) -> None:
        """Ask for time: the next sign of life comes within so many seconds."""
        time = f"EXTEND_TIMEOUT_USEC={int((seconds + MARGIN) * 1e6)}"
        self._order(do.Notify((time, f"STATUS={status.told(self)}")))

    def announce_up(self, result: str = "") -> None:
        """Say READY, also when a reload failed: else a unit hangs in "reloading" for ever (systemd#37515)."""
        self.result = result
        self._order(do.Notify(("READY=1", f"STATUS={status.told(self)}")))

    # ── small words ─────────────────────────────────────────────────────────────────────────────

    def _order(self, action: do.Action) -> None:
        self.orders.append(action)

    def _log(self, level: str, event: str, **fields: str | float) -> None:
        self.orders.append(do.Log(level, event, tuple(fields.items())))

    def _log_end(self, level: str, event: str, process: Process, death: on.ProcessExited | Dead, now: float) -> None:
        how, after = in_words(death.code, death.note), f"{now - process.started:.2f}s"
        words_of = process.ticket if level == "error" else 0  # of an end that nobody asked for
        fields: dict[str, str | float] = {**identity(process), "how": how, "after": after, "cpu": f"{death.cpu:.2f}s"}
        self._order(do.Log(level, event, tuple(fields.items()), words_of=words_of))


def in_shell(code: int) -> int:
    """Write an end as a shell does: 128 + N for signal N."""
    return code if code >= 0 else 128 - code
