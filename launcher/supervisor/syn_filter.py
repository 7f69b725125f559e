"""
A listening socket that takes no more handshakes, though it is open.

Owns the filter that drops them, attached when a stop begins: who connects between the last accept and the close would
otherwise be connected, send a request and be reset.  Its SYN is sent again after a second, to whoever listens then; if
nobody does, the answer is a clean "refused", and nothing has been sent.
Must never be used for a socket that others may serve after us: the filter belongs to the socket, not to a process.
"""

from __future__ import annotations

from launcher.lean_posix import socket

_SO_ATTACH_FILTER = 26  # socket(7)
_LOAD_BYTE, _AND, _JUMP_IF_EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06  # linux/filter.h
_FLAGS, _SYN_AND_ACK, _SYN = 13, 0x12, 0x02  # where a TCP header has its flags, and which: RFC 9293 section 3.1
_ALL = 0xFFFFFFFF
_PROGRAM = (
    (_LOAD_BYTE, 0, 0, _FLAGS),
    (_AND, 0, 0, _SYN_AND_ACK),
    (_JUMP_IF_EQUAL, 0, 1, _SYN),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, _ALL),
)


def attach(fd: int) -> bool:
    """
    Have the kernel drop what would begin a connection; what has begun goes on.

    Returns:
        Whether it does: without privileges it may have no room for another filter (EPERM, net.core.bpf_jit_limit).
    """
    try:
        # Late, since only a stop needs them; the one has the address of its bytes.
        import array  # noqa: PLC0415
        import struct  # noqa: PLC0415

        code = array.array("B", b"".join(struct.pack("HBBI", *line) for line in _PROGRAM))
        program = struct.pack("HP", len(_PROGRAM), code.buffer_info()[0])
        sock = socket.socket(fileno=fd)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        finally:
            sock.detach()
    except (OSError, ImportError):
        return False
    return True
