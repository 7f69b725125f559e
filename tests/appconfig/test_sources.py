"""Where a secret comes from: the order, and that a source which is named but fails is an error."""

from __future__ import annotations

import itertools
import os
import traceback
from pathlib import Path
from typing import NamedTuple

import pytest

from launcher.appconfig.sources import Found, SourceError, Surroundings, find_secret

NAMES = ("db_login", "app_db_login")
CANARY = "canary-7f3a"


class Place(NamedTuple):
    """Files and variables of one test."""

    root: Path
    environ: dict[str, str]

    def file(self, name: str, value: str = CANARY) -> str:
        """Write a file that only its owner can read."""
        path = self.root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(value)
        path.chmod(0o400)
        return str(path)

    def find(self, **origins: str) -> Found | None:
        """Look for the secret in all of it."""
        return find_secret("APP_DB_LOGIN", NAMES, self.surroundings(origins), ini=("secrets", "APP_INI"))

    def surroundings(self, origins: dict[str, str]) -> Surroundings:
        """Make the surroundings: two directories, and systemd's."""
        folders = (str(self.root / "one"), str(self.root / "two"))
        return Surroundings(self.environ, origins, folders, str(self.root / "credentials"))

    def refused(self, **origins: str) -> str:
        """Return the whole sentence of the error; nothing that can be printed of it shows the value."""
        with pytest.raises(SourceError) as caught:
            self.find(**origins)
        error = caught.value
        assert error.problem.name == "APP_DB_LOGIN"
        assert error.problem.remedy
        chain = "".join(traceback.format_exception(error))
        assert CANARY not in f"{error!r} {error.problem} {chain}"
        while error := error.__context__ or error.__cause__:
            assert CANARY not in repr((error, vars(error), getattr(error, "object", "")))
        return f"{caught.value.problem.reason}. {caught.value.problem.remedy}"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return an empty place."""
    return Place(tmp_path, {})


def fill_all(place: Place) -> list[tuple[str, str]]:
    """Put a value into each source; return what takes it away, and the origin, in the order of the sources."""
    path = place.file("named", "named")
    place.file("credentials/app_db_login", "credential")
    place.file("one/db_login", "one")
    place.file("two/db_login", "two")
    place.environ.update({"APP_DB_LOGIN_FILE": path, "APP_INI": place.file("app.ini", "[secrets]\ndb_login = ini\n")})
    return [
        ("APP_DB_LOGIN_FILE", path),
        ("credentials/app_db_login", "credential app_db_login"),
        ("one/db_login", f"{place.root}/one/db_login"),
        ("two/db_login", f"{place.root}/two/db_login"),
        ("APP_INI", f"{place.root}/app.ini [secrets] db_login"),
    ]


@pytest.mark.parametrize("named", ["APP_DB_LOGIN_FILE", "reference", "plain"])
def test_the_first_source_that_has_it_wins(place: Place, named: str) -> None:
    """Taken away one by one, the sources answer in their order; at last nobody does."""
    order = fill_all(place)
    if named != "APP_DB_LOGIN_FILE":
        path = place.environ.pop("APP_DB_LOGIN_FILE")
        place.environ["APP_DB_LOGIN"] = f"file:{path}" if named == "reference" else "plain"
        order[0] = ("APP_DB_LOGIN", path if named == "reference" else "environment")

    origins = []
    for source, _ in order:
        found = place.find()
        assert found is not None
        origins.append(found.origin)
        if place.environ.pop(source, None) is None:
            os.unlink(place.root / source)

    assert origins == [origin for _, origin in order]
    assert place.find() is None


@pytest.mark.parametrize("reference", ["file:{path}", "file://{path}", "cred:db"])
def test_a_reference_leads_to_a_file(place: Place, reference: str) -> None:
    """`file:/path`, `file:///path`, `cred:ID`; the newline at the end is not part of the value."""
    path = place.file("credentials/db", f"{CANARY}\n")
    place.environ["APP_DB_LOGIN"] = reference.format(path=path)

    assert place.find() == Found(CANARY, "credential db" if reference == "cred:db" else path)


def test_the_plain_environment_is_warned_about(place: Place) -> None:
    """Everything that runs as this user can read it there; the warning says where else to put it."""
    place.environ["APP_DB_LOGIN"] = f"{CANARY}\n"

    found = place.find()

    assert found is not None
    assert (found.value, found.origin) == (f"{CANARY}\n", "environment")
    assert found.warning.startswith("taken from the plain environment. Put it into a file named by APP_DB_LOGIN_FILE")
    assert CANARY not in found.warning


def test_an_env_files_line_is_the_origin(place: Place) -> None:
    """Both of a value and of a path that stands in an env file."""
    place.environ["APP_DB_LOGIN"] = CANARY
    found = place.find(APP_DB_LOGIN="prod.env:12")

    assert found is not None
    assert found.origin == "prod.env:12"
    assert "taken from an env file, prod.env:12" in found.warning

    place.environ.clear()
    place.environ["APP_DB_LOGIN_FILE"] = "/no/such/file"
    assert "APP_DB_LOGIN_FILE (prod.env:3) names it" in place.refused(APP_DB_LOGIN_FILE="prod.env:3")


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"APP_DB_LOGIN_FILE": "/no/such/file"}, "/no/such/file does not exist; APP_DB_LOGIN_FILE (environment)"),
        ({"APP_DB_LOGIN_FILE": "/dev"}, "/dev is a directory"),
        ({"APP_DB_LOGIN_FILE": "/dev/zero"}, "/dev/zero is a device"),
        ({"APP_DB_LOGIN_FILE": ""}, "APP_DB_LOGIN_FILE is set but empty (environment)"),
        ({"APP_DB_LOGIN": ""}, "APP_DB_LOGIN is set but empty (environment). Give it a value, or unset it"),
        (
            {"APP_DB_LOGIN": "file:/no/such/file"},
            "/no/such/file does not exist; the reference `file:` (environment)",
        ),
        ({"APP_DB_LOGIN": f"file:{CANARY}"}, "is not followed by an absolute path"),
        ({"APP_DB_LOGIN": f"file://{CANARY}/x"}, "is not followed by an absolute path"),
        ({"APP_DB_LOGIN": "file:"}, "is not followed by an absolute path"),
        ({"APP_DB_LOGIN": "cred:none"}, "there is no credential none; the reference `cred:` (environment) names it"),
        ({"APP_DB_LOGIN": "cred:none"}, "Add `LoadCredential=none:/path` to the systemd unit"),
        ({"APP_DB_LOGIN": f"cred:../{CANARY}"}, "is not followed by a credential's name"),
        ({"APP_DB_LOGIN": "cred:"}, "is not followed by a credential's name"),
        ({"APP_DB_LOGIN": f"\udcff{CANARY}"}, "the value (environment) is not UTF-8 text"),
        ({"APP_INI": "/no/such/file"}, "/no/such/file does not exist; APP_INI (environment) names it"),
    ],
)
def test_a_named_source_that_fails_never_falls_through(place: Place, environ: dict[str, str], sentence: str) -> None:
    """Though others have the value, the mistake is told, and nothing of the value."""
    if "APP_INI" not in environ:
        fill_all(place)
        del place.environ["APP_DB_LOGIN_FILE"]
    place.environ.update(environ)

    assert sentence in place.refused()


def test_cred_outside_of_systemd_says_so(place: Place) -> None:
    """There the variable that names the directory is not set."""
    places = Surroundings({"X": "cred:db"}, {}, (), "")

    with pytest.raises(SourceError) as caught:
        find_secret("X", NAMES, places)

    assert "$CREDENTIALS_DIRECTORY is not set" in caught.value.problem.reason


@pytest.mark.parametrize("empty", ["", "x"])
def test_name_and_name_file_together_are_an_error(place: Place, empty: str) -> None:
    """Which of them is meant only the operator knows; an empty one counts as set."""
    place.environ.update({"APP_DB_LOGIN": empty, "APP_DB_LOGIN_FILE": place.file("named")})

    assert "APP_DB_LOGIN (a.env:1) and APP_DB_LOGIN_FILE (environment) are both set. Keep one" in place.refused(
        APP_DB_LOGIN="a.env:1"
    )


@pytest.mark.parametrize("folder", ["credentials", "one", "two"])
def test_a_file_that_is_there_but_unusable_stops_the_search(place: Place, folder: str) -> None:
    """A directory of the name, say: the next source is not asked."""
    fill_all(place)
    place.environ.clear()
    for other in itertools.takewhile(lambda name: name != folder, ("credentials", "one")):
        for path in (place.root / other).iterdir():
            path.unlink()
    (place.root / folder / "db_login").unlink(missing_ok=True)
    (place.root / folder / "db_login").mkdir()

    assert f"{place.root}/{folder}/db_login is a directory" in place.refused()


def test_two_candidates_of_one_place_must_agree(place: Place) -> None:
    """Equal ones are no problem; of two places the first wins."""
    place.file("one/app_db_login")
    place.file("two/db_login", "other")
    place.file("one/db_login", f"{CANARY}\n")
    assert place.find() == Found(CANARY, f"{place.root}/one/db_login")

    os.unlink(place.root / "one" / "db_login")
    place.file("one/db_login", "other")
    sentence = f"{place.root}/one/db_login and {place.root}/one/app_db_login have different contents"
    assert sentence in place.refused()


def test_the_declared_name_comes_first(place: Place) -> None:
    """The candidates are asked in their order."""
    place.file("one/app_db_login")
    place.file("one/db_login")

    found = place.find()

    assert found is not None
    assert found.origin.endswith("one/db_login")


@pytest.mark.parametrize(
    ("ini", "sentence"),
    [
        (f"{CANARY}\n[secrets]\n", "app.ini:1 is not a valid line of an INI file"),
        (f"[secrets]\n{CANARY}\n", "app.ini:2 is not a valid line of an INI file"),
        (f"[secrets]\na={CANARY}\na={CANARY}\n", "app.ini:3 is not a valid line of an INI file"),
        (f"[secrets]\na={CANARY}\n[secrets]\n", "app.ini:3 is not a valid line of an INI file"),
        ("[secrets]\ndb_login =\n", "app.ini has an empty db_login in [secrets]"),
        ("[secrets]\ndb_login = a\napp_db_login = b\n", "have different contents"),
        ("", "app.ini is empty"),
    ],
)
def test_a_bad_ini_file_is_told_without_its_lines(place: Place, ini: str, sentence: str) -> None:
    """The standard library's sentences show the line, with the secret in it."""
    place.environ["APP_INI"] = place.file("app.ini", ini)

    assert sentence in place.refused()


