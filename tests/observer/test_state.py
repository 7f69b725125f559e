"""A snapshot on its way from the supervisor's records to the observer's values."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import protocol
from launcher.handoff import Handoff, Listener, decode
from launcher.logs.formats import Record
from launcher.observer import state
from launcher.observer.state import Death, Reload, Slot, State
from launcher.signals import Ask
from launcher.supervisor import events as on
from launcher.supervisor import introspection as pushing
from launcher.supervisor import status
from launcher.supervisor.history import DEATHS, KEPT, LONGEST_DETAIL, History
from launcher.supervisor.introspection import AT_MOST_EVERY, Introspection, about
from launcher.supervisor.loop import Clock
from tests.supervisor.world import World


class FakeObserver:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lives = 1
        self.takes_more = True
        self.told: list[protocol.Message] = []

    def tell(self, data: bytes) -> None:
        """Take one message."""
        assert len(data) < protocol.LARGEST
        self.told.append(protocol.decode(data))

    def take(self, verb: str) -> list[protocol.Message]:
        """Return what was told with this verb since the last time."""
        taken = [message for message in self.told if message.verb == verb]
        self.told = [message for message in self.told if message.verb != verb]
        return taken

    def state(self) -> State:
        """Return what a real one would know now."""
        messages = self.take("state")
        assert [message.flag("last") for message in messages] == [*[False] * (len(messages) - 1), True]
        return state.read([row for message in messages for row in message.texts("row")])


class Scene:
    """A machine in its world, and what introspection makes of it."""

    def __init__(self, **policy: Any) -> None:
        self.world = World(**policy)
        self.observer = FakeObserver()
        self.clock = Clock()
        self.listeners: tuple[Listener, ...] = ()
        self.places: tuple[int, ...] = ()
        observer: Any = self.observer
        self.subject = Introspection(
            self.world.machine,
            observer,
            self.clock,
            History(),
            protocol.encode("about"),
            listeners=lambda: self.listeners,
            places=lambda: self.places,
        )

    def tend(self, after: float = 1.0) -> None:
        """Let time pass, and a turn of the loop end."""
        self.world.now += after
        self.subject.tend(self.world.now)

    def log(self, event: str, at: float = 1000.0, **fields: Any) -> None:
        """Have the supervisor say a line."""
        self.subject.hear(Record(at, "info", event, tuple(fields.items())))


def test_a_snapshot_arrives_as_it_was() -> None:
    """Workers, generations, and since when on the clock that the observer has too."""
    scene = Scene(workers=3)
    scene.world.catch_up()
    scene.clock.skew = 100.0
    scene.tend()
    told = scene.observer.state()

    assert (told.is_ready, told.is_committed, told.is_draining, told.current, told.wanted) == (True, True, False, 1, 3)
    assert told.sentence == status.sentence(scene.world.machine)
    assert [(w.slot, w.state, w.generation) for w in told.workers] == [(slot, "serving", 1) for slot in range(3)]
    records = scene.world.machine.current
    assert records is not None
    assert [w.pid for w in told.workers] == [w.pid for w in sorted(records.workers.values(), key=lambda w: w.slot)]
    (generation,) = told.generations
    assert (generation.number, generation.phase, generation.origin) == (1, "committed", "start")
    assert generation.since == pytest.approx(records.since + 100.0)
    started = {w.slot: w.started + 100.0 for w in records.workers.values()}
    assert {w.slot: w.since for w in told.workers} == pytest.approx(started)


def test_nothing_is_pushed_when_nothing_changed() -> None:
    """And nothing is due: an idle supervisor has nothing to do."""
    scene = Scene()
    scene.world.catch_up()
    scene.tend()
    assert scene.observer.take("state")
    for _ in range(5):
        scene.tend()

    assert scene.observer.told == [] or [m.verb for m in scene.observer.told] == ["about"]
    assert scene.observer.take("state") == []
    assert scene.subject.deadline() is None


def test_what_changes_often_is_pushed_now_and_then() -> None:
    """The first change at once; what follows within the interval is put together, and none is forgotten."""
    scene = Scene()
    scene.world.catch_up()
    scene.tend()
    scene.observer.take("state")
    for number in range(10):
        scene.log("ended worker", slot=0, how=f"exit {number}")
        scene.tend(after=AT_MOST_EVERY / 20)
    assert scene.observer.take("state") == []
    due = scene.subject.deadline()
    assert due is not None
    scene.world.now = due
    scene.tend(after=0.0)

    assert scene.observer.state().slots[0].last_exit == "exit 9"


def test_readiness_is_told_at_once() -> None:
    """A load balancer is not to wait for the interval."""
    scene = Scene()
    scene.tend()
    assert not scene.observer.state().is_ready
    scene.world.catch_up()
    scene.subject.tend(scene.world.now)
    assert scene.observer.state().is_ready
    scene.tend(after=0.0)
    scene.world.ask(Ask.STOP)
    scene.tend(after=0.0)

    assert scene.observer.state().is_draining


def test_a_new_observer_is_told_everything() -> None:
    """Though nothing changed."""
    scene = Scene()
    scene.world.catch_up()
    scene.tend()
    first = scene.observer.state()
    scene.observer.take("about")
    scene.observer.lives += 1
    scene.tend(after=0.0)

    assert len(scene.observer.take("about")) == 1
    assert scene.observer.state() == first


def test_an_observer_whose_channel_is_full_gets_the_latest_when_it_takes_more() -> None:
    """Snapshots do not pile up."""
    scene = Scene()
    scene.world.catch_up()
    scene.observer.takes_more = False
    for _ in range(5):
        scene.tend()
    assert (scene.observer.told, scene.subject.deadline()) == ([], None)
    scene.observer.takes_more = True
    scene.tend(after=0.0)

    assert scene.observer.state().is_ready


def test_thousands_of_workers_take_several_messages() -> None:
    """None is larger than a datagram may be."""
    scene = Scene()
    for slot in range(4000):
        scene.log("ended worker", slot=slot, how="exit 1")
    scene.tend()

    assert len(scene.observer.state().slots) == 4000


def test_history_is_learnt_from_what_is_said() -> None:
    """Restarts and ends by slot, deaths by reason, reloads with origin, reason and duration, sockets."""
    scene = Scene()
    scene.log("listening", name="web", address="127.0.0.1:80")
    scene.log("preparing", at=10.0, generation=1, origin="start")
    scene.log("committed", at=12.5, generation=1)
    scene.log("preparing", at=20.0, generation=2, origin="SIGHUP")
    scene.log("rejected", at=21.0, generation=2, reason="it\nfails")
    scene.log("lost worker", at=30.0, slot=1, generation=1, how="SIGKILL (out of memory)", cpu="1.25s")
    scene.log("lost worker", at=31.0, slot=1, generation=1, how="SIGSEGV (core dumped)", cpu="0.50s")
    scene.log("stalled", at=31.5, slot=0, generation=1)
    scene.log("ended worker", at=32.0, slot=0, generation=1, how="SIGKILL")
    scene.log("gave up", generation=2, reason="the import did not end")
    scene.log("lost zygote", generation=1, how="exit 1")
    scene.tend()
    told = scene.observer.state()

    assert told.reloads == (
        Reload(1, "committed", "", "start", 12.5, 2.5),
        Reload(2, "rejected", "it\nfails", "SIGHUP", 21.0, 1.0),
    )
    assert dict(told.reloads_by_result) == {"committed": 1, "rejected": 1}
    assert dict(told.deaths_by_reason) == {"out of memory": 1, "SIGSEGV": 1, "stalled": 1}
    assert told.deaths == (
        Death(1, 1, "SIGKILL (out of memory)", 30.0),
        Death(1, 1, "SIGSEGV (core dumped)", 31.0),
        Death(0, 1, "stalled", 31.5),
    )
    assert told.slots == (Slot(0, 1, "SIGKILL", 32.0), Slot(1, 2, "SIGSEGV (core dumped)", 31.0, 1.75))
    assert [(each.name, each.address, each.backlog) for each in told.listeners] == [("web", "127.0.0.1:80", -1)]


def test_history_is_bounded() -> None:
    """The last twenty reloads and fifty deaths, and the sum of all."""
    history = History()
    for number in range(1, 101):
        history.hear(Record(1.0, "info", "preparing", (("generation", number), ("origin", "SIGHUP"))))
        history.hear(Record(2.0, "info", "rejected", (("generation", number), ("reason", "x"))))
        history.hear(Record(2.0, "error", "stalled", (("slot", number), ("generation", 1))))

    assert [each.generation for each in history.reloads] == list(range(101 - KEPT, 101))
    assert history.results == {"rejected": 100}
    assert [each.slot for each in history.last_deaths] == list(range(101 - DEATHS, 101))
    assert history.deaths == {"stalled": 100}
    assert len(history._began) <= KEPT


def test_a_rolling_reload_has_one_result() -> None:
    """Not also the commit of its first workers: the last one, good or bad."""
    scene = Scene()
    scene.log("committed", generation=1)
    scene.log("committed", generation=2, workers="1/3", rolling="yes")
    scene.log("rolled out", generation=2, workers="3/3")
    scene.log("committed", generation=3, workers="1/3", rolling="yes")
    scene.log("rolled-back", generation=3, kept=2, reason="a worker ended")
    scene.tend()
    told = scene.observer.state()

    assert [(each.generation, each.result) for each in told.reloads] == [
        (1, "committed"),
        (2, "committed"),
        (3, "rolled-back"),
    ]
    assert dict(told.reloads_by_result) == {"committed": 2, "rolled-back": 1}


def test_history_keeps_the_last_that_was_committed() -> None:
    """However many were rejected since: it tells for how long what serves has been there."""
    history = History()
    history.hear(Record(1.0, "info", "committed", (("generation", 1),)))
    history.hear(Record(2.0, "info", "committed", (("generation", 2),)))
    for number in range(3, 100):
        history.hear(Record(3.0, "info", "rejected", (("generation", number), ("reason", "x"))))

    assert len(history.reloads) == KEPT
    assert [each.generation for each in history.reloads][:2] == [2, 101 - KEPT]


def test_tracebacks_of_the_last_failures_are_kept() -> None:
    """Of three reloads, each cut in its middle: the supervisor has to hold them, and the log has them all."""
    scene = Scene()
    for number in range(1, 6):
        detail = f"Traceback {number}\n" + "x" * 500_000 + f"\nValueError: {number}"
        scene.subject.hear(Record(2.0, "error", "rejected", (("generation", number), ("reason", "x")), detail))
    scene.log("committed", generation=6)
    scene.tend()
    details = [each.detail for each in scene.observer.state().reloads]

    assert [detail[:11] for detail in details] == ["", "", *(f"Traceback {number}" for number in (3, 4, 5)), ""]
    assert details[4].endswith("\nValueError: 5")
    assert max(map(len, details)) < LONGEST_DETAIL + 100


def test_a_long_reason_is_cut() -> None:
    """It would not fit."""
    scene = Scene()
    scene.log("rejected", generation=2, reason="x" * 500_000)
    scene.tend()

    assert len(scene.observer.state().reloads[0].reason) == status.LONGEST


def test_stacks_go_to_who_asked_and_once() -> None:
    """What an operator asked for by another way is not sent."""
    scene = Scene()
    scene.log("stacks", slot=0, generation=1, pid=7)
    assert scene.observer.take("stacks") == []
    assert scene.subject.answer(protocol.decode(protocol.encode("stacks", slot=0))) == [on.StacksAsked(0)]
    scene.log("stacks", slot=1, generation=1, pid=8)
    scene.log("no stacks", slot=0, generation=1, pid=7, process="stopped by a signal")
    scene.log("stacks", slot=0, generation=1, pid=7)
    (message,) = scene.observer.take("stacks")

    assert (message.number("slot"), message.text("process")) == (0, "stopped by a signal")


def test_what_never_changes_crosses_the_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings with their origin, whatever is in them; and none of them can make the message too large."""
    settings = (("bind", "a=1\tb\n\\", "flag --bind"), ("template", "x" * 300_000, "environment PROD_RUN_TEMPLATE"))
    values: dict[str, Any] = {
        name: {"str": "", "int": 0, "float": 0.0}.get(kind.partition(" ")[0], ())
        for name, kind in Handoff.__annotations__.items()
        if name not in Handoff._field_defaults
    }
    introspect = (Listener("introspect", "unix:/a b", 7, "/a b", 1, 2),)
    handoff = Handoff(**values)._replace(settings=settings, introspect=introspect, introspect_token_file="/t")  # noqa: S106
    crossed = decode(handoff.encode())
    message = protocol.decode(about(crossed, time.monotonic()))

    assert (crossed.settings, crossed.introspect) == (settings, introspect)
    assert message.texts("setting_values")[0] == settings[0][1]
    assert len(message.texts("setting_values")[1]) < 2 * pushing.LONGEST_VALUE
    assert message.text("token_file") == "/t"


