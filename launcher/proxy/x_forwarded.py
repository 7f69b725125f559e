"""
The `X-Forwarded-` headers, which no RFC describes.

Owns what is read of `-For`, `-Proto` and `-Host`, and what the app sees of them.
Must never decide whom to believe: `walking` does.

`-Port` is not read: a port that matters stands in the Host header.  It, and the rest of the family, stays as the
trusted peer has sent it.
"""

from __future__ import annotations

from launcher.proxy.nodes import Address, canonical, is_host, node
from launcher.proxy.walking import SCHEMES, Hop, Seen, walk

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from launcher.proxy.trust import Trust

PREFIX = "x-forwarded-"
FOR, PROTO, HOST = "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"
REAL_IP = "x-real-ip"  # nginx's, which stands for -For in many a configuration


def read(headers: Mapping[str, Sequence[str]], trust: Trust) -> Seen:
    """Say what to believe of a request whose peer is trusted; several fields are one list."""
    chain = _elements(headers.get(FOR, ()))
    client, believed = walk(map(_hop, reversed(chain)), trust)
    scheme = _of_same_hop(headers.get(PROTO, ()), len(chain), len(believed)).lower()
    host = _of_same_hop(headers.get(HOST, ()), len(chain), len(believed))
    scheme = scheme if scheme in SCHEMES else ""
    host = host if is_host(host) else ""
    told = ((FOR, ", ".join(hop.text for hop in reversed(believed))), (PROTO, scheme), (HOST, host))
    rest = tuple((name, ",".join(headers[name])) for name in headers if name not in {FOR, PROTO, HOST})
    return Seen(client, scheme, host, tuple(pair for pair in told if pair[1]) + rest)


def _of_same_hop(fields: Sequence[str], length: int, believed: int) -> str:
    """
    Take what the hop has said that named the client, or else what the peer has said.

    The lists only belong together when they are equally long; most proxies set these two headers instead of
    appending to them.  The right-most value is the peer's own.
    """
    values = _elements(fields)
    if not values:
        return ""
    return values[-believed] if believed and len(values) == length else values[-1]


def _hop(text: str) -> Hop | None:
    found = canonical(text)
    address = Address(found) if found else node(text)
    # "unknown" is what Squid writes to hide a client.
    return Hop(text, address) if address or text.lower() == "unknown" else None


def _elements(fields: Iterable[str]) -> list[str]:
    # RFC 9110 §5.6.1.2: empty elements of a list do not count.
    return [stripped for field in fields for element in field.split(",") if (stripped := element.strip(" \t"))]
