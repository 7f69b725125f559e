"""The metrics of all workers as one text."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies
from prometheus_client import parser
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import parser as openmetrics_parser

from launcher.observer.aggregate import Aggregate
from launcher.observer.families import MERGING

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

BOUNDS = ("0.1", "2.5", "1e+06", "+Inf")
GAUGES = sorted(kind for kind in MERGING if kind.startswith("gauge"))
numbers = strategies.floats(0, 1e9)
counts = strategies.integers(0, 10**9).map(float)
label_values = strategies.sampled_from(["", "a", 'x"y', "back\\slash", "new\nline", "é€"])


def write(directory: Path, name: str, values: dict[str, tuple[float, float]]) -> Path:
    """Write a file as a process of the app does."""
    path = directory / name
    file = MmapedDict(str(path))
    for key, pair in values.items():
        file.write_value(key, *pair)
    file.close()
    return path


def key(family: str, sample: str = "", help_text: str = "Help.", **labels: str) -> str:
    """Make the key of one series."""
    return mmap_key(family, sample or family, list(labels), list(labels.values()), help_text)


def scrape(aggregate: Aggregate, *, openmetrics: bool = False) -> str:
    """Collect, with all slices."""
    return b"".join(aggregate.collect(openmetrics=openmetrics)).decode()


def samples(text: str) -> Samples:
    """Read a text of form 0.0.4."""
    found = [s for family in parser.text_string_to_metric_families(text) for s in family.samples]
    result = {(s.name, tuple(sorted(s.labels.items()))): s.value for s in found}
    assert len(result) == len(found), "a series twice"
    return result


def read_openmetrics(text: str) -> Samples:
    """Read a text of OpenMetrics as strictly as prometheus_client can."""
    families = openmetrics_parser.text_string_to_metric_families(text + "# EOF\n")
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def merged(directory: Path) -> Samples:
    """Return what prometheus_client makes of the same files."""
    files = sorted(str(path) for path in directory.glob("*.db"))
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for metric in MultiProcessCollector.merge(files)
        for s in metric.samples
    }


def as_text(found: Samples) -> dict[tuple[str, tuple[tuple[str, str], ...]], str]:
    """Make values comparable to the last bit, NaN among them."""
    return {one: repr(value) for one, value in found.items()}


@strategies.composite
def contents(draw: strategies.DrawFn, kind: str) -> dict[str, tuple[float, float]]:
    """Make what one process may have in its file of one kind."""
    values: dict[str, tuple[float, float]] = {}
    for index in draw(strategies.permutations(range(3))):
        for value in draw(strategies.lists(label_values, max_size=3, unique=True)):
            family = f"{kind}_{index}"
            labels = {"code": value} if index else {}
            if kind == "histogram":
                values[key(family, f"{family}_sum", **labels)] = draw(numbers), 0.0
                values |= {key(family, f"{family}_bucket", le=b, **labels): (draw(counts), 0.0) for b in BOUNDS}
            elif kind == "summary":
                values[key(family, f"{family}_sum", **labels)] = draw(numbers), 0.0
                values[key(family, f"{family}_count", **labels)] = draw(counts), 0.0
            elif kind == "counter":
                values[key(family, f"{family}_total", **labels)] = draw(numbers), 0.0
            else:
                odd = strategies.sampled_from([math.inf, -math.inf, -3.0])
                time = strategies.sampled_from([0.0, 1.0, 2.5])
                values[key(family, **labels)] = draw(numbers | odd), draw(time)
    return values


@strategies.composite
def histories(draw: strategies.DrawFn) -> list[dict[str, dict[str, tuple[float, float]]]]:
    """Make a few moments of a directory: each is what processes write until the next scrape."""
    kinds = draw(strategies.lists(strategies.sampled_from(sorted(MERGING)), min_size=1, max_size=4, unique=True))
    names = strategies.sampled_from([f"{kind}_w{place}.db" for kind in kinds for place in range(3)])
    moment = strategies.lists(names, max_size=5, unique=True)
    return [
        {name: draw(contents(name.rpartition("_")[0])) for name in draw(moment)}
        for _ in range(draw(strategies.integers(1, 3)))
    ]


@settings(
    max_examples=100,
    suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture],
)
@given(history=histories())
def test_what_comes_out_is_what_prometheus_client_makes_of_it(
    history: list[dict[str, dict[str, tuple[float, float]]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Counters, histograms, summaries and gauges of all modes: equal to `merge`, scrape after scrape, in both forms."""
    directory = tmp_path_factory.mktemp("metrics")
    aggregate = Aggregate(str(directory))
    for moment in history:
        for name, values in moment.items():
            write(directory, name, values)

        expected = as_text(merged(directory))
        assert as_text(samples(scrape(aggregate))) == expected
        assert as_text(read_openmetrics(scrape(aggregate, openmetrics=True))) == expected
        assert aggregate.skipped == 0


