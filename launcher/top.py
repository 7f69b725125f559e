"""
`prod-ctl top`: all workers of a running prod-run in one table, live.

Owns the table (pure) and the terminal while it is shown, which is left as it was found.
Must never need more than the standard library, and no curses: images often have no terminfo.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING, Any

from launcher import private_socket
from launcher.errors import Exit
from launcher.lean import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Self

    Status = dict[str, Any]

EVERY = 2.0  # seconds between two looks
APART = 0.5  # seconds between the two looks that --once takes: CPU time is a difference
UNKNOWN = "-"
_COLUMNS = ("SLOT", "GEN", "PID", "STATE", "UP", "RSS", "CPU%", "RESTARTS", "LAST EXIT", "SAYS")
_RIGHT = (0, 1, 2, 4, 5, 6, 7)  # numbers
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # another screen, no cursor; and back
_HOME, _REST_OF_LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"
_USUAL = (80, 24)  # where nobody said how large it is
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_KIB = 1024


class Look(NamedTuple):
    """What `/status` said, and when."""

    status: Status
    at: float  # monotonic seconds


# ── the table ───────────────────────────────────────────────────────────────────────────────────


def lines(look: Look, before: Look | None) -> list[str]:
    """Write a header, a line for each check and reload that is to be known, and the table."""
    return [*_header(look.status), "", *_aligned(_rows(look, before))]


def age(seconds: float) -> str:
    """Write a duration in the two units that matter: `45s`, `12m03s`, `3h12m`, `5d02h`."""
    whole = int(max(0.0, seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02}h"


def size(number: int | None) -> str:
    """Write bytes as `812K`, `48.2M`, `1.5G`."""
    if number is None:
        return UNKNOWN
    value, unit = number / _KIB, "K"
    for bigger in "MG":
        if value >= _KIB:
            value, unit = value / _KIB, bigger
    return f"{value:.0f}{unit}" if unit == "K" else f"{value:.1f}{unit}"


def _header(status: Status) -> list[str]:
    now = time.time()
    up = age(now - status["started"])
    ready = "draining" if status["draining"] else "ready" if status["ready"] else "NOT READY"
    found = [f"{status['name']}: {status['sentence']}, {ready}, up {up}, prod-run {status['prod_run']}"]
    last = next(reversed(status["reloads"]), None)
    if last and last["result"] != "committed":
        reason = last.get("reason") or ""
        found.append(f"generation {last['generation']} {last['result']} {age(now - last['at'])} ago: {reason}")
    for check in status.get("checks", ()):
        state = {None: "unknown", True: "good", False: "FAILED"}[check["good"]]
        when = "" if check["age"] is None else f" {age(check['age'])} ago"
        why = ": ".join(filter(None, (check["reason"], check.get("details"))))
        found.append(f"check {check['name']} {state}{when}{': ' if why else ''}{why}")
    return [_plain(line) for line in found]


def _rows(look: Look, before: Look | None) -> list[tuple[str, ...]]:
    slots = {slot["slot"]: slot for slot in look.status["slots"]}
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for worker in sorted(look.status["workers"], key=lambda w: (w["slot"], w["generation"])):
        slot = slots.get(worker["slot"], {})
        rows.append(
            (
                str(worker["slot"]),
                str(worker["generation"]),
                str(worker["pid"] or UNKNOWN),
                worker["state"],
                age(worker["age"]),
                size(worker["rss"]),
                _cpu(worker, look.at, before),
                str(slot.get("restarts", 0)),
                _plain(slot.get("last_exit") or UNKNOWN),
                _plain(worker.get("says") or ""),
            )
        )
    return rows


def _cpu(worker: Status, now: float, before: Look | None) -> str:
    """Write how much of one CPU a worker had since the look before."""
    earlier = before.status["workers"] if before else ()
    same = next((w for w in earlier if w["pid"] == worker["pid"] and w["cpu"] is not None), None)
    if before is None or same is None or worker["cpu"] is None or now <= before.at:
        return UNKNOWN
    return f"{max(0.0, 100 * (worker['cpu'] - same['cpu']) / (now - before.at)):.1f}"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(_COLUMNS))]
    return [
        "  ".join(
            text.rjust(width) if index in _RIGHT else text.ljust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _plain(text: str) -> str:
    """Take out what could move the cursor: some of it is the app's."""
    return "".join(char if char.isprintable() else "?" for char in text)


# ── the terminal ────────────────────────────────────────────────────────────────────────────────


def run(path: str, *, once: bool, is_json: bool) -> int:
    """Show it until somebody presses q; once if that is wanted, or if this is no terminal."""
    if is_json:
        sys.stdout.buffer.write(private_socket.ask(path, "/status").body)
        return Exit.DONE
    if once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        before = look(path)
        time.sleep(APART)  # noqa: TID251  CPU time is a difference
        print("\n".join(lines(look(path), before)))
        return Exit.DONE
    with Screen() as screen:
        return _live(screen, lambda: look(path))


def look(path: str) -> Look:
    """Ask for everything."""
    return Look(json.loads(private_socket.ask(path, "/status").body), time.monotonic())


def _live(screen: Screen, ask: Callable[[], Look]) -> int:
    before, now = None, ask()
    while True:
        screen.show(lines(now, before))
        due = now.at + EVERY
        while (left := due - time.monotonic()) > 0:
            if screen.wait(left):
                return Exit.DONE
            screen.show(lines(now, before))  # another size
        before, now = now, ask()


class Screen:
    """A terminal that shows one picture; leaving it brings back what was there."""

    def __enter__(self) -> Self:
        """Take the terminal."""
        self._former = termios.tcgetattr(0)
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGWINCH, lambda *_: None)
        signal.signal(signal.SIGTERM, _leave)
        tty.setcbreak(0)
        sys.stdout.write(_ENTER)
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        signal.set_wakeup_fd(-1)
        termios.tcsetattr(0, termios.TCSADRAIN, self._former)
        try:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
        except OSError:
            pass  # it is gone: a connection that was cut
        for fd in (self._reading, self._writing):
            os.close(fd)

    def show(self, rows: list[str]) -> None:
        """Draw; what does not fit is left out, and said."""
        width, height = (number or usual for number, usual in zip(os.get_terminal_size(1), _USUAL, strict=True))
        if len(rows) > height:
            rows = [*rows[: height - 1], f"… {len(rows) - height + 1} more: make the window higher"]
        picture = "\n".join(row[:width] + _REST_OF_LINE for row in rows)
        sys.stdout.write(f"{_HOME}{picture}{_REST}")
        sys.stdout.flush()

    def wait(self, seconds: float) -> bool:
        """Wait for a key or another size, at most so long; say whether to end."""
        ready, _, _ = select.select([0, self._reading], [], [], seconds)
        if self._reading in ready:
            os.read(self._reading, 64)
        keys = os.read(0, 64) if 0 in ready else None
        return keys is not None and (not keys or b"q" in keys or b"Q" in keys)


def _leave(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
