"""A scrape, from the question to the text, and who does not wait for it."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from launcher.logs import counters
from launcher.logs.counters import Counters
from launcher.metrics_directory import LOW
from launcher.observer import scrape as scraping
from launcher.observer.endpoints import About, Known, Scrape
from launcher.observer.scrape import Scraper
from launcher.observer.state import Slot, State, Worker
from launcher.observer.usage import Usage
from tests.observer.test_aggregate import Samples, key, read_openmetrics, samples, write
from tests.observer.test_introspection import Scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from launcher.observer.http import Reply

PLAIN, OPEN = Scrape("metrics", False), Scrape("metrics", True)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """An introspection port whose app keeps its metrics in `tmp_path/metrics`."""
    one = Scene(tmp_path)
    (tmp_path / "metrics").mkdir()
    one.metrics_directory = str(tmp_path / "metrics")
    one.learn()
    yield one
    one.close()


def fill(directory: Path, workers: int, series: int) -> None:
    """Write what so many workers may have."""
    values = {key("paid", "paid_total", path=f"/{n}"): (1.0, 0.0) for n in range(series)}
    for place in range(workers):
        write(directory, f"counter_w{place}.db", values)


class Subject:
    """A scraper alone, in a state that a test sets."""

    def __init__(self, directory: str = "") -> None:
        page = counters.page()
        self.counters = Counters(page)
        os.close(page)
        self.state = State()
        self.warnings: list[str] = []
        self.scraper = Scraper(directory, self.counters, self.warnings.append, self.warnings.append)

    def known(self) -> Known:
        """Return what the port knows now."""
        return Known(About(name="app"), self.state, 10.0, 1000.0, 0.0, None)

    def scrape(self, scrape: Scrape = PLAIN) -> Reply:
        """Ask, and wait for the answer."""
        answer = self.scraper.begin(scrape, self.state, self.known)
        while isinstance(answer, Scrape):
            answer = next((reply for _, reply in self.scraper.work(self.state, self.known)), scrape)
        assert answer.status == 200, self.warnings
        return answer

    def samples(self) -> Samples:
        """Ask, and read the answer."""
        return samples(self.scrape().body.decode())


def test_probes_are_answered_while_a_large_collection_is_under_way(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the loop's other work has its turn between two slices; the answer comes at last, and it is whole."""
    monkeypatch.setattr(scraping, "TURN", 0.0)
    fill(scene.folder / "metrics", 8, 300)
    client = scene.connect()
    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    scene.subject.serve()
    turns = 0
    while scene.subject.deadline() == 0.0:
        assert scene.take(client) == b""
        assert scene.ask("/livez").startswith(b"HTTP/1.1 200 ")
        scene.subject.expire(0.0)
        turns += 1
    answer = scene.take(client)

    assert turns > 20
    assert samples(answer.partition(b"\r\n\r\n")[2].decode())["paid_total", (("path", "/299"),)] == 8.0


