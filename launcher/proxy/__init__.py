"""
Who is behind the proxy: trust, forwarding headers and the PROXY protocol.

Owns the public names; the parsers are pure, `accept` is the only thing here that waits.
Must never guess: which headers are read, which version is spoken and who is believed is said by a `Policy`.
"""

from __future__ import annotations

from launcher.proxy.middleware import ORIGINAL, Asgi, Wsgi
from launcher.proxy.nodes import UNIX, Address
from launcher.proxy.policy import Policy, from_environment
from launcher.proxy.proxy_protocol import Header, Need, parse
from launcher.proxy.sockets import Accepted, RefusedError, accept, receive, take
from launcher.proxy.tlvs import HeaderError
from launcher.proxy.trust import Trust

__all__ = [
    "ORIGINAL",
    "UNIX",
    "Accepted",
    "Address",
    "Asgi",
    "Header",
    "HeaderError",
    "Need",
    "Policy",
    "RefusedError",
    "Trust",
    "Wsgi",
    "accept",
    "from_environment",
    "parse",
    "receive",
    "take",
]
