"""
What a generation's configuration was loaded from, kept for its later processes.

Owns the value and its encoding.  The process that prepared a generation sends it to the supervisor, sealed, and
the supervisor hands it, unread, to every process that loads for itself: they load the same, whatever has become of
the files.  Must never read a file that is in it.
"""

from __future__ import annotations

import fcntl
import os

from launcher import protocol
from launcher.appconfig.secret_files import MOST_BYTES, Contents, Files
from launcher.lean import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Snapshot(NamedTuple):
    """The inputs of one loading."""

    variables: Mapping[str, str]  # that came from env files
    origins: Mapping[str, str]  # where each of these stands: prod.env:12
    files: Mapping[str, bytes | None]  # that were looked for: their bytes, None if there was none
    templates: Mapping[str, str]  # name → the file that was made

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.variables)} variables, {len(self.files)} files)"

    def encode(self) -> bytes:
        """Turn it into the bytes of a memfd."""
        there = {path: data for path, data in self.files.items() if data is not None}
        return protocol.encode(
            "snapshot",
            variables=_pairs(self.variables),
            origins=_pairs(self.origins),
            files=_pairs({path: data.decode("utf-8", "surrogateescape") for path, data in there.items()}),
            absent=tuple(path for path in self.files if path not in there),
            templates=_pairs(self.templates),
        )


class RecordedFiles(Files):
    """Files of one loading that can say afterwards what they were; those of a snapshot are as they were then."""

    def __init__(self, known: Mapping[str, bytes | None] | None = None) -> None:
        super().__init__()
        # What was to be said about permissions has been said.
        self._read.update({path: None if data is None else Contents(data) for path, data in (known or {}).items()})

    def note(self, path: str, data: bytes) -> None:
        """Take in what somebody else has read; more than `read` would is left out."""
        if len(data) <= MOST_BYTES:
            self._read.setdefault(path, Contents(data))

    def found(self) -> dict[str, bytes | None]:
        """Return what was looked for, without what could not be used."""
        return {
            path: contents.data if contents else None
            for path, contents in self._read.items()
            if contents is None or isinstance(contents, Contents)
        }


def decode(data: bytes) -> Snapshot:
    """
    Read a snapshot back.

    Raises:
        protocol.ProtocolError: these are not the bytes of one.
    """
    message = protocol.decode(data)
    files: dict[str, bytes | None] = {
        path: text.encode("utf-8", "surrogateescape") for path, text in _mapping(message, "files").items()
    }
    files.update(dict.fromkeys(message.texts("absent")))
    return Snapshot(_mapping(message, "variables"), _mapping(message, "origins"), files, _mapping(message, "templates"))


def sealed(content: bytes) -> int:
    """Put bytes into a memfd that nobody can change any more."""
    fd = os.memfd_create("prod-run-inputs", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def _pairs(values: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}\0{value}" for name, value in values.items())  # neither names nor paths hold a NUL


def _mapping(message: protocol.Message, key: str) -> dict[str, str]:
    return {name: value for name, _, value in (item.partition("\0") for item in message.texts(key))}
