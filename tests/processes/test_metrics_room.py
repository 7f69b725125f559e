"""An app's metrics where there is no room for them: they are not counted, and the app lives."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from launcher.observer.aggregate import Aggregate
from launcher.runtime import value_file
from launcher.runtime.value_file import safe
from tests.observer.test_aggregate import samples, scrape

ROOT = Path(__file__).parents[2]

# In 256 KiB, of which a file takes 128 at first, a worker makes 3,000 series; then the file goes.
WORKER = """
import os, sys
directory, is_safe = sys.argv[1], sys.argv[2] == "safe"
sys.path[:0] = sys.argv[3:]
from launcher.runtime import multiprocess, value_file
value_file.RETRY = 0.0
multiprocess.begin(directory, 1)
multiprocess.offer()
multiprocess.become(0)
from prometheus_client import Counter, values
if not is_safe:
    from prometheus_client import mmap_dict
    values.MmapedDict = mmap_dict.MmapedDict
filling = directory + "/filling"
with open(filling, "wb", 0) as file:
    file.write(bytes(128 * 1024))
counter = Counter("paid", "Orders paid.", ["shop"])
for _ in range(2):
    for number in range(3000):
        counter.labels(str(number)).inc()
print("values", {counter.labels(str(number))._value.get() for number in range(3000)})
from launcher.observer.aggregate import Aggregate
aggregate = Aggregate(directory)
def seen():
    lines = [line for line in b"".join(aggregate.collect()).decode().splitlines() if line.startswith("paid_total")]
    return len(lines), sorted({float(line.rpartition(" ")[2]) for line in lines})
before = seen()
os.unlink(filling)
for number in range(3000):
    counter.labels(str(number)).inc()
after = seen()
print("more", after[0] > before[0] > 500, "values", before[1], after[1], "skipped", aggregate.skipped_total)
"""


def in_a_small_place(directory: Path, kind: str) -> subprocess.CompletedProcess[str]:
    """Run the worker with a file system of its own."""
    mount = 'mount -t tmpfs -o size=256k none "$2" && exec "$0" -c "$1" "$2" "$3" "$4"'
    argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount]
    done = subprocess.run(
        [*argv, sys.executable, WORKER, str(directory), kind, str(ROOT)], capture_output=True, text=True
    )
    if done.returncode and "unshare" in done.stderr:
        pytest.skip("no mount of our own can be had here")
    return done


def test_want_of_room_costs_series_and_not_the_worker(tmp_path: Path) -> None:
    """What has room counts exactly, the rest comes in when there is some; it is said once."""
    done = in_a_small_place(tmp_path, "safe")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["values {2.0}", "more True values [2.0] [3.0] skipped 0"]
    assert done.stderr.count("\n") == 1
    assert f"prod-run: {tmp_path}/counter_w0.db: No space left on device: new series" in done.stderr


def test_without_that_the_worker_is_killed(tmp_path: Path) -> None:
    """The control: this is what prometheus_client alone does there."""
    assert in_a_small_place(tmp_path, "plain").returncode == -signal.SIGBUS


def test_a_file_that_cannot_be_made_costs_its_series(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The directory is not there: prometheus_client alone fails the app's import."""
    file = safe(MmapedDict)(str(tmp_path / "nowhere" / "counter_w0.db"))
    file.write_value("key", 1.0, 0.0)

    assert file.read_value("key") == (0.0, 0.0)
    file.close()
    value_file._Said.pid = 0
    capfd.readouterr()


def test_both_classes_read_what_the_other_wrote(tmp_path: Path) -> None:
    """One place is taken by workers of two releases of an app, one after the other; and the format is prometheus_client's."""
    path = str(tmp_path / "counter_w0.db")
    keys = [f'["c", "c_total", {{"n": "{n}"}}, "é"]' for n in range(2000)]
    for turn, kind in enumerate((safe(MmapedDict), MmapedDict, safe(MmapedDict))):
        file = kind(path)
        for key in keys[: 500 * (turn + 1)]:
            value, _ = file.read_value(key)
            file.write_value(key, value + 1.0, 0.0)
        file.close()
    found = samples(scrape(Aggregate(str(tmp_path))))

    values = [found["c_total", (("n", str(n)),)] for n in range(1500)]
    assert values == [3.0] * 500 + [2.0] * 500 + [1.0] * 500
    assert {value for _, value, _, _ in MmapedDict.read_all_values_from_file(path)} == {1.0, 2.0, 3.0}


def test_another_release_keeps_its_values_in_its_own_way() -> None:
    """What is not as it is known here is left as it is."""

    class Other:
        def write(self) -> None: ...

    assert safe(Other) is Other
