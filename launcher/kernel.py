"""
What is asked of the kernel before the exec of the supervisor, and the sentence when it refuses.

Owns the check of its age, descriptors 0 to 2, limits, the subreaper and sealed memory.
Must never start anything.
"""

from __future__ import annotations

import fcntl
import os
import resource
import sys

from launcher.errors import Problem, SystemRefusedError

OLDEST = (5, 10)

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def ensure_stdio() -> tuple[int, ...]:
    """Make sure that 0, 1 and 2 are open, so that no socket ever gets one of these numbers; return who was not."""
    closed = []
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # open(2) takes the lowest free number: this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            closed.append(fd)
    return tuple(closed)


def require() -> None:
    """Check once for what is needed throughout; gVisor and seccomp filters may refuse some of it."""
    if sys.platform != "linux":
        raise SystemRefusedError(Problem("", f"prod-run needs Linux, this is {sys.platform}"))
    release = os.uname().release
    numbers = [int(part) if part.isdecimal() else 0 for part in release.replace("-", ".").split(".")[:2]]
    if tuple(numbers) < OLDEST:
        raise SystemRefusedError(Problem("", f"prod-run needs Linux 5.10 or newer, this is {release}"))
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        raise refused(error, "pidfd_open(2)") from None


def require_death_signal() -> None:
    """Check that the kernel can kill our processes with us: each of them ends at once if it cannot, and says little."""
    from launcher.prctl import may_set_death_signal  # noqa: PLC0415 - one command does without

    if not may_set_death_signal():
        remedy = "A seccomp filter or a sandbox may forbid it"
        raise SystemRefusedError(Problem("prctl(PR_SET_PDEATHSIG)", "the system refused it", remedy))


def sealed(name: str, content: bytes) -> int:
    """Put bytes into a memfd that nobody can change any more, at offset 0; `name` is for /proc/PID/fd."""
    try:
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        fcntl.fcntl(
            fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        )
    except OSError as error:
        raise refused(error, "memfd_create(2)") from None
    return fd


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one; return what it was, for the app (-1: no limit)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # without privileges in a user namespace; the soft limit is then what the service has
    return soft


def become_subreaper() -> None:
    """Have orphans of the service come to this process, as they do to PID 1; kept over execve, prctl(2)."""
    if os.getpid() == 1:
        return
    import ctypes  # noqa: PLC0415 - 4 ms, and PID 1 does without

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise refused(OSError(code, os.strerror(code)), "prctl(PR_SET_CHILD_SUBREAPER)")


def refused(error: OSError, what: str) -> SystemRefusedError:
    """Make the sentence for what the system would not do."""
    remedy = "A seccomp filter or a sandbox may forbid it"
    return SystemRefusedError(Problem(what, f"the system refused: {error.strerror}", remedy))