@pytest.mark.parametrize("kind", GAUGES)
@pytest.mark.parametrize("order", [(1.5, 2.0, 1.0), (2.0, 1.0, 1.5), (1.0, 1.5, 2.0)])
def test_gauges_of_all_modes(kind: str, order: tuple[float, ...], tmp_path: Path) -> None:
    """Three processes set one gauge to near values, in each order of their files."""
    for place, number in enumerate(order):
        write(tmp_path, f"{kind}_w{place}.db", {key("g"): (number, number)})

    assert samples(scrape(Aggregate(str(tmp_path)))) == merged(tmp_path)


def good_file(directory: Path) -> Path:
    """Write one counter of a worker."""
    return write(directory, "counter_w0.db", {key("good", "good_total"): (3.0, 0.0)})


def entry(text: bytes) -> bytes:
    """Make one entry as it stands in a file."""
    return struct.pack("i", len(text)) + text.ljust(len(text) + 8 - (len(text) + 4) % 8) + struct.pack("dd", 1.0, 0.0)


BAD_FILES = {
    "not counted": bytes(8) + entry(b"[]"),
    "cut": struct.pack("ii", 4096, 0),
    "negative": struct.pack("ii", -8, 0) + bytes(64),
    "uneven": struct.pack("ii", 13, 0) + bytes(64),
    "huge": struct.pack("ii", 2**31 - 8, 0) + bytes(64),
    "a key beyond the end": struct.pack("iii", 64, 0, 1000) + bytes(64),
    "a negative key": struct.pack("iii", 64, 0, -4) + bytes(64),
    "no JSON": struct.pack("ii", 8 + len(entry(b"{nothing")), 0) + entry(b"{nothing"),
    "other JSON": struct.pack("ii", 8 + len(entry(b"[1, 2, 3, 4]")), 0) + entry(b"[1, 2, 3, 4]"),
    "no UTF-8": struct.pack("ii", 8 + len(entry(b"\xff\xfe\xfa")), 0) + entry(b"\xff\xfe\xfa"),
    "deep": struct.pack("ii", 8 + len(entry(b"[" * 9000)), 0) + entry(b"[" * 9000),
    "half good": struct.pack("ii", 8 + len(entry(key("half", "half_total").encode())) + 24, 0)
    + entry(key("half", "half_total").encode())
    + struct.pack("i", 99)
    + bytes(20),
}


@pytest.mark.parametrize("bad", BAD_FILES.values(), ids=BAD_FILES.keys())
@pytest.mark.parametrize("name", ["counter_w1.db", "gauge_livesum_w1.db"])
def test_a_bad_file_is_skipped_and_counted(name: str, bad: bytes, tmp_path: Path) -> None:
    """One torn file costs its own values, never the scrape; when it is whole it counts."""
    good_file(tmp_path)
    (tmp_path / name).write_bytes(bad)
    aggregate = Aggregate(str(tmp_path))

    assert samples(scrape(aggregate)) == {("good_total", ()): 3.0}
    assert read_openmetrics(scrape(aggregate, openmetrics=True)) == {("good_total", ()): 3.0}
    assert (aggregate.files, aggregate.skipped, aggregate.skipped_total) == (2, 1, 2)
    (tmp_path / name).unlink()
    good_file(tmp_path).rename(tmp_path / "counter_w2.db")
    assert samples(scrape(aggregate)) == {("good_total", ()): 3.0}
    assert aggregate.skipped == 0


