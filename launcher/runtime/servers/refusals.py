"""
What is said of connections that were refused for their PROXY header.

Owns the record, which a stranger must not be able to fill the disk with.
Must never close anything.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

_MOST = 32  # sentences of one worker; a fault in the set-up is told by the first


class Refusals:
    """Says each sentence once in the life of a worker, and only so many of them."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._told: set[str] = set()

    def tell(self, error: Exception) -> None:
        """Say why a connection was refused."""
        sentence = str(error)
        if sentence not in self._told and len(self._told) < _MOST:
            self._told.add(sentence)
            self._logger.warning("connection refused: %s (said once)", sentence)
