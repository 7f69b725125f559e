"""The files of metrics that processes of an app leave: their number, their totals, and what a kill does to them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from launcher.observer.aggregate import Aggregate
from tests.observer.test_aggregate import Samples, merged, read_openmetrics, samples, scrape

ROOT = Path(__file__).parents[2]

# What a zygote does, then what each worker does that it forks: a line `PLACE CODE` is an order, `PID STATUS` the answer.
ZYGOTE = """
import os, sys
from launcher.runtime import multiprocess
multiprocess.begin(sys.argv[1], int(sys.argv[2]))
multiprocess.offer()
from prometheus_client import Counter, Gauge, Histogram
requests = Counter("requests", "Requests.", ["code"])
imported = Counter("imported", "Imports.")
busy = Gauge("busy", "Busy.", multiprocess_mode="livesum")
alive = Gauge("alive", "Alive.", multiprocess_mode="all")
took = Histogram("took", "Seconds.", ["code"])
imported.inc()
say = lambda text: os.write(1, text.encode() + b"\\n")  # whole, or it mixes with a worker's
say("imported")
for line in sys.stdin:
    place, _, code = line.strip().partition(" ")
    pid = os.fork()
    if pid == 0:
        try:
            say(f"forked {os.getpid()}")  # first of all that it says
            multiprocess.become(int(place))
            exec(code)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(70)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    say(f"ended {os.waitstatus_to_exitcode(status)}")
"""


class Zygote:
    """A generation, without prod-run around it: it forks one worker at a time."""

    def __init__(self, directory: Path, generation: int = 1) -> None:
        argv = [sys.executable, "-c", ZYGOTE, str(directory), str(generation)]
        environment = {name: value for name, value in os.environ.items() if not name.lower().startswith("prometheus")}
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        assert self._answers().readline() == "imported\n"

    def _answers(self) -> IO[str]:
        assert self.process.stdout
        return self.process.stdout

    def order(self, place: int, code: str) -> int:
        """Have a worker forked at this place; return its PID."""
        assert self.process.stdin
        self.process.stdin.write(f"{place} {code}\n")
        self.process.stdin.flush()
        return int(self.line().removeprefix("forked "))

    def line(self) -> str:
        """Return what the zygote, or its worker, says next."""
        return self._answers().readline().strip()

    def run(self, place: int, code: str) -> None:
        """Let a worker live its life."""
        self.order(place, code)
        assert self.line() == "ended 0"

    def end(self) -> None:
        """Let it end, as after its last worker."""
        self.process.communicate()


@pytest.fixture
def zygotes(tmp_path: Path) -> Iterator[Callable[..., Zygote]]:
    """Start zygotes that write to the test's directory."""
    started: list[Zygote] = []

    def start(generation: int = 1) -> Zygote:
        started.append(Zygote(tmp_path, generation))
        return started[-1]

    yield start
    for one in started:
        if one.process.returncode is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.communicate()


def total(found: Samples, name: str) -> float:
    """Sum the samples of one name."""
    return sum(value for (sample, _), value in found.items() if sample == name)


LIFE = "busy.inc(); alive.set(1); [requests.labels(str(c)).inc() for c in range(5)]; took.labels('1').observe(1)"


def test_100_lives_leave_as_many_files_as_four_workers_have(zygotes: Callable[..., Zygote], tmp_path: Path) -> None:
    """Places are used again: the files do not become more, the totals are exact, the dead are not busy."""
    aggregate = Aggregate(str(tmp_path))
    numbers = set()
    for generation in range(1, 6):
        zygote = zygotes(generation)
        for life in range(20):
            zygote.run(life % 4, LIFE)
        zygote.end()
        aggregate.living = frozenset()
        found = samples(scrape(aggregate))
        numbers.add(len(list(tmp_path.iterdir())))

        assert found["imported_total", ()] == generation
        assert {code: found["requests_total", (("code", str(code)),)] for code in range(5)} == dict.fromkeys(
            range(5), 20 * generation
        )
        assert found["took_count", (("code", "1"),)] == 20 * generation
        assert [one for one in found if one[0] in {"busy", "alive"}] == []
    # Of 4 places: counter, histogram, two gauges; and the archive of the zygotes' counter.
    assert numbers == {4 * 4 + 1}
    assert aggregate.skipped_total == 0


