"""
The supervisor of one command that runs alone: what tini and dumb-init are to theirs.

Owns the passing on of signals, the reaping, the suspension with the command, the drain limit, the end of what the
command leaves behind, and its exit code.  Waits in one place, for signals, all of which are blocked.
Must never start anything, nor import what a bare interpreter does without: this is all there is beside the command.
"""

from __future__ import annotations

import os
import time

from launcher.lean_posix import signal
from launcher.supervisor import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

GRACE = 5.0  # seconds for what the command leaves behind, and again after SIGKILL
LATE = 2.0  # seconds; a later wake-up means that the machine, the container or this process was suspended
SOON = 0.001  # seconds; setitimer(2) takes 0 for never
# Ours, were they to come: what a fault of this process means is death (tini does the same).
FAULTS = (
    *(signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS),
    *(signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS),
)
DRAINING = (signal.SIGTERM, signal.SIGINT)


def main(words: list[str]) -> NoReturn:
    """Supervise until the command and all that it left are gone; `words` are facts, as NAME=VALUE."""
    facts = dict(word.split("=", 1) for word in words)
    os.chdir("/")  # the command has its own directory: no mount is kept busy by us
    _show_title(facts["name"])
    code = Command(facts).supervise()
    # Nothing has to be closed or collected: the kernel is quicker.
    os._exit(0 if str(code) in facts["successes"].split(",") else code)


