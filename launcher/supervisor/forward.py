"""
What a worker writes, as whole lines.

Owns the reading end of one worker's stdout or stderr until there is an observer, and the last words said on it.
Must never wait, and never read more than one piece per call: a chatty worker would hold the only loop.
"""

from __future__ import annotations

import os

LONGEST = 64 * 1024  # a longer line is cut
CUT = " …[cut]\n".encode()

_PIECE = 64 * 1024
_WORDS = 16 * 1024
_WORD_LINES = 50


class Lines:
    """One worker's stdout or stderr; `ended` once every holder of the writing end is gone."""

    def __init__(self, fd: int, *, remember: bool = False) -> None:
        """Own `fd`, which is non-blocking; with `remember`, keep the last lines for the record of a death."""
        self.ended = False
        self._fd = fd
        self._remember = remember
        self._words = b""
        self._partial = b""  # a line without its end
        self._is_skipping = False  # the rest of a line that was cut

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._fd

    def read(self) -> bytes:
        """Return the whole lines that are there, at most one piece; nothing if there are none yet."""
        try:
            piece = os.read(self._fd, _PIECE)
        except BlockingIOError:
            return b""
        if piece:
            return self._remembered(self._whole(piece))
        self.ended = True
        return self._remembered(self._last())

    def close(self) -> bytes:
        """Stop reading, whoever still holds the other end; return the unfinished line, if any, as a line."""
        os.close(self._fd)
        self.ended = True
        return self._remembered(self._last())

    def last_words(self) -> str:
        """Return the last 50 lines, at most 16 KiB, the unfinished one included."""
        text = (self._words + self._partial)[-_WORDS:].decode("utf-8", "backslashreplace")
        return "\n".join(text.rstrip("\n").split("\n")[-_WORD_LINES:])

    def _whole(self, piece: bytes) -> bytes:
        if self._is_skipping:
            _, newline, piece = piece.partition(b"\n")
            self._is_skipping = not newline
        data = self._partial + piece
        # Only the first line can be too long: a piece alone is not.
        first = data.find(b"\n")
        head = b""
        if (first if first >= 0 else len(data)) > LONGEST:
            head = _cut(data)
            self._is_skipping = first < 0
            data = data[first + 1 :] if first >= 0 else b""
        end = data.rfind(b"\n") + 1
        self._partial = data[end:]
        return head + data[:end]

    def _last(self) -> bytes:
        line, self._partial = self._partial, b""
        return line + b"\n" if line else b""

    def _remembered(self, lines: bytes) -> bytes:
        if self._remember and lines:
            words = self._words + lines
            start = max(len(words) - _WORDS, 0)
            # From the first whole line on, unless there is only one.
            self._words = words[words.find(b"\n", start, -1) + 1 if start else 0 :][-_WORDS:]
        return lines


def _cut(line: bytes) -> bytes:
    end = LONGEST
    # utf-8(7): 10xxxxxx continues a character, which is not cut in two.
    while end > LONGEST - 4 and line[end] & 0xC0 == 0x80:  # noqa: PLR2004
        end -= 1
    return line[:end] + CUT
