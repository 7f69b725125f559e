"""The bugs that are planted: patches of the shipped source."""

from __future__ import annotations

from typing import NamedTuple


class Bug(NamedTuple):
    """One patch: in which module, what stands there, what is put in its place."""

    name: str
    module: str
    old: str
    new: str


OF_THE_DESIGN = (
    # ── DESIGN §4 ───────────────────────────────────────────────────────────────────────────────
    Bug(
        "retire on fork",
        "staffing",
        "            lacking -= self.current.up(self.wanted)\n",
        "            lacking -= self.current.up(self.wanted)\n"
        "        if self.candidate:\n"
        "            for worker in self.current.staying()[: self.candidate.present()] if self.current else []:\n"
        '                self._drain([worker], "reload", now)\n',
    ),
    Bug(
        "commit with one missing",
        "machine",
        "new.up(self._gate()) >= self._gate():",
        "new.up(self._gate()) >= max(1, self._gate() - 1):",
    ),
    Bug(
        "a rejected reload TERMs an old worker",
        "machine",
        "        self.others.append(rejected)\n",
        "        self.others.append(rejected)\n"
        '        self._drain(self.current.staying()[:1] if self.current else [], "rejected", self.decided_at)\n',
    ),
    Bug(
        "TERM twice",
        "generation",
        "sorted((w for w in self.workers.values() if w.state not in LEAVING)",
        "sorted((w for w in self.workers.values() if w.state not in LEAVING[1:])",
    ),
    Bug(
        "KILL twice",
        "overdue",
        '                self._log("error", "unkillable: survived SIGKILL" if process.pid else "missing", '
        "**identity(process))\n",
        "                self._kill(process, now)\n"
        '                self._log("error", "unkillable: survived SIGKILL" if process.pid else "missing", '
        "**identity(process))\n",
    ),
    Bug(
        "pending forks forgotten when the zygote dies",
        "overdue",
        "            if not self.processes.knows(process.zygote):\n",
        "            if not self.processes.knows(process.zygote) and process.state in LEAVING:\n",
    ),
    Bug(
        "exit before all are reaped",
        "machine",
        "        is_anybody_left = any(p.state is not State.STUCK for p in self.processes.by_ticket.values())\n",
        "        is_anybody_left = any(p.state is State.SERVING for p in self.processes.by_ticket.values())\n",
    ),
    Bug(
        "an orphan counted as a worker",
        "records",
        "        process = self.processes.by_pid.get(death.pid)\n",
        "        process = self.processes.by_pid.get(death.pid) or next(iter(self.processes.by_pid.values()), None)\n",
    ),
    Bug(
        "an exit that precedes its announcement lost",
        "records",
        "        self.processes.bury(*death)\n",
        "",
    ),
    Bug(
        "a reload not pre-empted by stop",
        "machine",
        "        if self.candidate:\n            self.stop.is_refilling",
        "        if self.candidate and self.stop.immediate:\n            self.stop.is_refilling",
    ),
    Bug(
        "committed announced at n-1",
        "machine",
        "        if new and new.phase is Phase.FILLING and new.up(self._gate()) >= self._gate():\n",
        "        if new and new.phase is Phase.FILLING and 1 < new.up() == self._gate() - 1:\n"
        '            self._log("info", "committed", generation=new.number, workers="all", after="0s")\n'
        "        if new and new.phase is Phase.FILLING and new.up(self._gate()) >= self._gate():\n",
    ),
    Bug(
        "two reloads queued by a storm",
        "machine",
        '        self.reload_asked = self.result = ""\n',
        '        self.reload_asked, self.result = self.reload_asked[6:] if self.numbers > 1 else "", ""\n',
    ),
    Bug(
        "a held worker let go in a rejected generation",
        "machine",
        "        rejected.phase = Phase.REJECTED\n",
        "        rejected.phase = Phase.REJECTED\n"
        "        for worker in rejected.staying():\n"
        "            if worker.state is State.READY:\n"
        "                self._order(do.Serve(worker.ticket))\n",
    ),
)

