"""
Where the value of a secret comes from.

Owns the order of the sources, and the sentence for a source that is named but fails: such a one never
falls through to the next.  Must never put a value into a sentence, a `repr` or an exception's context.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from launcher.appconfig.secret_files import FileError, Files, text
from launcher.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from configparser import RawConfigParser

ENVIRONMENT = "environment"
_FILE_REFERENCE = "file:"
_CREDENTIAL_REFERENCE = "cred:"
_INSTEAD = "Put it into a file named by {variable}_FILE, into a secrets directory, or use `LoadCredential=`"


class Surroundings(NamedTuple):
    """
    Where values may come from.

    `environ` is the real environment laid over env files, `origins` says for the names that came from an
    env file which one and where, as in `prod.env:12`.
    """

    environ: Mapping[str, str]
    origins: Mapping[str, str]
    secrets_dirs: tuple[str, ...]
    credentials: str  # $CREDENTIALS_DIRECTORY or empty
    files: Files | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.environ)} variables, {self.secrets_dirs!r}, {self.credentials!r})"

    def origin(self, name: str) -> str:
        """Say where a variable came from: `environment`, or `prod.env:12`."""
        return self.origins.get(name, ENVIRONMENT)

    def pinned(self) -> Surroundings:
        """
        Return the surroundings of one loading: what is looked up in them belongs together.

        Each file is read once, and all files of a volume that Kubernetes swaps are of one generation.
        """
        return self if self.files else self._replace(files=Files())


class Found(NamedTuple):
    """A secret's value, where it came from (a path, `environment`, `credential db_url`), and what is to be said."""

    value: str
    origin: str
    warning: str = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.origin!r}, {self.warning!r})"


