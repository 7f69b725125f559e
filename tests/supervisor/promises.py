"""
What the machine owes the world.

Owns the promises: each action is looked at before it is carried out, and each decision when it is complete,
against what is true in the pretend world and what the supervisor has been told of it.  A broken one is an
assertion that begins with the promise.  The machine's own labels are never looked at.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from launcher.handoff import AS_MANY_AS_WORKERS
from launcher.supervisor import actions as do
from launcher.supervisor import events as on
from launcher.supervisor.pacing import FIRST_DELAY, GROWTH, JITTER, LONGEST_DELAY
from tests.supervisor.duty import Duty
from tests.supervisor.figures import Figures
from tests.supervisor.pretend_kernel import SPARE, TASK, ZYGOTE
from tests.supervisor.witness import Witness

if TYPE_CHECKING:
    from launcher.supervisor.policy import Policy
    from tests.supervisor.pretend_kernel import PretendKernel, Proc

Birth = do.StartZygote | do.ForkWorker | do.ExecWorker | do.Park | do.Go
GRACE = 5.0  # seconds until leftovers are killed
LOOKS = 2  # at a heartbeat that stands still
EARLY = 1e-6  # floats


class BrokenPromiseError(AssertionError):
    """The machine did what it promises never to do."""


def promise(kept: object, text: str, *facts: object) -> None:
    """Break off with the promise as the first words if it is not kept."""
    if not kept:
        raise BrokenPromiseError(f"PROMISE {text} | " + ", ".join(map(str, facts)))


class Promises(Witness):
    """A witness who breaks off when a promise is broken."""

    def __init__(self, policy: Policy, kernel: PretendKernel) -> None:
        """Begin before the first event."""
        super().__init__(policy, kernel)
        self.duty = Duty(self, promise)
        self.figures = Figures(self, promise)

    def hear(self, event: on.Event, now: float) -> None:
        """Note what the supervisor is told."""
        super().hear(event, now)
        self.duty.hear(event, now)
        self.figures.hear(event)

    # ── each order ──────────────────────────────────────────────────────────────────────────────

    def look_at(self, action: do.Action, now: float) -> None:  # noqa: C901, PLR0912, PLR0915  a table
        """Judge one order before it is carried out."""
        ticket = getattr(action, "ticket", None)
        proc = self.kernel.procs.get(ticket) if ticket is not None else None
        if isinstance(action, do.StartZygote):
            self._look_at_birth(action, action.generation, ZYGOTE, now)
        elif isinstance(action, do.Park):
            self._look_at_birth(action, action.generation, SPARE, now)
        elif isinstance(action, do.ForkWorker | do.ExecWorker):
            self._look_at_birth(action, action.generation, action.slot, now)
        elif ticket is not None:
            promise(proc and not proc.forgotten, "orders go to those that exist", action)
        match action:
            case do.Weigh():
                self.figures.ask(action, now)
            case do.Go(_, slot) if proc:
                self._look_at_go(action, proc, slot, now)
            case do.Dismiss() if proc:
                self._look_at_dismissal(proc, now)
            case do.AskBeat() | do.AskStacks() | do.TakeStacks() if proc:
                self._look_at_look(action, proc, now)
            case do.Serve() if proc:
                self._look_at_serve(proc, now)
            case do.Stop(_, pid, reason) if proc:
                promise(ticket not in self.told, "no worker is told to stop twice, no SIGTERM comes twice", proc)
                promise(pid == (proc.pid if proc.seen_pid else 0), "only our own children are signalled", action, proc)
                promise(ticket not in self.killed, "nobody is told to stop after SIGKILL", proc)
                self._look_at_reason(proc, reason)
                self.told[proc.ticket] = (now, reason)
            case do.StopLater() if proc:
                promise(ticket in self.told, "only who was told to stop hears that it may be later", proc)
            case do.Confirm() if proc:
                self._look_at_confirm(proc)
            case do.Restore(ticket, until=until):
                self.errands[ticket] = until
            case do.EndZygote() if proc:
                promise(ticket not in self.told, "no zygote is told to end twice", proc)
                self.told[proc.ticket] = (now, "end")
            case do.Kill(pid):
                self._look_at_kill(pid, now)
            case do.Entrust(pid):
                self.duty.entrust(pid, now)
            case do.Forget() if proc:
                gone = proc.seen_exit or proc.seen_failure or (not proc.seen_pid and proc.seen_closed)
                promise(gone, "only who is gone is forgotten", proc)
            case do.SignalGroup(pgid, number):
                self._look_at_group(pgid, number, now)
            case do.SweepOrphans(signal.SIGTERM, told):
                self._look_at_sweep(set(told))
            case do.CloseListeners():
                promise(not self.draining, "listeners are closed once")
                self.draining = True
            case do.Log():
                self._look_at_log(action, now)
            case do.Exit():
                left = [p for p in self.kernel.procs.values() if self.exists(p) and p.ticket not in self.late]
                promise(not left, "prod-run exits when all are reaped or reported", *left)

    def _look_at_confirm(self, proc: Proc) -> None:
        promise(self.is_good(proc.generation), "only who serves is confirmed", proc)
        promise(proc.ticket not in self.told, "nobody is confirmed who was told to end", proc)
        is_again = proc.generation in self.confirmed  # a zygote that replaces one
        there = self.serving(proc.generation) + self.done_in(proc.generation)
        promise(is_again or there >= self.wanted, "confirmed is who has no way back", proc, there)
        self.confirmed.add(proc.generation)
        if proc.placed >= 0 and proc.open:
            self.settled = proc.generation

    def _look_at_dismissal(self, proc: Proc, now: float) -> None:
        promise(proc.is_spare, "only a spare is dismissed", proc)
        promise(proc.ticket not in self.told, "no spare is dismissed twice", proc)
        promise(self.draining or self._is_replaced(proc), "a spare stays while its generation serves", proc)
        self.told[proc.ticket] = (now, "dismiss")

    def _look_at_look(self, action: do.AskBeat | do.AskStacks | do.TakeStacks, proc: Proc, now: float) -> None:
        match action:
            case do.AskBeat():
                promise(proc.ticket in self.served, "only who serves is asked for a heartbeat", proc)
                self.asked.setdefault(proc.ticket, []).append(now)
            case do.AskStacks():
                self.stacks.add(proc.ticket)
            case do.TakeStacks():
                promise(proc.ticket in self.stacks, "stacks are taken that were asked for", proc)
                self.stacks.discard(proc.ticket)

    def _is_replaced(self, spare: Proc) -> bool:
        newer = any(self.is_good(g) for g in self.began if g > spare.generation)
        return newer or self.results.get(spare.generation) == "rolled-back"

    def _look_at_go(self, order: do.Go, proc: Proc, slot: int, now: float) -> None:
        promise(slot >= 0 or slot == proc.slot == TASK, "nobody goes without a slot", order, proc)
        promise(not self.is_leaving(proc), "nobody goes who was told to end", order, proc)
        if proc.is_spare:
            promise(proc.seen_hello and not proc.seen_closed, "a slot is given to a spare that can hear it", proc)
            self._look_at_birth(order, proc.generation, slot, now)
        else:
            promise(slot == proc.slot, "a worker gets the slot it was ordered for", order, proc)

    def _look_at_birth(self, order: Birth, generation: int, slot: int, now: float) -> None:
        promise(not self.draining, "nobody is started once the stop drains", order)
        mine = [p for p in self.kernel.procs.values() if p.generation == generation and p.slot == slot]
        twins = [p for p in mine if self.exists(p) and not self.is_leaving(p) and p.ticket not in self.recycled]
        promise(not twins, "no slot is filled twice", order, *twins)
        failures, at = self.failures.get((generation, slot), (0, 0.0))
        if failures:
            delay = min(LONGEST_DELAY, FIRST_DELAY * GROWTH ** min(failures - 1, 15)) * (1 - JITTER)
            promise(now - at > delay - EARLY, "who fails before being ready is started again slowly", order, now - at)
        is_first = not self.policy.is_prepared and isinstance(order, do.ExecWorker)
        if (is_first or isinstance(order, do.StartZygote)) and generation not in self.began:
            self._look_at_new_generation(generation, order, now)
        if self.results.get(generation) == "serving":
            promise(
                not self.is_file_wrong(), "nobody of a kept generation starts on the files of a rejected one", order
            )
        if isinstance(order, do.StartZygote):
            return
        if isinstance(order, do.ForkWorker | do.Park):
            zygote = self.kernel.procs[order.zygote]
            can = zygote.seen_prepared and self.exists(zygote) and generation not in self.unrespawnable
            promise(can, "a fork is asked of a zygote that can", order, zygote)
        if isinstance(order, do.Park):
            promise(self.is_good(generation), "a spare is forked for the generation that serves", order)
            return
        if slot == TASK:
            promise(generation not in self.tasks | self.results.keys(), "an init task is run once", order)
            self.tasks.add(generation)
            return
        has_task = bool(self.policy.before)
        promise(generation in self.prepared or not has_task, "no worker starts before the init task ended well", order)
        done = self.done.get(generation, set())
        promise(slot not in done, "who is done is not started again", order)
        promise(slot < self.wanted, "no more workers than wanted are started", order)
        self._look_at_surge(order, generation)

    def _look_at_new_generation(self, generation: int, order: do.Action, now: float) -> None:
        undecided = self.undecided()
        self.began.add(generation)
        promise(not undecided, "one generation is prepared at a time", order, undecided)
        promise(not self.is_file_wrong(), "nothing is reloaded before the former files are back", order)
        promise(self.wants_reload, "a storm of reloads is followed by one more, not by two", order)
        self.figures.begin(order, now)
        self.wants_reload = False

    def _look_at_surge(self, order: Birth, generation: int) -> None:
        surge = self.policy.max_surge
        if surge == AS_MANY_AS_WORKERS:
            return
        there = [p for p in self.kernel.procs.values() if p.is_worker and self.exists(p)]
        promise(len(there) < self.wanted + surge, "never more than workers + max-surge exist", order, *there)
        if surge == 0:
            others = [p for p in there if p.generation != generation]
            promise(not others, "singletons of two generations never live at once", order, *others)

    def _look_at_serve(self, proc: Proc, now: float) -> None:
        promise(proc.is_worker, "only who has a slot is let serve", proc)
        promise(proc.ticket not in self.served, "a worker is let serve once", proc)
        entered = proc.seen_entered_at is not None and now >= proc.seen_entered_at + 1.0 - EARLY
        promise(proc.seen_ready or entered, "only the ready are let serve", proc)
        result = self.results.get(proc.generation)
        promise(result != "rejected", "no worker of a rejected generation is let serve", proc)
        promise(self.stop_asked_at is None or result, "a stop pre-empts a reload at once", proc)
        self.served[proc.ticket] = proc
        self.served_at[proc.ticket] = now
        if result is None:
            self.gates.setdefault(proc.generation, self.gate())

    def _look_at_reason(self, proc: Proc, reason: str) -> None:
        result = self.results.get(proc.generation)
        match reason:
            case "rejected":
                promise(result == "rejected", "a rejection ends the rejected alone", proc, result)
            case "scale":
                slots = min(self.wanted, self.gate()) if result is None else self.wanted
                promise(proc.slot >= slots, "scaling ends only what is too many", proc, slots)
            case "stop":
                promise(self.draining, "workers are stopped when listeners are closed", proc)
            case "recycle":
                promise(proc.ticket in self.recycled, "who is recycled is named first", proc)
                mine = [p for p in self.served.values() if (p.generation, p.slot) == (proc.generation, proc.slot)]
                heirs = [p for p in mine if p is not proc and self.exists(p) and not self.is_leaving(p)]
                done = proc.slot in self.done.get(proc.generation, ())
                singleton = self.policy.max_surge == 0
                promise(heirs or done or singleton, "nobody is recycled before the successor is up", proc)
            case _:
                if any(g not in self.gates for g in self.undecided()) and self.policy.max_surge != 0:
                    self.hurt.append(proc)
                good = {g for g in self.began - {proc.generation} if self.results.get(g, "serving") == "serving"}
                good = {g for g in good if g in self.gates or self.done_in(g) >= self.gate()}
                good = {g for g in good if g > proc.generation or result == "rolled-back"}
                singleton = self.policy.max_surge == 0
                promise(good or singleton, "an old worker is only stopped for a generation that serves", proc, reason)

    def _look_at_kill(self, pid: int, now: float) -> None:
        proc = self.by_pid(pid)
        promise(proc, "only our own children are signalled", f"pid={pid}")
        assert proc is not None
        promise(proc.ticket not in self.killed, "no process gets SIGKILL twice", proc)
        if proc.ticket in self.warm and not (proc.seen_closed or proc.ticket in self.told or self.hurried):
            owed = [p for p in self.kernel.procs.values() if p.zygote is proc and not p.seen_pid]
            late = [p for p in owed if now >= p.ordered_at + self.policy.boot_timeout - EARLY]
            unwanted = self.draining or self.results.get(proc.generation) == "rejected"
            slow = proc.ticket in self.errands  # to put files back
            promise(late or unwanted or slow, "a zygote is only killed for its own faults", proc)
        self.killed.add(proc.ticket)
        unread = proc.ticket in self.stalled and proc.ticket in self.stacks and not self.hurried
        promise(not unread, "who stalled is killed when its stacks are taken", proc)
        if proc.ticket in self.given_up:  # it is there after all
            self.given_up.discard(proc.ticket)
            self.late.add(proc.ticket)
        if not proc.is_worker or self.hurried:
            return
        at, reason = self.told.get(proc.ticket, (0.0, ""))
        if proc.ticket in self.served and proc.seen_ready and proc.ticket not in self.stalled:
            promise(reason, "a worker that serves is not killed out of the blue", proc)
            promise(now >= at + self.policy.drain_timeout - EARLY, "a worker has its whole drain limit", proc, now - at)

    def _look_at_group(self, pgid: int, number: int, now: float) -> None:
        if not number:
            return
        leader = self.by_pid(pgid)
        if self.policy.is_command and number not in (signal.SIGTERM, signal.SIGKILL):
            promise(leader and leader.is_worker, "what comes is passed on to commands", pgid, number)
            promise(
                number in dict(self.policy.rewrites).values() or number != signal.SIGHUP or not self.policy.rewrites,
                "a signal that is dropped goes to nobody",
                pgid,
                number,
            )
            return
        promise(leader is None or leader.seen_exit, "groups are swept when their leader is dead", leader)
        at, strongest = self.groups.get(pgid, (now, 0))
        promise(number == signal.SIGKILL or not strongest, "leftovers get SIGTERM once", pgid)
        promise(strongest != signal.SIGKILL, "leftovers get SIGKILL once", pgid)
        if number == signal.SIGKILL and not self.hurried:
            promise(now >= at + GRACE - EARLY, "leftovers have five seconds", pgid, now - at)
        self.groups[pgid] = (at, number)

    def _look_at_sweep(self, told: set[int]) -> None:
        groups = {pgid for pgid, (_, strongest) in self.groups.items() if strongest == signal.SIGTERM}
        promise(groups <= told, "leftovers get SIGTERM once", groups, told)
        promise(told <= self.groups.keys(), "all but leftovers are told to end by the sweep", groups, told)

    def _look_at_log(self, line: do.Log, now: float) -> None:  # noqa: C901  a table
        self.duty.hear_line(line.event)
        fields = dict(line.fields)
        generation = int(fields.get("generation", 0))
        slot = int(fields["slot"]) if "slot" in fields else None
        found = self.named(generation, slot, int(fields.get("pid", 0)))
        match line.event.split(":")[0]:
            case "committed":
                self._look_at_commit(generation, is_over="rolling" not in fields)
            case "rolled out":
                there = self.serving(generation) + self.done_in(generation)
                promise(there >= self.wanted, "`rolled out` means that all serve", f"{there}/{self.wanted}")
                promise(generation in self.rolling, "a reload has one result", generation)
                self.rolling.discard(generation)
            case "rejected" | "pre-empted" as result:
                hurt = [p for p in self.hurt if p.generation == fields.get("kept")]
                self.hurt.clear()
                promise(result == "pre-empted" or not hurt, "a rejected reload signals no old worker", *hurt)
                served = [p for p in self.served.values() if p.generation == generation]
                promise(not served, "no worker of a rejected generation is let serve", *served)
                self.results[generation] = "rejected"
                if generation not in self.began:
                    self.figures.reject()
                    self.wants_reload = False
            case "rolled-back":
                open_ = generation in self.rolling or generation not in self.announced
                promise(open_, "a reload has one result", generation)
                self.rolling.discard(generation)
                self.results[generation] = "rolled-back" if generation in self.gates else "rejected"
            case "cannot respawn":
                self.unrespawnable.add(generation)
            case "--watch":
                self.unwatched.add(generation)
            case "not put back":
                self.unrestored.add(generation)
            case "gave up" | "unkillable" | "missing" | "lost worker with its zygote" | "lost spare with its zygote":
                self.mark(line.event, found)
            case "stalled":
                self._look_at_stall(found[0])
            case "recycling":
                self._look_at_recycling(found[0], now)

    def _look_at_stall(self, proc: Proc) -> None:
        limit = self.policy.stall_timeout
        _, since, misses = self.beats.get(proc.ticket, (0.0, 0.0, 0))
        still = self.asked_at.get(proc.ticket, 0.0) - since
        promise(limit and misses and still >= limit - EARLY, "a worker that beats is left alone", proc, since, still)
        self.stalled.add(proc.ticket)
        self.missed.add(proc.ticket)

    def _look_at_recycling(self, proc: Proc, now: float) -> None:
        others = [p for p in self.kernel.procs.values() if p.ticket in self.recycled and self.exists(p)]
        others = [p for p in others if p.generation == proc.generation]
        promise(not others, "one worker is recycled at a time", proc, *others)
        old = self.policy.max_age and now >= self.served_at[proc.ticket] + 0.9 * self.policy.max_age - EARLY
        large = self.policy.max_rss and self.rss.get(proc.ticket, 0) > self.policy.max_rss
        promise(old or large, "only the old and the large are recycled", proc)
        promise(proc.generation not in self.unrespawnable, "nobody is recycled who cannot be replaced", proc)
        self.recycled.add(proc.ticket)

    def _look_at_commit(self, generation: int, *, is_over: bool) -> None:
        mine = [p for p in self.served.values() if p.generation == generation]
        # Who crashes in the second between the commit and this line is being replaced.
        good = {p.slot for p in mine} | self.done.get(generation, set())
        gate = self.gates.get(generation, min(self.gate(), self.wanted))
        promise(len(good) >= gate, "`committed` means that all are ready and serve", generation, f"{len(good)}/{gate}")
        promise(generation not in self.announced, "`committed` is said once", generation)
        self.announced.add(generation)
        self.rolling |= set() if is_over else {generation}
        self.hurt.clear()
        self.results[generation] = "serving"

    # ── each decision ───────────────────────────────────────────────────────────────────────────

    def look_back(self, orders: list[do.Action], now: float) -> None:
        """Judge a whole decision after it is carried out."""
        self.duty.look_back(now)
        self._look_at_unseen_beginnings(orders, now)
        file = self.kernel.file
        promise(file >= self.settled, "who serves keeps its files", file, self.settled)
        served = {self.kernel.procs[o.ticket].generation for o in orders if isinstance(o, do.Serve)}
        for generation in served - self.opened.keys():
            self.opened[generation] = now
            there = self.serving(generation) + self.done_in(generation)
            gate = self.gates.get(generation, 0)  # none if all its work was done before anybody was let serve
            promise(there >= gate, "nobody serves before all are ready", generation, there)
            self.results.setdefault(generation, "serving")
        reloaded = [o for o in orders if isinstance(o, do.Stop) and o.reason == "reload" and o.ticket in self.served]
        if reloaded and self.policy.max_surge != 0:
            there = self.serving() + self.done_in(self.current())
            promise(there >= self.wanted, "a reload never leaves fewer workers than wanted", f"{there}/{self.wanted}")
        if self.stop_asked_at is not None:
            promise(not self.undecided(), "a stop pre-empts a reload at once", *self.undecided())
        for proc in self.kernel.procs.values():
            known = proc.seen_exit and proc.seen_pid
            promise(proc.forgotten or not known, "no death is missed", proc)
            lost = proc.zygote and proc.zygote.forgotten and proc.seen_closed and not proc.seen_pid
            promise(proc.forgotten or not lost, "who was lost with a zygote is not waited for", proc)
            if not self.exists(proc) or self.is_leaving(proc):
                continue
            if self.hurried and not proc.seen_pid:
                continue  # it is killed when it has a PID
            kept = proc.is_spare and (self.draining or self._is_replaced(proc))
            promise(not kept, "a spare ends with its generation and with the drain", proc)
            *_, misses = self.beats.get(proc.ticket, (0.0, 0.0, 0))
            promise(misses < LOOKS, "a worker whose heartbeat stands still is killed", proc)

    def _look_at_unseen_beginnings(self, orders: list[do.Action], now: float) -> None:
        """Judge generations of which only the log tells: nothing is prepared, and the first copy waits for room."""
        for line in [o for o in orders if isinstance(o, do.Log) and o.event == "preparing"]:
            generation = int(dict(line.fields)["generation"])
            if not self.policy.is_prepared and generation not in self.began | self.results.keys():
                self._look_at_new_generation(generation, line, now)

    def look_ahead(self, deadline: float | None, now: float) -> None:
        """Judge what the machine waits for, when nothing is left to do now."""
        promise(deadline is None or deadline > now, "a deadline that has come is acted upon", deadline, now)
        self.duty.look_ahead(deadline)
        if self.policy.stall_timeout:
            serving = [p for t, p in self.served.items() if self.exists(p) and not self.is_leaving(p) and p.seen_ready]
            beating = [p for p in serving if p.generation not in self.kernel.plain]
            soon = deadline is not None and deadline <= now + self.policy.stall_timeout / 2 + EARLY
            promise(soon or not beating, "heartbeats are looked at twice in a stall's time", deadline, *beating)
        awaited = self._awaited()
        self.figures.look_ahead(deadline)
        if awaited == "the handover" and deadline is not None:
            promise(deadline <= self.opened[self.current()] + 1.0, "`committed` is said within a second", deadline)
        if awaited is not None:
            promise(deadline is not None or not awaited, "whatever is awaited has a deadline", awaited)
            # The files may be back already, and nobody has said so yet.
            promise(
                deadline is None or awaited or self.looks or self._is_on_errand(),
                "an idle machine waits for nothing",
                deadline,
            )

    def is_at_rest(self) -> bool:
        """Say whether only looks are left to be waited for."""
        there = [p for p in self.served.values() if self.exists(p)]
        stalls = self.policy.stall_timeout and any(p.stalls and p.generation not in self.kernel.plain for p in there)
        return self.looks and not self._awaited() and not stalls and not self._is_on_errand()

    def _is_on_errand(self) -> bool:
        """Say whether a zygote was told to put files back, did not answer, and has time left."""
        alive = [p for p in self.kernel.procs.values() if self.exists(p)]
        return any(self.kernel.now < self.errands.get(p.ticket, 0.0) for p in alive)

    def _awaited(self) -> str | None:  # noqa: C901  a table
        """Say what the supervisor waits for; empty: nothing; None: hard to say."""
        if self.stop_asked_at is not None or self.draining:
            return "the end"
        if self.undecided() or self.figures.since is not None:
            return "a new generation" if self.undecided() else "the figures"
        if self.is_file_wrong():
            return "the former files"
        current = self.current()
        if current not in self.announced:
            return "the handover"
        there = [p for p in self.kernel.procs.values() if self.exists(p)]
        for proc in there:
            can = proc.seen_hello if proc.is_spare else proc.seen_prepared
            settled = proc.ticket in self.served if proc.is_worker else can and not proc.seen_closed
            if not settled or self.is_leaving(proc):
                return str(proc)
        if any(strongest != signal.SIGKILL for _, strongest in self.groups.values()):
            return "leftovers"
        if any(p.ticket in self.stacks for p in there):
            return "stacks"
        if current in self.unrespawnable or self._lacks_watcher(current):
            return "a zygote" if self._lacks_watcher(current) else ""
        if self.serving(current) + self.done_in(current) < self.wanted:
            return "a respawn"
        if any(p.errands or p.ticket in self.errands for p in there):
            return None  # they are back, and nobody has said so yet
        return self._awaited_ahead(current, there)

    def _awaited_ahead(self, current: int, there: list[Proc]) -> str | None:
        forks = any(p.generation == current and p.zygote for p in there)
        if not forks:
            return None  # a zygote may be there for its files alone
        if not any(p.generation == current and p.is_zygote for p in there):
            return "a zygote"
        return "" if any(p.generation == current and p.is_spare for p in there) else "a spare"

    def _lacks_watcher(self, current: int) -> bool:
        is_watched = self.policy.watch and self.policy.is_prepared and current not in self.unwatched
        mine = [p for p in self.kernel.procs.values() if p.is_zygote and p.generation == current]
        return is_watched and not any(self.exists(p) for p in mine)

    def look_at_rest(self) -> None:
        """Judge a world in which everybody answered and nothing is awaited."""
        current = self.current()
        there = self.serving(current) + self.done_in(current)
        promise(not self._lacks_watcher(current), "in a world that answers --watch goes on", current)
        whole = there >= self.wanted or current in self.unrespawnable
        promise(whole, "in a world that answers as many workers serve as are wanted", f"{there}/{self.wanted}")
        strays = [p for p in self.kernel.procs.values() if p.alive and self.exists(p) and p.generation != current]
        promise(not strays or current in self.unrespawnable, "a former generation ends", *strays)
        promise(not self.wants_reload, "a reload that was remembered comes")
        promise(not self.rolling or current in self.unrespawnable, "a rolling reload has a result", *self.rolling)
