"""
The metric families of the app: what is one series, how values of several processes become one, and the text.

Owns the rules of prometheus_client's multiprocess mode (a test holds them equal to its `merge`), and the two forms:
Prometheus text 0.0.4 and OpenMetrics 1.0.  Pure: files and processes are somebody else's.
"""

from __future__ import annotations

import json

from launcher.lean import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Values = list[float | None]

OURS = "prod_run_"  # families of this name are prod-run's own
_PIECE = 500  # lines of text in one slice
_INFINITE = float("inf")
_ODD = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}


class Found(NamedTuple):
    """What one file says: which series, their values (more than series, perhaps), and when they were set."""

    series: Sequence[int]
    values: Iterable[float]
    times: Sequence[float] = ()


def _add(into: Values, found: Found, _last: list[float]) -> None:
    for one, value in zip(found.series, found.values, strict=False):
        into[one] += value  # type: ignore[operator]


def _least(into: Values, found: Found, _last: list[float]) -> None:
    for one, value in zip(found.series, found.values, strict=False):
        known = into[one]
        if known is None or value < known:
            into[one] = value


def _most(into: Values, found: Found, _last: list[float]) -> None:
    for one, value in zip(found.series, found.values, strict=False):
        known = into[one]
        if known is None or value > known:
            into[one] = value


def _latest(into: Values, found: Found, last: list[float]) -> None:
    for one, value, time in zip(found.series, found.values, found.times, strict=False):
        if time > last[one]:  # one that was never set has none
            into[one], last[one] = value, time


def _each(into: Values, found: Found, _last: list[float]) -> None:
    for one, value in zip(found.series, found.values, strict=False):
        into[one] = value


_GAUGES = {"min": _least, "max": _most, "sum": _add, "mostrecent": _latest, "all": _each}
# By the kind that a file's name begins with.
MERGING = {
    **dict.fromkeys(("counter", "histogram", "summary"), _add),
    **{f"gauge_{mode}": merge for mode, merge in _GAUGES.items()},
    **{f"gauge_live{mode}": merge for mode, merge in _GAUGES.items()},
}
TIMED = {kind for kind, merge in MERGING.items() if merge is _latest}
OF_EACH = ("gauge_all", "gauge_liveall")


class Collected:
    """The values of one collection."""

    __slots__ = ("_last", "_names", "values")

    def __init__(self, names: Families) -> None:
        self._names = names
        self.values: Values = []
        self._last: list[float] = []

    def merge(self, kind: str, found: Found) -> None:
        """Take the values of one process."""
        missing = self._names.first_values[len(self.values) :]
        self.values += missing
        self._last += [0.0] * len(missing)
        MERGING[kind](self.values, found, self._last)


class _Metric(NamedTuple):
    """The series of one set of labels; OpenMetrics wants them together."""

    series: list[tuple[str, int]]  # what stands before the value, and which it is
    buckets: list[tuple[float, str, int]]
    total: str  # what stands before the count of a histogram, which no file has


class _Family:
    """All series of one name and kind."""

    __slots__ = ("help", "is_sorted", "kind", "metrics", "name")

    def __init__(self, kind: str, name: str, help_text: str) -> None:
        self.kind = kind
        self.name = name
        self.help = help_text
        self.metrics: dict[str, _Metric] = {}  # by the text of their labels
        self.is_sorted = True