def test_a_successor_takes_over_counters_but_not_gauges_of_the_living(
    zygotes: Callable[..., Zygote], tmp_path: Path
) -> None:
    """Of 3 lives at one place, the last one alone is busy; the observer knew of no death."""
    zygote = zygotes()
    for _ in range(3):
        zygote.run(0, LIFE)
    found = samples(scrape(Aggregate(str(tmp_path))))

    assert found["busy", ()] == 1.0
    assert found["alive", (("pid", "w0"),)] == 1.0
    assert found["requests_total", (("code", "0"),)] == 3.0


def test_kills_in_the_middle_of_writing_break_no_scrape_and_lose_no_count(
    zygotes: Callable[..., Zygote], tmp_path: Path
) -> None:
    """Each worker says how far it had come; what it said stands in the totals, and every scrape parses strictly."""
    zygote = zygotes()
    aggregate = Aggregate(str(tmp_path))
    chance = random.Random(7)
    told = 0
    code = (
        "[(requests.labels(f'{os.getpid()}-{n % 30}').inc(), took.labels(f'{place}-{n % 9}').observe(n), os.write(1, b'%d\\n' % n))"
        " for n in range(10**6)]"
    )
    for life in range(20):
        pid = zygote.order(life % 3, code)
        for _ in range(chance.randrange(1, 60)):
            assert zygote.line().isdecimal()
            told += 1
        if life % 4 == 0:
            samples(scrape(aggregate))  # of a file that is being written
        os.kill(pid, signal.SIGKILL)
        while (line := zygote.line()).isdecimal():
            told += 1
        assert line == "ended -9"

        plain = samples(scrape(aggregate))
        strict = read_openmetrics(scrape(aggregate, openmetrics=True))
        assert total(plain, "requests_total") == total(strict, "requests_total")
        # A label set is made, and counted, before the worker says so; the one it was killed in may count or not.
        assert told <= total(plain, "requests_total") <= told + life + 1
    assert aggregate.skipped_total == 0


KILLS = {
    "empty": "os.posix_fallocate = lambda *_: os.kill(os.getpid(), 9)",
    "zeros": "make = os.posix_fallocate; os.posix_fallocate = lambda *a: (make(*a), os.kill(os.getpid(), 9))",
}


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS.keys())
def test_a_kill_while_a_file_is_made_leaves_no_bad_one(
    zygotes: Callable[..., Zygote], tmp_path: Path, kill: str
) -> None:
    """Nothing is skipped while nobody has the place; who takes it makes the file whole."""
    zygote = zygotes()
    aggregate = Aggregate(str(tmp_path))
    zygote.order(0, f"{kill}; busy.inc()")
    assert zygote.line() == "ended -9"
    zygote.order(0, f"{kill}; requests.labels('1').inc()")
    assert zygote.line() == "ended -9"
    assert "counter_w0.db" in os.listdir(tmp_path)
    before = [samples(scrape(aggregate)) for _ in range(2)]
    zygote.run(0, LIFE)
    after = samples(scrape(aggregate))

    assert [total(found, "requests_total") for found in (*before, after)] == [0.0, 0.0, 5.0]
    assert (after["busy", ()], aggregate.skipped_total) == (1.0, 0)


FORKING = """
import multiprocessing, subprocess
LIFE
context = multiprocessing.get_context("fork")
processes = [context.Process(target=exec, args=(LIFE_TEXT, globals())) for _ in range(3)]
[p.start() for p in processes]; [p.join() for p in processes]
pid = os.fork()
if pid == 0:
    exec(LIFE_TEXT)
    os._exit(0)
os.waitpid(pid, 0)
exec(LIFE_TEXT)
"""


def test_the_apps_own_forks_never_write_a_workers_file(zygotes: Callable[..., Zygote], tmp_path: Path) -> None:
    """Of `multiprocessing` and `os.fork`: each process has files of its own, and they are put together when it is gone."""
    code = f"exec({FORKING.replace('LIFE_TEXT', repr(LIFE)).replace('LIFE', LIFE, 1)!r})"
    zygote = zygotes()

    zygote.run(0, code)
    identifiers = {path.stem.rpartition("_")[2] for path in tmp_path.glob("counter_*")}
    found = samples(scrape(Aggregate(str(tmp_path))))

    assert len(identifiers) == 6
    assert {name.partition(".")[0] for name in identifiers} == {"w0", "z1"}
    assert found["requests_total", (("code", "0"),)] == 6.0
    assert found["busy", ()] == 2.0  # the worker's; who is gone is not busy
    assert len(list(tmp_path.glob("counter_*"))) == 3  # the worker, its zygote, and the archive