@pytest.mark.parametrize("made", [b"", bytes(3), bytes(4096), bytes(2**20)])
@pytest.mark.parametrize("name", ["counter_w1.db", "gauge_livesum_w1.db", f"counter_z1.{2**22 + 1}.db"])
def test_a_file_without_a_value_yet_is_no_bad_one(name: str, made: bytes, tmp_path: Path) -> None:
    """Its process is making it, or was killed while it did: there is nothing to skip, now or ever."""
    good_file(tmp_path)
    path = tmp_path / name
    path.write_bytes(made)
    aggregate = Aggregate(str(tmp_path))

    assert [samples(scrape(aggregate)) for _ in range(2)] == [{("good_total", ()): 3.0}] * 2
    assert aggregate.skipped_total == 0
    assert path.exists() == ("z1" not in name)  # whose process is gone for good
    write(tmp_path, "whole", {key("good", "good_total"): (4.0, 0.0)}).rename(tmp_path / "counter_w1.db")
    assert samples(scrape(aggregate)) == {("good_total", ()): 7.0}


def test_what_is_no_file_of_values_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe, a directory, a link and a name that nobody knows are bad files too."""
    good_file(tmp_path)
    os.mkfifo(tmp_path / "counter_w1.db")
    (tmp_path / "counter_w2.db").mkdir()
    (tmp_path / "counter_w3.db").symlink_to("counter_w0.db")
    (tmp_path / "gauge_strange_w4.db").touch()
    (tmp_path / "x.db").touch()
    (tmp_path / "README").touch()
    aggregate = Aggregate(str(tmp_path))

    assert samples(scrape(aggregate)) == {("good_total", ()): 3.0}
    assert (aggregate.files, aggregate.skipped) == (6, 5)


def test_a_file_that_shrinks_or_is_another_one_is_read_anew(tmp_path: Path) -> None:
    """What was learnt of a file is not believed for another one of its name, not even with its inode number."""
    first, second = key("one", "one_total"), key("two", "two_total")
    path = write(tmp_path, "counter_w0.db", {first: (1.0, 0.0), second: (2.0, 0.0)})
    aggregate = Aggregate(str(tmp_path))
    scrape(aggregate)
    other = write(tmp_path, "other", {key("three", "three_total"): (3.0, 0.0), first: (1.0, 0.0)})
    path.write_bytes(other.read_bytes())

    assert samples(scrape(aggregate)) == {("three_total", ()): 3.0, ("one_total", ()): 1.0}
    other.unlink()
    path.unlink()
    write(tmp_path, "counter_w0.db", {second: (5.0, 0.0)})
    assert samples(scrape(aggregate)) == {("two_total", ()): 5.0}


def test_a_gauge_that_is_made_anew_in_another_order_is_read_anew(tmp_path: Path) -> None:
    """A worker removes its predecessor's gauges; the next file may have the same inode, size and last key."""
    one, two, three = (key("g", code=code) for code in "abc")
    path = write(tmp_path, "gauge_livesum_w0.db", {one: (1.0, 0.0), two: (2.0, 0.0), three: (3.0, 0.0)})
    aggregate = Aggregate(str(tmp_path))
    scrape(aggregate)
    other = write(tmp_path, "other", {two: (20.0, 0.0), one: (10.0, 0.0), three: (30.0, 0.0)})
    path.write_bytes(other.read_bytes())  # keeps the inode, as a file system may that has just one free
    other.unlink()

    found = samples(scrape(aggregate))

    assert [found["g", (("code", code),)] for code in "abc"] == [10.0, 20.0, 30.0]


def test_only_the_living_have_gauges_of_the_living(tmp_path: Path) -> None:
    """`live` and `all` gauges of a worker that is gone do not count; counters and other gauges do."""
    for place in (0, 1):
        for kind in ("gauge_livesum", "gauge_all", "gauge_sum", "counter"):
            write(tmp_path, f"{kind}_w{place}.db", {key(kind): (1.0, 0.0)})
    aggregate = Aggregate(str(tmp_path))

    everybody = samples(scrape(aggregate))
    aggregate.living = frozenset({"w1"})
    the_living = samples(scrape(aggregate))

    assert everybody["gauge_livesum", ()] == 2.0
    assert the_living == {
        ("gauge_livesum", ()): 1.0,
        ("gauge_all", (("pid", "w1"),)): 1.0,
        ("gauge_sum", ()): 2.0,
        ("counter", ()): 2.0,
    }
    aggregate.living = frozenset()
    assert ("gauge_livesum", ()) not in samples(scrape(aggregate))


