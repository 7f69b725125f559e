"""What a target may be, when it counts as ready, and what its end means: DESIGN §3.2 and §3.4."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.processes.running import children_of, is_alive, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.processes.running import Running

SERVING = """
    worker.ready()
    print("serving", worker.slot, flush=True)
    worker.stopping.wait()
"""

TAKES_A_WORKER = {
    "annotation": "from launcher import Worker\ndef main(worker: Worker):" + SERVING,
    "generic": "from launcher import Worker\nclass Config: pass\ndef main(worker: Worker[Config]):" + SERVING,
    "text": """
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from launcher import Worker
def main(w: Worker):
    worker = w"""
    + SERVING,
    "generic text": "def main(worker: 'Worker[Config]'):" + SERVING,
    "module text": "def main(worker: 'launcher.Worker', more=None, *rest, **named):" + SERVING,
    "keyword only": "from launcher import Worker\ndef main(*, worker: Worker):" + SERVING,
    "positional only": "from launcher import Worker\ndef main(worker: Worker, /):" + SERVING,
    "callable instance": """
from launcher import Worker
class App:
    def __call__(self, worker: Worker):
        self.run(worker)
    def run(self, worker):
        worker.ready()
        print("serving", worker.slot, flush=True)
        worker.stopping.wait()
main = App()
""",
    "bound method": """
from launcher import Worker
class App:
    def run(self, worker: Worker):
        worker.ready()
        print("serving", worker.slot, flush=True)
        worker.stopping.wait()
main = App().run
""",
    "partial": "import functools\nfrom launcher import Worker\ndef run(x, worker: Worker):"
    + SERVING
    + "main = functools.partial(run, 1)",
    "decorated": """
