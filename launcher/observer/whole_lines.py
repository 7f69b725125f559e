"""
Whole lines out of pieces.

Owns what has no newline yet, the cap on a line's length, and the last words of a stream.
Pure: it must never read or wait.
"""

from __future__ import annotations

from launcher.logs.batch import newlines
from launcher.logs.raw import CUT

LONGEST = 64 * 1024  # a longer line is cut

_WORDS = 16 * 1024
_LONGEST_CHARACTER = 4


class WholeLines:
    """One stream of bytes as lines; what is longer than `LONGEST` is cut and marked."""

    def __init__(self, *, remember: bool, head: bytes = b"") -> None:
        """
        Start at the beginning of a line; with `remember`, keep the last words.

        `head` begins a finished record; no newline needs to stand before it.
        """
        self.partial = b""  # a line without its end
        self._head = head
        self._remember = remember
        self._words = b""
        self._is_skipping = False  # the rest of a line that was cut
        self._is_continued = False  # the beginning of this line was given out already

    def add(self, piece: bytes, count: int) -> tuple[bytes, int]:
        """
        Return the lines that are whole now, and their number.

        `piece` is not longer than twice `LONGEST`, and has `count` newlines: counting them costs as much as all of
        this.
        """
        if len(piece) > LONGEST and _has_long(piece):
            lines = self._add(piece[:LONGEST], -1)[0] + self._add(piece[LONGEST:], -1)[0]
            return lines, newlines(lines)
        return self._add(piece, count)

    def _add(self, piece: bytes, count: int) -> tuple[bytes, int]:
        """Do it for a piece in which only the first line can be too long, with what came before."""
        is_plain = not (self._is_skipping or self._is_continued)
        if self._is_skipping:
            piece, self.partial = self._after_the_cut(self.partial + piece), b""
        first = piece.find(b"\n")
        if len(self.partial) + (first if first >= 0 else len(piece)) > LONGEST:
            is_plain = False
            whole = self._too_long(self.partial + piece)
        else:
            whole = self._ended(self.partial, piece)
        self._note(whole)
        if self._is_continued and whole:
            self._is_continued = False
            # Only the newline was missing.
            whole = whole.removeprefix(b"\n")
        return whole, count if is_plain else newlines(whole)

    def give(self, *, is_last: bool) -> bytes:
        """Return what there is of the unfinished line; unless it is the last, half a character waits for the rest."""
        end = len(self.partial) if is_last else _end_of_characters(self.partial)
        given, self.partial = self.partial[:end], self.partial[end:]
        self._note(given)
        self._is_continued = self._is_continued or bool(given)
        return given

    def last_words(self) -> bytes:
        """Return the last 16 KiB the unfinished line included; they begin with a line if there is more than one."""
        words = self._words + self.partial
        start = max(len(words) - _WORDS, 0)
        return words[words.find(b"\n", start - 1, -1) + 1 if start else 0 :][-_WORDS:]

    def _ended(self, begun: bytes, data: bytes) -> bytes:
        """Return the lines that end in `data`, the first one begun before; the rest is kept."""
        end = data.rfind(b"\n") + 1
        if not end:
            self.partial = begun + data
            return b""
        self.partial = data[end:]
        with memoryview(data) as view:  # a slice would be one copy more of the whole
            return b"".join((begun, view[:end]))

    def _too_long(self, data: bytes) -> bytes:
        """Cut the first line, unless a finished record begins in it."""
        data = self._parted(data)
        first = data.find(b"\n")
        if 0 <= first <= LONGEST:
            return self._ended(b"", data)
        self._is_skipping = first < 0
        return _cut(data) + self._ended(b"", data[first + 1 :] if first >= 0 else self._begun(data))

    def _after_the_cut(self, data: bytes) -> bytes:
        """Return what comes after the line that was cut; a finished record does, without a newline before it."""
        if self._head and data.startswith(self._head):
            self._is_skipping = False
            return data
        data = self._parted(data)
        _, newline, rest = data.partition(b"\n")
        self._is_skipping = not newline
        return rest if newline else self._begun(data)

    def _parted(self, data: bytes) -> bytes:
        """Begin a line where a finished record begins: a progress bar may be before it, and must not take it along."""
        return heads_first(data, self._head) if self._head and self._head in data else data

    def _begun(self, data: bytes) -> bytes:
        """Return the end of `data` if a finished record may begin there."""
        end = data[data.rfind(self._head[:1]) :] if self._head else b""
        return end if self._head.startswith(end) else b""

    def _note(self, data: bytes) -> None:
        if self._remember and data:
            # One more than is shown: it tells whether the first line is whole.
            self._words = (self._words + data[-_WORDS - 1 :])[-_WORDS - 1 :]


def _has_long(piece: bytes) -> bool:
    """Say whether a line is too long without what came before; it goes across the middle then."""
    end = piece.find(b"\n", LONGEST)
    return (end if end >= 0 else len(piece)) - piece.rfind(b"\n", 0, LONGEST) - 1 > LONGEST


def heads_first(data: bytes, head: bytes) -> bytes:
    """Begin a line with each `head`."""
    broken = data.replace(head, b"\n" + head).replace(b"\n\n" + head, b"\n" + head)
    return broken[1:] if data.startswith(head) else broken


def _cut(line: bytes) -> bytes:
    end = LONGEST
    # utf-8(7): 10xxxxxx continues a character, which is not cut in two.
    while end > LONGEST - _LONGEST_CHARACTER and line[end] & 0xC0 == 0x80:  # noqa: PLR2004
        end -= 1
    return line[:end] + CUT + b"\n"


def _end_of_characters(data: bytes) -> int:
    """Return the length without a character's beginning at the end; all of it if there is nothing else."""
    end = len(data)
    for back in range(1, min(_LONGEST_CHARACTER, end)):
        byte = data[end - back]
        # utf-8(7): 110xxxxx begins two bytes, 1110xxxx three, 11110xxx four.
        length = (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)  # noqa: PLR2004
        if length:
            return end - back if length >= back else end
        if byte < 0x80:  # noqa: PLR2004
            break
    return end
