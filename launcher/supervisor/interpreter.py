"""
A fresh interpreter: for the app (a zygote, or a worker that imports for itself), or for the observer.

Owns what such a process is given (its channel, its output, its directory, its first order) and nothing else.
The command line starts the first one with it, so that the app's import runs beside the supervisor's own start.
Must never wait.
"""

from __future__ import annotations

import fcntl
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
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Nothing of third parties until somebody needs it: `-S` alone spares 5 ms.
_BOOT_OBSERVER = "import sys; sys.path += sys.argv[1:]; from launcher.observer.main import main; main()"
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
    kept, given = [], []
    pid = 0
    mark = new_mark()
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        kept, given = [ours.detach()], [theirs.detach()]
        for output in (1, 2):
            reading, writing = output_pipe(handoff, output)
            kept += [reading] if reading >= 0 else []
            given.append(writing)
        pid = _spawn(handoff, environ, given)
        _send_prepare(kept[0], handoff, generation, mark, is_worker=is_worker, inputs=inputs)
    except OSError:
        for fd in kept:
            os.close(fd)
        if pid:
            os.kill(pid, signal.SIGKILL)  # nobody could tell it anything
        raise
    finally:
        for fd in given:
            os.close(fd)
    return Newborn(pid, mark, *kept)


def start_observer(handoff: Handoff, counters_fd: int) -> tuple[int, int]:
    """
    Start the observer, which has our own stdout and stderr; return its PID and our end of its channel.

    Raises:
        OSError: there is none; nothing of it is left.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    pid = 0
    try:
        titles = getattr(sys.modules.get("_setproctitle"), "__file__", None)
        no_bytecode = ("-B",) if sys.dont_write_bytecode else ()
        paths = (_PACKAGE, os.path.dirname(titles)) if titles else (_PACKAGE,)
        arguments = ("-I", "-S", *no_bytecode, "-c", _BOOT_OBSERVER, *paths)
        file_actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), CHANNEL)]
        pid = _spawn_program(sys.executable, arguments, os.environ, file_actions)
        message = protocol.encode(
            "observe",
            protocol=protocol.VERSION,
            supervisor=os.getpid(),
            name=handoff.name,
            log=handoff.log,
            log_kind=handoff.log_kind,
            log_colour=handoff.log_colour,
            log_priority=handoff.log_priority,
            introspect=tuple(listener.address for listener in handoff.introspect),
        )
        send(ours, message, [counters_fd, *(listener.fd for listener in handoff.introspect)])
    except OSError:
        ours.close()
        if pid:
            os.kill(pid, signal.SIGKILL)  # nobody could tell it anything
        raise
    finally:
        theirs.close()
    return pid, ours.detach()


def output_pipe(handoff: Handoff, output: int) -> tuple[int, int]:
    """Make the pipe that takes a process's stdout (1) or stderr (2); without capture it gets ours, and nobody reads."""
    if not handoff.log_capture:
        return -1, fcntl.fcntl(output, fcntl.F_DUPFD_CLOEXEC, CHANNEL)
    return os.pipe2(os.O_CLOEXEC)


def new_mark() -> int:
    """Choose the number by which the observer knows a process's own log records from what anybody prints."""
    return int.from_bytes(os.urandom(4), sys.byteorder)


def send(channel: socket.socket, message: bytes, descriptors: list[int]) -> None:
    """Send one message with descriptors, without waiting (unix(7): SCM_RIGHTS)."""
    packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in descriptors)
    channel.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)], socket.MSG_DONTWAIT)


def _spawn(handoff: Handoff, environ: Mapping[str, str], given: list[int]) -> int:
    # Anew for each generation, and before the start: PYTHONPATH may be relative to it, and CPython 3.13 does not
    # come up in a directory that was removed.
    try:
        os.chdir(handoff.directory)
    except OSError:
        os.chdir("/")  # the child will say why
    # Where the links lead now: all that this generation imports, early or late, is from one release.
    folder, name = os.path.split(handoff.interpreter)
    interpreter = os.path.join(os.path.realpath(folder), name)
    channel, stdout, stderr = given
    file_actions = [
        (os.POSIX_SPAWN_DUP2, stdout, 1),
        (os.POSIX_SPAWN_DUP2, stderr, 2),
        (os.POSIX_SPAWN_DUP2, channel, CHANNEL),
    ]
    return _spawn_program(interpreter, ("-c", BOOT), environ, file_actions)


def _spawn_program(
    interpreter: str, arguments: tuple[str, ...], environ: Mapping[str, str], file_actions: list[tuple[int, int, int]]
) -> int:
    every_signal = [s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)]
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        return os.posix_spawn(
            interpreter,
            [interpreter, *arguments],
            environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), *file_actions],
            setpgroup=0,
            setsigmask=[],
            setsigdef=every_signal,
        )
    finally:
        os.close(null)


def _send_prepare(channel: int, handoff: Handoff, generation: int, mark: int, *, is_worker: bool, inputs: int) -> None:
    message = protocol.encode(
        "prepare",
        protocol=protocol.VERSION,
        supervisor=os.getpid(),
        name=handoff.name,
        target=handoff.target,
        interface=handoff.interface,
        is_factory=handoff.is_factory,
        server_options=handoff.server_options,
        ingress=tuple(handoff.ingress),
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
        before=handoff.before,
        is_command=bool(handoff.command),
        export_secrets=handoff.export_secrets,
        stall_timeout=handoff.stall_timeout,
        has_inputs=inputs >= 0,
        mark=f"{mark:08x}" if handoff.log_capture else "",
        log_kind=handoff.log_kind,
        log_colour=handoff.log_colour,
        log_level=handoff.log_level,
        metrics_directory=handoff.metrics_directory,
    )
    memfds = [handoff.environ_fd] if inputs < 0 else [handoff.environ_fd, inputs]
    sock = socket.socket(fileno=channel)
    try:
        send(sock, message, [*memfds, *(listener.fd for listener in handoff.listeners)])
    finally:
        sock.detach()
