"""
Where a syslog receiver is, as people write it.

Owns the reading of `syslog` and `syslog:URL`, and what each kind of address takes for granted.
Must never resolve a name or open anything: `observer.syslog` does.
"""

from __future__ import annotations

from launcher.addresses import LARGEST_PORT, LONGEST_PATH
from launcher.lean import NamedTuple
from launcher.quantities import BadValueError

UNIX, UDP, TCP = "unix", "udp", "tcp"
RFC5424, LOCAL = "rfc5424", "local"

FORMS = "Write syslog, syslog:unix:/path, syslog:udp://HOST:PORT or syslog:tcp://HOST:PORT"

# syslog(3).  An app's lines are LOG_USER's ("generic user-level messages"), as with Python's SysLogHandler and
# gunicorn: rules that were written for these go on to match.
FACILITIES = {"user": 1, "daemon": 3, **{f"local{number}": 16 + number for number in range(8)}}

_DEFAULT_PATH = "/dev/log"
_DEFAULT_PORTS = {UDP: 514, TCP: 601}  # RFC 5426 and RFC 3195; plain TCP has no other registered port


class SyslogAddress(NamedTuple):
    """One receiver, and the form it gets; `text` is the address for people, without options."""

    text: str
    transport: str  # UNIX, UDP or TCP
    path: str = ""  # UNIX
    host: str = ""  # a number or a name, IPv6 without its brackets
    port: int = 0
    form: str = RFC5424
    facility: int = FACILITIES["user"]


def parse(written: str) -> SyslogAddress:
    """
    Read `syslog` or `syslog:URL`.

    Raises:
        BadValueError: it is none, with what to write instead.
    """
    word, colon, url = written.partition(":")
    if word != "syslog" or (colon and not url):
        raise BadValueError(written, "is not a syslog address", FORMS)
    if not url.isascii() or not url.isprintable() or " " in url:
        raise BadValueError(written, "contains blanks or characters outside ASCII", FORMS)
    text, question, query = url.partition("?")
    scheme, _, rest = text.partition(":")
    if not text:
        scheme, rest = UNIX, _DEFAULT_PATH
    if scheme == UNIX:
        address = _unix(rest)
    elif scheme in _DEFAULT_PORTS and rest.startswith("//"):
        address = _network(scheme, rest.removeprefix("//"), written)
    else:
        raise BadValueError(written, "is not a syslog address", FORMS)
    return _with_options(address, query.split("&") if question else [], written)


def _unix(path: str) -> SyslogAddress:
    if path.startswith("//"):
        # unix:///dev/log, as other programs write it.
        path = "/" + path.lstrip("/")
    if not path.startswith("/") or path.endswith("/"):
        raise BadValueError(path, "is not an absolute path of a socket", "Write syslog:unix:/path/to/socket")
    if len(path) > LONGEST_PATH:
        raise BadValueError(path, "is too long", f"The kernel takes {LONGEST_PATH} bytes: choose a shorter path")
    return SyslogAddress(f"unix:{path}", UNIX, path=path, form=LOCAL)


def _network(scheme: str, place: str, written: str) -> SyslogAddress:
    host, bracket, tail = place.removeprefix("[").partition("]") if place.startswith("[") else (place, "", "")
    if not bracket:
        host, colon, digits = place.partition(":")
        tail = colon + digits
    if tail[1:].count(":") or (bracket and tail and not tail.startswith(":")):
        raise BadValueError(written, "is ambiguous", f"Put an IPv6 address in brackets: syslog:{scheme}://[::1]:PORT")
    if bracket and ":" not in host:
        raise BadValueError(host, "is not an IPv6 address", "Only IPv6 addresses stand in brackets")
    if not host or host == "*" or not {"/", "@", "[", "]", "#"}.isdisjoint(host + tail):
        raise BadValueError(written, "names no host", FORMS)
    port = _port(tail[1:]) if tail else _DEFAULT_PORTS[scheme]
    shown = f"[{host}]" if bracket else host
    return SyslogAddress(f"{scheme}://{shown}:{port}", scheme, host=host, port=port)


def _port(digits: str) -> int:
    # The length first: int() refuses thousands of digits with an error of its own.
    if not digits.isdigit() or len(digits) > len(str(LARGEST_PORT)) or not 1 <= int(digits) <= LARGEST_PORT:
        raise BadValueError(digits, "is not a port", f"Write a number from 1 to {LARGEST_PORT}")
    return int(digits)


def _with_options(address: SyslogAddress, items: list[str], written: str) -> SyslogAddress:
    for item in items:
        key, _, value = item.partition("=")
        if key == "format" and value in {RFC5424, LOCAL}:
            if value == LOCAL and address.transport != UNIX:
                # It has no host name: a receiver on another machine would take the app's name for it.
                raise BadValueError(item, f"is not for {address.transport}", "The local form is for unix sockets")
            address = address._replace(form=value)
        elif key == "facility" and value in FACILITIES:
            address = address._replace(facility=FACILITIES[value])
        else:
            remedy = "Write ?format=rfc5424|local or ?facility=user|daemon|local0 to local7, joined by &"
            raise BadValueError(item, f"is not an option of {written!r}", remedy)
    return address
