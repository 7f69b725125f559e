"""
What `prod-ctl` reads from the private introspection socket of a running prod-run: the log, the state of all.

Owns the way there: the supervisor names the socket, the observer answers.
Must never hold the supervisor up: no line of a log passes through it.
"""

from __future__ import annotations

import http.client
import socket
import sys
import time

from launcher.errors import Exit, Problem, UnavailableError
from launcher.lean import NamedTuple

PATIENCE = 5.0  # seconds for a new observer to come, if the former one died
AGAIN = 0.2  # seconds between two tries
ANSWER = 15.0  # seconds; a follower's answer comes within five
LINES = 200
_FOUND = 200


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes
    position: str
    missed: int


class _Connection(http.client.HTTPConnection):
    """HTTP through a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of the host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path: str, what: str) -> Answer:
    """
    Ask once; tries again for a while if whoever answers is being replaced.

    Raises:
        UnavailableError: prod-run is gone, or answers otherwise than expected.
    """
    begin = time.monotonic()
    while True:
        connection = _Connection(path)
        try:
            connection.request("GET", what)
            response = connection.getresponse()
            body = response.read()
        except (ConnectionRefusedError, FileNotFoundError):
            raise UnavailableError(Problem(path, "prod-run is gone")) from None
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > begin + PATIENCE:
                reason = f"it does not answer: {error or type(error).__name__}"
                raise UnavailableError(Problem(path, reason)) from None
            time.sleep(AGAIN)  # noqa: TID251  the observer died in the middle of an answer
            continue
        finally:
            connection.close()
        if response.status != _FOUND:
            reason = f"it answers {response.status}: {body.decode(errors='replace').strip()}"
            raise UnavailableError(Problem(path, reason))
        missed = response.getheader("Log-Missed", "0")
        return Answer(response.status, body, response.getheader("Log-Position", ""), int(missed))


def show_log(path: str, slot: str, *, follow: bool) -> int:
    """Print the last lines, of one worker if a slot is given, and then, if wanted, what comes until prod-run ends."""
    of_whom = f"&slot={slot}" if slot else ""
    answer = ask(path, f"/logs?lines={LINES}{of_whom}")
    while True:
        if answer.missed:
            print(f"prod-ctl: {answer.missed} lines came too fast and are not shown", file=sys.stderr)
        sys.stdout.buffer.write(answer.body)
        sys.stdout.flush()
        if not follow:
            return Exit.DONE
        try:
            answer = ask(path, f"/logs?follow&since={answer.position}{of_whom}")
        except UnavailableError as error:
            print(f"prod-ctl: {error.problems[0].reason}", file=sys.stderr)
            return Exit.DONE
