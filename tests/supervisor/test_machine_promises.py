"""Whatever happens, in whatever order, the machine keeps its promises to the world."""

from __future__ import annotations

import signal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from launcher.handoff import AS_MANY_AS_WORKERS
from launcher.signals import Ask
from launcher.supervisor import events as on
from launcher.supervisor.policy import Policy
from tests.supervisor.pretend_kernel import DEATHS, TASK, Proc
from tests.supervisor.promises import promise
from tests.supervisor.world import World

EXAMPLES = 120
STEPS = 50

POLICIES = st.builds(
    Policy,
    workers=st.integers(1, 4),
    max_surge=st.sampled_from([AS_MANY_AS_WORKERS, AS_MANY_AS_WORKERS, 0, 1, 2]),
    preload=st.sampled_from(["auto", "auto", "always", "never"]),
    restart=st.sampled_from(["always", "always", "on-failure", "never"]),
    boot_timeout=st.just(60.0),
    drain_delay=st.sampled_from([0.0, 2.0]),
    drain_timeout=st.sampled_from([25.0, 25.0, 0.0]),
    stall_timeout=st.sampled_from([0.0, 0.0, 0.0, 10.0]),
    max_rss=st.sampled_from([0, 0, 0, 1000]),
    max_age=st.sampled_from([0.0, 0.0, 0.0, 50.0]),
    before=st.sampled_from(["", "", "migrate"]),
    is_command=st.just(value=False),
    is_prepared=st.just(value=True),
    watch=st.sampled_from([False, False, True]),
    rewrites=st.just(()),
    successes=st.just(()),
    listens=st.booleans(),
)
# Of plain commands: nothing is imported, so nobody forks, dumps stacks or gives heartbeats.
COMMANDS = st.builds(
    lambda policy, is_prepared, rewrites: policy._replace(
        preload="never",
        stall_timeout=0.0,
        before="",
        is_command=True,
        is_prepared=is_prepared,
        rewrites=rewrites,
        successes=(3,),
    ),
    POLICIES,
    st.booleans(),
    st.sampled_from([(), ((15, 3), (1, 0))]),
)
ANY = st.integers(0, 63)
CODES = st.sampled_from([1, 0, -9, -11])
running = precondition(lambda self: not self.world.has_exited)