class SourceError(Exception):
    """A source is named but fails; `problem` says which one, without a value."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.name}: {problem.reason}")
        self.problem = problem


def find_secret(
    variable: str, file_names: tuple[str, ...], places: Surroundings, *, ini: tuple[str, str] | None = None
) -> Found | None:
    """
    Find a secret: the first source that has it wins.

    The order: a file named by `VARIABLE_FILE`, a reference or a value in `VARIABLE`, systemd's credentials,
    each secrets directory, an INI file.

    Args:
        variable: its name in the environment.
        file_names: what a file that holds it may be called.
        places: where to look; `pinned()`, if several secrets must belong together.
        ini: a section, and the variable that names the INI file.

    Returns:
        None if no source has it.

    Raises:
        SourceError: a source is named but fails, or two files of one place differ.
    """
    places = places.pinned()
    try:
        return (
            _in_environment(variable, places)
            or _in_directory(file_names, places.credentials, places, origin="credential {name}")
            or next(filter(None, (_in_directory(file_names, folder, places) for folder in places.secrets_dirs)), None)
            or (_in_ini(file_names, *ini, places) if ini else None)
        )
    except FileError as error:
        raise SourceError(Problem(variable, error.reason, error.remedy)) from error


def _in_environment(variable: str, places: Surroundings) -> Found | None:
    pointer = f"{variable}_FILE"
    given = [name for name in (variable, pointer) if name in places.environ]
    if not given:
        return None
    if len(given) > 1:
        reason = f"{' and '.join(f'{name} ({places.origin(name)})' for name in given)} are both set"
        raise SourceError(Problem(variable, reason, "Keep one of them"))
    value, origin = places.environ[given[0]], places.origin(given[0])
    if not value:
        reason = f"{given[0]} is set but empty ({origin})"
        raise SourceError(Problem(variable, reason, "Give it a value, or unset it"))
    if given[0] == pointer:
        return _in_named_file(value, f"{pointer} ({origin})", places)
    if value.startswith(_FILE_REFERENCE):
        path = value.removeprefix(_FILE_REFERENCE)
        path = path.removeprefix("//") if path.startswith("///") else path
        if not path.startswith("/") or path.startswith("//"):
            # What follows is not shown: the whole may be a secret that happens to begin like a reference.
            reason = f"the reference `file:` ({origin}) is not followed by an absolute path"
            raise SourceError(Problem(variable, reason, "Write file:/run/secrets/db_url, for example"))
        return _in_named_file(path, f"the reference `file:` ({origin})", places)
    if value.startswith(_CREDENTIAL_REFERENCE):
        return _in_named_credential(variable, value.removeprefix(_CREDENTIAL_REFERENCE), places)
    return _in_the_open(variable, value, origin)


def _in_the_open(variable: str, value: str, origin: str) -> Found:
    if not _is_text(value):
        reason = f"the value ({origin}) is not UTF-8 text"
        raise SourceError(Problem(variable, reason, "Encode binary values, for example in base64"))
    place = "the plain environment" if origin == ENVIRONMENT else f"an env file, {origin}"
    return Found(value, origin, f"taken from {place}. {_INSTEAD.format(variable=variable)}")


def _in_named_file(path: str, source: str, places: Surroundings) -> Found:
    found = _in_file(path, path, places)
    if found is None:
        raise FileError(path, f"does not exist; {source} names it", "Make the file, or name another one")
    return found


def _in_named_credential(variable: str, name: str, places: Surroundings) -> Found:
    origin = places.origin(variable)
    if not name or "/" in name or name in {".", ".."}:
        reason = f"the reference `cred:` ({origin}) is not followed by a credential's name"
        raise SourceError(Problem(variable, reason, "Write cred:db_url, for example"))
    found = (
        _in_file(os.path.join(places.credentials, name), f"credential {name}", places) if places.credentials else None
    )
    if found is None:
        reason = f"there is no credential {name}; the reference `cred:` ({origin}) names it"
        where = "" if places.credentials else ": $CREDENTIALS_DIRECTORY is not set"
        raise SourceError(Problem(variable, reason + where, f"Add `LoadCredential={name}:/path` to the systemd unit"))
    return found


def _in_directory(names: tuple[str, ...], folder: str, places: Surroundings, origin: str = "{path}") -> Found | None:
    if not folder:
        return None
    paths = {name: os.path.join(folder, name) for name in names}
    return _only(_in_file(path, origin.format(name=name, path=path), places) for name, path in paths.items())


def _in_file(path: str, origin: str, places: Surroundings) -> Found | None:
    contents = places.files.read(path) if places.files else None
    return Found(text(path, contents.data), origin, contents.warning) if contents else None


def _in_ini(names: tuple[str, ...], section: str, variable: str, places: Surroundings) -> Found | None:
    path = places.environ.get(variable, "")
    if not path:
        return None
    named = _in_named_file(path, f"{variable} ({places.origin(variable)})", places)
    parser = _parsed(path, named.value)
    keys = dict.fromkeys(name.lower() for name in names)
    return _only(_in_section(path, parser, section, key, named.warning) for key in keys)


def _in_section(path: str, parser: RawConfigParser, section: str, key: str, warning: str) -> Found | None:
    if not parser.has_option(section, key):
        return None
    value = parser.get(section, key)
    if not value:
        raise FileError(path, f"has an empty {key} in [{section}]", "Give it a value, or remove the line")
    return Found(value, f"{path} [{section}] {key}", warning)


def _parsed(path: str, ini: str) -> RawConfigParser:
    import configparser  # noqa: PLC0415  3 ms that only an INI file has to pay

    parser = configparser.RawConfigParser()
    where = ""
    try:
        parser.read_string(ini)
    except configparser.Error as error:
        # Its text shows the line, and a secret may stand in it: only the number is taken along.
        errors = getattr(error, "errors", ())
        where = f"{path}:{errors[0][0] if errors else getattr(error, 'lineno', 0)}"
    if where:
        raise FileError(where, "is not a valid line of an INI file", "Write each as `name = value`, once")
    return parser


def _only(candidates: Iterable[Found | None]) -> Found | None:
    """Return the first that was found; all that were found in one place must agree."""
    found = [candidate for candidate in candidates if candidate]
    if len({candidate.value for candidate in found}) > 1:
        names = " and ".join(candidate.origin for candidate in found)
        raise FileError(names, "have different contents, and each could be meant", "Keep one of them")
    return found[0] if found else None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
