"""
The parts of the page that are for the private tier: settings, the app's configuration, the log.

Owns what stands in them.  Pure; secrets were taken out before the values came here.
"""

from __future__ import annotations

from launcher.observer.page.markup import Markup, tag
from launcher.observer.page.tables import section, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.observer.page.sections import Seen


def configuration(seen: Seen) -> Markup:
    """Return settings and variables with their origin."""
    known = seen.known
    parts = (
        ("variables", "the app's variables", known.config),
        ("settings", "prod-run's settings", known.about.settings),
    )
    return section(
        "config",
        "Configuration",
        *(
            tag(
                "details",
                tag("summary", f"{len(rows)} of {title}"),
                table(name, ("Name", "Value", "Origin"), [_fact(*row) for row in rows], "There is none."),
                id=name,
            )
            for name, title, rows in parts
        ),
    )


def _fact(name: str, value: str, origin: str) -> tuple[str, str, str]:
    return tag("code", name), tag("code", value), origin
