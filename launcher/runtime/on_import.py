"""
Something to be done as soon as a module is there, without importing it.

Owns one finder at the head of sys.meta_path, until the last of the modules has come.  Must never find anything by
itself, nor replace a module's loader, which other tools look at.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _Finder:
    """Asks the others, and has what they found do one thing more."""

    def __init__(self, deeds: dict[str, Callable[[], object]]) -> None:
        self.deeds = deeds

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find as all other finders do; None for what is not waited for."""
        if name not in self.deeds:
            return None
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None) if finder is not self else None
            spec: ModuleSpec | None = find(name, path, target) if find else None
            if spec:
                self._extend(name, spec.loader)
                return spec
        return None

    def _extend(self, name: str, loader: object) -> None:
        execute = getattr(loader, "exec_module", None)
        if not execute or isinstance(loader, type):
            return  # built in or frozen: those loaders are everybody's

        def exec_module(module: ModuleType) -> None:
            execute(module)
            # A zip's loader is that of all its modules.
            if module.__name__ == name and name in self.deeds:
                vars(loader).pop("exec_module", None)
                self._done(name)

        loader.exec_module = exec_module  # type: ignore[attr-defined]

    def _done(self, name: str) -> None:
        deed = self.deeds.pop(name)
        if not self.deeds and self in sys.meta_path:
            sys.meta_path.remove(self)
        deed()


def when_imported(deeds: dict[str, Callable[[], object]]) -> None:
    """Call each deed once, after the first import of the module it is under; at once if that was already."""
    for name in [name for name in deeds if name in sys.modules]:
        deeds[name]()
    waiting = {name: deed for name, deed in deeds.items() if name not in sys.modules}
    if waiting:
        sys.meta_path.insert(0, _Finder(waiting))
