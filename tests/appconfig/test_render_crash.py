"""A crash at each system call of the render pipeline: whole files, and nothing left after the next start."""

from __future__ import annotations

import collections
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.appconfig import place
from launcher.appconfig.render import Inputs, render_all
from launcher.appconfig.templates import template

ROOT = Path(__file__).parents[2]
CALLS = "write,fsync,fchmod,fchown,rename,link,linkat,unlink,flock"
OLD, NEW, NEXT = b"old " * 5000, b"new " * 50000, b"next " * 10
OWNER = 1234

DRIVER = """
import sys
sys.path.insert(0, sys.argv[1])
from launcher.appconfig import place
from launcher.appconfig.render import Inputs, render_all
from launcher.appconfig.templates import template
rendered, problems = render_all([template(text) for text in sys.argv[3:]], Inputs({"X": "new "}, {}, None, 1, ""))
staged, problems = place.stage(rendered)
placed, problems = place.move(staged)
if sys.argv[2] == "settle":
    place.settle(placed)
else:
    problems = place.put_back(placed)
sys.exit(bool(problems))
"""


def _strace_works() -> bool:
    return bool(shutil.which("strace")) and not subprocess.run(["strace", "true"], capture_output=True).returncode


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _strace_works(), reason="strace is not here, or may not trace"),
]


def prepare(directory: Path) -> list[str]:
    """Make two templates, and one former file; return what `--template` takes."""
    directory.mkdir()
    for name in "ab":
        (directory / f"{name}.tmpl").write_bytes(b"${X}" * 50000)
    (directory / "out").mkdir()
    former = directory / "out" / "a"
    former.write_bytes(OLD)
    former.chmod(0o640)
    try:
        shutil.chown(former, OWNER, OWNER)
    except PermissionError:
        pass  # not root: the owner stays ours
    return [f"{directory}/a.tmpl:{directory}/out/a", f"{directory}/b.tmpl:{directory}/out/b:0600"]


def run(texts: list[str], ending: str, *strace: str) -> int:
    """Run the pipeline under strace."""
    argv = [sys.executable, "-I", "-S", "-B", "-c", DRIVER, str(ROOT), ending, *texts]
    return subprocess.run(["strace", "-f", *strace, *argv], capture_output=True).returncode


def steps(directory: Path, ending: str) -> list[tuple[str, int]]:
    """Run it once undisturbed, and return every call with its turn."""
    assert run(prepare(directory), ending, "-e", f"trace={CALLS}", "-o", f"{directory}/trace") == 0
    names = re.findall(r"^(?:\d+\s+)?(\w+)\(", (directory / "trace").read_text(), re.MULTILINE)
    counts = collections.Counter(names)
    return [(name, turn) for name, count in counts.items() for turn in range(1, count + 1)]


@pytest.mark.parametrize("ending", ["settle", "put_back"])
def test_a_crash_at_any_step_leaves_whole_files(tmp_path: Path, ending: str) -> None:
    """Old or new bytes with their mode and owner, wherever SIGKILL falls; the next start removes the rest."""
    todo = steps(tmp_path / "undisturbed", ending)
    left = 0
    assert {name for name, _ in todo} >= {"write", "fsync", "fchmod", "rename", "unlink", "flock"}

    for name, turn in todo:
        directory = tmp_path / f"{name}-{turn}"
        texts = prepare(directory)
        inject = f"inject={name}:signal=KILL:when={turn}"
        before = (directory / "out" / "a").stat()
        assert run(texts, ending, "-o", "/dev/null", "-e", f"trace={name}", "-e", inject) in {-9, 137}, (name, turn)

        a, b = directory / "out" / "a", directory / "out" / "b"
        assert a.read_bytes() in {OLD, NEW}, (name, turn)
        assert (stat.S_IMODE(a.stat().st_mode), a.stat().st_uid, a.stat().st_gid) == (
            0o640,
            before.st_uid,
            before.st_gid,
        )
        assert not b.exists() or (b.read_bytes(), stat.S_IMODE(b.stat().st_mode)) == (NEW, 0o600), (name, turn)
        left += len(list((directory / "out").glob(".*")))

        for source in directory.glob("*.tmpl"):
            source.write_bytes(NEXT)
        rendered, _ = render_all([template(text) for text in texts], Inputs({}, {}, None, 1, ""))
        placed, problems = place.move(place.stage(rendered)[0])
        place.settle(placed)
        assert problems == []
        # A copy of former bytes may be the only way back: only what is confirmed ends it.
        place.drop_abandoned([str(directory / "out" / name) for name in ("a", "b")])
        assert {path.name: path.read_bytes() for path in (directory / "out").iterdir()} == {"a": NEXT, "b": NEXT}

    assert left > 0  # or nothing has shown that leftovers are removed
