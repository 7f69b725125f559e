"""
What runs below an init under test, and says what it sees.

`python -I -S inside.py REPORTS CODE` runs CODE with the functions of this module.  Owns the reports: one JSON object
a line, in a named pipe.  Must never need anything but the standard library, and loads little of it: it is started
hundreds of times.
"""

from __future__ import annotations

import os
import signal
import sys
import time

ALL = {number for number in signal.valid_signals() if number not in {signal.SIGKILL, signal.SIGSTOP}}
REPORTS = os.open(sys.argv[1], os.O_WRONLY | os.O_CLOEXEC)


def say(what: str, value: object = None) -> None:
    """Report a fact; what is written is whole, pipe(7), as long as it is shorter than 4096 bytes."""
    import json

    os.write(REPORTS, json.dumps([what, value, os.getpid()]).encode() + b"\n")


def record(name: str = "command", last: int = signal.SIGUSR2) -> None:
    """
    Report the number of every signal that comes; the last one ends it, with code 3.

    Those that are pending together are taken in the order of their numbers, sigwait(3), and none acts.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ALL)
    say("ready", name)
    while True:
        number = int(signal.sigwait(ALL))
        say(name, number)
        if number == last:
            sys.exit(3)


def idle(name: str = "command") -> None:
    """Do nothing, for ever; whatever a signal does by default, it does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    say("ready", name)
    while True:
        signal.pause()


def child(*, leave: bool = False) -> bool:
    """Fork; return True in the child, which with `leave` is in a session of its own."""
    if os.fork():
        return False
    if leave:
        os.setsid()
    return True


def orphan(*, leave: bool = False) -> bool:
    """Fork twice; return True in the grandchild, once the process between is gone and it has been adopted."""
    middle = os.fork()
    if middle:
        os.waitpid(middle, 0)
        return False
    middle = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == middle:
        time.sleep(0.001)  # noqa: TID251  nobody announces an adoption
    if leave:
        os.setsid()
    return True


def until_let_go(name: str = "command") -> None:
    """Wait until standard input ends."""
    say("ready", name)
    os.read(0, 1)


def last_words(name: str, seconds: float = 0.7) -> None:
    """Wait for SIGTERM, have some work left, and say that it is done, and whether SIGTERM came again meanwhile."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ALL)
    say("ready", name)
    signal.sigwait({signal.SIGTERM})
    again = signal.sigtimedwait({signal.SIGTERM}, seconds)
    say("finished", "told twice" if again else "told once")
    sys.exit(0)


def terminal() -> list[bool]:
    """Say whether there is a controlling terminal, and whether our group is in its foreground."""
    try:
        reading = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        return [False, False]
    is_in_front = os.tcgetpgrp(reading) == os.getpgrp()
    os.close(reading)
    return [True, is_in_front]


if __name__ == "__main__":
    exec(sys.argv[2])  # noqa: S102  the test's own words
