"""
What the public tier may know.

Owns which words are withheld: those of the app and of its errors, and the values of settings and configuration.
Pure.  What is taken out here cannot be shown by mistake further on.
"""

from __future__ import annotations

from launcher.observer.tail import Found

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.observer.endpoints import Known


def withhold(known: Known) -> Known:
    """Return what is left for everybody."""
    state = known.state
    return known._replace(
        about=known.about._replace(directory="", token_file="", settings=()),
        config=(),
        log=lambda _: Found(b"", "", 0),
        state=state._replace(
            generations=tuple(
                each._replace(
                    origin=who(each.origin),
                    stale_because="",
                    cannot_respawn="withheld" if each.cannot_respawn else "",
                )
                for each in state.generations
            ),
            workers=tuple(each._replace(says="") for each in state.workers),
            checks=tuple(each._replace(details="") for each in state.checks),
            reloads=tuple(each._replace(origin=who(each.origin), reason="", detail="") for each in state.reloads),
        ),
    )


def who(origin: str) -> str:
    """Return who asked for a generation, without the names of the files that had changed."""
    return origin.partition(": ")[0]
