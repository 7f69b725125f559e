"""
What `ps` shows for a process of the app.

Owns the title's form.  Must never fail: a title is a courtesy.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _setter() -> Callable[[str], None]:
    """Import the C part of setproctitle alone: the package around it imports `logging`, 6 ms before the app."""
    spec = PathFinder.find_spec("setproctitle")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        return lambda _: None  # an interpreter without prod-run's dependencies
    sys.path.append(folders[0])
    try:
        from _setproctitle import setproctitle  # noqa: PLC0415
    except ImportError:
        return lambda _: None
    finally:
        sys.path.remove(folders[0])
    setter: Callable[[str], None] = setproctitle
    return setter


_setproctitle = _setter()


def show(name: str, role_and_state: str) -> None:
    """Show `prod-run: NAME [ROLE] STATE`."""
    _setproctitle(f"prod-run: {name} [{role_and_state}")
