"""
The first lines of every fresh interpreter of an app: a zygote, or a worker without preload.

Owns what happens before the first import of the app: the order from the supervisor, the signals, the
environment, the directory, the place of the listening sockets.  Must never import the app itself.
"""

from __future__ import annotations

import atexit
import faulthandler
import fcntl
import os
import resource
import sys

from launcher import libc, protocol
from launcher.errors import Exit
from launcher.handoff import Ingress
from launcher.lean import NamedTuple
from launcher.lean_posix import signal, socket
from launcher.runtime import multiprocess, prepare, records, titles
from launcher.runtime.prepare import Wanted
from launcher.signals import HARMLESS_TO_WORKERS, STACKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

FIRST_LISTENER = 3  # sd_listen_fds(3)
CHANNEL = 3  # where the supervisor puts it before the exec
MOST_DESCRIPTORS = 253  # unix(7): SCM_MAX_FD
MOST_DETAIL = 28_000  # characters, of at most four bytes each, in one message


class Order(NamedTuple):
    """What a fresh interpreter is told first."""

    channel: socket.socket
    supervisor: int
    name: str
    generation: int
    is_worker: bool
    listener_names: tuple[str, ...]
    listener_fds: tuple[int, ...]  # from FIRST_LISTENER on, but for those that came later
    wanted: Wanted
    watch: bool
    inputs: bytes  # of a snapshot, if the generation was prepared before; empty otherwise
    before: str = ""  # the init task, as written; empty: none


class Signals:
    """Which handlers are prod-run's, and whether the fork that is under way is."""

    handlers: list[object]
    is_our_fork = False


def main() -> NoReturn:
    """Take the first order and become what it says."""
    Signals.handlers = [ignore]
    for number in (*HARMLESS_TO_WORKERS, signal.SIGTERM):
        signal.signal(number, ignore)
    os.register_at_fork(after_in_child=restore_signals)
    atexit.register(ignore_signals)  # the first that is registered runs last
    # Before the environment changes: setproctitle finds the title's place by it.
    titles.show("?", "starting]")
    channel = socket.socket(fileno=CHANNEL)
    message, descriptors = receive(channel)
    if message is None:
        os._exit(0)
    die_with(message.number("supervisor"))
    # Before the app's directory leads sys.path, where a `select.py` may lie; and before a fork, which shares them.
    from launcher.runtime import worker, zygote  # noqa: PLC0415  they import this module

    if message.texts("listeners"):
        import socket as _  # noqa: F401, PLC0415  what the app's listeners are made of; others may do without
    order = _settle(channel, message, descriptors)
    if order.is_worker:
        worker.run_anew(order)
    zygote.run(order)


def ignore(number: int, frame: object) -> None:
    """Do nothing on a signal: unlike SIG_IGN, this is not inherited by the app's own programs."""


def restore_signals() -> None:
    """Give a process that the app forked the signals of an ordinary one: it ends by SIGTERM."""
    if Signals.is_our_fork:
        return
    faulthandler.unregister(STACKS)
    for number in (*HARMLESS_TO_WORKERS, signal.SIGTERM):
        if signal.getsignal(number) in Signals.handlers:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def ignore_signals() -> None:
    """Have a process that has finished end with its own code: Python's end would bring the default actions back."""
    for number in (*HARMLESS_TO_WORKERS, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def receive(channel: socket.socket) -> tuple[protocol.Message | None, list[int]]:
    """Wait for one message with its descriptors; None if the supervisor is gone."""
    try:
        # socket.recv_fds() ignores its flags on 3.11, so the descriptors would be inheritable.
        data, ancillary, _, _ = channel.recvmsg(
            protocol.LARGEST, socket.CMSG_SPACE(4 * MOST_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionError:
        return None, []
    except OSError as error:
        print(f"cannot hear the supervisor: {error.strerror}", file=sys.stderr)
        leave(Exit.OS_ERROR)
    descriptors: list[int] = []
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors += [int.from_bytes(payload[i : i + 4], sys.byteorder) for i in range(0, len(payload) - 3, 4)]
    return (protocol.decode(data) if data else None), descriptors


def die_with(supervisor: int) -> None:
    """Have the kernel kill this process when the supervisor dies."""
    if not libc.kill_with_parent():
        print("the operating system refused prctl(PR_SET_PDEATHSIG): a seccomp filter may forbid it", file=sys.stderr)
        leave(Exit.OS_ERROR)
    # It may have died before that line: prctl(2) says nothing then.
    if os.getppid() != supervisor:
        os._exit(0)


def _settle(channel: socket.socket, message: protocol.Message, descriptors: list[int]) -> Order:
    _require_protocol(channel, message)
    order = Order(
        channel,
        message.number("supervisor"),
        message.text("name"),
        message.number("generation"),
        message.flag("is_worker"),
        message.texts("listeners"),
        (),
        _wanted(message),
        message.flag("watch"),
        b"",
        "".join(message.texts("before")),
    )
    directory = message.text("directory")
    try:
        os.chdir(directory)
    except OSError as error:
        refuse(order, Exit.UNAVAILABLE, f"{directory}: cannot enter the directory: {error.strerror}")
    try:
        # First: their numbers are among those where the sockets belong.
        environ_fd, *listeners = descriptors
        _take_environment(environ_fd)
        if message.flag("has_inputs"):
            inputs_fd, *listeners = listeners
            order = order._replace(inputs=_take(inputs_fd))
        places = range(FIRST_LISTENER, FIRST_LISTENER + len(listeners))
        order = order._replace(channel=_place(channel, listeners), listener_fds=tuple(places))
        soft, (_, hard) = message.number("open_files"), resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard) if hard >= 0 else soft, hard))
    except (OSError, ValueError) as error:  # setrlimit() makes a ValueError of EPERM
        refuse(order, Exit.OS_ERROR, f"the operating system refused: {error}")
    if message.number("umask") >= 0:
        os.umask(message.number("umask"))
    # Where `directory` leads now: a link that moves later must not mix two releases in one process.
    sys.path.insert(0, os.getcwd())
    sys.argv[:] = [message.text("target"), *message.texts("arguments")]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    records.begin(message)
    multiprocess.begin(message.text("metrics_directory"), order.generation)
    return order


