"""
The measures: each starts one contender once, and returns figures by the name of their row.

Owns what is measured and how it is seen (`SEEN`).  Must never compare: `table` does, over all rounds.
"""

from __future__ import annotations

import compileall
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.bench import environment, procfs
from tests.bench.contenders import Place
from tests.bench.load import Load
from tests.bench.log_measures import SEEN as LOGS_SEEN
from tests.bench.log_measures import logs
from tests.bench.session import APPS, SLOW, TRIVIAL, NotSeenError, Session, environ, import_alone, pause

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.contenders import Contender

Figures = dict[str, list[float]]

MB = 1_000_000
KILLS_OF_ONE_TREE = 10  # more in a row is a crash loop, which good supervisors slow down
KILLING_TIME = 10.0  # seconds after which a contender with slow replacements has shown enough
SLOW_REPLACEMENT = 1000.0  # ms; after one of these a new tree is taken: granian would call the next a crash loop
CHECKS = 10  # in one round
SETTLING = 1.0  # seconds until a contender that has started counts as idle


class Lengths(NamedTuple):
    """How long the long measures are."""

    kills: int = 10  # in one round
    idle: float = 30.0  # seconds


def first(contender: Contender, lengths: Lengths) -> Figures:
    """Exec → first answer of a trivial app with one worker."""
    with Session(contender, 1) as session:
        return {"first answer": [1000 * (session.first_answer() - session.began)]}


def up(contender: Contender, lengths: Lengths) -> Figures:
    """Exec → 16 workers of a trivial app are up."""
    with Session(contender, 16) as session:
        return {"16 up": [1000 * (session.wait_for("up", 16)[-1].when - session.began)]}


def slow(contender: Contender, lengths: Lengths) -> Figures:
    """Exec → 16 workers of a slow app are up, in imports of that app alone."""
    alone = import_alone(SLOW)
    with Session(contender, 16, SLOW) as session:
        took = session.wait_for("up", 16)[-1].when - session.began
    return {"16 slow up": [took / alone]}


def kill(contender: Contender, lengths: Lengths) -> Figures:
    """SIGKILL of a worker of the slow app → the next one is inside the app."""
    found: list[float] = []
    stop = time.monotonic() + KILLING_TIME
    while len(found) < lengths.kills and (time.monotonic() < stop or not found):
        with Session(contender, 2, SLOW) as session:
            session.wait_for("up", 2)
            pause(SETTLING)
            for _ in range(min(KILLS_OF_ONE_TREE, lengths.kills - len(found))):
                found.append(1000 * _kill_one(session))
                if time.monotonic() > stop or found[-1] > SLOW_REPLACEMENT:
                    break
    return {"killed": found}


def _kill_one(session: Session) -> float:
    victim = random.choice(session.workers())
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    successor = session.wait_for("inside", since=began)[0]
    session.wait_for("up", since=began)
    pause(0.25)
    return successor.when - began


def reload(contender: Contender, lengths: Lengths) -> Figures:
    """Reload of four workers of the slow app under load."""
    alone = import_alone(SLOW)
    with Session(contender, 4, SLOW) as session:
        session.wait_for("up", 4)
        with Load(session.place.port) as load:
            pause(2.0)
            session.change_code()
            began = session.reload()
            is_calm = load.wait_until_calm(40.0)
            requests = load.finish()
    during = [request for request in requests if request.answered > began]
    new = [request.answered for request in during if request.version > 1]
    if not (is_calm and new):
        raise NotSeenError(contender.name, "old code still answers 40 s after the reload")
    return {
        "reload failed": [sum(bool(request.fault) for request in during)],
        "reload worst": [1000 * max(request.answered - request.asked for request in during)],
        "reload new": [1000 * (min(new) - began - alone)],
        "calm worst": [1000 * max(r.answered - r.asked for r in requests if r.answered <= began)],
    }


def memory(contender: Contender, lengths: Lengths) -> Figures:
    """PSS of the tree with eight workers after 100 requests and a collection in each."""
    with Session(contender, 8, SLOW) as session:
        session.wait_for("up", 8)
        with Load(session.place.port, clients=32, pause=0.0, path="/pause"):
            session.wait_for("collected", 8)
        pause(SETTLING)
        return {"tree PSS": [procfs.memory(session.tree()).pss / MB]}


def own(contender: Contender, lengths: Lengths) -> Figures:
    """Memory of the supervisor beside a bare interpreter that runs at the same time."""
    with Session(contender, 4) as session:
        session.wait_for("up", 4)
        argv = [session.place.bin / "python", "-I", "-S", "-c", "input()"]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as bare:
            pause(SETTLING)
            plain = procfs.memory([bare.pid])
            used = procfs.memory(session.supervisors())
            bare.kill()
    return {
        "own dirty": [(used.private_dirty - plain.private_dirty) / MB],
        "own PSS": [used.pss / MB],
        "bare PSS": [plain.pss / MB],
    }


