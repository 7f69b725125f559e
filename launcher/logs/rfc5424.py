"""
How a line becomes a syslog message.

Owns the two written forms, RFC 5424 and the local one of /dev/log, the frame that TCP needs (RFC 6587), and the cut of
a message that is too long.
Must never read a clock, write anything or fail: the observer calls it from its only loop, with text from anywhere.

The structured data is `[prod-run@32473 slot="3" generation="7" version="1.2"]`.  32473 is the enterprise number that
RFC 5612 keeps for documentation: prod-run has none of its own, names without a number are IANA's, and no real
enterprise can ever be given this one.
"""

from __future__ import annotations

from launcher.logs.batch import INNER_NEWLINE
from launcher.logs.formats import timestamp

TYPE_CHECKING = False

if TYPE_CHECKING:
    from launcher.logs.batch import Source

SD_ID = "prod-run@32473"
CUT = " …[cut]".encode()

LONGEST_HOST = 255
LONGEST_APP = 48
LONGEST_VERSION = 128  # ours: RFC 5424 sets no limit for a value

_BOM = b"\xef\xbb\xbf"
_NEWLINE = INNER_NEWLINE.encode()
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def header(priority: int, seconds: float, host: str, source: Source) -> bytes:
    """
    Write what stands before the text in RFC 5424, its last blank included.

    `priority` is facility * 8 + severity; `seconds` are wall clock.
    """
    name = word(source.app, LONGEST_APP)
    pid = source.pid or "-"
    return f"<{priority}>1 {timestamp(seconds)} {word(host, LONGEST_HOST)} {name} {pid} - {_data(source)} ".encode()


def local_header(priority: int, local_time: tuple[int, ...], source: Source) -> bytes:
    """
    Write what stands before the text on /dev/log: `<14>Jan  2 15:04:05 shop[123]: `.

    `local_time` begins as time.localtime() does; month names are English whatever the locale.
    """
    _, month, day, hour, minute, second = local_time[:6]
    pid = f"[{source.pid}]" if source.pid else ""
    stamp = f"{_MONTHS[month - 1]} {day:2} {hour:02}:{minute:02}:{second:02}"
    return f"<{priority}>{stamp} {word(source.app, LONGEST_APP)}{pid}: ".encode()


def messages(head: bytes, lines: bytes, *, is_local: bool) -> list[bytes]:
    """
    Make a message of each line.

    Newlines within a record stay newlines, but are `#012` in the local form, as every syslogd writes them.
    Text that is more than ASCII begins with a BOM (RFC 5424 §6.4); plain ASCII is the same in any encoding, and JSON
    that a receiver is to read must not begin with one.
    """
    if b"\0" in lines:
        # Receivers in C end there.
        lines = lines.replace(b"\0", b"\\x00")
    texts = lines.split(b"\n")
    if not texts[-1]:
        del texts[-1]
    if _NEWLINE in lines:
        newline = b"#012" if is_local else b"\n"
        texts = [text.replace(_NEWLINE, newline) for text in texts]
    if is_local or lines.isascii():
        return [head + text for text in texts]
    return [head + (text if text.isascii() else _BOM + text) for text in texts]


def cut(message: bytes, size: int) -> bytes:
    """Cut a message to so many bytes, at a character's border, with a mark that says so."""
    if len(message) <= size:
        return message
    end = max(size - len(CUT), 0)
    # utf-8(7): 10xxxxxx continues a character, which is not cut in two.
    while end and message[end] & 0xC0 == 0x80:  # noqa: PLR2004
        end -= 1
    return message[:end] + CUT


def counted(message: bytes) -> bytes:
    """Frame a message for TCP: its length first (RFC 6587 §3.4.1)."""
    return b"%d %b" % (len(message), message)


def word(text: str, longest: int) -> str:
    """Make a field of the header: printable ASCII without blanks, `-` if there is nothing."""
    clean = "".join(sign if "!" <= sign <= "~" else "_" for sign in text[:longest])
    return clean or "-"


def _data(source: Source) -> str:
    if not source.generation:
        return "-"  # prod-run's own record
    slot = f' slot="{source.slot}"' if source.slot >= 0 else ""
    version = f' version="{_escaped(source.version[:LONGEST_VERSION])}"' if source.version else ""
    return f'[{SD_ID}{slot} generation="{source.generation}"{version}]'


def _escaped(value: str) -> str:
    """Escape what ends a value (RFC 5424 §6.3.3) and what no receiver should be shown."""
    clean = "".join(sign if sign.isprintable() else "_" for sign in value)
    return clean.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
