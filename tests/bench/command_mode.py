"""
What a plain command costs: memory and start beside other inits and supervisors.

`python -m tests.bench.command_mode [RUNS]`; programs that are not installed are left out.  Starts are interleaved, so
that a busy machine is busy for all.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.processes.running import PROD_RUN, children_of, until

SUPERVISORD = """\
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile={folder}/supervisord.pid
[program:sleep]
command=sleep 1000
startsecs=0
"""
CIRCUS = """\
[circus]
endpoint = ipc://{folder}/endpoint
pubsub_endpoint = ipc://{folder}/pubsub
[watcher:sleep]
cmd = sleep 1000
"""


def contenders(folder: Path) -> dict[str, list[str]]:
    """Return what each is started with to supervise `sleep 1000`."""
    (folder / "supervisord.conf").write_text(SUPERVISORD.format(folder=folder))
    (folder / "circus.ini").write_text(CIRCUS.format(folder=folder))
    service = folder / "services" / "sleep"
    service.mkdir(parents=True)
    (service / "run").write_text("#!/bin/sh\nexec sleep 1000\n")
    (service / "run").chmod(0o755)
    found = {
        "tini": ["tini", "-s", "--", "sleep", "1000"],
        "dumb-init": ["dumb-init", "--", "sleep", "1000"],
        "s6-svscan": ["s6-svscan", str(folder / "services")],
        "prod-run": [str(PROD_RUN), "--", "sleep", "1000"],
        "prod-run -w 2": [str(PROD_RUN), "-w", "2", "--", "sleep", "1000"],
        "supervisord": ["supervisord", "-c", str(folder / "supervisord.conf")],
        "circusd": ["circusd", str(folder / "circus.ini")],
    }
    return {name: argv for name, argv in found.items() if shutil.which(argv[0])}


def memory(pid: int) -> tuple[int, int, int]:
    """Return PSS, private memory and resident memory in kB (proc_pid_smaps(5)), of a process without its children."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return values["Pss"], values["Private_Clean"] + values["Private_Dirty"], values["Rss"]


def measure_memory(folder: Path) -> None:
    """Print one row for each."""
    print("| | PSS kB | private kB | RSS kB |\n|---|---|---|---|")
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
    for name, argv in contenders(folder).items():
        process = subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        until(lambda pid=process.pid: _sleeps_below(pid), f"{name}: the command is there")
        time.sleep(1.0)  # noqa: TID251  what it does after the start has been done
        pids = [process.pid, *(pid for pid in children_of(process.pid) if _name(pid).startswith("s6"))]
        total = [sum(column) for column in zip(*map(memory, pids), strict=True)]
        print(f"| {name} | {' | '.join(map(str, total))} |", flush=True)
        process.terminate()
        process.wait(60)


def measure_starts(runs: int) -> None:
    """Print when the command ran, and the CPU time from the exec to the end, which other work changes less."""
    date = ["date", "+%s%N"]
    argvs = {
        "bare": date,
        "tini": ["tini", "-s", "--", *date],
        "dumb-init": ["dumb-init", "--", *date],
        "prod-run": [str(PROD_RUN), "--", *date],
        "python that execs it": [sys.executable, "-c", "import os; os.execvp('date', ['date', '+%s%N'])"],
    }
    took: dict[str, list[tuple[float, float]]] = {name: [] for name, argv in argvs.items() if shutil.which(argv[0])}
    for _ in range(runs):
        for name, times in took.items():
            times.append(start(argvs[name]))
    print("\n| | median ms until it runs | least | median CPU ms |\n|---|---|---|---|")
    for name, times in took.items():
        clock, cpu = zip(*times, strict=True)
        print(f"| {name} | {statistics.median(clock):.1f} | {min(clock):.1f} | {statistics.median(cpu):.1f} |")


def start(argv: list[str]) -> tuple[float, float]:
    """
    Run a command that says when it runs.

    Returns milliseconds: until then, and of CPU time up to the end, with that of the children that were reaped.
    """
    reading, writing = os.pipe()
    began = time.time_ns()
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)])
    os.close(writing)
    _, status, used = os.wait4(pid, 0)
    with open(reading, "rb") as said:
        ran = int(said.read())
    assert os.waitstatus_to_exitcode(status) == 0
    return (ran - began) / 1e6, (used.ru_utime + used.ru_stime) * 1000


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _sleeps_below(pid: int) -> bool:
    family = [pid]
    for parent in family:
        family += children_of(parent)
    return any(_name(child) == "sleep" for child in family[1:])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        measure_memory(Path(place))
    measure_starts(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