class Command:
    """One command, from the first signal after its start to the end of the last process that it left."""

    __slots__ = (
        "_code",
        "_deadline",
        "_drain_timeout",
        "_is_journal",
        "_is_killed",
        "_is_stopped_by_us",
        "_is_talkative",
        "_pid",
        "_rewrites",
        "_told",
    )

    def __init__(self, facts: dict[str, str]) -> None:
        self._pid = int(facts["pid"])  # and its process group
        self._drain_timeout = float(facts["drain"])
        self._rewrites = {int(one): int(other) for one, _, other in _pairs(facts["rewrites"])}
        self._is_journal = facts["journal"] == "1"
        self._is_talkative = facts["talkative"] == "1"
        self._code: int | None = None
        self._deadline: float | None = None  # monotonic seconds: when SIGKILL follows
        self._is_killed = False
        self._is_stopped_by_us = False
        self._told: set[int] = set()  # of those that the command left, who got what comes now

    def supervise(self) -> int:
        """Return the command's exit code, as a shell would have it, when nobody is left."""
        awaited = {int(number) for number in signal.valid_signals() if number not in FAULTS}
        signal.pthread_sigmask(signal.SIG_SETMASK, awaited)
        # Who died before this program was there has sent its SIGCHLD, which waits; but not if the kernel lost it.
        is_anybody_left = self._reap()
        while is_anybody_left:
            number = self._wait(awaited)
            if number == 0:
                is_anybody_left = self._on_deadline()
            elif number == signal.SIGCHLD:
                is_anybody_left = self._reap()
            else:
                self._pass_on(number)
        return self._code if self._code is not None else 128 + signal.SIGKILL

    def _wait(self, awaited: set[int]) -> int:
        """Wait for a signal, or the deadline; return 0 for that."""
        while True:
            began = time.monotonic()
            if self._deadline is not None:
                # Not sigtimedwait(2): where it is stopped for longer than its time, CPython returns a signal that
                # never came (what happened to be in its memory).
                signal.setitimer(signal.ITIMER_REAL, max(SOON, self._deadline - began))
            came = signal.sigwaitinfo(awaited)
            if self._deadline is None:
                return int(came.si_signo)
            now = time.monotonic()
            is_timer = came.si_signo == signal.SIGALRM and came.si_code > 0  # sigaction(2): not from a process
            if now - max(self._deadline, began) > LATE:
                # As the loop of the other supervisor does: everybody has the time left that there was before.
                self._deadline += now - began
                self._say(4, f"woke up late: the time limit is moved by {now - began:.1f}s")
            elif is_timer and now >= self._deadline:
                return 0
            if not is_timer:
                return int(came.si_signo)

    # ── signals ─────────────────────────────────────────────────────────────────────────────────

    def _pass_on(self, number: int) -> None:
        # What asks to stop cannot be refused, unless --rewrite lets it: so the two of us are stopped together.
        sent = self._rewrites.get(number, signal.SIGSTOP if number in terminal.STOPS else number)
        self._explain("passed on", number, sent)
        if number == signal.SIGCONT:
            self._is_stopped_by_us = False
        if sent == 0:
            return
        if number == signal.SIGCONT and terminal.is_wanted_at_once():
            terminal.hand_to(self._pid)  # first: it may read at once
        self._send(sent)
        if number in terminal.STOPS:
            self._is_stopped_by_us = True  # until SIGCONT, which has woken us
            self._postponed(lambda: terminal.suspend(with_our_group=False))
        if number in DRAINING and self._deadline is None:
            self._deadline = time.monotonic() + self._drain_timeout

    def _send(self, number: int) -> None:
        if self._code is not None and not any(map(self._is_in_group, self._left())):
            return  # the number may be somebody else's by now
        try:
            os.killpg(self._pid, number)
        except ProcessLookupError:
            if self._code is None:
                self._send_to(self._pid, number)  # it went to another group
        except PermissionError as error:
            self._say(4, f"cannot send signal {number} to the command: {error.strerror}")

    def _send_to(self, pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except OSError:
            pass  # over, or of another user's

    # ── deaths and stops ────────────────────────────────────────────────────────────────────────

    def _reap(self) -> bool:
        """Reap whoever is over (waitpid(2): several deaths may come as one SIGCHLD); say whether anybody is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return False
            if pid == 0:
                break
            if pid != self._pid:
                continue
            if os.WIFSTOPPED(status):
                number = os.WSTOPSIG(status)
                if not self._is_stopped_by_us:  # else we have been suspended with it already
                    self._postponed(lambda number=number: terminal.follow(self._pid, number))  # type: ignore[misc]
            else:
                code = os.waitstatus_to_exitcode(status)
                self._begin_to_end(code if code >= 0 else 128 - code)
        if self._code is not None:
            self._sweep()  # who lost its parent just now is ours now
        return True

    def _postponed(self, suspend: Callable[[], None]) -> None:
        """Suspend this process; the time until it is continued is nobody's."""
        began = time.monotonic()
        suspend()
        if self._deadline is not None:
            self._deadline += time.monotonic() - began

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    def _begin_to_end(self, code: int) -> None:
        self._explain("ended the command with exit code", 0, code)
        self._code = code
        self._is_killed = False
        self._told = set()
        self._deadline = time.monotonic() + GRACE
        terminal.take_from(self._pid)
        try:
            os.killpg(self._pid, signal.SIGTERM)
            os.killpg(self._pid, signal.SIGCONT)  # who is stopped hears nothing
        except OSError:
            pass  # nobody is left of it

    def _on_deadline(self) -> bool:
        """Kill who had its time; say whether there is still something to wait for."""
        if self._is_killed:
            return False  # who survives SIGKILL for so long is not waited for
        self._is_killed = True
        self._deadline = time.monotonic() + GRACE
        if self._code is None:
            self._say(3, f"killed the command: it did not end within --drain-timeout {self._drain_timeout:g}s")
            self._send(signal.SIGKILL)
        else:
            self._told = set()
            self._sweep()
        return True

    def _sweep(self) -> None:
        """Tell every child that is left, ours by adoption, to end, once: by SIGTERM, or at last by SIGKILL."""
        number = signal.SIGKILL if self._is_killed else signal.SIGTERM
        for pid in self._left() - self._told:
            self._told.add(pid)
            if number == signal.SIGKILL or not self._is_in_group(pid):  # the group was told as one
                self._send_to(pid, number)
                self._send_to(pid, signal.SIGCONT)

    def _left(self) -> set[int]:
        """Return our children (proc_tid_children(5)); none where /proc cannot tell: then only the group is told."""
        try:
            with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
                return set(map(int, file.read().split()))
        except OSError:
            return set()

    def _is_in_group(self, pid: int) -> bool:
        try:
            return os.getpgid(pid) == self._pid
        except OSError:
            return False

    def _explain(self, what: str, number: int, then: int) -> None:
        """Say what is done anyway, to whoever asked for it by --log-level."""
        if self._is_talkative:
            from launcher.signals import name_of  # noqa: PLC0415  300 kB

            names = f"{name_of(number)} as {name_of(then) if then else 'nothing'}" if number else str(then)
            self._say(7, f"{what} {names}")

    def _say(self, severity: int, text: str) -> None:
        mark = f"<{severity}>" if self._is_journal else ""
        try:
            os.write(2, f"{mark}prod-run: {text}\n".encode())
        except OSError:
            pass


def _pairs(text: str) -> list[tuple[str, str, str]]:
    return [item.partition(":") for item in text.split(",") if item]


def _show_title(name: str) -> None:
    try:
        from _setproctitle import setproctitle  # noqa: PLC0415  a title is a courtesy
    except ImportError:
        return
    setproctitle(f"prod-run: {name} [supervisor]")
