"""Every kind of bad secret file in one `--check-config`: a clear sentence for each, and no hang."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launcher.appconfig import secret_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Program

CANARY = "hunter2-of-a-file"


def _written(path: Path, data: bytes = CANARY.encode(), mode: int = 0o400) -> None:
    path.write_bytes(data)
    path.chmod(mode)


# How a file is made bad, and what is said of it: a problem, or for the last two only a note.
FILES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "unreadable": (
        lambda p: _written(p, mode=0),
        "cannot be read: permission denied",
        f"Let user {os.geteuid()} read it",
    ),
    "folder": (lambda p: p.mkdir(), "is a directory", "Name a file in it"),
    "fifo": (os.mkfifo, "is a named pipe", "Name a regular file"),
    "empty": (lambda p: _written(p, b""), "is empty", "Write the value into it"),
    "binary": (lambda p: _written(p, b"\xff\xfe" + CANARY.encode()), "is not UTF-8 text", "base64"),
    "large": (lambda p: _written(p, CANARY.encode() * 123362), "is larger than 1 MiB", "one value"),  # 2 MiB
    "loop": (lambda p: p.symlink_to(p), "is a symbolic link that leads back to itself", "Point it to the file"),
    "long_loop": (lambda p: _loop(p, 3), "is a symbolic link that leads back to itself", "Point it to the file"),
    "dangling": (lambda p: p.symlink_to("gone"), "is a symbolic link to nothing", "Point it to the file"),
    "device": (lambda p: p.symlink_to("/dev/zero"), "is a device", "Name a regular file"),
    "readable": (lambda p: _written(p, mode=0o444), "can be read by every user", "Make it 0400"),
    "writable": (lambda p: _written(p, mode=0o602), "can be written by every user", "Make it 0400"),
}
NOTES = ("readable", "writable")


def _loop(path: Path, links: int) -> None:
    for number in range(links):
        target = path.name if number == links - 1 else f"{path.name}{number + 1}"
        path.with_name(f"{path.name}{number or ''}").symlink_to(target)


def lose_roots_right_to_read_everything() -> None:
    """Between fork and exec, as root: capabilities(7), a bounding set without DAC_OVERRIDE and DAC_READ_SEARCH."""
    if os.geteuid() == 0:
        for capability in (1, 2):
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A directory with an app that has a secret for each of the files."""
    folder = tmp_path / "app"
    (folder / "secrets").mkdir(parents=True)
    fields = "\n".join(f"    {name} = launcher.secret()" for name in FILES)
    (folder / "shop.py").write_text(
        f"import environ, launcher\n@environ.config(prefix='SHOP')\nclass Config:\n{fields}\ndef main(config: Config): ..."
    )
    for name, (make, _, _) in FILES.items():
        make(folder / "secrets" / f"shop_{name}")
    return folder


@pytest.mark.parametrize("way", ["directory", "named"])
def test_each_is_a_clear_sentence_and_all_are_told_at_once(program: Program, app: Path, way: str) -> None:
    """Found in a secrets directory, or named by a variable; as text and as JSON."""
    named = {f"SHOP_{name.upper()}_FILE": f"{app}/secrets/shop_{name}" for name in FILES}
    words = ("--secrets-dir", f"{app}/secrets") if way == "directory" else ()
    given = {
        "environ": named if way == "named" else {},
        "cwd": app,
        "preexec_fn": lose_roots_right_to_read_everything,
    }

    answer = program.run("--check-config", "--format", "json", *words, "shop:main", **given)
    text = program.run("--check-config", *words, "shop:main", **given)

    report = json.loads(answer.out)
    found = {finding["name"]: finding for kind in ("problems", "notes") for finding in report[kind]}
    is_on_disk = not secret_files._is_in_memory(os.stat(app).st_dev)
    for name, (_, what, remedy) in FILES.items():
        if name == "readable" and not is_on_disk:
            continue  # there only the tmpfs's users can look
        told = found[f"SHOP_{name.upper()}"]
        assert f"{app}/secrets/shop_{name} {what}" in told["reason"]
        assert remedy in told["reason"] + told["remedy"]
        assert what in text.out
    assert [problem["name"] for problem in report["problems"]] == [
        f"SHOP_{name.upper()}" for name in FILES if name not in NOTES
    ]
    assert (answer.code, text.code) == (78, 78)
    assert CANARY not in answer.out + answer.err + text.out + text.err
