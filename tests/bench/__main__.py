"""
`python -m tests.bench`: prod-run beside its peers, as a table.

Owns the options and the order: round by round, in each round measure by measure, each measure one contender
after the other.  Must never let one contender's failure end the whole.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import contenders, environment, table
from tests.bench.contenders import Contender, Place
from tests.bench.measures import MEASURES, SEEN, Lengths, first
from tests.bench.session import NotSeenError, adopt_orphans


def main() -> int:
    """Measure, and print."""
    options = understand()
    adopt_orphans()
    print(f"load average before: {_load()}", flush=True)
    chosen = environment.prepare([c for c in contenders.ALL if c.name in options.contenders])
    chosen = [contender for contender in chosen if is_working(contender)]
    lengths = Lengths(max(1, math.ceil(options.kills / options.rounds)), options.idle_seconds)
    results, failures = measure(chosen, options, lengths)
    present = [contender.name for contender in chosen]
    print(f"\n{table.show(results, present)}\n\n{SEEN}\n")
    print(f"{options.rounds} rounds, {lengths.kills} kills in each, {lengths.idle:g} s idle; load average {_load()}")
    print("; ".join(environment.versions(chosen)))
    print("\n".join(command_lines(chosen)))
    for failure in failures:
        print(f"failed: {failure}")
    if options.json:
        options.json.write_text(json.dumps({"results": results, "failures": failures}, indent=1) + "\n")
    return 0


def understand() -> argparse.Namespace:
    """Read the options."""
    names = [contender.name for contender in contenders.ALL]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (5)")
    parser.add_argument(
        "--only", type=_words(list(MEASURES)), default=list(MEASURES), metavar="A,B", help=f"of {', '.join(MEASURES)}"
    )
    parser.add_argument("--contenders", type=_words(names), default=names, metavar="A,B", help=f"of {', '.join(names)}")
    parser.add_argument("--kills", type=int, default=50, help="of workers, over all rounds (50)")
    parser.add_argument("--idle-seconds", type=float, default=30.0, help="how long idleness is watched (30)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser.parse_args()


def _words(allowed: list[str]):  # type: ignore[no-untyped-def]  # noqa: ANN202
    def parse(text: str) -> list[str]:
        words = text.split(",")
        unknown = set(words) - set(allowed)
        if unknown:
            message = f"{', '.join(sorted(unknown))}: not one of {', '.join(allowed)}"
            raise argparse.ArgumentTypeError(message)
        return words

    return parse


def is_working(contender: Contender) -> bool:
    """Start a contender once, which also warms the caches; say why it cannot be measured."""
    if contender.measures == ("reload",):
        return True  # a variation of another one
    try:
        first(contender, Lengths())
    except (NotSeenError, OSError) as error:
        print(f"without {contender.name}: {error}", flush=True)
        return False
    return True


def measure(chosen: list[Contender], options: argparse.Namespace, lengths: Lengths) -> tuple[table.Results, list[str]]:
    """Go round by round; return the figures, and what failed."""
    results: table.Results = {}
    failures: list[str] = []
    for number in range(options.rounds):
        for name in options.only:
            began = time.monotonic()
            # Nobody is always the first, or always behind the same one.
            turned = chosen[number % len(chosen) :] + chosen[: number % len(chosen)]
            for contender in turned:
                if name not in contender.measures:
                    continue
                try:
                    figures = MEASURES[name](contender, lengths)
                except (NotSeenError, OSError) as error:
                    failures.append(f"round {number + 1}, {name}: {error}")
                    continue
                for row, samples in figures.items():
                    results.setdefault(row, {}).setdefault(contender.name, []).extend(samples)
            _progress(
                f"round {number + 1} of {options.rounds}, {name}: {time.monotonic() - began:.0f} s, load {_load()}"
            )
    return results, failures


def command_lines(chosen: list[Contender]) -> list[str]:
    """Return each contender's command line, for 16 workers, and the files that it reads."""
    lines = []
    for contender in chosen:
        with tempfile.TemporaryDirectory() as directory:
            place = Place(Path(directory), 8000, 16, environment.BIN)
            lines.append(f"{contender.name}: {' '.join(contender.argv(place))}")
            for name in contender.files:
                path = Path(directory, name)
                content = (path if path.exists() else Path(__file__).with_name("apps") / name).read_text()
                if path.exists():
                    lines += [f"    {name} | {line}" for line in content.splitlines()]
            lines = [line.replace(f"{environment.BIN}/", "").replace(directory, "DIR") for line in lines]
    return lines


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
