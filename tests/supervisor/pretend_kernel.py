"""
A pretend world: processes, groups, zygotes that fork, channels, orphans.

Owns what is true out there, and the events that are still in the air.  It takes the machine's actions, and
its processes take steps only when a test says so; what they say waits in lanes, one for each source, and
only the order within a lane is kept.  So answers come late, overtake each other, or never.
Must never judge: what the machine owes the world stands in `promises`.
"""

from __future__ import annotations

import signal
from collections import deque

from launcher.supervisor import actions as do
from launcher.supervisor import events as on

DEATHS = "deaths"  # SIGCHLD and waitpid: the one source of deaths
ANSWERS = "answers"  # what comes of an action at once
NOBODY = -1  # ticket of what was never ordered
ZYGOTE = -1  # in place of a slot
SPARE = -2
TASK = -3


class Proc:
    """A zygote, worker, grandchild or orphan, as it really is."""

    def __init__(self, ticket: int, generation: int, slot: int, ordered_at: float = 0.0) -> None:
        """Begin as an order that nobody has carried out."""
        self.ticket = ticket
        self.generation = generation
        self.slot = slot  # or ZYGOTE (or nobody's), or SPARE until it is given a slot
        self.ordered_at = ordered_at
        self.zygote: Proc | None = None  # who is to fork it
        self.forks: deque[Proc] = deque()  # what a zygote is asked for
        self.pid = 0
        self.group = 0
        self.alive = False
        self.step = "ordered"
        self.open = True  # the child's end of the channel
        self.forgotten = False  # the supervisor closed its end
        self.deaf = False  # ignores SIGTERM and stop orders
        self.sleeps = False  # uninterruptible: SIGKILL works when it wakes up
        self.doomed = False  # SIGKILL is pending
        self.placed = -1  # of a zygote that put a file into its place: whose was there before
        self.errands: deque[do.Restore] = deque()  # files that a zygote is to put back
        self.told = False  # a stop order, SIGTERM or the word that it is not needed
        self.has_go = False
        self.is_let = False  # out of ready()
        self.stopped_accepting = False
        self.stalls = False  # its heartbeat stands still
        self.beats = 0.0  # what stands on the heartbeat page
        self.rss = 0
        # what the supervisor has been told of it so far
        self.seen_pid = False
        self.seen_hello = False
        self.seen_exit = False
        self.seen_failure = False  # StartFailed
        self.seen_closed = False
        self.seen_prepared = False
        self.seen_ready = False
        self.seen_entered_at: float | None = None

    @property
    def is_worker(self) -> bool:
        """Say whether it is a worker."""
        return self.slot >= 0

    @property
    def is_zygote(self) -> bool:
        """Say whether it is a zygote."""
        return self.slot == ZYGOTE and self.ticket != NOBODY

    @property
    def is_spare(self) -> bool:
        """Say whether it is a spare that nobody gave a slot."""
        return self.slot == SPARE

    def __repr__(self) -> str:
        """Show what a failing test needs."""
        kind = {ZYGOTE: "zygote", SPARE: "spare", TASK: "init task"}.get(self.slot, "worker")
        return f"<{kind} ticket={self.ticket} generation={self.generation} slot={self.slot} pid={self.pid} {self.step}>"