MORE = (
    Bug(
        "a rolling reload that never says that it is over",
        "machine",
        "                self._say_rolled_out(self.current, now)\n",
        "                pass\n",
    ),
    Bug(
        "a rolling reload said to be over at its commit",
        "machine",
        '{"rolling": "yes"} if self.current.phase is Phase.ROLLING else {}',
        "{}",
    ),
    Bug(
        "a rolling reload that is over with the first workers",
        "machine",
        "            self.announce_up()\n\n    def _say_rolled_out",
        "            self.announce_up()\n"
        "            if rolling:\n"
        "                self._say_rolled_out(self.current, now)\n\n"
        "    def _say_rolled_out",
    ),
    # ── each deadline dropped ───────────────────────────────────────────────────────────────────
    Bug(
        "no deadline: PREPARING",
        "staffing",
        "        self._order(do.StartZygote(generation.zygote.ticket, generation.number))\n",
        "        self._order(do.StartZygote(generation.zygote.ticket, generation.number))\n"
        "        generation.zygote.deadline = None\n",
    ),
    Bug(
        "no deadline: ORDERED",
        "staffing",
        "        worker = self.processes.order(generation, slot, now, now + self.policy.boot_timeout)\n",
        "        worker = self.processes.order(generation, slot, now, now + self.policy.boot_timeout)\n"
        "        worker.deadline = None\n",
    ),
    Bug(
        "no deadline: BOOTING",
        "records",
        "process.enter(State.BOOTING, process.deadline)",
        "process.enter(State.BOOTING, None)",
    ),
    Bug(
        "no deadline: ENTERED",
        "records",
        "process.enter(State.ENTERED, now + ENTERED_IS_READY)",
        "process.enter(State.ENTERED, None)",
    ),
    Bug(
        "no deadline: a channel that closed",
        "records",
        "process.enter(process.state, min(process.deadline or now + GRACE, now + GRACE))",
        "pass",
    ),
    Bug(
        "no deadline: DRAINING worker",
        "staffing",
        "worker.enter(State.DRAINING, now + limit)",
        "worker.enter(State.DRAINING, None)",
    ),
    Bug(
        "no deadline: DRAINING zygote",
        "staffing",
        "zygote.enter(State.DRAINING, now + GRACE)",
        "zygote.enter(State.DRAINING, None)",
    ),
    Bug(
        "no deadline: refused zygote",
        "records",
        "process.enter(State.DRAINING, now + GRACE)",
        "process.enter(State.DRAINING, None)",
    ),
    Bug(
        "no deadline: KILLED",
        "records",
        "process.enter(State.KILLED, now + GRACE)",
        "process.enter(State.KILLED, None)",
    ),
    Bug(
        "no deadline: leftovers",
        "machine",
        "        times += self.processes.leftovers.values()\n",
        "",
    ),
    Bug(
        "no deadline: handover",
        "machine",
        "times += [self.announce_by, self.weigh_by, self.stop.deadline if self.stop else None]",
        "times += [self.weigh_by, self.stop.deadline if self.stop else None]",
    ),
    Bug(
        "no deadline: drain delay",
        "machine",
        "times += [self.announce_by, self.weigh_by, self.stop.deadline if self.stop else None]",
        "times += [self.announce_by, self.weigh_by]",
    ),
    Bug(
        "no deadline: SWEEP",
        "machine",
        "stop.enter(Stage.SWEEP, now + GRACE)",
        "stop.enter(Stage.SWEEP, None)",
    ),
    Bug(
        "no deadline: LAST_SWEEP",
        "machine",
        "stop.enter(Stage.LAST_SWEEP, now + GRACE)",
        "stop.enter(Stage.LAST_SWEEP, None)",
    ),
    Bug(
        "no deadline: back-off",
        "machine",
        "times += [until for until in retries if until > self.decided_at]",
        "assert retries is not None",
    ),
    # ── others ──────────────────────────────────────────────────────────────────────────────────
    Bug(
        "a rolled-back generation keeps respawning",
        "staffing",
        "return [g for g in (filling, self.current, self.fallback) if g]",
        "return [g for g in (filling, self.current, self.fallback, *self.others) if g]",
    ),
    Bug(
        "a rolled-back generation goes before the old is back",
        "staffing",
        "                former += generation.staying()\n",
        "                former += generation.staying()\n"
        "                if self.current and generation.number > self.current.number:\n"
        '                    self._drain(generation.staying(), "reload", now)\n',
    ),
    Bug(
        "singletons start before the old ones ended",
        "staffing",
        "            return False  # singletons: two generations never run at once\n",
        "            return True\n",
    ),
    Bug(
        "max-surge counts only the ready",
        "staffing",
        "return sum(g.present() for g in self.generations()) < self.wanted + self.policy.max_surge",
        "return sum(g.up() for g in self.generations()) < self.wanted + self.policy.max_surge",
    ),
    Bug(
        "the drain limit never kills",
        "overdue",
        "                self._kill(process, now)\n            case State.KILLED:",
        "                process.enter(State.DRAINING, now + 5.0)\n            case State.KILLED:",
    ),
    Bug(
        "the drain limit kills too early",
        "staffing",
        "limit = self.policy.drain_timeout if served else",
        "limit = self.policy.drain_timeout / 2 if served else",
    ),
    Bug(
        "an unkillable process blocks the exit",
        "machine",
        "        is_anybody_left = any(p.state is not State.STUCK for p in self.processes.by_ticket.values())\n",
        "        is_anybody_left = bool(self.processes.by_ticket)\n",
    ),
    Bug(
        "an immediate stop forgets workers without a PID",
        "records",
        "        elif process.state in (State.KILLED, State.STUCK):\n            self._kill(process, now)\n",
        "",
    ),
    Bug(
        "back-off ignored",
        "staffing",
        "                if generation.backoff(slot).until > now:\n",
        "                if generation.backoff(slot).until > now + 60:\n",
    ),
    Bug(
        "back-off never forgotten",
        "staffing",
        "                if generation.backoff(slot).until > now:\n",
        "                if generation.backoff(slot).failures:\n",
    ),
    Bug(
        "a remembered reload waits for the next event",
        "machine",
        "        self._announce(now)\n        self._begin_reload(now)\n",
        "        self._begin_reload(now)\n        self._announce(now)\n",
    ),
    Bug(
        "a stop still replaces workers",
        "staffing",
        "        if self.stop and self.stop.stage is not Stage.DELAY:\n            return\n        for generation in (",
        "        if self.stop and self.stop.stage is Stage.OVER:\n            return\n        for generation in (",
    ),
    Bug(
        "a hurry during the drain spins",
        "machine",
        "        if self.stop.stage is not Stage.DRAIN:  # there each process has its own deadline\n",
        "        if self.stop:\n",
    ),
    Bug(
        "a number that came around is the dead one",
        "processes",
        " if dead and process.ticket <= dead.last_ticket else None",
        " if dead else None",
    ),
    Bug(
        "the dead are told to go on",
        "records",
        "if process.state is not State.ORDERED or not self.processes.knows(process.ticket):",
        "if process.state is not State.ORDERED:",
    ),
    Bug(
        "a lost order costs the next zygote",
        "overdue",
        "                zygote = self.processes.by_ticket.get(process.zygote)\n",
        "                zygote = process.generation.zygote\n",
    ),
    Bug(
        "an unkillable zygote costs all respawns",
        "generation",
        "(self.zygote is None or self.zygote.state is State.STUCK)",
        "self.zygote is None",
    ),
    Bug(
        "a dead zygote is never replaced",
        "staffing",
        "            yield ZYGOTE\n",
        "            pass\n",
    ),
    Bug(
        "zygotes are never ended",
        "staffing",
        "        if generation.present():\n            return True\n",
        "        if generation.present() or not self.stop:\n            return True\n",
    ),
    Bug(
        "done work is done again",
        "generation",
        "if slot not in taken and slot not in self.done)",
        "if slot not in taken)",
    ),
    Bug(
        "an old worker that serves goes before one that boots",
        "staffing",
        "        former.sort(key=lambda worker: not worker.is_up)\n",
        "",
    ),
    Bug(
        "orphans are not swept",
        "machine",
        "            self._order(do.SweepOrphans(number, tuple(self.processes.leftovers)))\n",
        "            stop.orphans_left = 0\n",
    ),
    Bug(
        "what a command left is told twice to end",
        "machine",
        "do.SweepOrphans(number, tuple(self.processes.leftovers))",
        "do.SweepOrphans(number)",
    ),
    Bug(
        "leftovers are not killed",
        "overdue",
        "            self._order(do.SignalGroup(pgid, signal.SIGKILL))\n",
        "",
    ),
    Bug(
        "confirmed while there is a way back",
        "machine",
        "            new.phase = Phase.ROLLING\n",
        "            new.phase = Phase.ROLLING\n"
        "            if new.zygote:\n"
        "                self._order(do.Confirm(new.zygote.ticket))\n",
    ),
    # ── init tasks ──────────────────────────────────────────────────────────────────────────────
    Bug(
        "workers start beside the init task",
        "staffing",
        "                yield TASK\n            return\n",
        "                yield TASK\n",
    ),
    Bug(
        "an init task is done when it has ended",
        "records",
        "if process.slot == TASK and process.state is State.RUNNING and code == 0:\n",
        "if process.slot == TASK and process.state not in LEAVING:\n",
    ),
    Bug(
        "an init task that never ran is done",
        "records",
        "if process.slot == TASK and process.state is State.RUNNING and code == 0:\n",
        "if process.slot == TASK and code == 0:\n",
    ),
    Bug(
        "an init task is run again if it fails",
        "records",
        '        who = f"--before {self.policy.before}" if process.slot == TASK else f"a {process.role} ended"\n',
        '        if process.slot == TASK:\n            return\n        who = f"a {process.role} ended"\n',
    ),
    Bug(
        "no deadline: RUNNING",
        "records",
        "task.enter(State.RUNNING, task.deadline)",
        "task.enter(State.RUNNING, None)",
    ),
    # ── spares ──────────────────────────────────────────────────────────────────────────────────
    Bug(
        "spare kept past the commit",
        "staffing",
        "(draining or generation is not self.current):\n",
        "draining:\n",
    ),
    Bug(
        "spare kept at a stop",
        "staffing",
        "(draining or generation is not self.current):\n",
        "generation is not self.current:\n",
    ),
    Bug(
        "a spare counted as a worker",
        "generation",
        "        return (slot for slot in range(target) if",
        "        return (slot for slot in range(target - (self.spare is not None)) if",
    ),
    Bug(
        "a spare is let go without a slot",
        "records",
        "                if process.slot == SPARE:\n",
        "                if process.slot == SPARE and process.mute:\n",
    ),
    Bug(
        "a spare is parked before the commit",
        "staffing",
        "        if generation is self.current and generation.wants_spare:\n",
        "        if generation.spare is None:\n",
    ),
    Bug(
        "a spare that closed its channel is given a slot",
        "generation",
        " and self.spare.state is State.PARKED and not self.spare.mute\n",
        " and self.spare.state is State.PARKED\n",
    ),
    Bug(
        "a spare is given a slot before its hello",
        "generation",
        " and self.spare.state is State.PARKED and not self.spare.mute\n",
        " and self.spare.state in (State.PARKED, State.ORDERED) and not self.spare.mute\n",
    ),
    Bug(
        "a spare that died is never replaced",
        "generation",
        "        return self.spare is None or self.spare.state is State.STUCK\n",
        "        return self.spare is None and not self.backoff(SPARE).failures\n",
    ),
    Bug(
        "the next spare waits for the next event",
        "staffing",
        "        yield from generation.missing(",
        "        if generation is self.current and generation.wants_spare:\n"
        "            yield SPARE\n"
        "        yield from generation.missing(",
    ),
    Bug(
        "the death of a spare is not paced",
        "records",
        "            self._pace(process, now)  # nobody misses it: not a reason to reject or roll back\n",
        "",
    ),
    Bug(
        "a spare's death rejects a reload",
        "records",
        "            self._pace(process, now)  # nobody misses it: not a reason to reject or roll back\n",
        "            self._pace(process, now)\n"
        "            if self.candidate:\n"
        '                self._drain(generation.staying()[:1], "rejected", now)\n',
    ),
    Bug(
        "no deadline: DRAINING spare",
        "staffing",
        "spare.enter(State.DRAINING, now + GRACE)",
        "spare.enter(State.DRAINING, None)",
    ),
    Bug(
        "no deadline: PARKED with a closed channel",
        "records",
        "if process.state in (State.PREPARING, State.WARM, State.READY, State.PARKED):",
        "if process.state in (State.PREPARING, State.WARM, State.READY):",
    ),
    Bug(
        "no deadline: a spare that was given a slot",
        "staffing",
        "spare.enter(State.BOOTING, now + self.policy.boot_timeout)",
        "spare.enter(State.BOOTING, None)",
    ),
    # ── stalls ──────────────────────────────────────────────────────────────────────────────────
    Bug(
        "no deadline: DUMPING",
        "overdue",
        "process.enter(State.DUMPING, now + DUMP)",
        "process.enter(State.DUMPING, None)",
    ),
    Bug(
        "no deadline: SERVING with a heartbeat",
        "records",
        "worker.enter(State.SERVING, now + policy.stall_timeout / 2 if beats else None)",
        "worker.enter(State.SERVING, None)",
    ),
    Bug(
        "a stalled worker is never killed",
        "overdue",
        "            case State.SERVING if process.watch.misses < MISSES:\n",
        "            case State.SERVING if process.watch.misses < 1000:\n",
    ),
    Bug(
        "a worker that beats is killed",
        "records",
        "watch.misses + 1 if value == watch.beat else 0",
        "watch.misses + 1 if value == watch.beat else watch.misses",
    ),
    Bug(
        "a worker stalls at the first look",
        "records",
        "MISSES = 2 ",
        "MISSES = 1 ",
    ),
    Bug(
        "a stalled worker is killed before its stacks are taken",
        "overdue",
        "                self._take_stacks(process)\n                self._kill(process, now)\n",
        "                self._kill(process, now)\n",
    ),
    Bug(
        "stacks that were asked for are never taken",
        "upkeep",
        "            records._take_stacks(process)\n",
        "            process.watch.stacks_at = None\n",
    ),
    Bug(
        "no deadline: stacks that were asked for",
        "generation",
        "        return (self.measure_at, self.too_old_at, self.stacks_at)\n",
        "        return (self.measure_at, self.too_old_at)\n",
    ),
    # ── memory ──────────────────────────────────────────────────────────────────────────────────
    Bug(
        "no deadline: figures of memory",
        "machine",
        "times += [self.announce_by, self.weigh_by, self.stop.deadline if self.stop else None]",
        "times += [self.announce_by, self.stop.deadline if self.stop else None]",
    ),
    Bug(
        "a reload does not wait for the figures",
        "machine",
        "        return self.weight is not None or now >= self.weigh_by\n",
        "        return True\n",
    ),
    Bug(
        "the figures of the last reload count again",
        "machine",
        "        self.weigh_by = self.weight = None\n",
        "        self.weigh_by = None\n",
    ),
    Bug(
        "what does not fit is started",
        "machine",
        "        if refusal:\n",
        "        if refusal and self.stop:\n",
    ),
    Bug(
        "a rolling reload is weighed as a full one",
        "weighing",
        "    return wanted if max_surge == AS_MANY_AS_WORKERS else min(max_surge, wanted)\n",
        "    return wanted\n",
    ),
    # ── recycling ───────────────────────────────────────────────────────────────────────────────
    Bug(
        "recycle retires before the successor is up",
        "staffing",
        'self._drain(first or self.current.outlived(), "recycle", now)',
        'self._drain([w for w in self.current.staying() if w.recycle_for], "recycle", now)',
    ),
    Bug(
        "two recycled at once",
        "upkeep",
        "    if not is_calm or any(w.recycle_for and w.state is not State.STUCK for w in current.workers.values()):\n",
        "    if not is_calm:\n",
    ),
    Bug(
        "the successor goes with the old one",
        "generation",
        "        return [w for w in self.staying() if w.recycle_for and (w.slot in up or w.slot in self.done)]\n",
        "        return [w for w in self.staying() if w.slot in up and any(o.recycle_for and o.slot == w.slot "
        "for o in self.workers.values())]\n",
    ),
    Bug(
        "a worker is recycled that cannot be replaced",
        "upkeep",
        " and current.phase is Phase.COMMITTED and current.can_spawn\n",
        " and current.phase is Phase.COMMITTED\n",
    ),
    Bug(
        "the old are never recycled",
        "upkeep",
        "    if watch.too_old_at is not None and watch.too_old_at <= now:\n",
        "    if watch.too_old_at is not None and watch.too_old_at <= 0:\n",
    ),
    # ── the app's health checks ─────────────────────────────────────────────────────────────────
    Bug(
        "checks stay with a worker that is told to go",
        "checking",
        "if w.state is State.SERVING and w.pid",
        "if w.state in (State.SERVING, State.DRAINING) and w.pid",
    ),
    Bug(
        "checks stay in a higher slot",
        "checking",
        "    if (chosen.ticket if chosen else 0) != checking.duty:\n",
        "    if checking.duty not in tickets and (chosen.ticket if chosen else 0) != checking.duty:\n",
    ),
    Bug(
        "a silent worker is waited for without end",
        "checking",
        "        checking.silent |= tickets & {checking.duty}\n",
        "",
    ),
    Bug(
        "what no worker can renew is known for ever",
        "checking",
        "    if due is not None and now >= due:\n",
        "    if due is not None and now >= due and tickets:\n",
    ),
    Bug(
        "no deadline: checks that nobody runs",
        "checking",
        "checking.duty or (checking.results and records.stop is None)",
        "checking.duty",
    ),
    Bug("no deadline: checks", "machine", "        times.append(checking.deadline(self))\n", ""),
    # ── files of templates ──────────────────────────────────────────────────────────────────────
    Bug(
        "a kept generation starts on the files of a rejected one",
        "staffing",
        "in () if restoring.is_under_way(self) else self._respawning():",
        "in self._respawning():",
    ),
    Bug(
        "a reload does not wait for the former files",
        "machine",
        "self._is_reloading() or restoring.is_under_way(self):",
        "self._is_reloading():",
    ),
    Bug("the former files are not put back at once", "machine", "        restoring.tend(self, now)", "        #"),
    Bug(
        "what a killed zygote moved is forgotten",
        "records",
        "        restoring.ended(process, code)\n",
        "",
    ),
    Bug("no deadline: an errand", "machine", "        times.append(restoring.deadline(self))\n", ""),
)

BUGS = OF_THE_DESIGN + MORE
