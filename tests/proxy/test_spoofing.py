"""
Forgeries that have worked somewhere, and what an app behind prod-run sees of them.

Each row is asked of the WSGI and of the ASGI middleware.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from launcher.proxy import Policy
from tests.proxy.asking import PEER, Headers, asgi, fields, wsgi

FOR, PROTO, HOST = "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"
CLIENT, FORGED, SECOND = "203.0.113.9", "6.6.6.6", "10.0.0.2"


class Seen(NamedTuple):
    """What the app must see; the defaults: what the connection says."""

    client: str = PEER
    scheme: str = "http"
    host: str = "inner.example"
    headers: dict[str, str] = {}  # noqa: RUF012  only read


X = "x-forwarded"
F = "forwarded"
OUTSIDER = "198.51.100.66"

# name: family, trust, peer, what comes, what is seen
ATTEMPTS: dict[str, tuple[str, str, str, Headers, Seen]] = {
    # express #2099, werkzeug #290, home-assistant #14345, oauth2-proxy #3478: the left-most was taken, and a proxy
    # appends to what the client sent.
    "prepended": (X, "10.0.0.0/8", PEER, [(FOR, f"{FORGED}, {CLIENT}")], Seen(CLIENT, headers={FOR: CLIENT})),
    "prepended, two proxies": (
        X,
        "10.0.0.0/8",
        PEER,
        [(FOR, f"{FORGED}, {CLIENT}, {SECOND}")],
        Seen(CLIENT, headers={FOR: f"{CLIENT}, {SECOND}"}),
    ),
    # cpp-httplib #2503: scanned from the left for the first trusted address, which a client can write as well.
    "prepended with a trusted address": (
        X,
        "10.0.0.0/8",
        PEER,
        [(FOR, f"{FORGED}, {SECOND}, {CLIENT}")],
        Seen(CLIENT, headers={FOR: CLIENT}),
    ),
    # uvicorn #1594: with `*` the left-most was taken.
    "prepended, everyone trusted": (X, "*", PEER, [(FOR, f"{FORGED}, {CLIENT}")], Seen(CLIENT, headers={FOR: CLIENT})),
    # mdn/content #13703: parsers that read only the first of several fields.
    "a field of its own": (X, "10.0.0.0/8", PEER, [(FOR, FORGED), (FOR, CLIENT)], Seen(CLIENT, headers={FOR: CLIENT})),
    # gunicorn #268, Django 1.1 (SetRemoteAddrFromForwardedFor removed), gin CVE-2020-28483, oauth2-proxy
    # GHSA-7x63-xv5r-3p2x: believed from anybody.
    "not through the proxy": (
        X,
        "10.0.0.0/8",
        OUTSIDER,
        [(FOR, FORGED), (PROTO, "https"), (HOST, "evil.example")],
        Seen(OUTSIDER),
    ),
    # Django r16758 (2011), werkzeug #609: X-Forwarded-Host was read by default, for poisoned password links.  An app
    # that still does finds nothing.
    "host, not through the proxy": (X, "10.0.0.0/8", OUTSIDER, [(HOST, "evil.example")], Seen(OUTSIDER)),
    "rest of the family, not through the proxy": (
        X,
        "10.0.0.0/8",
        OUTSIDER,
        [
            ("x-real-ip", FORGED),
            ("x-forwarded-port", "1"),
            ("x-forwarded-client-cert", "By=admin"),
            (F, f"for={FORGED}"),
        ],
        Seen(OUTSIDER),
    ),
    # uvicorn #2928: the proxy writes one family, the client sends the other.
    "the other family": (
        X,
        "10.0.0.0/8",
        PEER,
        [(F, f"for={FORGED};proto=https;host=evil.example"), (FOR, CLIENT)],
        Seen(CLIENT, headers={FOR: CLIENT}),
    ),
    "the other family alone": (X, "10.0.0.0/8", PEER, [(F, f"for={FORGED};proto=https")], Seen()),
    "the other way round": (
        F,
        "10.0.0.0/8",
        PEER,
        [(FOR, FORGED), (PROTO, "https"), (HOST, "evil.example"), ("x-real-ip", FORGED), (F, f"for={CLIENT}")],
        Seen(CLIENT, headers={F: f"for={CLIENT}"}),
    ),
    # gunicorn #163: schemes in whatever words; Traefik CVE-2024-45410 and Apache CVE-2022-31813: the client lets the
    # proxy drop its own headers (`Connection: x-forwarded-proto`), so that less comes than the app expects.
    "a scheme that is none": (
        X,
        "10.0.0.0/8",
        PEER,
        [(FOR, CLIENT), (PROTO, "javascript")],
        Seen(CLIENT, headers={FOR: CLIENT}),
    ),
    "headers dropped on the way": (X, "10.0.0.0/8", PEER, [], Seen()),
    "a host that is none": (
        X,
        "10.0.0.0/8",
        PEER,
        [(HOST, "evil.example/path?"), (PROTO, "https")],
        Seen(scheme="https", headers={PROTO: "https"}),
    ),
    "a host with a user": (X, "10.0.0.0/8", PEER, [(HOST, "good.example@evil.example")], Seen()),
    # Apache's mod_proxy appends to -Host; werkzeug #1630 counts these values by header for this reason.
    "scheme and host of the same hop": (
        X,
        "10.0.0.0/8",
        PEER,
        [(FOR, f"{CLIENT}, {SECOND}"), (PROTO, "https, http"), (HOST, "shop.example, inner.example")],
        Seen(CLIENT, "https", "shop.example", {FOR: f"{CLIENT}, {SECOND}", PROTO: "https", HOST: "shop.example"}),
    ),
    "host prepended": (
        X,
        "10.0.0.0/8",
        PEER,
        [(FOR, CLIENT), (HOST, "evil.example, shop.example")],
        Seen(CLIENT, host="shop.example", headers={FOR: CLIENT, HOST: "shop.example"}),
    ),
    "host and address prepended": (
        X,
        "10.0.0.0/8",
        PEER,
        [(FOR, f"{FORGED}, {CLIENT}"), (HOST, "evil.example, shop.example")],
        Seen(CLIENT, host="shop.example", headers={FOR: CLIENT, HOST: "shop.example"}),
    ),
    # werkzeug #290: anything was an address, for logs and pages.
    "markup": (X, "10.0.0.0/8", PEER, [(FOR, "<script>alert(1)")], Seen()),
    "markup to the left": (X, "10.0.0.0/8", PEER, [(FOR, f"<script>, {CLIENT}")], Seen(CLIENT, headers={FOR: CLIENT})),
    "markup as a zone": (X, "10.0.0.0/8", PEER, [(FOR, "fe80::1%<script>")], Seen()),
    # CVE-2021-29921 (Python), CVE-2021-28918 (netmask): octal or decimal?
    "leading zeros": (X, "10.0.0.0/8", PEER, [(FOR, "0127.0.0.1")], Seen()),
    "an integer for an address": (X, "10.0.0.0/8", PEER, [(FOR, "2130706433")], Seen()),
    # uvicorn #1068: a client that is a proxy itself; all trusted, so the left-most.
    "all trusted": (
        X,
        "10.0.0.0/8",
        PEER,
        [(FOR, f"10.9.9.9, {SECOND}")],
        Seen("10.9.9.9", headers={FOR: f"10.9.9.9, {SECOND}"}),
    ),
    # uvicorn #1068: an empty header made an empty client.
    "empty": (X, "10.0.0.0/8", PEER, [(FOR, ""), (FOR, " , ")], Seen()),
    # One address in two spellings, of which only one stands on a list (a dual-stack listener makes the other).
    "a mapped hop": (
        X,
        "10.0.0.0/8",
        PEER,
        [(FOR, f"{FORGED}, {CLIENT}, ::ffff:{SECOND}")],
        Seen(CLIENT, headers={FOR: f"{CLIENT}, ::ffff:{SECOND}"}),
    ),
    "a mapped client": (
        X,
        "10.0.0.0/8",
        PEER,
        [(FOR, f"::ffff:{CLIENT}")],
        Seen(CLIENT, headers={FOR: f"::ffff:{CLIENT}"}),
    ),
    # Azure's gateway appends the port.
    "with ports": (
        X,
        "10.0.0.0/8",
        PEER,
        [(FOR, f"{FORGED}:1, {CLIENT}:2, {SECOND}:3")],
        Seen(CLIENT, headers={FOR: f"{CLIENT}:2, {SECOND}:3"}),
    ),
    # The walk stops at what cannot be read; the client is then a proxy of ours, not what stands behind.
    "behind what cannot be read": (
        X,
        "10.0.0.0/8",
        PEER,
        [(FOR, f"{FORGED}, ?, {SECOND}")],
        Seen(SECOND, headers={FOR: SECOND}),
    ),
    # Squid's `forwarded_for off`.
    "behind unknown": (X, "10.0.0.0/8", PEER, [(FOR, f"{FORGED}, unknown")], Seen(headers={FOR: "unknown"})),
    # ── RFC 7239 ──
    # RFC 7239 §8.1
    "Forwarded, prepended": (
        F,
        "10.0.0.0/8",
        PEER,
        [(F, f"for={FORGED}, for={CLIENT};proto=https")],
        Seen(CLIENT, "https", headers={F: f"for={CLIENT};proto=https"}),
    ),
    "Forwarded, everyone trusted": (
        F,
        "*",
        PEER,
        [(F, f"for={FORGED}, for={CLIENT}")],
        Seen(CLIENT, headers={F: f"for={CLIENT}"}),
    ),
    "Forwarded, not through the proxy": (
        F,
        "10.0.0.0/8",
        OUTSIDER,
        [(F, f"for={FORGED};proto=https;host=evil.example")],
        Seen(OUTSIDER),
    ),
    # forwarded-parse #6, nginx's forum 275880: a quotation mark that is never closed.
    "an open quotation mark": (
        F,
        "10.0.0.0/8",
        PEER,
        [(F, f'for={FORGED};by=", for={CLIENT}')],
        Seen(CLIENT, headers={F: f"for={CLIENT}"}),
    ),
    "an open quotation mark before a quoted client": (
        F,
        "10.0.0.0/8",
        PEER,
        [(F, f'for={FORGED};by=", for="[2001:db8::1]";host="shop.example"')],
        Seen("2001:db8::1", host="shop.example", headers={F: 'for="[2001:db8::1]";host="shop.example"'}),
    ),
    "an open quotation mark in a field of its own": (
        F,
        "10.0.0.0/8",
        PEER,
        [(F, f'for={FORGED};by="'), (F, f"for={CLIENT}")],
        Seen(CLIENT, headers={F: f"for={CLIENT}"}),
    ),
    "an escaped end": (
        F,
        "10.0.0.0/8",
        PEER,
        [(F, f'for={FORGED};by="\\", for="{CLIENT}"')],
        Seen(CLIENT, headers={F: f'for="{CLIENT}"'}),
    ),
    # jshttp/forwarded #1: an extension that quotes the client's own text.
    "an element inside of quotes": (
        F,
        "10.0.0.0/8",
        PEER,
        [(F, f'for={CLIENT};user="x, for={FORGED}"')],
        Seen(CLIENT, headers={F: f'for={CLIENT};user="x, for={FORGED}"'}),
    ),
    "a pair inside of quotes": (
        F,
        "10.0.0.0/8",
        PEER,
        [(F, f'user="x;proto=https;host=evil.example";for={CLIENT}')],
        Seen(CLIENT, headers={F: f'user="x;proto=https;host=evil.example";for={CLIENT}'}),
    ),
    # rippled #7126: `for=` was found within another name.
    "a name that ends alike": (
        F,
        "10.0.0.0/8",
        PEER,
        [(F, f"xfor={FORGED};for={CLIENT};xproto=https")],
        Seen(CLIENT, headers={F: f"xfor={FORGED};for={CLIENT};xproto=https"}),
    ),
    "twice": (F, "10.0.0.0/8", PEER, [(F, f"for={CLIENT};For={FORGED}")], Seen()),
    "hidden": (
        F,
        "10.0.0.0/8",
        PEER,
        [(F, f"for={FORGED}, for=_hidden;proto=https")],
        Seen(scheme="https", headers={F: "for=_hidden;proto=https"}),
    ),
    "scheme of the client's hop": (
        F,
        "10.0.0.0/8",
        PEER,
        [(F, f"for={FORGED};host=evil.example, for={CLIENT};proto=https;host=shop.example, for={SECOND};proto=http")],
        Seen(
            CLIENT, "https", "shop.example", {F: f"for={CLIENT};proto=https;host=shop.example, for={SECOND};proto=http"}
        ),
    ),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_wsgi_apps_see_no_forgery(name: str) -> None:
    """REMOTE_ADDR, the scheme, the host and every header of both families."""
    family, trust, peer, sent, expected = ATTEMPTS[name]
    environ = wsgi(Policy.read(family, "", trust), sent, peer)
    found = {
        key.removeprefix("HTTP_").lower().replace("_", "-"): value
        for key, value in environ.items()
        if key.startswith(("HTTP_X_", "HTTP_FORWARDED"))
    }

    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ["HTTP_HOST"]) == expected[:3]
    assert found == expected.headers


@pytest.mark.parametrize("name", ATTEMPTS)
def test_asgi_apps_see_no_forgery(name: str) -> None:
    """The same in a scope."""
    family, trust, peer, sent, expected = ATTEMPTS[name]
    scope = asgi(Policy.read(family, "", trust), sent, peer)
    found = fields(scope)

    assert (scope["client"][0], scope["scheme"], found.pop("host")) == expected[:3]
    assert found == expected.headers