def test_a_socket_that_does_not_tell_its_queue_is_not_guessed_at() -> None:
    """A unix socket has no TCP_INFO."""
    import socket

    scene = Scene()
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
        scene.listeners = (
            Listener("u", "unix:x", unix.fileno()),
            Listener("t", "127.0.0.1:1", tcp.fileno()),
        )
        clients = [socket.create_connection(tcp.getsockname()) for _ in range(2)]
        scene.subject.answer(protocol.decode(protocol.encode("ask")))
        for client in clients:
            client.close()
    (message,) = scene.observer.take("alive")

    assert message.texts("backlog") == ("u=-1", "t=2")


def test_the_fake_has_what_the_real_one_has() -> None:
    """Else these tests prove nothing."""
    from launcher.supervisor.observer import Observer

    fake = SimpleNamespace(**vars(FakeObserver()))

    assert {name for name in vars(fake) if name != "told"} <= {*Observer.__slots__, *vars(Observer)}
    assert hasattr(Observer, "tell")


def test_who_lives_arrives_and_fits_however_many_they_are() -> None:
    """The places of workers, told again only when they change."""
    scene = Scene(workers=1)
    scene.places = (0, 3)
    scene.tend()
    assert scene.observer.state().living == ("w0", "w3")
    scene.tend()
    assert scene.observer.take("state") == []
    scene.places = tuple(range(16_000))
    scene.tend()

    assert scene.observer.state().living == tuple(f"w{place}" for place in range(16_000))
