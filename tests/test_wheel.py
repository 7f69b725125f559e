"""What is shipped."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_wheel_has_every_file_of_the_package(tmp_path: Path) -> None:
    """Those that are no modules too: the page's template, the mark of types."""
    pytest.importorskip("hatchling")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("launcher/")}
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "launcher").rglob("*") if path.is_file()}

    assert shipped == {name for name in ours if "__pycache__" not in name}
    assert {"launcher/observer/page/page.html", "launcher/py.typed"} <= shipped
