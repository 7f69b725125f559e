"""
The settings of how connections come in: proxies in front, and TLS.

Owns their rows, and what is wrong with them together; what each believes is `launcher.proxy`'s.
Must never look at a file: a generation does, when it is prepared.
"""

from __future__ import annotations

from launcher.errors import ConfigError, Problem
from launcher.handoff import Ingress
from launcher.setting import Setting

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "proxy-headers",
        "off|x-forwarded|forwarded",
        "off",
        "which headers your proxy writes: X-Forwarded-For, -Proto, -Host, or Forwarded of RFC 7239; needs --trust",
        is_rare=True,
    ),
    Setting(
        "proxy-protocol",
        "off|v1|v2",
        "off",
        "every connection begins with a PROXY header of this version; needs --trust",
        is_rare=True,
    ),
    Setting(
        "trust",
        "NETWORKS",
        "",
        "your proxies: addresses, networks and unix:, separated by commas, or * alone for everyone; "
        "may be given several times, in the variable separated by blanks",
        default_words="nobody",
        is_repeatable=True,
        is_rare=True,
    ),
    Setting("tls-cert", "PATH", "", "speak TLS with this certificate chain (PEM)", default_words="none", is_rare=True),
    Setting("tls-key", "PATH", "", "the certificate's private key (PEM)", default_words="none", is_rare=True),
    Setting(
        "tls-client-ca",
        "PATH",
        "",
        "admit only clients with a certificate of one of these authorities (PEM)",
        default_words="none",
        is_rare=True,
    ),
)
NAMES = frozenset(name for setting in SETTINGS for name in (setting.flag, setting.variable))


def ingress(texts: Mapping[str, str]) -> Ingress:
    """Make the value of what was written, by the settings' names."""
    return Ingress(**{setting.name.replace("-", "_"): texts.get(setting.name, setting.default) for setting in SETTINGS})


def problems(wanted: Ingress, places: Mapping[str, str]) -> tuple[Problem, ...]:
    """Say what is wrong; `places` has for each setting that was written where that was: a flag or a variable."""
    if wanted == Ingress():
        return ()
    # One that is missing is named as its neighbours were written.
    is_flag = any(places[setting.name].startswith("--") for setting in SETTINGS if setting.name in places)
    names = [places.get(s.name, s.flag if is_flag else s.variable) for s in SETTINGS]
    return (*_of_proxies(wanted, names), *_of_tls(wanted, names))


def _of_proxies(wanted: Ingress, names: list[str]) -> tuple[Problem, ...]:
    from launcher.proxy.policy import Policy  # noqa: PLC0415  only who is behind a proxy pays for it

    headers, protocol, trust = names[:3]
    try:
        Policy.read(wanted.proxy_headers, wanted.proxy_protocol, wanted.trust, (headers, protocol, trust))
    except ConfigError as error:
        return error.problems
    return ()


def _of_tls(wanted: Ingress, names: list[str]) -> list[Problem]:
    certificate, key, authority = names[3:]
    found = []
    if wanted.tls_cert and not wanted.tls_key:
        found.append(
            Problem(key, f"missing, while {certificate} is set", "Name the key's file; it may be the same one")
        )
    if wanted.tls_key and not wanted.tls_cert:
        found.append(Problem(certificate, f"missing, while {key} is set", "Name the certificate's file"))
    if wanted.tls_client_ca and not (wanted.tls_cert or wanted.tls_key):
        found.append(
            Problem(certificate, f"missing, while {authority} is set", "Without TLS there are no certificates")
        )
    return found