def test_two_generations_side_by_side_share_no_file(zygotes: Callable[..., Zygote], tmp_path: Path) -> None:
    """Two workers of one slot in a reload have two places: both count, at the same time, and nothing is lost."""
    count = "[(requests.labels('0').inc(), requests.labels(str(n)).inc()) for n in range(1, 3000)]"
    old, new = zygotes(1), zygotes(2)

    old.order(0, count)
    new.order(1, count)
    assert (old.line(), new.line()) == ("ended 0", "ended 0")
    found = samples(scrape(Aggregate(str(tmp_path))))

    assert found["requests_total", (("code", "0"),)] == 2 * 2999
    assert found == {one: value for one, value in merged(tmp_path).items() if one[0] != "alive"} | {
        one: value for one, value in found.items() if one[0] == "alive"
    }
    assert {path.name for path in tmp_path.glob("counter_*")} == {
        "counter_w0.db",
        "counter_w1.db",
        f"counter_z1.{old.process.pid}.db",
        f"counter_z2.{new.process.pid}.db",
    }


CHOICES = {
    "its own directory": ("PROMETHEUS_MULTIPROC_DIR", "import os", "own"),
    "its own directory, by the old name": ("prometheus_multiproc_dir", "import os", "own"),
    "its own directory, said by the app": ("", "import os; os.environ['PROMETHEUS_MULTIPROC_DIR'] = 'own'", "own"),
    "none": ("", "import os", "ours"),
}


@pytest.mark.parametrize(("variable", "first", "expected"), CHOICES.values(), ids=CHOICES.keys())
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_app_that_chose_a_directory_keeps_it(variable: str, first: str, expected: str, tmp_path: Path) -> None:
    """Whoever named one before prometheus_client is imported gets everything there, under its own PID."""
    for name in ("own", "ours"):
        (tmp_path / name).mkdir()
    code = (
        "from launcher.runtime import multiprocess; multiprocess.begin('ours', 1); multiprocess.offer(); multiprocess.become(5)\n"
        f"{first}\nfrom prometheus_client import Counter; Counter('c', 'C.').inc(); print(os.getpid())"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    environment |= {variable: "own"} if variable else {}
    argv = [sys.executable, "-c", code]
    pid = subprocess.run(argv, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    names = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")}
    assert names == {"own": {f"own/counter_{pid}.db"}, "ours": {"ours/counter_w5.db"}}[expected]


def test_an_app_without_metrics_pays_nothing() -> None:
    """prometheus_client is not imported for it, nor anything else but the hook."""
    code = (
        "import sys; sys.path.append(sys.argv[1]); import os; before = set(sys.modules);"
        "from launcher.runtime import multiprocess; multiprocess.begin('x', 1); multiprocess.offer(); multiprocess.become(0);"
        "print(*sorted(set(sys.modules) - before))"
    )
    argv = [sys.executable, "-I", "-S", "-c", code, str(ROOT)]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True, env={}).stdout.split()

    assert set(loaded) <= {
        "__future__",
        "launcher",
        "_operator",
        "launcher.lean",
        "launcher.metrics_directory",
        "launcher.runtime",
        "launcher.runtime.multiprocess",
        "launcher.runtime.on_import",
    }


FULL = """
import sys; sys.path.append(sys.argv[1])
from launcher.observer.aggregate import Aggregate
aggregate = Aggregate(sys.argv[2])
before = aggregate.free_bytes()
try:
    with open(sys.argv[2] + "/filling", "wb", 0) as file:
        while file.write(bytes(4096)):
            pass
except OSError:
    pass
print(before, aggregate.free_bytes())
"""


def test_a_full_directory_is_noticed(tmp_path: Path) -> None:
    """The room that is left is known before a worker is killed for it."""
    mount = 'mount -t tmpfs -o size=256k none "$3" && exec "$0" -I -S -c "$1" "$2" "$3"'
    argv = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        mount,
        sys.executable,
        FULL,
        str(ROOT),
        str(tmp_path),
    ]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode and "unshare" in done.stderr:
        pytest.skip("no mount of our own can be had here")

    assert (done.stdout, done.stderr) == ("262144 0\n", "")
