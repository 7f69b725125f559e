"""The files of environ-config's own secrets are read once for a generation, so that they can be watched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import environ
import pytest

import launcher
from launcher.appconfig.load import Loaded, load
from launcher.appconfig.sources import Surroundings
from launcher.runtime.snapshot import RecordedFiles

if TYPE_CHECKING:
    from pathlib import Path


def declared(**fields: Any) -> Any:
    """Declare a class."""
    return environ.config(type("C", (), fields))


def loaded(cls: Any, files: RecordedFiles, **variables: str) -> Loaded:
    """Load with these files."""
    return load(cls, Surroundings(variables, {}, (), "", files))


@pytest.mark.parametrize("how", ["from_path", "from_path_in_env", "the default", "INI", "INI's default"])
def test_a_later_process_loads_what_the_generation_was_made_of(tmp_path: Path, how: str) -> None:
    """And `--watch` compares with it; the value is the bare text that their getter gives."""
    directory, ini = environ.secrets.DirectorySecrets, environ.secrets.INISecrets
    file = tmp_path / ("s.ini" if "INI" in how else "it")
    form = "[secrets]\nit = {}\n" if "INI" in how else "{}\n"
    field, variables = {
        "from_path": (directory.from_path(tmp_path), {}),
        "from_path_in_env": (directory.from_path_in_env("APP_DIR", "/nowhere"), {"APP_DIR": str(tmp_path)}),
        "the default": (directory.from_path_in_env("APP_DIR", tmp_path), {}),
        "INI": (ini.from_path_in_env("APP_INI"), {"APP_INI": str(file)}),
        "INI's default": (ini.from_path_in_env("APP_INI", str(file)), {}),
    }[how]
    cls = declared(it=field.secret(), other=field.secret(default="d"))
    file.write_text(form.format("old value"))

    files = RecordedFiles()
    first = loaded(cls, files, **variables)
    file.write_text(form.format("new value"))
    second = loaded(cls, RecordedFiles(files.found()), **variables)
    file.unlink()
    third = loaded(cls, RecordedFiles(files.found()), **variables)

    assert [found.problems for found in (first, second, third)] == [(), (), ()]
    assert {found.instance.it.strip() for found in (first, second, third)} == {"old value"}
    assert {type(found.instance.it).__name__ for found in (first, second, third)} == {"_SecretStr"}
    assert [warning.name for warning in first.warnings] == ["APP_OTHER"]
    assert files.found()[str(file)] == form.format("old value").encode()


def test_a_file_that_came_later_is_seen_by_the_next_generation_only(tmp_path: Path) -> None:
    """Its absence is noted too."""
    cls = declared(it=environ.secrets.DirectorySecrets.from_path(tmp_path).secret(default="d"))

    files = RecordedFiles()
    loaded(cls, files)
    (tmp_path / "it").write_text("new")

    assert files.found() == {str(tmp_path / "it"): None}
    assert loaded(cls, RecordedFiles(files.found())).instance.it == "d"
    assert loaded(cls, RecordedFiles()).instance.it == "new"


def test_what_cannot_be_watched_is_said(tmp_path: Path) -> None:
    """An INI file that is read when the class is made keeps its path to itself; a getter can do what it likes."""
    (tmp_path / "s.ini").write_text("[secrets]\nit = value of it\n")
    own = environ.var()
    own.metadata["environ_config"].callback = lambda *_: "something secret"
    vault = environ.secrets.VaultEnvSecrets("V").secret()

    found = loaded(
        declared(it=environ.secrets.INISecrets.from_path(tmp_path / "s.ini").secret(), own=own, vault=vault),
        RecordedFiles(),
        V_VAULT="something",
    )

    assert found.problems == ()
    assert sorted(f"{name}: {reason}" for name, reason, _ in found.warnings) == [
        "APP_IT: read by INISecrets: --watch cannot see it change. Declare it with launcher.secret()",
        "APP_OWN: read by a getter of its own: --watch cannot see it change. Declare it with launcher.secret()",
    ]


def test_a_secret_that_is_too_short_to_be_masked_is_named() -> None:
    """Neither with its value nor with its length."""
    cls = declared(pin=launcher.secret(), key=launcher.secret(), none=launcher.secret(None))

    found = loaded(cls, RecordedFiles(), APP_PIN="1q2w", APP_KEY="long enough")

    said = [f"{name}: {reason}" for name, reason, _ in found.warnings if "masked" in reason]
    assert said == ["APP_PIN: too short to be masked: a text that holds it is shown as it is"]
    assert "1q2w" not in str(found.warnings)
