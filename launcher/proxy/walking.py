"""
How far to believe a chain of proxies.

Owns the walk from the right: each element of a forwarding header was written by the hop to its right, so it is as
good as that hop.  Must never read on behind an element that it cannot believe.

The walk ends
- at the first hop that is not trusted: this is the client, whatever it has written to the left of itself;
- at the left end, when all are trusted: the left-most is the client;
- before an element that cannot be read, and at one that hides its address: the client is then the nearest hop that
  is known.  It is a proxy of ours, never something that a client chose.
"""

from __future__ import annotations

from launcher.lean import NamedTuple

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterable

    from launcher.proxy.nodes import Address
    from launcher.proxy.trust import Trust

# Besides being the schemes there are: whether they are secure.
SCHEMES = {"http": False, "https": True, "ws": False, "wss": True}


class Hop(NamedTuple):
    """One element of a forwarding header: what a proxy says about the request that came to it."""

    text: str
    address: Address | None  # None: not said (`unknown`, `_hidden`, or nothing)
    scheme: str = ""
    host: str = ""


class Seen(NamedTuple):
    """What to believe of a request; "" and None: what the connection itself says holds."""

    client: Address | None = None
    scheme: str = ""
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()  # those of both families that the app is to see


def walk(hops: Iterable[Hop | None], trust: Trust) -> tuple[Address | None, list[Hop]]:
    """
    Find the client among hops that come from right to left; None among them is one that cannot be read.

    Returns:
        The client, or None if it is the peer; and the hops that were believed, the nearest first.
    """
    client = None
    believed = []
    for hop in hops:
        if hop is None:
            break
        believed.append(hop)
        if hop.address is None:
            break
        client = hop.address
        if not trust.is_trusted_hop(client.host):
            break
    return client, believed