def dead_pid() -> int:
    """Return a PID that nobody has."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    process.wait()
    return process.pid


def test_files_of_processes_that_are_gone_are_put_together(tmp_path: Path) -> None:
    """What the app's own forks and zygotes counted stays, in one file for each kind, whatever their number."""
    gone, here = dead_pid(), os.getpid()
    identifiers = [f"z1.{gone}", f"w0.{gone}", f"w1.{gone}", str(gone), f"w0.{here}"]
    kinds = (
        "counter",
        "histogram",
        "gauge_min",
        "gauge_max",
        "gauge_sum",
        "gauge_mostrecent",
        "gauge_livesum",
        "gauge_all",
    )
    for number, identifier in enumerate(identifiers, 1):
        for kind in kinds:
            one = key("h", "h_bucket", le="+Inf") if kind == "histogram" else key(kind)
            write(
                tmp_path,
                f"{kind}_{identifier}.db",
                {one: (float(number), float(number)), key("x", f"only_{number}"): (1.0, 1.0)},
            )
    aggregate = Aggregate(str(tmp_path))
    before = merged(tmp_path)

    found = samples(scrape(aggregate))

    same = {one: value for one, value in before.items() if one[0] in {*kinds, "h_bucket", "h_count"}}
    del same["gauge_livesum", ()]
    same = {one: value for one, value in same.items() if one[0] != "gauge_all"}
    assert {one: found[one] for one in same} == same
    assert found["gauge_livesum", ()] == 5.0
    assert [one for one in found if one[0] == "gauge_all"] == [("gauge_all", (("pid", f"w0.{here}"),))]
    assert samples(scrape(aggregate)) == found
    assert {path.name.rpartition("_")[2] for path in tmp_path.iterdir()} == {"archive.db", f"w0.{here}.db"}


