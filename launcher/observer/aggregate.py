"""
The metrics of all workers as one text.

Owns the directory of prometheus_client's files: what was learnt of each, which of them count, and the archive into
which the files of processes that are gone are put.
Must never fail for one bad file, never do more than a few milliseconds of work in one slice, and never write a file
that a living process writes.
"""

from __future__ import annotations

import os

from launcher.metrics_directory import free_bytes
from launcher.observer.families import MERGING, OF_EACH, TIMED, Collected, Families, Found
from launcher.observer.value_files import FIRST, BadFileError, Layout, encode, entries, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_ARCHIVE = "archive"
_ENDING = ".db"
_NEW, _DONE = ".new", ".done"
_TOO_MANY = 1000  # series that nobody has any more


class Aggregate:
    """
    The directory, and what is known of it.

    `living` are the identifiers of the workers that live (`w0`, see launcher.runtime.multiprocess), None as long as
    nobody said: what the others' `live` and `all` gauges say is left out.
    """

    __slots__ = (
        "_directory",
        "_families",
        "_is_busy",
        "_layouts",
        "_stamp",
        "files",
        "living",
        "skipped",
        "skipped_total",
    )

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._families = Families()
        self._layouts: dict[str, Layout] = {}
        self._stamp = 0
        self._is_busy = False
        self.living: frozenset[str] | None = None
        self.files = 0  # at the last collection
        self.skipped = 0  # the same
        self.skipped_total = 0

    def free_bytes(self) -> int:
        """Return how much room is left where the files are; -1: nobody knows."""
        return free_bytes(self._directory)

    def collect(self, *, openmetrics: bool = False) -> Iterator[bytes]:
        """
        Read all files and write what they say, in slices of a few milliseconds.

        One collection waits for another: run it to its end, or close it.

        Yields:
            Pieces of the text, without an end mark; most of them empty, and only there to let others have their turn.
        """
        while self._is_busy:
            yield b""
        self._is_busy = True
        try:
            yield from self._tidy()
            self._begin_anew_if_stale()
            collected = Collected(self._families)
            yield from self._read(collected)
            for text in self._families.render(collected, openmetrics=openmetrics):
                yield text.encode("utf-8", "backslashreplace")
        finally:
            self._is_busy = False

    def _read(self, collected: Collected) -> Iterator[bytes]:
        """Take the values of all files."""
        names, skipped = self._list(), 0
        for name, inode in names:
            try:
                yield from self._take(name, inode, collected)
            except FileNotFoundError:
                self._drop(name)
            except (OSError, ValueError):
                self._drop(name)
                skipped += 1
            yield b""
        self.files, self.skipped = len(names), skipped
        self.skipped_total += skipped

    def _list(self) -> list[tuple[str, int]]:
        """Return the names that end like ours, with their inodes, and forget what is not there any more."""
        try:
            self._look_at_changes()
            with os.scandir(self._directory) as found:
                names = sorted((entry.name, entry.inode()) for entry in found if entry.name.endswith(_ENDING))
        except OSError:
            names = []  # removed: the end is near, or nothing was written yet
        for name in self._layouts.keys() - {name for name, _ in names}:
            self._drop(name)
        return names

    def _look_at_changes(self) -> None:
        """Forget the files that a worker makes anew under one name, if one may have done so."""
        stamp = os.stat(self._directory).st_mtime_ns
        if stamp != self._stamp:
            self._stamp = stamp
            for name in [name for name in self._layouts if _is_of_the_living(_parts(name)[0])]:
                self._drop(name)

    def _take(self, name: str, inode: int, collected: Collected) -> Iterator[bytes]:
        """Take the values of one file."""
        kind, identifier = _parts(name)
        if kind not in MERGING:
            message = "nobody knows its kind"
            raise BadFileError(message)
        if _is_of_the_living(kind) and not self._is_alive(identifier):
            self._drop(name)
            return
        path = f"{self._directory}/{name}"
        layout = self._layouts.get(name)
        data = read(path, layout.used if layout else FIRST)
        if layout is None or not layout.fits(inode, data):
            self._drop(name)
            layout = self._layouts[name] = Layout(inode)
        for _ in layout.learn(data, lambda key: self._number(kind, identifier, key)):
            yield b""
        if layout.series:
            times = layout.times(data) if kind in TIMED else ()
            found = Found(layout.series, layout.values(data), times)
            collected.merge(kind, _said(found) if _is_of_a_zygote(kind, identifier) else found)

    def _number(self, kind: str, identifier: str, key: bytes) -> int:
        number = self._families.number(kind, identifier, key)
        self._families.owners[number] += 1
        return number

    def _drop(self, name: str) -> None:
        layout = self._layouts.pop(name, None)
        for number in layout.series if layout else ():
            self._families.owners[number] -= 1

    def _begin_anew_if_stale(self) -> None:
        """Begin anew when most of what is known is of processes that are gone."""
        unowned = self._families.owners.count(0)
        if unowned > _TOO_MANY and 2 * unowned > len(self._families.owners):
            self._families, self._layouts = Families(), {}

    def _is_alive(self, identifier: str) -> bool:
        return _is_running(identifier) and (
            self.living is None or not identifier.startswith("w") or "." in identifier or identifier in self.living
        )

    # ── the files of those that are gone ────────────────────────────────────────────────────────

    def _tidy(self) -> Iterator[bytes]:
        """Put the files of processes that nobody will follow into the archive."""
        try:
            names = sorted(os.listdir(self._directory))
        except OSError:
            return
        for name in names:
            kind, identifier = _parts(name)
            try:
                if name.endswith((_NEW, _DONE)):
                    self._finish(kind)
                elif kind in MERGING and not _is_running(identifier):
                    self._archive(kind, name)
                else:
                    continue
            except (OSError, ValueError):
                pass  # it is counted when it is read
            yield b""

    def _archive(self, kind: str, name: str) -> None:
        """Add one file to the archive, so that a kill at any point counts nothing twice and loses nothing."""
        path, archive = f"{self._directory}/{name}", self._path_of_archive(kind)
        try:
            content = {} if _is_of_the_living(kind) else _content(path)
        except BadFileError:
            content = {}  # nothing can be had of it
        if _is_of_a_zygote(kind, _parts(name)[1]):
            content = {key: pair for key, pair in content.items() if pair[0]}
        if not content:
            os.unlink(path)
            return
        sums = _content(archive) if os.path.exists(archive) else {}
        _put_together(kind, sums, content)
        with open(archive + _NEW, "wb") as file:
            file.write(encode(sums))
        os.rename(path, archive + _DONE)  # from here on the new archive is the one that counts
        self._finish(kind)

    def _finish(self, kind: str) -> None:
        """Do what is left of a change of the archive, or drop what was never decided."""
        archive = self._path_of_archive(kind)
        if os.path.exists(archive + _DONE):
            if os.path.exists(archive + _NEW):
                os.rename(archive + _NEW, archive)
            os.unlink(archive + _DONE)
        else:
            os.unlink(archive + _NEW)

    def _path_of_archive(self, kind: str) -> str:
        return f"{self._directory}/{kind}_{_ARCHIVE}{_ENDING}"


