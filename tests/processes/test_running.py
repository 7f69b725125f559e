"""What all other tests here stand on: they see what was said, to the last line, and leave nothing behind."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tests.processes.running import Running, is_alive

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = (sys.executable, "-I", "-S", "-c")
CHATTY = "import os; os.write(1, b'time=1 level=info event=line\\n' * 500 + b'the end\\n')"
# Its grandchild is no descendant any more when it has ended, but still holds standard output.
LEAVING = """
import os, _signal as signal
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        os.write(1, b"%d\\n" % os.getpid())
        signal.pause()
    os._exit(0)
os.wait()
"""


def test_the_last_line_of_a_process_that_is_over_is_seen(tmp_path: Path) -> None:
    """Its end, which the kernel tells at once, is not the end of what is in the pipe."""
    for _ in range(10):
        running = Running([*PYTHON, CHATTY], cwd=tmp_path, env={})
        running.process.wait()

        assert running.wait_for("the end")["text"] == "the end"
        assert len(running.lines) == 501
        running.close()


def test_who_holds_the_output_is_ended_with_the_rest(tmp_path: Path) -> None:
    """Also one that has left the tree: nothing may be there after a test, and the test must not wait for it."""
    running = Running([*PYTHON, LEAVING], cwd=tmp_path, env={"PATH": os.environ["PATH"]})
    pid = int(running.wait_for(lambda line: line["text"].isdecimal())["text"])
    running.process.wait()
    assert is_alive(pid)
    running.close()

    assert not is_alive(pid)