class Supervision(RuleBasedStateMachine):
    """A supervisor in a world that is as unkind as the real one."""

    @initialize(
        policy=st.one_of(POLICIES, POLICIES, COMMANDS),
        boots=st.sampled_from([True, True, True, False]),
        has_checks=st.booleans(),
        has_file=st.booleans(),
    )
    def start(self, policy: Policy, *, boots: bool, has_checks: bool = False, has_file: bool = False) -> None:
        """Start prod-run; mostly the first generation comes up, so that runs get further."""
        self.world = World(policy)
        self.world.kernel.has_checks, self.world.kernel.has_file = has_checks, has_file
        if boots:
            self.world.catch_up()

    def _one(self, index: int, *, workers: bool | None = None) -> Proc | None:
        kernel = self.world.kernel
        living = [p for p in kernel.procs.values() if p.alive and workers in (None, not p.is_zygote)]
        return living[-1 - index % len(living)] if living else None

    # ── what arrives ────────────────────────────────────────────────────────────────────────────

    @running
    @rule(lane=ANY)
    def one_event_arrives(self, lane: int) -> None:
        """Let one source be heard."""
        self.world.deliver(lane)

    @running
    @rule(lanes=st.lists(ANY, min_size=2, max_size=5))
    def several_events_arrive_at_once(self, lanes: list[int]) -> None:
        """Let several sources be heard before the machine decides."""
        self.world.deliver(*lanes)

    @running
    @rule(seconds=st.sampled_from([0.05, 0.2, 1.0, 1.5, 5.0, 10.0, 26.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        """Let the machine wait."""
        self.world.wait(seconds)

    @running
    @rule(seconds=st.sampled_from([1.0, 6.0, 40.0]))
    def the_supervisor_oversleeps(self, seconds: float) -> None:
        """Wake the machine up after its deadlines."""
        self.world.now += seconds
        self.world.turn(on.Tick())

    @running
    @rule()
    def the_world_catches_up(self) -> None:
        """Let everybody answer, and behave."""
        self.world.catch_up()

    # ── what operators do ───────────────────────────────────────────────────────────────────────

    @running
    @rule(ask=st.sampled_from([Ask.RELOAD, Ask.RELOAD, Ask.RELOAD, Ask.MORE, Ask.FEWER, Ask.REPORT, Ask.UPGRADE]))
    def somebody_asks(self, ask: Ask) -> None:
        """Let an operator ask for anything but a stop."""
        self.world.ask(ask)

    @running
    @precondition(lambda self: self.world.machine.policy.is_command)
    @rule(number=st.sampled_from([signal.SIGHUP, signal.SIGHUP, signal.SIGCONT, signal.SIGTSTP, signal.SIGINT]))
    def a_signal_comes(self, number: int) -> None:
        """Let the supervisor of commands get one, which it is to pass on."""
        self.world.turn(on.Signalled(int(number)))

    @running
    @rule(chance=st.integers(0, 7), ask=st.sampled_from([Ask.STOP, Ask.STOP, Ask.STOP, Ask.STOP_NOW]))
    def somebody_stops_it(self, chance: int, ask: Ask) -> None:
        """Stop prod-run, but seldom, unless a reload goes on: what comes after is more interesting."""
        if chance == 0 or (chance < 4 and self.world.promises.undecided()):
            self.world.ask(ask)

    @running
    @rule(use=st.sampled_from([0, 0, 60, 90]), worker=st.sampled_from([0, 10, 10, 100]), answers=st.booleans())
    def memory_is_short(self, use: int, worker: int, *, answers: bool) -> None:
        """Change what the next reload finds, of a limit of 100; nobody may say anything."""
        self.world.kernel.weight = on.Weighed(100, use, 5, worker) if answers else None

    @running
    @rule(
        files=st.sampled_from(["v1", "v2"]),
        takes_worker=st.sampled_from([True, True, False]),
        unforkable=st.sampled_from(["", "", "thread metrics"]),
        has_checks=st.booleans(),
        has_file=st.booleans(),
    )
    def something_is_deployed(
        self, *, files: str, takes_worker: bool, unforkable: str, has_checks: bool, has_file: bool
    ) -> None:
        """Change what the next zygote finds on disk."""
        kernel = self.world.kernel
        kernel.has_checks, kernel.has_file = has_checks, has_file
        kernel.files, kernel.takes_worker, kernel.unforkable = files, takes_worker, unforkable

    # ── what processes do ───────────────────────────────────────────────────────────────────────

    @running
    @rule(index=ANY, steps=st.integers(1, 3))
    def somebody_goes_on(self, index: int, steps: int) -> None:
        """Have a process do what a good one does."""
        proc = self._one(index)
        for _ in range(steps):
            if proc:
                self.world.kernel.step(proc)

    @running
    @rule()
    def everybody_goes_on(self) -> None:
        """Have all processes do one step, and hear nobody yet."""
        for proc in list(self.world.kernel.procs.values()):
            self.world.kernel.step(proc)

    @running
    @rule(index=ANY, code=CODES)
    def a_worker_ends(self, index: int, code: int) -> None:
        """Let a worker crash or finish, at whatever point it is."""
        proc = self._one(index, workers=True)
        if proc and not proc.sleeps:
            self.world.kernel.die(proc, code)

    @running
    @rule(index=ANY, code=CODES, forks=st.integers(0, 2), how=st.sampled_from(["", "silently", "silently", "hanging"]))
    def a_zygote_ends(self, index: int, code: int, forks: int, how: str) -> None:
        """Let a zygote die half-way: some forks are done, perhaps unannounced, the others are lost."""
        zygote = self._busy_zygote() if how else self._one(index, workers=False)
        if zygote and not zygote.sleeps:
            for _ in range(min(max(forks, how == "hanging"), len(zygote.forks))):
                zygote.forks[0].sleeps = how == "hanging"
                self.world.kernel.fork(zygote, silently=bool(how))
            self.world.kernel.die(zygote, code)
            if how == "hanging":
                self.world.catch_up()

    @precondition(lambda self: not self.world.has_exited and self.world.promises.policy.before)
    @rule(code=CODES, has_begun=st.booleans())
    def an_init_task_ends(self, *, code: int, has_begun: bool) -> None:
        """Let the init task of a reload end, well or not, perhaps before it began."""
        self.world.ask(Ask.RELOAD)
        self.world.settle(lambda proc: proc.slot == TASK)
        kernel = self.world.kernel
        for task in [p for p in kernel.procs.values() if p.alive and p.slot == TASK and not p.sleeps]:
            if has_begun:
                kernel.step(task)
                self._hear_from(task.ticket)
            kernel.die(task, code)
            self._hear_from(DEATHS)

    @running
    @rule()
    def a_worker_boots_through_a_reload(self) -> None:
        """Let a worker of the old generation boot, and go on booting, while all else is reloaded."""
        zygote = self._busy_zygote()
        if zygote:
            child = zygote.forks[0]
            self.world.settle(lambda proc: proc is child)
            self.world.ask(Ask.RELOAD)
            self.world.settle(lambda proc: proc is child)

    @running
    @rule(code=CODES, hello=st.booleans())
    def an_exit_overtakes_its_announcement(self, *, code: int, hello: bool) -> None:
        """Let a worker be born, perhaps say hello, and die; its death is heard first, then the hello."""
        kernel, zygote = self.world.kernel, self._busy_zygote()
        if zygote:
            child = zygote.forks[0]
            kernel.fork(zygote)
            if hello:
                kernel.step(child)
            kernel.die(child, code)
            self._hear_from(DEATHS)
            self._hear_from(child.ticket)

    @running
    @rule()
    def a_number_comes_around(self) -> None:
        """Let an orphan die while a fork is pending, and a later worker have its PID and be heard first."""
        kernel = self.world.kernel
        orphan = kernel.adopt()
        for _ in range(2):
            if self.world.promises.wanted < 6:
                self.world.ask(Ask.MORE)
            kernel.die(orphan, 0)
            self._hear_from(DEATHS)
        for zygote in [p for p in kernel.procs.values() if p.alive and len(p.forks) == 2]:
            last = zygote.forks[-1]
            kernel.fork(zygote)
            kernel.fork(zygote)
            kernel.step(last)
            self._hear_from(last.ticket)

    def _busy_zygote(self) -> Proc | None:
        """Return a zygote that owes a fork; if there is none, let a worker die so that one is asked for."""
        kernel = self.world.kernel
        served = [p for p in kernel.procs.values() if p.alive and p.is_let and not p.sleeps]
        busy = [p for p in kernel.procs.values() if p.alive and p.forks and not p.sleeps]
        if not busy and served:
            spare = self.world.spare()
            for dead in (spare, served[0]):  # the spare first: else it takes the place
                if dead and not dead.sleeps:
                    kernel.die(dead, 1)
            self.world.deliver_all()
            busy = [p for p in kernel.procs.values() if p.alive and p.forks and not p.sleeps]
        return busy[0] if busy else None

    def _hear_from(self, lane: object) -> None:
        lanes = list(self.world.kernel.lanes)
        if lane in lanes:
            self.world.deliver(lanes.index(lane))

    @running
    @rule(index=ANY)
    def all_but_one_catch_up(self, index: int) -> None:
        """Let everybody answer and behave, but one worker that goes on booting."""
        booting = [p for p in self.world.kernel.procs.values() if p.alive and not p.is_zygote and p.step != "serving"]
        held = booting[index % len(booting)] if booting else None
        self.world.settle(lambda proc: proc is held)

    @running
    @rule(index=ANY, code=st.sampled_from([78, 71]))
    def a_zygote_refuses_or_cannot_fork(self, index: int, code: int = 78) -> None:
        """Let an import or a fork fail."""
        zygote = self._one(index, workers=False)
        if zygote and zygote.step == "importing":
            self.world.kernel.refuse(zygote, code)
        elif zygote and zygote.forks:
            self.world.kernel.fork(zygote, fails=True)

    @running
    @rule(index=ANY, trouble=st.sampled_from(["close", "deafen", "sleep", "wake", "wake", "bear", "bear deaf"]))
    def somebody_makes_trouble(self, index: int, trouble: str) -> None:
        """Let a process close its channel, ignore SIGTERM, hang in the kernel, or leave children behind."""
        proc, kernel = self._one(index), self.world.kernel
        sleeping = [p for p in kernel.procs.values() if p.sleeps]
        match trouble:
            case "wake" if sleeping:
                kernel.wake(sleeping[index % len(sleeping)])
            case "close" if proc:
                kernel.close(proc)
            case "deafen" if proc:
                proc.deaf = True
            case "sleep" if proc:
                proc.sleeps = True
            case "bear" | "bear deaf" if proc:
                kernel.bear_child(proc).deaf = trouble == "bear deaf"

    @running
    @rule(index=ANY, seconds=st.sampled_from([0.0, 0.0, 1.0, 100.0]))
    def a_process_speaks_to_its_manager(self, index: int, seconds: float) -> None:
        """Let one say that it is alive, or that it needs more time."""
        proc = self._one(index)
        if proc:
            self.world.kernel.notify(proc, seconds)

    @running
    @rule(index=ANY, rss=st.sampled_from([2000, 0]), stalls=st.booleans())
    def a_worker_grows_or_stalls(self, index: int, rss: int, *, stalls: bool) -> None:
        """Let a worker take much memory, or let its heartbeat stand still."""
        proc = self._one(index, workers=True)
        if proc:
            proc.rss, proc.stalls = rss, stalls

    @running
    @rule(index=ANY, dies=st.booleans(), sleeps=st.booleans())
    def a_generation_with_a_file_is_given_up(self, index: int, *, dies: bool, sleeps: bool) -> None:
        """Let its zygote be killed, or a worker fail; then a worker of the kept one ends, and a reload is asked for."""
        kernel, world = self.world.kernel, self.world
        kernel.has_file, kernel.weight = True, on.Weighed(0, 0, 0, 0)
        world.ask(Ask.RELOAD)
        world.settle(lambda proc: proc.slot == 0 and proc.generation == kernel.file)
        zygotes = [p for p in kernel.procs.values() if p.alive and p.is_zygote and not p.sleeps]
        mine = [p for p in zygotes if p.generation == kernel.file and p.placed >= 0]
        for zygote in mine:
            workers = [p for p in world.workers(kernel.file) if not p.sleeps]
            for helper in zygotes if sleeps and dies else ():
                helper.sleeps = helper is not zygote
            kernel.die(zygote if dies or not workers else workers[0], -9)
        if mine:
            world.deliver_all()
            if index % 2:
                world.wait(6.0)
            world.ask(Ask.RELOAD)
            world.deliver_all()

    @running
    @rule(is_good=st.booleans())
    def a_check_ends(self, *, is_good: bool) -> None:
        """Let whoever runs the app's check tell what came of it."""
        self.world.kernel.check(is_good=is_good)

    @running
    @rule(index=ANY)
    def a_target_raises(self, index: int) -> None:
        """Let a worker say why it ends."""
        proc = self._one(index, workers=True)
        if proc and not proc.sleeps:
            self.world.kernel.raise_in(proc)

    @running
    @rule(looks=st.booleans())
    def all_workers_close_their_channels(self, *, looks: bool) -> None:
        """Let an app close what it does not know, after its check was good, or before there was a result."""
        kernel = self.world.kernel
        if looks:
            kernel.check(is_good=True)
        for worker in [p for p in kernel.procs.values() if p.alive and p.is_worker]:
            kernel.close(worker)
        self.world.deliver_all()

    @running
    @rule(index=ANY, gap=st.sampled_from([0.0, 0.5, 6.0]))
    def a_spare_is_lost_with_a_worker(self, index: int, gap: float) -> None:
        """Let the spare die, and a worker soon after, so that one must be forked."""
        spare, proc = self.world.spare(), self._one(index, workers=True)
        for dead in [p for p in (spare, proc) if p and not p.sleeps]:
            self.world.kernel.die(dead, 1)
            self._hear_from(DEATHS)
            self.world.wait(gap)

    @running
    @rule(workers=st.integers(0, 5))
    def somebody_asks_for_so_many(self, workers: int) -> None:
        """Let an operator set the number of workers."""
        self.world.turn(on.ScaleAsked(workers, "operator"))

    @running
    @rule(code=CODES, deaf=st.booleans(), dies=st.booleans())
    def an_orphan_is_adopted(self, *, code: int, deaf: bool, dies: bool) -> None:
        """Give the supervisor a child that it never ordered."""
        orphan = self.world.kernel.adopt()
        orphan.deaf = deaf
        if dies or not self.world.kernel.listening:  # one that comes after the last sweep is not ours to end
            self.world.kernel.die(orphan, code)

    @running
    @rule(count=st.integers(1, 2))
    def the_next_starts_fail(self, count: int) -> None:
        """Let the kernel refuse new processes."""
        self.world.kernel.refusals = count

    @precondition(lambda self: self.world.has_exited)
    @rule(policy=POLICIES)
    def it_is_started_again(self, policy: Policy) -> None:
        """Begin anew after an exit."""
        self.start(policy, boots=True)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    def teardown(self) -> None:
        """Stop it, if nobody has."""
        if hasattr(self, "world"):
            with self.world.telling():
                self._end()

    def _end(self) -> None:
        """Told to stop, in a world that answers, it exits and leaves nobody behind."""
        world = self.world
        if world.has_exited:
            return  # in a world that did not answer
        answered = world.kernel.listening  # else the stop drains already, and nobody may have answered since
        if world.promises.stop_asked_at is None:
            how = len(world.story) % 3
            zygote = self._busy_zygote() if how else world.catch_up()
            if isinstance(zygote, Proc):
                world.kernel.fork(zygote)  # and nobody has heard of it yet
            answered |= how == 0
            world.ask(Ask.STOP_NOW if how == 2 else Ask.STOP)
        world.catch_up()
        promise(world.has_exited, "told to stop, in a world that answers, it exits")
        everybody = [p for p in (*world.kernel.procs.values(), *world.kernel.strangers) if p.alive]
        asleep = {p.pid for p in everybody if p.sleeps}  # what is in their groups is not ours yet
        left = [p for p in everybody if p.group not in asleep]
        promise(not left or not answered, "told to stop, in a world that answers, it leaves nobody behind", *left)


TestPromises = Supervision.TestCase
if settings.get_current_profile_name() == "usual":
    usual = settings.get_profile("supervisor")
    TestPromises.settings = settings(usual, max_examples=EXAMPLES, stateful_step_count=STEPS)
