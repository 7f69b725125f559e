"""
The words that prod-run's processes say to each other.

Owns the encoding of one message as one datagram: lines of `key=value`, as in sd_notify(3), the first
of which is the verb.  Must never send or receive: bytes in, values out, and the reverse.

supervisor → zygote    prepare · listeners · spawn · committed · restore · close-listeners · end
zygote → supervisor    prepared · restored · refused · spawned · spawn-failed · changed
supervisor → worker    go · serve · stop-soon · stop · stop-later
worker → supervisor    hello · armed · entered · ready · stopped-accepting · status ·
                       check · checked · raised · imported
init task → supervisor hello · begun · refused
"""

from __future__ import annotations

from launcher.lean import NamedTuple

# Two releases that differ in this number refuse each other with a sentence (DESIGN §3.5).
VERSION = 1

# A SOCK_SEQPACKET message is one piece; the kernel's default send buffer is 208 KiB (net.core.wmem_default).
LARGEST = 128 * 1024

INIT_TASK = -3  # in place of a slot: this process is to run --before

Field = str | int | float | bool | tuple[str, ...]


class ProtocolError(ValueError):
    """The other side said something that is not in this protocol."""


class Message(NamedTuple):
    """A verb and its fields; a field that was given several times is several texts."""

    verb: str
    fields: dict[str, list[str]]

    def text(self, key: str) -> str:
        """Return the one value of a field."""
        values = self.texts(key)
        if len(values) != 1:
            message = f"{self.verb!r} needs one {key!r}, it has {len(values)}"
            raise ProtocolError(message)
        return values[0]

    def texts(self, key: str) -> tuple[str, ...]:
        """Return all values of a field, none if it is absent."""
        return tuple(self.fields.get(key, ()))

    def number(self, key: str) -> int:
        """Return a field that is a whole number."""
        return int(self._parsed(key, int))

    def seconds(self, key: str) -> float:
        """Return a field that is a time in seconds."""
        return float(self._parsed(key, float))

    def flag(self, key: str) -> bool:
        """Return a field that is true or false."""
        return bool(self.number(key))

    def _parsed(self, key: str, kind: type[int | float]) -> int | float:
        try:
            return kind(self.text(key))
        except ValueError as error:
            message = f"{key!r} of {self.verb!r}: {error}"
            raise ProtocolError(message) from None


def encode(verb: str, **fields: Field) -> bytes:
    """
    Turn a verb and its fields into one datagram.

    A tuple becomes one line for each of its items; underscores in names become hyphens.
    """
    lines = [verb]
    for key, value in fields.items():
        values = value if isinstance(value, tuple) else (_plain(value),)
        lines += [f"{key.replace('_', '-')}={_escape(item)}" for item in values]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def decode(datagram: bytes) -> Message:
    """
    Turn a datagram into a message.

    Raises:
        ProtocolError: it is not one of ours.
    """
    try:
        verb, *lines = datagram.decode("utf-8", "surrogateescape").split("\n")
        fields: dict[str, list[str]] = {}
        for line in lines:
            key, separator, value = line.partition("=")
            if not separator:
                message = f"a line of {verb!r} has no '='"
                raise ProtocolError(message)
            fields.setdefault(key.replace("-", "_"), []).append(_unescape(value))
    except UnicodeDecodeError as error:
        raise ProtocolError(str(error)) from None
    return Message(verb, fields)


def shorten(text: str, limit: int = LARGEST // 4) -> str:
    """Cut a long text in its middle, where tracebacks say least, so that it fits a message."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n  … {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def _plain(value: str | float) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return "\\".join(part.replace("\\n", "\n") for part in text.split("\\\\"))
