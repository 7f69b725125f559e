"""The bugs that are planted: patches of the shipped source."""

from __future__ import annotations

from typing import NamedTuple


class Bug(NamedTuple):
    """One patch: in which module, what stands there, what is put in its place."""

    name: str
    module: str
    old: str
    new: str


BUGS = (
    # ── DESIGN §4 ───────────────────────────────────────────────────────────────────────────────
    Bug(
        "retire on fork",
        "machine",
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
        "records",
        '                self._log("error", "unkillable: survived SIGKILL" if process.pid else "missing", '
        "**identity(process))\n",
        "                self._kill(process, now)\n"
        '                self._log("error", "unkillable: survived SIGKILL" if process.pid else "missing", '
        "**identity(process))\n",
    ),
    Bug(
        "pending forks forgotten when the zygote dies",
        "records",
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
        "        process = self.processes.by_pid.get(pid)\n",
        "        process = self.processes.by_pid.get(pid) or next(iter(self.processes.by_pid.values()), None)\n",
    ),
    Bug(
        "an exit that precedes its announcement lost",
        "records",
        "        self.processes.bury(pid, code)\n",
        "",
    ),
    Bug(
        "a reload not pre-empted by stop",
        "machine",
        "        if self.candidate:\n            self._reject(Failure(",
        "        if self.candidate and self.stop.immediate:\n            self._reject(Failure(",
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
        '        self.reload_asked = ""\n',
        '        self.reload_asked = self.reload_asked[6:] if self.numbers > 1 else ""\n',
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
    # ── each deadline dropped ───────────────────────────────────────────────────────────────────
    Bug(
        "no deadline: PREPARING",
        "machine",
        "        self._order(do.StartZygote(generation.zygote.ticket, generation.number))\n",
        "        self._order(do.StartZygote(generation.zygote.ticket, generation.number))\n"
        "        generation.zygote.deadline = None\n",
    ),
    Bug(
        "no deadline: ORDERED",
        "machine",
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
        "machine",
        "worker.enter(State.DRAINING, now + limit)",
        "worker.enter(State.DRAINING, None)",
    ),
    Bug(
        "no deadline: DRAINING zygote",
        "machine",
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
        "times += [self.announce_by, self.stop.deadline if self.stop else None]",
        "times += [self.stop.deadline if self.stop else None]",
    ),
    Bug(
        "no deadline: drain delay",
        "machine",
        "times += [self.announce_by, self.stop.deadline if self.stop else None]",
        "times += [self.announce_by]",
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
        "machine",
        "return [g for g in (filling, self.current, self.fallback) if g]",
        "return [g for g in (filling, self.current, self.fallback, *self.others) if g]",
    ),
    Bug(
        "a rolled-back generation goes before the old is back",
        "machine",
        "                former += generation.staying()\n",
        "                former += generation.staying()\n"
        "                if self.current and generation.number > self.current.number:\n"
        '                    self._drain(generation.staying(), "reload", now)\n',
    ),
    Bug(
        "singletons start before the old ones ended",
        "machine",
        "            return False  # singletons: two generations never run at once\n",
        "            return True\n",
    ),
    Bug(
        "max-surge counts only the ready",
        "machine",
        "return sum(g.present() for g in self.generations()) < self.wanted + self.policy.max_surge",
        "return sum(g.up() for g in self.generations()) < self.wanted + self.policy.max_surge",
    ),
    Bug(
        "the drain limit never kills",
        "records",
        "                self._kill(process, now)\n            case State.KILLED:",
        "                process.enter(State.DRAINING, now + GRACE)\n            case State.KILLED:",
    ),
    Bug(
        "the drain limit kills too early",
        "machine",
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
        "machine",
        "                if generation.backoff(slot).until > now:\n",
        "                if generation.backoff(slot).until > now + 60:\n",
    ),
    Bug(
        "back-off never forgotten",
        "machine",
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
        "machine",
        "        if self.stop and self.stop.stage is not Stage.DELAY:\n            return\n        for generation in self._resp",
        "        if self.stop and self.stop.stage is Stage.OVER:\n            return\n        for generation in self._resp",
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
        "if process.state is State.ORDERED and self.processes.knows(process.ticket):",
        "if process.state is State.ORDERED:",
    ),
    Bug(
        "a lost order costs the next zygote",
        "records",
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
        "machine",
        "        if generation.lacks_zygote:\n            return [ZYGOTE]\n",
        "        if generation.lacks_zygote:\n            return []\n",
    ),
    Bug(
        "zygotes are never ended",
        "machine",
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
        "machine",
        "        former.sort(key=lambda worker: not worker.is_up)\n",
        "",
    ),
    Bug(
        "orphans are not swept",
        "machine",
        "            self._order(do.SweepOrphans(signal.SIGKILL if stop.immediate else signal.SIGTERM))\n",
        "            stop.orphans_left = 0\n",
    ),
    Bug(
        "leftovers are not killed",
        "records",
        "            self._order(do.SignalGroup(pgid, signal.SIGKILL))\n",
        "",
    ),
)