def test_a_kill_while_files_are_put_together_counts_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each system call of it: the next observer comes to the same totals."""
    gone = dead_pid()
    calls = 0
    while True:
        directory = tmp_path / str(calls)
        directory.mkdir()
        write(directory, "counter_archive.db", {key("c", "c_total"): (100.0, 0.0)})
        write(directory, f"counter_w0.{gone}.db", {key("c", "c_total"): (1.0, 0.0)})
        left = calls

        def stopping(real: Any) -> Any:
            def call(*args: Any, **named: Any) -> Any:
                nonlocal left
                if left == 0:
                    raise KeyboardInterrupt
                left -= 1
                return real(*args, **named)

            return call

        with monkeypatch.context() as patch:
            for name in ("rename", "unlink"):
                patch.setattr(os, name, stopping(getattr(os, name)))
            try:
                scrape(Aggregate(str(directory)))
                was_killed = False
            except KeyboardInterrupt:
                was_killed = True

        assert samples(scrape(Aggregate(str(directory)))) == {("c_total", ()): 101.0}
        assert [path.name for path in directory.iterdir()] == ["counter_archive.db"]
        if not was_killed:
            break
        calls += 1
    assert calls == 3


def test_a_histogram_that_was_never_finished_is_left_out(tmp_path: Path) -> None:
    """A process that is killed between two buckets leaves no text that a strict reader refuses."""
    write(tmp_path, "histogram_w0.db", {key("h", "h_sum"): (1.0, 0.0), key("h", "h_bucket", le="0.1"): (1.0, 0.0)})
    aggregate = Aggregate(str(tmp_path))

    assert samples(scrape(aggregate)) == {}
    assert read_openmetrics(scrape(aggregate, openmetrics=True)) == {}


def test_openmetrics_gets_no_count_or_sum_that_it_forbids(tmp_path: Path) -> None:
    """A summary of negative numbers has a sum in one form only."""
    write(tmp_path, "summary_w0.db", {key("s", "s_sum"): (-1.0, 0.0), key("s", "s_count"): (1.0, 0.0)})
    write(tmp_path, "counter_w0.db", {key("c", "c_total"): (math.nan, 0.0)})
    aggregate = Aggregate(str(tmp_path))

    assert samples(scrape(aggregate))["s_sum", ()] == -1.0
    assert read_openmetrics(scrape(aggregate, openmetrics=True)) == {("s_count", ()): 1.0}


def test_a_family_of_two_types_is_the_newer_one(tmp_path: Path) -> None:
    """A reload may make a gauge of a counter: never two families of one name."""
    write(tmp_path, "counter_w0.db", {key("jobs", "jobs_total"): (1.0, 0.0)})
    aggregate = Aggregate(str(tmp_path))
    scrape(aggregate)
    write(tmp_path, "gauge_livesum_w1.db", {key("jobs"): (2.0, 0.0)})

    assert samples(scrape(aggregate)) == {("jobs", ()): 2.0}
    assert scrape(aggregate).count("# TYPE jobs") == 1


def test_names_that_prometheus_refuses_are_made_plain(tmp_path: Path) -> None:
    """prometheus_client takes any UTF-8 in names; and prod-run's own names are prod-run's."""
    write(tmp_path, "gauge_sum_w0.db", {json.dumps(["ä.b", "ä.b", {"x-y": "1"}, "a\n\\"]): (1.0, 0.0)})
    write(tmp_path, "gauge_max_w0.db", {key("prod_run_ready"): (7.0, 0.0)})

    text = scrape(Aggregate(str(tmp_path)))

    assert text == '# HELP __b a\\n\\\\\n# TYPE __b gauge\n__b{x_y="1"} 1.0\n'


def test_a_collection_comes_in_slices_and_waits_for_another(tmp_path: Path) -> None:
    """No slice looks at more than a hundred new keys; two scrapes at once read the same."""
    write(tmp_path, "counter_w0.db", {key("c", "c_total", n=str(n)): (1.0, 0.0) for n in range(1000)})
    aggregate = Aggregate(str(tmp_path))
    first, second = aggregate.collect(), aggregate.collect()
    pieces: tuple[list[bytes], list[bytes]] = ([], [])
    for _ in range(2000):
        for generator, found in zip((first, second), pieces, strict=True):
            found += [piece for piece in [next(generator, None)] if piece is not None]

    assert len(pieces[0]) > 10
    assert b"".join(pieces[0]) == b"".join(pieces[1])
    assert len(samples(b"".join(pieces[0]).decode())) == 1000
    aggregate.collect().close()
    next(abandoned := aggregate.collect())
    abandoned.close()
    assert len(samples(scrape(aggregate))) == 1000


def test_what_is_known_does_not_grow_for_ever(tmp_path: Path) -> None:
    """Series of processes that are gone are forgotten in the end."""
    aggregate = Aggregate(str(tmp_path))
    for number in range(40):
        path = write(tmp_path, f"gauge_all_w0.{number}x.db", {key("g", n=str(n)): (1.0, 0.0) for n in range(100)})
        assert len(samples(scrape(aggregate))) == 100
        path.unlink()
    scrape(aggregate)

    assert len(aggregate._families.owners) <= 2000


def test_no_directory_is_no_metrics(tmp_path: Path) -> None:
    """Before anything was written, and when it was removed."""
    aggregate = Aggregate(str(tmp_path / "none"))

    assert scrape(aggregate) == ""
    assert (aggregate.files, aggregate.free_bytes()) == (0, -1)


def test_reading_needs_no_third_party() -> None:
    """The observer stays lean: prometheus_client alone would cost it 14 MB."""
    code = (
        "import sys; sys.path.append(sys.argv[1]); import launcher.observer.aggregate, launcher.observer.metrics;"
        "print(*{m.partition('.')[0] for m in sys.modules} - sys.stdlib_module_names - {'launcher', '__main__'})"
    )
    argv = [sys.executable, "-I", "-S", "-c", code, str(Path(__file__).parents[2])]

    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split() == []
