"""
Where the values of one loading come from: the environment, env files, secrets and their files.

Owns what is read, once and for all classes, so that it can be handed to the generation's later processes.
Must never say what a value means: `launcher.appconfig` does.
"""

from __future__ import annotations

import os

import launcher
from launcher.runtime import scrubbing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from launcher.appconfig.sources import Surroundings
    from launcher.errors import Problem
    from launcher.runtime.prepare import Wanted
    from launcher.runtime.snapshot import RecordedFiles, Snapshot


class Inputs:
    """What there is to load from; `recorded` is what a generation was loaded from before, if it was."""

    __slots__ = ("_files", "_origins", "_places", "_variables", "_wanted", "recorded")

    def __init__(self, wanted: Wanted, recorded: Snapshot | None) -> None:
        self._wanted = wanted
        self.recorded = recorded
        self._variables: Mapping[str, str] = {}  # of env files
        self._origins: Mapping[str, str] = {}
        self._files: RecordedFiles | None = None
        self._places: Surroundings | None = None
        if wanted.env_files or wanted.templates or wanted.ingress.tls_cert:
            # Where nothing is recorded too: a generation's processes are known by the modules that they load.
            self.files()

    def lay_over_env_files(self, is_ours: Callable[[str], bool]) -> tuple[Problem, ...]:
        """Put the variables of env files into os.environ, but for those that are ours; return what is wrong."""
        if not self._wanted.env_files:
            return ()
        from launcher.appconfig import env_file  # noqa: PLC0415  where all is recorded too, for the same reason

        problems: tuple[Problem, ...] = ()
        if self.recorded:
            self._variables, self._origins = self.recorded.variables, self.recorded.origins
        else:
            laid = env_file.read(self._wanted.env_files, os.environ, self.files())
            self._origins = {name: origin for name, origin in laid.origins.items() if not is_ours(name)}
            self._variables = {name: laid.environ[name] for name in self._origins}
            problems = laid.problems
        for name, value in self._variables.items():
            os.environ[name] = value
        return problems

    def surround_on_demand(self) -> None:
        """Say where values come from, at the last moment before the app's first own `launcher.config(Class)`."""

        def surround() -> None:
            from launcher.appconfig import current  # noqa: PLC0415

            current.surround(self.places(), scrubbing.take)

        launcher.before_config[:] = [surround]

    def places(self) -> Surroundings:
        """Say where values come from: a copy, from which secrets can still be had once they have left os.environ."""
        from launcher.appconfig.sources import Surroundings  # noqa: PLC0415

        if self._places is None:
            credentials = os.environ.get("CREDENTIALS_DIRECTORY", "")
            self._places = Surroundings(
                dict(os.environ), self._origins, self._wanted.secrets_dirs, credentials, self.files()
            )
        return self._places

    def files(self) -> RecordedFiles:
        """Return what reads files."""
        from launcher.runtime.snapshot import RecordedFiles  # noqa: PLC0415

        if self._files is None:
            self._files = RecordedFiles(self.recorded.files if self.recorded else None)
        return self._files

    def snapshot(self, templates: Mapping[str, str], *, is_needed: bool) -> Snapshot | None:
        """Return what later processes of the generation need; None if nothing was loaded from anywhere."""
        if self.recorded or not (is_needed or self._wanted.env_files or self._wanted.templates):
            return self.recorded
        from launcher.runtime.snapshot import Snapshot  # noqa: PLC0415

        return Snapshot(self._variables, self._origins, self.files().found(), templates)