def idle(contender: Contender, lengths: Lengths) -> Figures:
    """System calls while nothing is asked: of the supervising processes, and of the workers."""
    if not shutil.which("strace"):
        raise NotSeenError(contender.name, "strace is not here")
    with Session(contender, 4) as session:
        session.wait_for("up", 4)
        pause(2 * SETTLING)
        workers = {thread for pid in session.workers() for thread in procfs.threads(pid)}
        trace = session.place.directory / "trace"
        targets = [word for pid in session.tree() for word in ("-p", str(pid))]
        with subprocess.Popen(
            ["strace", "-f", "-ttt", "-qq", "-o", trace, *targets], stdin=subprocess.DEVNULL
        ) as strace:
            pause(SETTLING)
            began = time.time()
            pause(lengths.idle)
            strace.terminate()
        # What stands in the trace from before is the call that each one waits in.
        calls = re.findall(r"^(\d+) +([\d.]+) (?!<\.\.\.|\+\+\+|---)", trace.read_text(errors="replace"), re.MULTILINE)
    seen = [int(thread) in workers for thread, when in calls if began < float(when) < began + lengths.idle]
    return {"idle own": [seen.count(False)], "idle workers": [seen.count(True)]}


def many(contender: Contender, lengths: Lengths) -> Figures:
    """Exec → 200 workers of a trivial app are up; processor time of the supervisor for each."""
    cpu: dict[int, float] = {}
    took = 0.0
    for workers in (1, 50, 200):
        with Session(contender, workers) as session:
            took = session.wait_for("up", workers)[-1].when - session.began
            cpu[workers] = procfs.cpu_seconds(session.supervisors())
    return {
        "200 up": [took],
        "CPU at 50": [1000 * (cpu[50] - cpu[1]) / 49],
        "CPU at 200": [1000 * (cpu[200] - cpu[1]) / 199],
    }


def check(contender: Contender, lengths: Lengths) -> Figures:
    """`--check-config` of a small app beside a plain import of what it needs, in turns."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        shutil.copytree(APPS, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(directory, quiet=2)
        place = Place(Path(directory), 0, 1, environment.BIN)
        variables = environ(TRIVIAL, place.directory) | {"SHOP_NAME": "x", "SHOP_TOKEN": "x"}
        plain = [place.bin / "python", "-c", "import click, environ, configured"]
        checked = [place.bin / "prod-run", "--check-config", "configured:main"]
        took: dict[str, list[float]] = {"imported": [], "checked": []}
        for _ in range(CHECKS):
            for name, argv in (("imported", plain), ("checked", checked)):
                began = time.monotonic()
                ended = subprocess.run(argv, cwd=directory, env=variables, capture_output=True)
                took[name].append(1000 * (time.monotonic() - began))
                if ended.returncode:
                    raise NotSeenError(contender.name, f"{name}: {ended.stderr.decode()[-200:]}")
    return {**took, "check": [statistics.median(took["checked"]) / statistics.median(took["imported"])]}


MEASURES: dict[str, Callable[[Contender, Lengths], Figures]] = {
    function.__name__: function for function in (first, up, slow, kill, reload, memory, own, idle, many, check, logs)
}

SEEN = f"""\
prod-run serves through one small standard-library server (tests/bench/apps/serving.py) on worker.sockets, and so do
the copies that supervisord, circus and s6 start; gunicorn and uWSGI serve the same app as WSGI, granian and uvicorn
as ASGI, and so does prod-run through the same libraries as prod-run-wsgi and prod-run-asgi.  All run from one virtual environment, from compiled files, with the same small environment.
up          a worker writes its PID and the monotonic time into a pipe: prod-run's after worker.ready(), gunicorn's in
            post_worker_init, uWSGI's in post_fork_hook, granian's and uvicorn's at lifespan.startup, a plain
            program's when it listens
first       from just before the exec until a client that tries every millisecond has an answer
slow        70 MB of Python objects (80 MB with a plain interpreter) and 1 s of CPU at import; one import alone is
            timed just before, in each round
kill        two workers of the slow app; the new one writes the time in its first line of the app's code (prod-run:
            the first line of main; the others: as for up); at most {KILLS_OF_ONE_TREE} kills of one tree (1 if
            it takes more than a second to replace a worker), and {KILLING_TIME:g} s in a round
reload      four workers of the slow app; 8 clients of one process, half keep-alive, 20 ms between answer and request;
            new = first answer of new code, less one import alone; calm = worst latency in the 2 s before
memory      8 workers of the slow app; requests pause for 2 ms and touch no object of the heap; PSS of all processes
own         first process of 4 trivial workers (s6: all but the workers); dirty = Private_Dirty, less that of
            `python -I -S -c 'input()'` at the same time
idle        strace -f of all processes, 4 trivial workers; calls that begin in the time; own = all but the workers
many        time on the processor of the supervisor from its schedstat, less that with 1 worker, for each worker more
check       --check-config of an app with three variables and a secret, in medians of
            `python -c "import click, environ, configured"`, which imports the same app; {CHECKS} of each in turns
{LOGS_SEEN}"""