@pytest.mark.parametrize("ini", ["[other]\ndb_login = x\n", "[secrets]\nother = x\n"])
def test_an_ini_file_need_not_have_every_secret(place: Place, ini: str) -> None:
    """What is not in it is elsewhere, or has a default."""
    place.environ["APP_INI"] = place.file("app.ini", ini)

    assert place.find() is None


def test_an_ini_value_is_taken_as_it_is(place: Place) -> None:
    """A percent sign is no interpolation, and option names have no case."""
    place.environ["APP_INI"] = place.file("app.ini", "[secrets]\nDB_Login = p%40s%%\n")

    assert place.find() == Found("p%40s%%", f"{place.root}/app.ini [secrets] db_login")


def test_pinned_surroundings_give_one_state_of_the_files(place: Place) -> None:
    """Two lookups of one loading belong together, whatever is written in between."""
    path = place.file("one/db_login", "old")
    places = place.surroundings({}).pinned()
    first = find_secret("A", ("db_login",), places)

    os.unlink(path)
    place.file("one/db_login", "new")

    assert places.pinned() is places
    assert find_secret("B", ("db_login",), places) == first == Found("old", path)
    assert place.find() == Found("new", path)


def test_nothing_shows_a_value_in_its_repr(place: Place) -> None:
    """Neither what was found nor where it was looked for."""
    place.environ["APP_DB_LOGIN"] = CANARY
    place.file("one/x", CANARY)

    assert CANARY not in f"{place.find()!r} {place.surroundings({})!r} {place.surroundings({}).pinned()!r}"
