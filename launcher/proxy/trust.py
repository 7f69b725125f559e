"""
Which peers are our own proxies.

Owns the reading of `--trust` and the question `is_trusted`, asked for each request.
Must never resolve a name: a list that changes with the DNS is a list that others can change.
"""

from __future__ import annotations

from launcher.errors import ConfigError, Problem
from launcher.lean import NamedTuple
from launcher.lean_posix import socket
from launcher.proxy.nodes import UNIX, canonical

EVERYONE = "*"

_FORMS = "Write addresses and networks, such as 10.0.0.0/8,::1, or unix: for unix sockets"
_MOST_KNOWN = 1024  # answers to keep; peers are few, but clients pass here too
_MAPPED_BITS = 96  # of ::ffff:0:0/96


class Network(NamedTuple):
    """Addresses that share their first bits: `value` is these bits, `ignored` the number of the others."""

    family: int
    value: int
    ignored: int


class Trust:
    """
    The proxies to believe; a value, but for the answers that it remembers.

    `*` believes whoever connects, but no address inside a header: see `is_trusted_hop`.
    """

    __slots__ = ("_known", "everyone", "networks", "unix")

    def __init__(self, networks: tuple[Network, ...] = (), *, unix: bool = False, everyone: bool = False) -> None:
        self.networks = networks
        self.unix = unix
        self.everyone = everyone
        self._known: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self.networks or self.unix or self.everyone)

    def is_trusted(self, peer: str) -> bool:
        """Say whether a connection comes from a proxy of ours; `peer` is its address, `unix:` for a unix socket."""
        return self.everyone or self.is_trusted_hop(peer)

    def is_trusted_hop(self, address: str) -> bool:
        """
        Say whether an address that a trusted proxy has reported is the next proxy of ours.

        With `*` none is: the walk ends at what the nearest proxy wrote, and no client can add to that.
        """
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[address] = self._look_up(address)
        return known

    def _look_up(self, address: str) -> bool:
        if address == UNIX:
            return self.unix
        # The kernel names the interface of a link-local peer: fe80::1%eth0.
        host = canonical(address.partition("%")[0])
        if not host:
            return False
        family, number = _numbered(host)
        return any(n.family == family and number >> n.ignored == n.value for n in self.networks)


def parse(text: str, name: str = "--trust") -> Trust:
    """
    Read a list of addresses, networks and `unix:`, separated by commas or blanks; or `*`, alone.

    Raises:
        ConfigError: with a problem, under `name`, for each entry that cannot be believed in.
    """
    if text.strip() == EVERYONE:
        return Trust(everyone=True)
    entries = text.replace(",", " ").split()
    networks = []
    problems = []
    for entry in entries:
        if entry == UNIX:
            continue
        network = _network(entry)
        if isinstance(network, Network):
            networks.append(network)
        else:
            problems.append(Problem(name, *network))
    if problems:
        raise ConfigError(*problems)
    return Trust(tuple(networks), unix=UNIX in entries)


def _network(entry: str) -> Network | tuple[str, str]:
    """Read one entry, or say what is wrong with it and what to do."""
    if EVERYONE in entry:
        return f"{entry!r} stands in a list", f"{EVERYONE} is everyone: write it alone, or name the proxies"
    if entry.startswith(UNIX):
        return f"{entry!r} names a path, but whoever connects to a socket has none", "Write unix:"
    text, slash, bits_text = entry.partition("/")
    if "%" in text:
        return f"{entry!r} names an interface", f"Write {text.partition('%')[0]}"
    host = canonical(text)
    if not host:
        return f"{entry!r} is not an address", _FORMS
    family, number = _numbered(host)
    size = 32 if family == socket.AF_INET else 128
    offset = _MAPPED_BITS if ":" in text and family == socket.AF_INET else 0
    bits = size + offset
    if slash:
        bits = int(bits_text) if bits_text.isascii() and bits_text.isdigit() and len(bits_text) <= 3 else -1  # noqa: PLR2004  digits of 128
        if not offset <= bits <= size + offset:
            return (
                f"{entry!r} has no prefix length",
                f"Write a number from {offset} to {size + offset} behind the slash",
            )
    ignored = size + offset - bits
    if ignored == size:
        return f"{entry!r} is everyone", f"Name the proxies, or write {EVERYONE} alone if you mean it"
    if number >> ignored << ignored != number:
        base = (number >> ignored << ignored).to_bytes(size // 8, "big")
        return f"{entry!r} has bits set behind its prefix", f"Write {socket.inet_ntop(family, base)}/{bits - offset}"
    return Network(family, number >> ignored, ignored)


def _numbered(host: str) -> tuple[int, int]:
    """Return the family and the number of an address in its one spelling."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return family, int.from_bytes(socket.inet_pton(family, host), "big")