import functools
from launcher import Worker
def loud(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper
@loud
def main(worker: Worker):"""
    + SERVING,
    "async": """
from launcher import Worker
async def main(worker: Worker):
    await worker.ready_async()
    print("serving", worker.slot, flush=True)
    await worker.stopping.wait_async()
""",
    "async instance": """
from launcher import Worker
class App:
    async def __call__(self, worker: Worker):
        await worker.ready_async()
        print("serving", worker.slot, flush=True)
        await worker.stopping.wait_async()
main = App()
""",
}


@pytest.mark.parametrize("how", TAKES_A_WORKER)
def test_a_target_is_given_its_worker(start: Callable[..., Running], app: Callable[..., Path], how: str) -> None:
    """However the Worker is asked for: it is passed, ready() lets it serve, and `stopping` ends it."""
    app(TAKES_A_WORKER[how])
    running = start("app:main")
    running.wait_for(event="committed")
    running.wait_for("serving 0")

    assert running.stop() == 0
    assert running.wait_for(event="ended worker")["how"] == "exit 0"


WITHOUT_A_WORKER = {
    "function": "import time\ndef main():\n    print('entered', flush=True)\n    time.sleep(1000)",
    "async": "import asyncio\nasync def main():\n    print('entered', flush=True)\n    await asyncio.sleep(1000)",
    "class": "import time\nclass main:\n    def __init__(self):\n        print('entered', flush=True)\n        time.sleep(1000)",
    "nested": "import time\nclass App:\n    @staticmethod\n    def main():\n        print('entered', flush=True)\n        time.sleep(1000)",
}


@pytest.mark.parametrize("how", WITHOUT_A_WORKER)
def test_a_target_without_a_worker_is_ready_once_it_has_lived_a_second(
    start: Callable[..., Running], app: Callable[..., Path], how: str
) -> None:
    """It is entered, commits its generation a second later, and SIGTERM ends it with its finally blocks."""
    app(WITHOUT_A_WORKER[how])
    running = start("app:App.main" if how == "nested" else "app:main")
    entered = running.wait_for("entered")
    committed = running.wait_for(event="committed")

    assert running.lines.index(committed) > running.lines.index(entered)
    assert float(committed["after"].rstrip("s")) >= 1.0
    assert running.stop() == 0
    assert running.wait_for(event="ended worker")["how"] == "exit 0"


@pytest.mark.parametrize("how", ["sync", "async"])
def test_sigterm_ends_a_target_without_a_worker_through_its_finally_blocks(
    start: Callable[..., Running], app: Callable[..., Path], how: str
) -> None:
    """SystemExit in the main thread, cancellation if it is async."""
    keyword, wait = ("", "time.sleep(1000)") if how == "sync" else ("async ", "await asyncio.sleep(1000)")
    app(f"""
import asyncio, time
{keyword}def main():
    try:
        {wait}
    except BaseException as error:
        print("saw", type(error).__name__, flush=True)
        raise
    finally:
        print("cleaned up", end="")  # without a newline, and not flushed
""")
    running = start("app:main")
    running.wait_for(event="committed")

    assert running.stop() == 0
    running.wait_for("saw SystemExit" if how == "sync" else "saw CancelledError")
    running.wait_for("cleaned up")
    assert "Traceback" not in running.text()


@pytest.mark.parametrize("preload", ["always", "never"])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_stop_before_the_target_is_entered_ends_it_all_the_same(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path, preload: str, how: str
) -> None:
    """SIGTERM while a worker imports or has just been let go is not lost: the target never needs SIGKILL."""
    keyword, wait = ("", "signal.pause()") if how == "sync" else ("async ", "await asyncio.Event().wait()")
    app(f"""
import asyncio, os, signal, time
WORKERS_IMPORT = os.environ.get("NOTIFY_SOCKET")
if WORKERS_IMPORT:
    print("worker imports", flush=True)
    while not os.path.exists("go-on"):
        time.sleep(0.01)
{keyword}def main():
    {wait}
""")
    running = start("--preload", preload, "--drain-timeout", "30s", "app:main")
    if preload == "never":
        running.wait_for("worker imports")
    else:
        until(running.workers, "a worker")
    running.send(signal.SIGTERM)
    running.wait_for(event="stopping")
    (tmp_path / "go-on").touch()

    assert running.wait() == 0
    assert running.wait_for(event="ended worker")["how"] == "exit 0"
    assert "killed straggler" not in running.text()


def test_a_target_that_never_calls_ready_misses_its_limit(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """The sentence says that ready() was not called, and within which limit."""
    app("from launcher import Worker\ndef main(worker: Worker):\n    worker.stopping.wait()\n")
    running = start("--boot-timeout", "1s", "app:main")

    assert running.wait() == 70
    assert "worker 0 did not call ready() within --boot-timeout 1s" in running.wait_for(event="rejected")["reason"]


@pytest.mark.parametrize(("preload", "restart", "code"), [
    ("always", "always", 70), ("always", "on-failure", 0), ("never", "always", 70), ("never", "on-failure", 0)
])  # fmt: skip
def test_a_target_that_returns_before_ready_is_done_or_bad(
    start: Callable[..., Running], app: Callable[..., Path], preload: str, restart: str, code: int
) -> None:
    """Exit code 0 before ready() means done under `on-failure`, and a bad worker under `always`."""
    app("from launcher import Worker\ndef main(worker: Worker):\n    pass\n")
    running = start("-w", 2, "--preload", preload, "--restart", restart, "app:main")

    assert running.wait() == code


# ── ready() ─────────────────────────────────────────────────────────────────────────────────────────


def test_ready_inside_an_event_loop_names_its_twin(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """It would block the loop, so it raises at once; the traceback begins at the app's frame."""
    app("from launcher import Worker\nasync def main(worker: Worker):\n    worker.ready()\n")
    running = start("app:main")

    assert running.wait() == 70
    running.wait_for("RuntimeError: worker.ready() would block the event loop: use `await worker.ready_async()`")
    first = running.lines[running.lines.index(running.wait_for("Traceback")) + 1]
    assert "/app.py" in first["text"]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_held_worker_of_a_rejected_generation_leaves_through_its_finally_blocks(
    start: Callable[..., Running], app: Callable[..., Path], how: str
) -> None:
    """ready() never returns there: it raises SystemExit, and the process cleans up and ends with 0."""
    keyword, ready, rest = (
        ("", "worker.ready()", "worker.stopping.wait()")
        if how == "sync"
        else ("async ", "await worker.ready_async()", "await worker.stopping.wait_async()")
    )
    source = f"""
from launcher import Worker
{keyword}def main(worker: Worker):
    if worker.generation == 2 and worker.slot == 1:
        while not held():
            pass
        raise ValueError("the second one is bad")
    try:
        if worker.generation == 2:
            print("held back", flush=True)
            open("held", "w").close()
        {ready}
        print("serves in", worker.generation, flush=True)
        {rest}
    except SystemExit as error:
        print("leaves with", error.code, flush=True)
        raise
    finally:
        print("cleaned up in", worker.generation, flush=True)

def held():
    import os
    return os.path.exists("held")
"""
    app(source)
    running = start("-w", 2, "app:main")
    running.wait_for(event="committed")

    assert running.reload()["event"] == "rejected"
    running.wait_for("leaves with 0")
    running.wait_for("cleaned up in 2")
    assert running.wait_for(event="ended worker", generation=2, slot=0)["how"] == "exit 0"
    assert "serves in 2" not in running.text()
    assert running.stop() == 0


def test_what_a_worker_says_of_itself_never_costs_it_its_ready(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """Ten thousand status lines fill every buffer; ready() arrives all the same, the status is whole text."""
    app("""
from launcher import Worker
def main(worker: Worker):
    for number in range(10_000):
        worker.status(f"loaded {number} \\ud800 " + "x" * 300)
    worker.ready()
    worker.stopping.wait()
""")
    running = start("app:main")
    running.wait_for(event="committed")

    assert running.stop() == 0


# ── stopping ────────────────────────────────────────────────────────────────────────────────────────


def test_two_hundred_signals_in_a_wait_do_not_deadlock(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """`stopping` is set in a signal handler while the same thread waits for it, again and again."""
    app("""
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    worker.stopping.wait()
    print("told to stop", flush=True)
    rounds = 0
    while not finished():
        assert worker.stopping.wait(10.0) and worker.stopping.is_set()
        rounds += 1
    print("waited well", flush=True)

def finished():
    import os
    return os.path.exists("finished")
""")
    running = start("app:main")
    running.wait_for(event="committed")
    (worker,) = running.workers()
    for _ in range(200):
        os.kill(worker, signal.SIGTERM)
    running.wait_for("told to stop")
    for _ in range(200):
        os.kill(worker, signal.SIGTERM)
    (tmp_path / "finished").touch()
    running.wait_for("waited well")

    assert running.stop() == 0


def test_a_worker_hears_why_it_is_to_stop_and_whether_it_is_the_last(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """`stopping.reason` and `.last` are there when `stopping` is set, in a signal handler too."""
    app("""
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    worker.stopping.wait()
    print(f"slot {worker.slot} generation {worker.generation}: {worker.stopping.reason} {worker.stopping.last}", flush=True)
""")
    running = start("-w", 2, "app:main")
    running.wait_for(event="committed")
    running.send(signal.SIGTTOU)
    running.wait_for("slot 1 generation 1: scale False")
    assert running.reload()["event"] == "committed"
    running.wait_for("slot 0 generation 1: reload False")

    assert running.stop() == 0
    running.wait_for("slot 0 generation 2: stop True")


def test_the_apps_own_sigterm_handler_is_called_after_stopping_is_set(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """A handler from the import is kept and called; one that main installs replaces ours, and `stopping` still works."""
    app("""
import os, signal, time
from launcher import Worker
CALLED = []
def handler(whose):
    def on_sigterm(*_):
        CALLED.append(whose)
        os.write(1, f"{whose} handler\\n".encode())
    return on_sigterm
signal.signal(signal.SIGTERM, handler("the app's"))
def main(worker: Worker):
    if worker.slot == 1:
        signal.signal(signal.SIGTERM, handler("main's"))
    worker.ready()
    worker.stopping.wait()
    while not CALLED:  # the order on the channel may be seen before the signal
        time.sleep(0.01)
    print("stops", worker.slot, worker.stopping.reason, flush=True)
""")
    running = start("-w", 2, "app:main")
    running.wait_for(event="committed")

    assert running.stop() == 0
    for text in ("the app's handler", "main's handler", "stops 0 stop", "stops 1 stop"):
        running.wait_for(text)


def test_a_fork_of_the_apps_sees_stopping_too_and_does_not_spin(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """A child that multiprocessing forked may wait for its parent's `stopping`; it never speaks for the parent."""
    app("""
import multiprocessing, time
from launcher import Worker
def child(worker):
    worker.ready()
    began = time.process_time()
    worker.stopping.wait()
    print("child stops", worker.stopping.wait(10), time.process_time() - began < 5, flush=True)
def main(worker: Worker):
    process = multiprocessing.get_context("fork").Process(target=child, args=(worker,))
    worker.ready()
    process.start()
    print("began", flush=True)
    worker.stopping.wait()
    process.join()
""")
    running = start("app:main")
    running.wait_for("began")

    assert running.stop() == 0
    running.wait_for("child stops True True")


# ── ends ────────────────────────────────────────────────────────────────────────────────────────────

BY_SLOT = """
import os, signal, sys, time
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    if worker.slot == 0:
        return
    if worker.slot == 1:
        sys.exit(int(sys.argv[1]))
    if worker.slot == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return 9
"""


@pytest.mark.parametrize(("workers", "code"), [(1, 0), (2, 5), (3, 5)])
def test_with_never_the_first_copy_that_failed_gives_the_exit_code(
    start: Callable[..., Running], app: Callable[..., Path], workers: int, code: int
) -> None:
    """`--restart never`: every copy runs once; 0, or the first non-zero code."""
    app(BY_SLOT)
    running = start("-w", workers, "--restart", "never", "app:main", 5)

    assert running.wait() == code
    assert sum(line.get("event") == "finished worker" for line in running.lines) == workers


def test_with_never_a_signal_gives_128_and_its_number(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """A copy that was killed with SIGKILL counts as 137."""
    app("import os, signal\ndef main():\n    os.kill(os.getpid(), signal.SIGKILL)\n")
    running = start("--restart", "never", "app:main")

    assert running.wait() == 137


def test_on_failure_starts_again_what_failed_until_it_is_done(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path
) -> None:
    """A non-zero end after the commit is started again, 0 means done, and all done is exit 0."""
    app("""
import sys
from pathlib import Path
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    tries = Path(f"tries.{worker.slot}")
    tries.write_text((tries.read_text() if tries.exists() else "") + "x")
    sys.exit(0 if len(tries.read_text()) > worker.slot else 3)
""")
    running = start("-w", 3, "app:main")

    assert running.wait() == 0
    assert [(tmp_path / f"tries.{slot}").read_text() for slot in range(3)] == ["x", "xx", "xxx"]


def test_always_starts_again_even_what_ended_well(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """`--restart always`: a worker that returns 0 is replaced."""
    app("from launcher import Worker\ndef main(worker: Worker):\n    worker.ready()\n    print('ran', flush=True)\n")
    running = start("--restart", "always", "app:main")
    until(lambda: running.text().count("ran") >= 3, "it was started three times")

    assert running.stop() == 0


# ── tracebacks and rude apps ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["import", "main", "async", "chained", "syntax"])
def test_the_apps_traceback_shows_the_apps_frames_alone(
    start: Callable[..., Running], app: Callable[..., Path], tmp_path: Path, how: str
) -> None:
    """Whatever the app raises: no frame of prod-run's, of importlib's or of asyncio's comes before its own."""
    app("def deeper():\n    raise ValueError('no fuel')\n", "library")
    app({
        "import": "import library\nlibrary.deeper()\ndef main(): ...",
        "main": "import library\ndef main():\n    library.deeper()",
        "async": "import library\nasync def main():\n    library.deeper()",
        "chained": "import library\ndef main():\n    try:\n        library.deeper()\n    except ValueError as e:\n        raise RuntimeError('no fuel') from e",
        "syntax": "def main(:\n    'no fuel'",
    }[how])  # fmt: skip
    running = start("app:main")

    assert running.wait() == 70
    # From the import it is the detail of prod-run's record, from a worker a record of its own.
    shown = [(line.get("detail") or line.get("exc", "")).replace("\\n", "\n") for line in running.lines]
    frames = [text for text in "\n".join(shown).splitlines() if text.lstrip().startswith("File ")]
    assert "SyntaxError" in running.text() if how == "syntax" else "no fuel" in running.text()
    assert frames[0].strip().startswith(f'File "{tmp_path}/app.py"')
    assert [frame for frame in frames if str(tmp_path) not in frame] == []


RUDE = {
    "exits at import": ("import sys; sys.exit(3)", 70, "importing it called sys.exit(3)"),
    "raises SystemExit at import": ("raise SystemExit('no licence')", 70, "importing it called sys.exit('no licence')"),
    "raises KeyboardInterrupt at import": ("raise KeyboardInterrupt", 70, "importing it raised KeyboardInterrupt"),
    "ends at once at import": ("import os; os._exit(3)", 70, "exit 3"),
    "kills itself at import": ("import os; os.kill(os.getpid(), 9)", 70, "SIGKILL"),
    "closes all descriptors at import": ("import os; os.closerange(3, 256)\ndef main(): ...", 70, "the app closed descriptors"),
    "has a strange error": ("raise ValueError('\\ud800 \\0 ' + 'ä' * 200_000)", 70, "importing it raised ValueError"),
    "has a lazy attribute that fails": ("def __getattr__(name): raise ValueError('lazy')", 70, "looking up 'main' raised ValueError: lazy"),
    "exits in main": ("import sys\ndef main(): sys.exit('no licence')", 70, "no licence"),
    "ends at once in main": ("import os\ndef main(): os._exit(4)", 70, "exit 4"),
    "closes all descriptors in main": ("import os\nfrom launcher import Worker\ndef main(worker: Worker):\n    os.closerange(3, 256)\n    worker.ready()", 70, "the app has closed descriptors"),
    "closes stdout and stderr": ("import os, sys\nfor s in (sys.stdout, sys.stderr): s.close()\nraise ValueError('unheard')", 70, "unheard"),
    "has no stdout": ("import sys\nsys.stdout = sys.stderr = None\nfrom launcher import Worker\ndef main(worker: Worker): raise ValueError", 70, "exit 1"),
}  # fmt: skip


@pytest.mark.parametrize("deed", RUDE)
def test_a_rude_app_ends_in_a_sentence(start: Callable[..., Running], app: Callable[..., Path], deed: str) -> None:
    """Nothing that an app does makes prod-run hang, or show a traceback of its own."""
    source, code, sentence = RUDE[deed]
    app(source)
    running = start("--boot-timeout", "20s", "app:main")

    assert running.wait() == code
    assert sentence in running.text()
    assert not any(f"launcher/{ours}" in running.text() for ours in ("runtime", "supervisor"))


def test_an_app_that_forks_at_import_has_one_zygote(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """A child that comes out of the import does not answer prod-run's orders a second time."""
    app("""
import os
from launcher import Worker
PID = os.fork()
def main(worker: Worker):
    print("forked" if PID else "the wrong one", flush=True)
    worker.ready()
    worker.stopping.wait()
""")
    running = start("-w", 3, "app:main")
    running.wait_for(event="committed", workers="3/3")

    assert running.count("forked", 3) == 3
    assert len(running.zygotes()) == 1
    assert running.stop() == 0
    assert "wrong" not in running.text()


def test_descriptors_closed_while_serving_end_a_worker_instead_of_spinning(
    start: Callable[..., Running], app: Callable[..., Path]
) -> None:
    """`stopping.wait()` on descriptors that the app has closed raises with a sentence; the worker is replaced."""
    app("""
import os
from launcher import Worker
def main(worker: Worker):
    worker.ready()
    if not os.path.exists("done"):
        open("done", "w").close()
        os.closerange(3, 256)
    worker.stopping.wait()
""")
    running = start("app:main")
    running.wait_for("the app has closed descriptors that it did not open")
    running.wait_for(event="lost worker")
    until(running.workers, "its successor")

    assert running.stop() == 0


def test_what_is_printed_last_is_not_lost(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Text without a newline arrives as a line: from the import, from main, from an exit function, on both outputs."""
    app("""
import atexit, os, sys
from launcher import Worker
print("import", end="")
def main(worker: Worker):
    worker.ready()
    atexit.register(lambda: print("|exit", end=""))
    sys.stderr.write("warned")
    print("main", end="")
""")
    running = start("--restart", "never", "app:main")

    assert running.wait() == 0
    texts = [line["text"] for line in running.lines]
    assert texts.count("main|exit") == texts.count("warned") == texts.count("import") >= 1
    assert not [text for text in texts if "importmain" in text]


def test_what_is_left_of_a_workers_group_is_ended(start: Callable[..., Running], app: Callable[..., Path]) -> None:
    """Programs that a killed worker had started get SIGTERM; nothing of them is left at exit."""
    app("""
import subprocess
from launcher import Worker
def main(worker: Worker):
    program = subprocess.Popen(["sleep", "1000"])
    print("program", program.pid, flush=True)
    worker.ready()
    worker.stopping.wait()
""")
    running = start("app:main")
    program = int(running.wait_for("program ")["text"].split()[1])
    running.wait_for(event="committed")
    (worker,) = running.workers()
    os.kill(worker, signal.SIGKILL)
    until(lambda: not is_alive(program), "the program of the dead worker is ended")

    assert running.stop() == 0
    assert children_of(running.pid) == []