def _parts(name: str) -> tuple[str, str]:
    """Return the kind and the identifier in a file's name."""
    kind, _, identifier = name.partition(_ENDING)[0].rpartition("_")
    return kind, identifier


def _is_of_the_living(kind: str) -> bool:
    return kind in OF_EACH or kind.startswith("gauge_live")


def _is_of_a_zygote(kind: str, identifier: str) -> bool:
    """Say whether the gauges of a file are those of a process that only imports (launcher.runtime.multiprocess)."""
    return identifier.startswith("z") and kind.startswith("gauge")


def _said(found: Found) -> Found:
    """Leave out the zeros with which a gauge begins: where nothing is done they would be the least of all."""
    times = found.times or (0.0,) * len(found.series)
    rows = [row for row in zip(found.series, found.values, times, strict=False) if row[1]]
    return Found(*zip(*rows, strict=True)) if rows else Found((), ())


def _is_running(identifier: str) -> bool:
    """Say whether the process whose PID ends an identifier is there; True if none does."""
    pid = identifier.rpartition(".")[2]
    if not pid.isdecimal() or not pid.isascii():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # there, and somebody else's
    return True


def _content(path: str) -> dict[bytes, tuple[float, float]]:
    return {key: (value, time) for key, value, time in entries(read(path, FIRST))}


def _put_together(kind: str, sums: dict[bytes, tuple[float, float]], more: dict[bytes, tuple[float, float]]) -> None:
    """Merge what two files of one kind say, key by key."""
    for key, (value, time) in more.items():
        if key not in sums:
            sums[key] = value, time
            continue
        before, last = sums[key]
        into: list[float | None] = [before]
        latest = [last]
        MERGING[kind](into, Found((0,), (value,), (time,)), latest)
        sums[key] = into[0] or 0.0, latest[0]