def test_two_who_ask_at_once_share_one_collection(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same form, that is; the other form is collected after it, and each gets what was asked for."""
    monkeypatch.setattr(scraping, "TURN", 0.0)
    fill(scene.folder / "metrics", 3, 200)
    begun: list[bool] = []
    collect = scraping.Aggregate.collect

    def count(aggregate: Any, *, openmetrics: bool) -> Any:
        begun.append(openmetrics)
        return collect(aggregate, openmetrics=openmetrics)

    monkeypatch.setattr(scraping.Aggregate, "collect", count)
    clients = [scene.connect() for _ in range(3)]
    for client, accept in zip(clients, ("*/*", "application/openmetrics-text", "*/*"), strict=True):
        client.sendall(f"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode())
        scene.subject.serve()
    while scene.subject.deadline() == 0.0:
        scene.subject.expire(0.0)
    first, opened, third = (scene.take(client).partition(b"\r\n\r\n")[2].decode() for client in clients)

    assert begun == [False, True]
    assert first == third
    assert opened.endswith("# EOF\n")
    assert read_openmetrics(opened.removesuffix("# EOF\n"))["paid_total", (("path", "/7"),)] == 3.0


def test_stacks_of_a_slot_are_never_taken_for_metrics() -> None:
    """The port compares whom an answer is awaited from, and values with equal fields are equal."""
    from launcher.observer.endpoints import Later

    assert {Later(0), Later(1)}.isdisjoint({PLAIN, OPEN})


def test_a_fault_in_a_collection_costs_that_answer_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """500, one line for us, and the next scrape is answered."""
    monkeypatch.setattr(scraping, "TURN", float("inf"))
    fill(scene.folder / "metrics", 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(scraping.metrics, "render", lambda *_, **__: {}["nothing"])
        broken = scene.ask("/metrics")
    good = scene.ask("/metrics")

    assert broken.startswith(b"HTTP/1.1 500 ")
    assert scene.complaints == ["cannot collect metrics: KeyError: 'nothing'"]
    assert good.startswith(b"HTTP/1.1 200 ")
    assert b'\npaid_total{path="/0"} 1.0\n' in good


def test_cpu_time_of_a_slot_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a crash, a reload, a PID that is given again, and the moment in which a death is not told yet."""
    subject = Subject()
    used: dict[int, float] = {}
    monkeypatch.setattr(scraping.usage, "of", lambda pid: Usage(7, used[pid], 0.25) if pid in used else None)

    def total(workers: dict[int, float], *, gone: float) -> float:
        used.clear()
        used.update(workers)
        living = tuple(Worker(0, 1, pid, "serving", float(pid)) for pid in workers)
        subject.state = State(wanted=1, workers=living, slots=(Slot(0, 1, "exit 1", 1.0, gone),))
        return subject.samples()["prod_run_worker_cpu_seconds_total", (("slot", "0"),)]

    assert total({11: 5.0}, gone=0.0) == 5.25
    assert total({}, gone=0.0) == 5.25  # it has just been reaped
    assert total({}, gone=6.0) == 6.0
    assert total({12: 0.5}, gone=6.0) == 6.75
    assert total({12: 1.0, 13: 0.25}, gone=6.0) == 7.75  # a reload
    assert total({13: 0.25}, gone=6.0) == 7.75
    assert total({13: 0.5}, gone=7.5) == 8.25
    subject = Subject()  # another observer
    assert total({13: 0.5}, gone=7.5) == 8.25


def test_gauges_count_while_their_place_is_taken(tmp_path: Path) -> None:
    """As the supervisor says; counters stay, and so do gauges of the modes that outlive a process."""
    for kind in ("counter", "gauge_livesum", "gauge_all", "gauge_max"):
        for place in range(2):
            name = f"{kind}_total" if kind == "counter" else kind
            write(tmp_path, f"{kind}_w{place}.db", {key(kind, name): (place + 1.0, 0.0)})
    subject = Subject(str(tmp_path))

    def own() -> Samples:
        return {one: value for one, value in subject.samples().items() if not one[0].startswith("prod_run_")}

    lasting = {("counter_total", ()): 3.0, ("gauge_max", ()): 2.0}
    assert own() == lasting
    subject.state = State(living=("w1",))
    assert own() == lasting | {("gauge_livesum", ()): 2.0, ("gauge_all", (("pid", "w1"),)): 2.0}
    subject.state = State(living=("w0", "w1"))
    assert own()["gauge_livesum", ()] == 3.0


def test_want_of_room_is_said_once_until_there_was_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at each scrape, and not again and again around the limit."""
    subject = Subject(str(tmp_path))
    room = SimpleNamespace(f_blocks=9, f_bavail=0, f_frsize=1)
    monkeypatch.setattr("launcher.metrics_directory.os.statvfs", lambda _: room)
    said = []
    for free in (LOW, LOW - 1, 0, LOW + 1, LOW - 1, 2 * LOW, 0):
        room.f_bavail = free
        assert subject.samples()["prod_run_metrics_free_bytes", ()] == free
        said.append(len(subject.warnings))

    assert said == [0, 1, 1, 1, 1, 1, 2]
    assert subject.warnings[1].startswith("only 0 KiB are left for the app's metrics")


def test_what_was_skipped_is_counted_over_the_observers_lives(tmp_path: Path) -> None:
    """The count is in the page that outlives an observer."""
    (tmp_path / "counter_w0.db").write_text("garbage")
    first = Subject(str(tmp_path))
    second = Subject(str(tmp_path))
    second.counters = second.scraper._counters = first.counters

    counts = [one.samples()["prod_run_metrics_files_skipped_total", ()] for one in (first, first, second)]

    assert counts == [1.0, 2.0, 3.0]


def test_without_a_directory_there_are_prod_runs_own(tmp_path: Path) -> None:
    """An app that has one of its own, or none."""
    found = Subject().samples()

    assert found["prod_run_metrics_files", ()] == 0
    assert ("prod_run_metrics_free_bytes", ()) not in found
    assert all(name.startswith("prod_run_") for name, _ in found)


@pytest.mark.parametrize("kind", ["gauge_livemin", "gauge_min", "gauge_livemostrecent", "gauge_all", "gauge_max"])
def test_gauges_that_an_importing_process_never_set_are_left_out(kind: str, tmp_path: Path) -> None:
    """A zygote has every gauge at 0, which is not what any worker said; also when it is gone."""
    write(tmp_path, "gauge_livemin_w9.db", {key("other"): (0.0, 0.0)})
    write(tmp_path, f"{kind}_w0.db", {key("g"): (-5.0 if kind == "gauge_max" else 5.0, 1.0)})
    write(tmp_path, f"{kind}_z1.{os.getpid()}.db", {key("g"): (0.0, 0.0), key("set"): (3.0, 2.0)})
    write(tmp_path, f"{kind}_z2.{2**22 + 1}.db", {key("g"): (0.0, 0.0)})
    subject = Subject(str(tmp_path))
    subject.state = State(living=("w0", "w9"))
    found = subject.samples()

    assert {value for (name, _), value in found.items() if name == "g"} == {-5.0 if kind == "gauge_max" else 5.0}
    assert {value for (name, _), value in found.items() if name == "set"} == {3.0}
    assert found["other", ()] == 0.0
