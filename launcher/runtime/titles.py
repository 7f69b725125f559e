"""
What `ps` shows for a process of the app.

Owns the title's form.  Must never fail: a title is a courtesy.
"""

from __future__ import annotations

try:
    from setproctitle import setproctitle
except ImportError:  # an interpreter without prod-run's dependencies

    def setproctitle(title: str) -> None:
        """Have no title."""


def show(name: str, role_and_state: str) -> None:
    """Show `prod-run: NAME [ROLE] STATE`."""
    setproctitle(f"prod-run: {name} [{role_and_state}")