class PretendKernel:
    """The world: `carry_out` takes actions, `lanes` hold the events that are in the air."""

    def __init__(self) -> None:
        """Begin with an empty world in which everything works."""
        self.procs: dict[int, Proc] = {}  # by ticket, all that were ordered
        self.strangers: list[Proc] = []  # grandchildren and orphans that live
        self.lanes: dict[object, deque[on.Event]] = {}
        self.next_pid = 100
        self.last_ticket = 0
        self.free: list[tuple[int, int]] = []  # reaped PIDs, each with the last ticket at that time
        self.refusals = 0  # so many of the next starts fail
        self.files = "v1"  # what lies on disk
        self.takes_worker = True
        self.is_prepared = True  # else whoever is started is a plain command
        self.plain: set[int] = set()  # generations whose target takes no Worker
        self.unforkable = ""
        self.zygote_stays = False  # a zygote is needed for more than forking
        self.has_checks = False  # what is deployed
        self.checking: set[int] = set()  # generations whose workers have a check
        self.on_duty = 0  # PID of who is to run it
        self.weight: on.Weighed | None = on.Weighed(0, 0, 0, 0)  # None: the answer is lost
        self.forks = True  # --preload is not `never`
        self.has_file = False  # what is deployed: a template
        self.now = 0.0  # of the last order
        self.last_prepared = 0  # generation; a zygote that replaces one makes no file anew
        self.file = 0  # the generation whose file is in place
        self.listening = True
        self.exit_code: int | None = None

    # ── what the machine orders ─────────────────────────────────────────────────────────────────

    def carry_out(self, action: do.Action, now: float) -> None:  # noqa: C901, PLR0912, PLR0915  a table
        """Do what the machine orders; what comes of it is put in the air."""
        self.now = now
        match action:
            case do.StartZygote(ticket, generation):
                self._start(Proc(ticket, generation, ZYGOTE, now))
            case do.ExecWorker(ticket, generation, slot):
                if not self.is_prepared:
                    self.plain.add(generation)
                self._start(Proc(ticket, generation, slot, now))
            case do.ForkWorker(ticket, zygote, generation, slot):
                self._ask_for_fork(Proc(ticket, generation, slot, now), self.procs[zygote])
            case do.Park(ticket, zygote, generation):
                self._ask_for_fork(Proc(ticket, generation, SPARE, now), self.procs[zygote])
            case do.Go(ticket, slot):
                proc = self.procs[ticket]
                if proc.is_spare:
                    proc.slot, proc.ordered_at = slot, now
                proc.has_go |= proc.open
            case do.Serve(ticket):
                self.procs[ticket].is_let |= self.procs[ticket].open
            case do.Entrust(pid):
                self.on_duty = pid
            case do.Confirm(ticket):
                if self.procs[ticket].open:
                    self.procs[ticket].placed = -1
            case do.Restore(ticket):
                if self.procs[ticket].open:
                    self.procs[ticket].errands.append(action)
            case do.EndZygote(ticket) | do.Dismiss(ticket):
                self.procs[ticket].told |= self.procs[ticket].open
            case do.AskBeat(ticket):
                self._say(ANSWERS, on.Beat(ticket, self._beat(self.procs[ticket])))
            case do.Measure(ticket):
                self._say(ANSWERS, on.Measured(ticket, self.procs[ticket].rss))
            case do.Weigh():
                if self.weight:
                    self._say(ANSWERS, self.weight)
            case do.Stop(ticket, pid):
                self.procs[ticket].told |= self.procs[ticket].open or pid > 0
            case do.Kill(pid):
                for proc in [p for p in self.procs.values() if p.pid == pid and p.alive]:
                    self._sigkill(proc)
            case do.SignalGroup(pgid, number):
                self._signal_group(pgid, number)
            case do.SweepOrphans(number, told):
                left = [p for p in self.strangers if self._is_adopted(p)]
                left += [p for p in self.procs.values() if p.alive and (p.forgotten or not p.seen_pid)]
                self._say(ANSWERS, on.OrphansLeft(len(left)))
                for proc in left:
                    if number != signal.SIGTERM or proc.group not in told:
                        self._signal(proc, number)
            case do.Forget(ticket):
                self.procs[ticket].forgotten = True
                self.lanes.pop(ticket, None)
            case do.CloseListeners():
                self.listening = False
            case do.Exit(code):
                self.exit_code = code

    def _start(self, proc: Proc) -> None:
        self._register(proc)
        if self.refusals:
            self.refusals -= 1
            proc.step = "failed"
            self._say(ANSWERS, on.StartFailed(proc.ticket, "EAGAIN"))
            return
        self._bear(proc)
        self._say(ANSWERS, on.Started(proc.ticket, proc.pid))

    def _ask_for_fork(self, proc: Proc, zygote: Proc) -> None:
        self._register(proc)
        proc.zygote = zygote
        if zygote.alive and zygote.open:
            zygote.forks.append(proc)
        elif proc.ticket % 2:
            proc.step = "failed"
            self._say(ANSWERS, on.StartFailed(proc.ticket, "EPIPE"))
        else:
            self._lose(proc)

    def _beat(self, proc: Proc) -> float:
        """Return what stands on the heartbeat page: something new at each look, unless the worker is stuck."""
        proc.beats += proc.alive and not (proc.stalls or proc.sleeps)
        return proc.beats

    def _register(self, proc: Proc) -> None:
        self.procs[proc.ticket] = proc
        self.last_ticket = proc.ticket

    def _bear(self, proc: Proc) -> None:
        proc.pid = proc.group = self._number_for(proc.ticket)
        proc.alive = True
        proc.step = "importing" if proc.is_zygote else "born"

    def _number_for(self, ticket: int) -> int:
        """Give a PID, one that was used already if possible: numbers come around."""
        taken = {p.group for p in (*self.procs.values(), *self.strangers) if p.alive}
        for index, (pid, last_ticket) in enumerate(self.free):
            # In truth thousands of processes lie between; so nobody speaks of the former one any more.
            if last_ticket < ticket and pid not in taken and not self._is_in_the_air(pid):
                del self.free[index]
                return pid
        self.next_pid += 1
        return self.next_pid

    def _is_in_the_air(self, pid: int) -> bool:
        said = any(pid in (getattr(e, "pid", 0), getattr(e, "pgid", 0)) for lane in self.lanes.values() for e in lane)
        return said or any(p.pid == pid and not p.forgotten for p in self.procs.values())

    # ── signals ─────────────────────────────────────────────────────────────────────────────────

    def _signal_group(self, pgid: int, number: int) -> None:
        members = [p for p in (*self.procs.values(), *self.strangers) if p.alive and p.group == pgid]
        # Who is not reaped yet is still a member, kill(2).
        zombies = [p for p in self.procs.values() if p.group == pgid and not (p.alive or p.seen_exit or p.forgotten)]
        if not members and not zombies:
            self._say(ANSWERS, on.GroupGone(pgid))
        for proc in members:
            self._signal(proc, number)

    def _signal(self, proc: Proc, number: int) -> None:
        if number == signal.SIGKILL:
            self._sigkill(proc)
        elif number == signal.SIGTERM and not proc.deaf:
            self.die(proc, -number)

    def _sigkill(self, proc: Proc) -> None:
        if proc.sleeps:
            proc.doomed = True
        else:
            self.die(proc, -signal.SIGKILL)

    def wake(self, proc: Proc) -> None:
        """End an uninterruptible sleep."""
        proc.sleeps = False
        if proc.doomed and proc.alive:
            self.die(proc, -signal.SIGKILL)

    # ── what processes do ───────────────────────────────────────────────────────────────────────

    def die(self, proc: Proc, code: int) -> None:
        """End a process; the forks that a zygote still owes are lost with it."""
        if not proc.alive:
            return
        adopted = proc.ticket != NOBODY or self._is_adopted(proc)
        if code == 0 and proc.placed >= 0:
            self.file = proc.placed  # it ended by itself
        proc.alive = False
        proc.step = "dead"
        for lost in proc.forks:
            self._lose(lost)
        proc.forks.clear()
        if adopted:
            self._say(DEATHS, on.ProcessExited(proc.pid, code))
        self.close(proc)
        if proc in self.strangers:
            self.strangers.remove(proc)

    def notify(self, proc: Proc, seconds: float) -> None:
        """Have a process say, in sd_notify's words, that it needs so much more time; 0: that it is alive."""
        if proc.alive and proc.open and not proc.stalls:
            self._say(proc.ticket, on.Extended(proc.ticket, seconds) if seconds else on.Lived(proc.ticket))

    def raise_in(self, proc: Proc) -> None:
        """Have a target raise: its worker says so, and ends."""
        if proc.alive and proc.is_worker and proc.open and proc.step in ("running", "serving"):
            self._say(proc.ticket, on.Raised(proc.ticket, "ValueError: no database", "Traceback"))
            self.die(proc, 1)

    def close(self, proc: Proc) -> None:
        """Close the child's end of its channel; the process may live on."""
        if proc.open and proc.ticket != NOBODY:
            proc.open = False
            self._say(proc.ticket, on.ChannelClosed(proc.ticket))

    def _lose(self, proc: Proc) -> None:
        proc.step = "lost"
        self.close(proc)

    def fork(self, zygote: Proc, *, silently: bool = False, fails: bool = False) -> None:
        """Have a zygote carry out the oldest order."""
        child = zygote.forks.popleft()
        if fails:
            child.step = "failed"
            self._say(zygote.ticket, on.StartFailed(child.ticket, "fork: EAGAIN"))
            return
        self._bear(child)
        if not silently:
            self._say(zygote.ticket, on.Started(child.ticket, child.pid))

    def prepare(self, zygote: Proc) -> None:
        """Have a zygote end its import."""
        zygote.step = "warm"
        if self.has_checks:
            self.checking.add(zygote.generation)
        if not self.takes_worker:
            self.plain.add(zygote.generation)
        has_file = self.has_file and self.forks and not self.unforkable  # else the processes' own tests see to it
        facts = on.Prepared(
            zygote.ticket, self.takes_worker, self.files, self.unforkable, zygote_stays=has_file or self.zygote_stays
        )
        if has_file and zygote.generation > self.last_prepared:
            facts = facts._replace(placed=(("web.conf", str(self.file)),))
            zygote.placed, self.file = self.file, zygote.generation
        self.last_prepared = max(self.last_prepared, zygote.generation)
        self._say(zygote.ticket, facts)

    def refuse(self, zygote: Proc, code: int = 78) -> None:
        """Have a zygote say why it cannot."""
        zygote.step = "refused"
        self._say(zygote.ticket, on.Refused(zygote.ticket, code, "SHOP_PORT is missing"))

    def check(self, *, is_good: bool) -> None:
        """Have whoever is on duty look at what the app depends on, unless it is stuck."""
        for proc in self.procs.values():
            if proc.pid == self.on_duty and proc.alive and not (proc.stalls or proc.sleeps):
                self._say(proc.ticket, on.Checked(proc.ticket, "database", is_good, "", "", 0.1))

    def bear_child(self, parent: Proc) -> Proc:
        """Let a process start one of its own, in its group."""
        child = Proc(NOBODY, parent.generation, -1)
        child.pid, child.group = self._number_for(self.last_ticket + 1), parent.pid
        child.alive, child.step = True, "lives"
        self.strangers.append(child)
        return child

    def adopt(self) -> Proc:
        """Give the supervisor an orphan."""
        orphan = Proc(NOBODY, 0, -1)
        orphan.pid = orphan.group = self._number_for(self.last_ticket + 1)
        orphan.alive, orphan.step = True, "lives"
        self.strangers.append(orphan)
        return orphan

    def _is_adopted(self, proc: Proc) -> bool:
        return not any(p.alive and p.pid == proc.group for p in self.procs.values())

    def step(self, proc: Proc) -> bool:
        """Have a process do what a good one does next; say whether there was anything."""
        if not proc.alive or proc.sleeps:
            return False
        return self._step_zygote(proc) if proc.is_zygote else self._step_worker(proc)

    def _step_zygote(self, zygote: Proc) -> bool:
        if zygote.step == "importing":
            self.prepare(zygote)
        elif zygote.forks:
            self.fork(zygote)
        elif zygote.errands:
            _, files, until = zygote.errands.popleft()
            if not files:
                self.file = zygote.placed
            elif self.now < until:
                self.file = int(files[0][1])
            zygote.placed = zygote.placed if files else -1
            self._say(zygote.ticket, on.Restored(zygote.ticket, until if files else 0.0))
        elif zygote.told or zygote.step == "refused":
            self.die(zygote, 0)
        else:
            return False
        return True

    def _step_worker(self, worker: Proc) -> bool:
        told = (worker.told and not worker.deaf) or worker.forgotten
        if told and (worker.step != "serving" or worker.stopped_accepting):
            self.die(worker, 0)
        elif told:
            worker.stopped_accepting = True
            self._say(worker.ticket, on.StoppedAccepting(worker.ticket))
        elif worker.step == "born":
            worker.step = "waiting"
            self._say(worker.ticket, on.Hello(worker.ticket, worker.pid))
        elif worker.step == "waiting" and worker.has_go:
            worker.step = "running"
        elif worker.slot == TASK and worker.step == "running":
            worker.step = "busy"
            self._say(worker.ticket, on.Begun(worker.ticket))
        elif worker.step == "busy":
            self.die(worker, 0)
        elif worker.step == "running":
            worker.step = "serving"
            if worker.generation in self.checking:
                self._say(worker.ticket, on.CheckMade(worker.ticket, "database", True, 2.0))
            say = on.Entered if worker.generation in self.plain else on.BecameReady
            self._say(worker.ticket, say(worker.ticket))
        else:
            return False
        return True

    # ── what is in the air ──────────────────────────────────────────────────────────────────────

    def _say(self, lane: object, event: on.Event) -> None:
        proc = self.procs.get(lane) if isinstance(lane, int) else None
        if proc is None or (not proc.forgotten and (proc.open or isinstance(event, on.ChannelClosed))):
            self.lanes.setdefault(lane, deque()).append(event)

    def take(self, index: int) -> on.Event | None:
        """Take the oldest event of one of the lanes out of the air; None if nothing is in it."""
        lanes = [lane for lane, events in self.lanes.items() if events]
        if not lanes:
            return None
        lane = lanes[index % len(lanes)]
        event = self.lanes[lane].popleft()
        if not self.lanes[lane]:
            del self.lanes[lane]
        return event

    def see(self, event: on.Event, now: float) -> None:
        """Note that the supervisor knows this now."""
        if isinstance(event, on.ProcessExited):
            self.free.append((event.pid, self.last_ticket))
            for dead in [p for p in self.procs.values() if p.pid == event.pid and not p.alive]:
                dead.seen_exit = True
            return
        proc = self.procs.get(getattr(event, "ticket", NOBODY))
        if proc is None:
            return
        match event:
            case on.Started() | on.Hello():
                proc.seen_pid = True
                proc.seen_hello |= isinstance(event, on.Hello)
            case on.StartFailed():
                proc.seen_failure = True
            case on.ChannelClosed():
                proc.seen_closed = True
            case on.Prepared() | on.Refused():
                proc.seen_prepared = True
            case on.BecameReady():
                proc.seen_ready = True
            case on.Entered():
                proc.seen_entered_at = now
