"""The metrics of an app on the port of a real prod-run: what is in one scrape, and what lives, deaths and reloads do to it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher import metrics_directory
from tests.observer.test_aggregate import Samples, read_openmetrics, samples
from tests.processes.asking import ANYWHERE, ask, observer_of, wait_until_served
from tests.processes.running import Running, is_alive, until

# It says what it counts in files of its own, too: `ledger/PID` has one byte for each payment.
SHOP = """
import os, time
from prometheus_client import Counter, Gauge, Histogram
imported = Counter("shop_imported", "Imports.")
imported.inc()
paid = Counter("shop_paid", "Orders paid.", ["currency"])
took = Histogram("shop_took_seconds", "Time to pay.")
busy = Gauge("shop_busy", "Payments under way.", multiprocess_mode="livesum")
least = Gauge("shop_least", "The least of them.", multiprocess_mode="livemin")
shown = Gauge("shop_shown", "One for each process.")
peak = Gauge("shop_peak", "The most there ever was.", multiprocess_mode="max")

def pay(times=1):
    ledger = os.open(f"ledger/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for _ in range(times):
        paid.labels("eur").inc()
        took.observe(0.3)
        os.write(ledger, b".")
    os.close(ledger)

def begin(peak_value=7):
    busy.set(1); least.set(5); shown.set(2); peak.set(peak_value)
    pay()
"""
MAIN = """
from launcher import Worker
def main(worker: Worker):
    begin()
    worker.ready()
    while not worker.stopping.wait(0.01):
        if os.path.exists("busy"):
            pay(50)
"""
WSGI = """
begun = []
def application(environ, start_response):
    if not begun:
        begun.append(begin())
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
ASGI = """
async def application(scope, receive, send):
    while scope["type"] == "lifespan":
        if (await receive())["type"] == "lifespan.startup":
            begin()
            await send({"type": "lifespan.startup.complete"})
        else:
            return await send({"type": "lifespan.shutdown.complete"})
"""


def files(tmp_path: Path) -> list[str]:
    """Return the names of the files of metrics."""
    return sorted(path.name for path in directory(tmp_path).iterdir())


def directory(tmp_path: Path) -> Path:
    """Return where they are."""
    return tmp_path / "run" / "prod-run" / "app" / "metrics"


def paid(tmp_path: Path) -> int:
    """Return how often was paid, as the ledgers say."""
    return sum(path.stat().st_size for path in (tmp_path / "ledger").iterdir())


def scrape(running: Running, *, own: bool = False) -> Samples:
    """Ask in both forms' turn, strictly; without prod-run's own families, unless they are wanted."""
    text = ask(running, "/metrics", Accept="application/openmetrics-text; version=1.0.0").text
    found = read_openmetrics(text.removesuffix("# EOF\n"))
    return {one: value for one, value in found.items() if own or not one[0].startswith("prod_run_")}


def counters(found: Samples) -> Samples:
    """Return what must never go back."""
    ends = ("_total", "_count", "_bucket", "_sum")
    return {one: value for one, value in found.items() if one[0].endswith(ends)}


@pytest.fixture
def shop(start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path) -> Callable[..., Running]:
    """Start the shop with so many words, and wait until it serves."""
    (tmp_path / "ledger").mkdir()

    def open_it(*words: object, source: str = MAIN, target: str = "app:main", **options: object) -> Running:
        app(SHOP + source)
        running = start(*words, *ANYWHERE, target, **options)
        wait_until_served(running)
        return running

    return open_it


WAYS = {
    "forked": (MAIN, "app:main", ()),
    "not preloaded": (MAIN, "app:main", ("--preload", "never")),
    "ASGI": (ASGI, "app:application", ("-b", "127.0.0.1:0")),
    "WSGI": (WSGI, "app:application", ("-b", "127.0.0.1:0")),
}


@pytest.mark.parametrize(("source", "target", "words"), WAYS.values(), ids=WAYS.keys())
def test_one_scrape_has_the_metrics_of_all_workers(
    shop: Callable[..., Running], tmp_path: Path, source: str, target: str, words: tuple[str, ...]
) -> None:
    """Whatever the target is, and however its workers come to be; the directory is private, and goes with prod-run."""
    running = shop("-w", 2, *words, source=source, target=target)
    if source is WSGI:
        until(lambda: running.ask() == "ok" and paid(tmp_path) == 2, "both have answered")
    until(lambda: scrape(running).get(("shop_busy", ())) == 2.0, "both are known to live")
    found = scrape(running)
    plain = samples(ask(running, "/metrics").text)

    assert found["shop_paid_total", (("currency", "eur"),)] == 2.0
    assert found["shop_took_seconds_bucket", (("le", "0.5"),)] == 2.0
    assert (found["shop_least", ()], found["shop_peak", ()]) == (5.0, 7.0)
    assert [value for (name, _), value in found.items() if name == "shop_shown"] == [2.0, 2.0]
    # Once for each import: with preload the zygote's; without, the preparer's and each worker's.
    assert found["shop_imported_total", ()] == (3.0 if "never" in words else 1.0)
    assert {one: plain[one] for one in found} == found
    assert plain["prod_run_metrics_files_skipped_total", ()] == 0.0
    assert directory(tmp_path).stat().st_mode & 0o777 == 0o700
    assert running.stop() == 0
    assert not directory(tmp_path).exists()


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed (Debian: prometheus)")
def test_promtool_has_nothing_to_say_of_a_real_scrape(shop: Callable[..., Running]) -> None:
    """Of prod-run's families and of an app's with good names; what it dislikes of a name is the app's affair."""
    running = shop()
    text = "".join(
        line for line in ask(running, "/metrics").text.splitlines(keepends=True) if "shop_imported" not in line
    )

    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


BURNS = """
import time
from launcher import Worker

def main(worker: Worker):
    while time.process_time() < 0.3:
        pass
    worker.ready()
    worker.stopping.wait()
"""


def test_what_a_worker_used_is_counted_though_nobody_looked(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """The kernel tells its parent when it ends, and so a new observer knows it too."""
    app(BURNS)
    running = start(*ANYWHERE, "app:main")
    wait_until_served(running)
    (first,) = running.workers()
    os.kill(first, signal.SIGKILL)
    line = running.wait_for(event="lost worker")
    until(lambda: running.workers().keys() - {first}, "another one")
    os.kill(observer_of(running), signal.SIGKILL)

    def used() -> float:
        return scrape(running, own=True).get(("prod_run_worker_cpu_seconds_total", (("slot", "0"),)), 0.0)

    until(lambda: used() > 0.55, "both lives")
    assert float(line["cpu"].removesuffix("s")) > 0.25


def test_nothing_goes_back_over_crashes_reloads_and_a_killed_observer(
    shop: Callable[..., Running], tmp_path: Path
) -> None:
    """Counters only grow, gauges are those of the living, and the sums are what the app itself wrote down."""
    running = shop("-w", 2)
    last: Samples = {}

    def look() -> Samples:
        nonlocal last
        now = scrape(running, own=True)
        behind = {one: (value, now.get(one)) for one, value in counters(last).items() if now.get(one, -1.0) < value}
        assert behind == {}
        last = now
        return now

    def settle(lives: int) -> None:
        until(lambda: look().get(("shop_busy", ())) == 2.0 and paid(tmp_path) == lives, f"{lives} lives")

    settle(2)
    for kill in range(3):
        os.kill(next(iter(running.workers())), signal.SIGKILL)
        settle(3 + kill)
    for reload in range(2):
        assert running.reload()["event"] == "committed"
        settle(7 + 2 * reload)
    (tmp_path / "app.py").write_text("1 / 0\n")
    assert running.reload()["event"] == "rejected"
    settle(9)
    os.kill(observer_of(running), signal.SIGKILL)
    settle(9)
    found = look()

    assert found["shop_paid_total", (("currency", "eur"),)] == found["shop_took_seconds_count", ()] == 9.0
    assert found["shop_imported_total", ()] == 3.0
    assert len([one for one in found if one[0] == "shop_shown"]) == 2
    assert found["prod_run_metrics_files_skipped_total", ()] == 0.0


def test_workers_killed_while_they_write_break_no_scrape_and_lose_no_count(
    shop: Callable[..., Running], tmp_path: Path
) -> None:
    """Every scrape parses; a worker may have been killed between counting and writing down, once in its life."""
    running = shop("-w", 4)
    chance = random.Random(3)
    (tmp_path / "busy").touch()
    kills = 10  # as many as are replaced at once
    for kill in range(kills):
        before = paid(tmp_path)
        until(lambda before=before: paid(tmp_path) > before + chance.randrange(1, 200), "payments")
        scrape(running)
        victim = chance.choice(sorted(running.workers()))
        os.kill(victim, signal.SIGKILL)
        until(lambda victim=victim: not is_alive(victim) and len(running.workers()) == 4, f"a replacement ({kill})")
        scrape(running)
    (tmp_path / "busy").unlink()
    until(lambda: scrape(running)["shop_busy", ()] == 4.0, "all are well")
    assert running.reload()["event"] == "committed"  # whoever was paying has finished
    until(lambda: len(running.workers()) == 4, "the old ones are gone")
    found = scrape(running, own=True)
    written = paid(tmp_path)

    assert written > 1000
    for name in (("shop_paid_total", (("currency", "eur"),)), ("shop_took_seconds_count", ())):
        assert written <= found[name] <= written + kills
    assert found["prod_run_metrics_files_skipped_total", ()] == 0.0


@pytest.mark.slow
def test_500_lives_leave_as_many_files_as_the_most_that_lived_at_once(
    shop: Callable[..., Running], tmp_path: Path
) -> None:
    """Workers come and go, generations too: the files do not become more, and no payment is lost."""
    running = shop("-w", 2)
    prod_ctl = Path(str(running.process.args[0])).with_name("prod-ctl")  # type: ignore[index]
    lives, counts = 2, []

    def scale(workers: int) -> None:
        subprocess.run(
            [prod_ctl, "--socket", directory(tmp_path).with_name("control.sock"), "scale", str(workers)], check=True
        )
        until(
            lambda: len(running.workers()) == workers and paid(tmp_path) == lives, f"{workers} workers, {lives} lives"
        )

    while lives < 500:
        lives += 28
        scale(30)
        scale(2)
        scrape(running)
        counts.append(len(files(tmp_path)))
    lives += 2
    assert running.reload()["event"] == "committed"
    until(lambda: scrape(running).get(("shop_busy", ())) == 2.0 and paid(tmp_path) == lives, "the new two")
    found = scrape(running)
    counts.append(len(files(tmp_path)))

    assert found["shop_paid_total", (("currency", "eur"),)] == lives > 500
    # 30 workers and a spare in turn: counter, histogram, and a file for each mode of a gauge; what was imported beside.
    assert max(counts) <= 6 * 34
    assert max(counts[2:]) - min(counts[2:]) <= 6 * 2, counts


# ── whose the directory is ──


WHERE = "import os\nfrom launcher import Worker\ndef main(worker: Worker):\n    print('metrics in', os.environ.get('PROMETHEUS_MULTIPROC_DIR'))\n    worker.ready()\n    worker.stopping.wait()\n"


def test_an_app_that_was_given_a_directory_keeps_it(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """By the environment, which one line says, or by an env file; prod-run then has none for it."""
    app(WHERE)
    by_environment = start(*ANYWHERE, "app:main", env={"PROMETHEUS_MULTIPROC_DIR": "mine"})
    by_environment.wait_for("metrics in mine")
    assert "the app's metrics are not in prod-run's /metrics: PROMETHEUS_MULTIPROC_DIR has them in mine" in (
        by_environment.text()
    )
    assert by_environment.stop() == 0
    (tmp_path / "env").write_text("PROMETHEUS_MULTIPROC_DIR=ours\n")
    start(*ANYWHERE, "--env-file", "env", "app:main").wait_for("metrics in ours")


def test_without_the_port_nothing_is_kept(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """Nobody could ask for it."""
    app(WHERE)
    running = start("--introspect", "off", "app:main")
    running.wait_for("metrics in None")

    assert not directory(tmp_path).exists()


def test_what_another_life_left_does_not_count(shop: Callable[..., Running], tmp_path: Path) -> None:
    """prod-run was killed: the next one begins with an empty directory, and follows no link out of it."""
    first = shop()
    first.process.kill()
    first.wait()
    assert files(tmp_path)
    (tmp_path / "treasure").mkdir()
    (tmp_path / "treasure" / "counter_w0.db").write_text("precious")
    (directory(tmp_path) / "folder").mkdir()
    (directory(tmp_path) / "folder" / "link").symlink_to(tmp_path / "treasure")

    second = shop()
    until(lambda: scrape(second).get(("shop_busy", ())) == 1.0, "the second is known to live")

    assert scrape(second)["shop_paid_total", (("currency", "eur"),)] == 1.0
    assert (tmp_path / "treasure" / "counter_w0.db").read_text() == "precious"
    assert not (directory(tmp_path) / "folder").exists()


def test_a_directory_that_cannot_be_had_costs_one_line() -> None:
    """Nobody may make one there: prod-run starts all the same, and says so."""
    made = metrics_directory.make("/proc/self", {})

    assert made.path == ""
    assert made.note.startswith("/metrics will have none of the app: /proc/self/metrics: ")