class Families:
    """All series that were ever seen, by number."""

    __slots__ = ("_families", "_numbers", "_series", "first_values", "owners")

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str, bytes], int] = {}
        self._series: dict[tuple[str, str], int] = {}
        self._families: dict[tuple[str, str], _Family] = {}
        self.first_values: Values = []  # of each series, before any file
        self.owners: list[int] = []  # of each series: how many files have it

    def number(self, kind: str, identifier: str, key: bytes) -> int:
        """
        Return the number of the series that a key stands for in a file.

        Raises:
            ValueError: the key is garbage.
        """
        owner = identifier if kind in OF_EACH else ""
        found = self._numbers.get((kind, owner, key))
        if found is None:
            found = self._numbers[kind, owner, key] = self._number_anew(kind, owner, key)
        return found

    def _number_anew(self, kind: str, owner: str, key: bytes) -> int:
        try:
            name, sample, labels, help_text = json.loads(key)
            if owner:
                labels["pid"] = owner
            bound = labels.get("le") if kind == "histogram" else None
            bound_value = 0.0 if bound is None else float(bound)
            line = f"{_plain_name(sample)}{_braces(labels)} "
            others = _braces({name: labels[name] for name in labels if name != "le" or bound is None})
            known = self._families.setdefault((kind, name), _Family(kind, name, str(help_text)))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            message = "a key is garbage"
            raise ValueError(message) from error
        # Two generations may describe one series in two ways.
        number = self._series.setdefault((kind, line), len(self.first_values))
        if number == len(self.first_values):
            self.first_values.append(0.0 if MERGING[kind] is _add else None)  # a sum begins with zero
            self.owners.append(0)
            known.is_sorted = False
            metric = known.metrics.setdefault(others, _Metric([], [], f"{_plain_name(name)}_count{others} "))
            if bound is None:
                metric.series.append((line, number))
            else:
                metric.buckets.append((bound_value, line, number))
        return number

    def render(self, collected: Collected, *, openmetrics: bool) -> Iterator[str]:
        """Write all that was collected, in pieces."""
        text: list[str] = []
        for family, lines in self._shown(collected.values, openmetrics=openmetrics):
            kind = family.kind.partition("_")[0]
            name = _plain_name(family.name)
            shown = f"{name}_total" if kind == "counter" and not openmetrics else name
            text.append(f"# HELP {shown} {escape_help(family.help, openmetrics=openmetrics)}\n# TYPE {shown} {kind}\n")
            for line in lines:
                text.append(line)
                if len(text) >= _PIECE:
                    yield "".join(text)
                    text.clear()
        yield "".join(text)

    def _shown(self, values: Values, *, openmetrics: bool) -> Iterator[tuple[_Family, Iterator[str]]]:
        # A family that a reload gave another type has two; the latter stands for what the app says today.
        chosen = {f.name: f for f in self._families.values() if not f.name.startswith(OURS) and self._is_there(f)}
        for family in chosen.values():
            if not family.is_sorted:
                family.metrics = dict(sorted(family.metrics.items()))
                for metric in family.metrics.values():
                    metric.series.sort()
                    metric.buckets.sort()
                family.is_sorted = True
            yield family, self._lines(family, values, openmetrics=openmetrics)

    def _is_there(self, family: _Family) -> bool:
        owners = self.owners
        return any(
            any(owners[number] for _, number in metric.series) or any(owners[number] for *_, number in metric.buckets)
            for metric in family.metrics.values()
        )

    def _lines(self, family: _Family, values: Values, *, openmetrics: bool) -> Iterator[str]:
        owners = self.owners
        is_histogram = family.kind == "histogram"
        is_counting = openmetrics and not family.kind.startswith("gauge")
        for metric in family.metrics.values():
            if is_histogram:
                there = [one for one in metric.buckets if owners[one[2]]]
                if not there or there[-1][0] != _INFINITE:
                    continue  # whoever made it was killed half-way
                total = 0.0
                for _, line, number in there:
                    total += values[number] or 0.0
                    yield f"{line}{number_text(total)}\n"
                yield f"{metric.total}{number_text(total)}\n"
            for line, number in metric.series:
                value = values[number] if owners[number] else None
                # OpenMetrics forbids a negative or impossible count or sum.
                if value is not None and not (is_counting and not value >= 0):
                    yield f"{line}{number_text(value)}\n"


def number_text(value: float) -> str:
    """Write a number as both forms want it."""
    text = repr(value)
    return _ODD.get(text, text)


def escape_help(text: str, *, openmetrics: bool) -> str:
    """Write a help text in one line."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if openmetrics else text


def label(name: str, value: str) -> str:
    """Write one label."""
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return f'{name}="{escaped}"'


def _braces(labels: dict[str, str]) -> str:
    inner = ",".join(label(_plain_name(name), value) for name, value in sorted(labels.items()))
    return f"{{{inner}}}" if inner else ""


def _plain_name(name: str) -> str:
    """Replace what Prometheus before 3.0 does not take in a name."""
    if name.isascii() and name.replace(":", "_").isidentifier():
        return name
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_:") else "_" for c in name)
    return f"_{plain}" if not plain or plain[0].isdecimal() else plain
