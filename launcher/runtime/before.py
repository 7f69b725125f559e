"""
The init task (`--before`): what is run once for a generation, before its first worker.

Owns the call of the function or the running of the command, in a process of its own that the zygote forked (or that
imported for itself), and the words in which it failed.
Must never run in the zygote: what a migration imports and starts must not be shared by workers.
"""

from __future__ import annotations

import os
import select
import sys

from launcher import init_task, libc, protocol
from launcher.errors import Exit, LauncherError, Problem, TargetError
from launcher.lean import NamedTuple
from launcher.lean_posix import signal, socket
from launcher.runtime import load, records
from launcher.runtime.prepare import SYSTEMD
from launcher.runtime.start import Signals, sendable
from launcher.signals import name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, NoReturn

    from launcher.runtime.load import Target

_STOPPED = 128 + signal.SIGTERM
_LAST = 4000  # bytes of what a command wrote last on stderr, for its failure's reason
_MOST_REASON, _MOST_DETAIL = 2000, 16_000  # characters in one message


class _Failure(NamedTuple):
    """Why the task failed, in a few words and in many."""

    reason: str
    detail: str = ""


class _Given(NamedTuple):
    """What a target finds in place of a Worker."""

    config: object


def run(text: str, channel: socket.socket) -> int:
    """Run the task and tell the supervisor if it failed; return the exit code of this process."""
    for name in SYSTEMD:  # neither the sockets nor the notify address are this process's
        os.environ.pop(name, None)
    Signals.handlers.append(_on_sigterm)
    signal.signal(signal.SIGTERM, _on_sigterm)
    if _is_told_to_stop(channel):  # the signal came before this handler
        return _STOPPED
    channel.send(protocol.encode("begun"))
    words = init_task.command(text)
    failure = _run_command(words) if words else _call(text)
    if failure is None:
        return 0
    reason = sendable(records.masked(f"--before {text}: {failure.reason}"), _MOST_REASON)
    detail = sendable(records.masked(failure.detail), _MOST_DETAIL)
    channel.send(protocol.encode("refused", code=Exit.SOFTWARE, reason=reason, detail=detail))
    return 1


def find(text: str) -> Target:
    """
    Import a function that is to be called before the workers.

    Raises:
        LauncherError: there is none, or it wants what it cannot have.
    """
    target = load.load(text, load.CALLABLE)
    if target.worker_parameter:
        remedy = "Let it take nothing, or the configuration"
        raise TargetError(Problem(text, "is run before there are workers, so it gets no Worker", remedy))
    return target


def problems(text: str) -> tuple[Problem, ...]:
    """Say what is wrong without running it."""
    words = init_task.command(text)
    if words:
        import shutil  # noqa: PLC0415  only a check asks

        remedy = "Name its file, or a program that is on PATH"
        return () if shutil.which(words[0]) else (Problem("--before", f"there is no program {words[0]!r}", remedy),)
    try:
        find(text)
    except LauncherError as error:
        return error.problems
    return ()


def _on_sigterm(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001  a handler's signature
    raise SystemExit(_STOPPED)  # not 0: whoever sent it, the task is not done


def _is_told_to_stop(channel: socket.socket) -> bool:
    try:
        channel.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
    except BlockingIOError:
        return False
    return True  # the order, or the end of the channel


def _call(text: str) -> _Failure | None:
    try:
        result = _result(find(text))
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return _Failure(f"sys.exit({ended.code!r})")
        result = ended.code
    except LauncherError as error:
        return _Failure(error.problems[0].sentence, getattr(error, "detail", "") or str(error))
    except BaseException as error:  # noqa: BLE001  whatever it is, it is the app's
        records.report(error)
        first = str(error).partition("\n")[0]
        reason = f"{type(error).__name__}: {first}" if first else type(error).__name__
        return _Failure(reason, load.cut_traceback(error))
    # A function that says True means success, although True is 1.
    return _Failure(f"exit {result}") if type(result) is int and result else None


def _result(target: Target) -> object:
    given: Any = _Given(_config(target) if target.config_parameter else None)
    result = target.call(given)
    if not target.is_async:
        return result
    import asyncio  # noqa: PLC0415  only async tasks pay for it

    return asyncio.run(result)  # type: ignore[arg-type]


def _config(target: Target) -> object:
    import launcher  # noqa: PLC0415
    from launcher.appconfig.annotations import find_class  # noqa: PLC0415  inspect and typing

    cls = find_class(target.function)
    assert cls  # noqa: S101  the parameter was found by it
    return launcher.config(cls)


def _run_command(words: tuple[str, ...]) -> _Failure | None:
    """Run a command in our own process group, its stderr passing through here."""
    import subprocess  # noqa: PLC0415  in this process alone

    try:
        # It must not outlive us: we are killed with the supervisor, and at the limit.
        process = subprocess.Popen(words, stderr=subprocess.PIPE, preexec_fn=libc.kill_with_parent)  # noqa: PLW1509  no threads that matter
    except OSError as error:
        return _Failure(f"cannot be run: {error.strerror}")
    assert process.stderr  # noqa: S101  it was asked for
    try:
        last = _pass_on(process.stderr.fileno(), os.pidfd_open(process.pid))
        code = process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            process.wait()
    if code == 0:
        return None
    how = f"exit {code}" if code > 0 else name_of(-code)
    return _Failure(how, last.decode("utf-8", "backslashreplace").strip())


def _pass_on(reading: int, process: int) -> bytes:
    """Copy to our stderr until the process ends (a grandchild may keep the pipe open); return the last bytes."""
    os.set_blocking(reading, False)
    either = select.poll()
    either.register(reading, select.POLLIN)
    either.register(process, select.POLLIN)
    last = b""
    is_over = False
    while not is_over:
        is_over = any(fd == process for fd, _ in either.poll())  # seen first: what is left is read after it
        piece = _read(reading)
        while piece:
            last = (last + piece)[-_LAST:]
            while piece:
                piece = piece[os.write(2, piece) :]
            piece = _read(reading)
        if piece is not None:  # it is closed, and the process lives on
            return last
    return last


def _read(fd: int) -> bytes | None:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return None
