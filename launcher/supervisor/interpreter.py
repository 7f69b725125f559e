"""
A fresh interpreter for the app: a zygote, or a worker that imports for itself.

Owns what such a process is given (its channel, its output, its directory, its first order) and nothing else.
The command line starts the first one with it, so that the app's import runs beside the supervisor's own start.
Must never wait.
"""

from __future__ import annotations

import os
import sys

from launcher import protocol
from launcher.handoff import Newborn
from launcher.lean_posix import signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.handoff import Handoff

CHANNEL = 3  # where a fresh interpreter finds it
# The path of a script's directory, or of -c's, must not lead: a user's own launcher.py would be imported.
BOOT = "import sys; sys.path[:] = filter(None, sys.path); from launcher.runtime.start import main; main()"


def start(
    handoff: Handoff, generation: int, environ: Mapping[str, str], *, is_worker: bool = False, inputs: int = -1
) -> Newborn:
    """
    Start an interpreter and tell it what to prepare; all descriptors are closed on exec.

    `inputs` is the sealed memfd that the generation's first process returned, if it was prepared before.

    Raises:
        OSError: there is none; nothing of it is left.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    kept, given = [ours.detach()], [theirs.detach()]
    pid = 0
    try:
        for _ in ("stdout", "stderr"):
            reading, writing = os.pipe2(os.O_CLOEXEC)
            kept.append(reading)
            given.append(writing)
        pid = _spawn(handoff, environ, given)
        _send_prepare(kept[0], handoff, generation, is_worker=is_worker, inputs=inputs)
    except OSError:
        for fd in kept:
            os.close(fd)
        if pid:
            os.kill(pid, signal.SIGKILL)  # nobody could tell it anything
        raise
    finally:
        for fd in given:
            os.close(fd)
    return Newborn(pid, *kept)


def send(channel: socket.socket, message: bytes, descriptors: list[int]) -> None:
    """Send one message with descriptors, without waiting (unix(7): SCM_RIGHTS)."""
    packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in descriptors)
    channel.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)], socket.MSG_DONTWAIT)


def _spawn(handoff: Handoff, environ: Mapping[str, str], given: list[int]) -> int:
    every_signal = [s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)]
    # Anew for each generation, and before the start: PYTHONPATH may be relative to it, and CPython 3.13 does not
    # come up in a directory that was removed.
    try:
        os.chdir(handoff.directory)
    except OSError:
        os.chdir("/")  # the child will say why
    # Where the links lead now: all that this generation imports, early or late, is from one release.
    folder, name = os.path.split(handoff.interpreter)
    interpreter = os.path.join(os.path.realpath(folder), name)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        return os.posix_spawn(
            interpreter,
            [interpreter, "-c", BOOT],
            environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, given[1], 1),
                (os.POSIX_SPAWN_DUP2, given[2], 2),
                (os.POSIX_SPAWN_DUP2, given[0], CHANNEL),
            ],
            setpgroup=0,
            setsigmask=[],
            setsigdef=every_signal,
        )
    finally:
        os.close(null)


def _send_prepare(channel: int, handoff: Handoff, generation: int, *, is_worker: bool, inputs: int) -> None:
    message = protocol.encode(
        "prepare",
        protocol=protocol.VERSION,
        supervisor=os.getpid(),
        name=handoff.name,
        target=handoff.target,
        interface=handoff.interface,
        arguments=handoff.arguments,
        generation=generation,
        is_worker=is_worker,
        directory=handoff.directory,
        open_files=handoff.open_files,
        umask=handoff.umask,
        listeners=tuple(listener.name for listener in handoff.listeners),
        config=handoff.config,
        env_files=handoff.env_files,
        secrets_dirs=handoff.secrets_dirs,
        templates=handoff.templates,
        template_check=handoff.template_check,
        watch=handoff.watch,
        has_inputs=inputs >= 0,
    )
    memfds = [handoff.environ_fd] if inputs < 0 else [handoff.environ_fd, inputs]
    sock = socket.socket(fileno=channel)
    try:
        send(sock, message, [*memfds, *(listener.fd for listener in handoff.listeners)])
    finally:
        sock.detach()