def _require_protocol(channel: socket.socket, message: protocol.Message) -> None:
    """Refuse what another release of prod-run says, before anything else of it is read: it may say other things."""
    spoken = message.number("protocol")
    if spoken == protocol.VERSION:
        return
    is_worker = message.texts("is_worker") == ("1",)
    unread = Order(channel, 0, "", 0, is_worker, (), (), Wanted(""), watch=False, inputs=b"")
    reason = f"this release of prod-run speaks protocol {protocol.VERSION}, the running one {spoken}: restart it"
    refuse(unread, Exit.SOFTWARE, reason)


def _wanted(message: protocol.Message) -> Wanted:
    return Wanted(
        message.text("target"),
        message.text("interface"),
        message.text("config"),
        message.texts("env_files"),
        prepare.secrets_dirs(message.texts("secrets_dirs")),
        message.texts("templates"),
        message.text("template_check"),
        message.number("generation"),
        is_factory=message.flag("is_factory"),
        server_options=message.texts("server_options"),
        ingress=Ingress(*message.texts("ingress")),
        is_command=message.flag("is_command"),
        export_secrets=message.texts("export_secrets"),
        stall_timeout=float("".join(message.texts("stall_timeout")) or 0),
    )


def refuse(order: Order, code: int, reason: str, detail: str = "") -> NoReturn:
    """Tell the supervisor why this process cannot be had, and end."""
    if order.is_worker:  # the supervisor knows it by its end; its stderr says why
        print(detail or reason, file=sys.stderr)
    message = protocol.encode("refused", code=code, reason=sendable(reason, 2000), detail=sendable(detail, MOST_DETAIL))
    try:
        order.channel.send(message)
    except OSError:
        pass
    leave(code)


def sendable(text: str, limit: int) -> str:
    """Cut a text of the app's, which may hold anything, so that it fits a message in UTF-8."""
    return protocol.shorten(text, limit).encode("utf-8", "backslashreplace").decode()


def leave(code: int) -> NoReturn:
    """End at once, without what the app registered for its workers' exit; nothing it printed is lost."""
    flush()
    os._exit(code)


def flush() -> None:
    """Write what is in the buffers of stdout and stderr, so that no fork writes it a second time."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # closed or replaced by the app


def _place(channel: socket.socket, listeners: list[int]) -> socket.socket:
    """Put the listening sockets where sd_listen_fds(3) says, and the channel behind them."""
    free = FIRST_LISTENER + len(listeners)
    away = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, free) for fd in (channel.fileno(), *listeners)]
    channel.close()
    for fd in listeners:
        os.close(fd)
    for index, fd in enumerate(away[1:]):
        os.dup2(fd, FIRST_LISTENER + index, inheritable=False)
        os.close(fd)
    return socket.socket(fileno=away[0])


def _take_environment(fd: int) -> None:
    """Read the whole environment, less what is prod-run's and systemd's own, into os.environ."""
    os.environ.clear()
    for item in _take(fd).split(b"\0"):
        name, _, value = item.partition(b"=")
        # execve(2) lets an item without a name pass, putenv(3) does not.
        if name and not prepare.is_ours(name.decode("ascii", "replace")):
            os.environb[name] = value


def _take(fd: int) -> bytes:
    """Read a memfd and close it."""
    # pread: the file offset of a memfd is shared by everybody who has it.
    content = os.pread(fd, os.fstat(fd).st_size, 0)
    os.close(fd)
    return content
