"""
What is believed of a proxy, in one value.

Owns the reading of the three settings and what is wrong with them together.
Must never have a default that believes anybody.
"""

from __future__ import annotations

from launcher.errors import ConfigError, Problem
from launcher.handoff import POLICY_VARIABLE
from launcher.lean import NamedTuple
from launcher.proxy import trust as trusting
from launcher.proxy.proxy_protocol import V1, V2

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Mapping

X_FORWARDED, FORWARDED = "x-forwarded", "forwarded"

_OFF = ("", "off")
_HEADERS = f"Write {X_FORWARDED} or {FORWARDED}, the one that your proxy writes, or off"
_PROTOCOL = f"Write {V1}, {V2} or off: it is never guessed"
_FLAGS = ("--proxy-headers", "--proxy-protocol", "--trust")


class Policy(NamedTuple):
    """Whom to believe, and what: the headers' family, the version of the PROXY protocol, the proxies."""

    headers: str  # X_FORWARDED, FORWARDED, or "": forwarding headers are the app's business
    protocol: str  # V1, V2, or "": connections begin without a PROXY header
    trust: trusting.Trust

    @staticmethod
    def read(headers: str, protocol: str, trust: str, names: tuple[str, str, str] = _FLAGS) -> Policy:
        """
        Make a policy of what was written for the three settings; `names` is what to call them.

        Raises:
            ConfigError: with every problem that was found.
        """
        problems = []
        for name, text, choices, remedy in (
            (names[0], headers, (X_FORWARDED, FORWARDED), _HEADERS),
            (names[1], protocol, (V1, V2), _PROTOCOL),
        ):
            if text not in choices + _OFF:
                problems.append(Problem(name, f"{text!r} is not one of the choices", remedy))
        believed = trusting.Trust()
        try:
            believed = trusting.parse(trust, names[2])
        except ConfigError as error:
            problems += error.problems
        is_on = headers not in _OFF or protocol not in _OFF
        if is_on and not trust.strip():
            reason = f"missing, while {names[0] if headers not in _OFF else names[1]} is set"
            problems.append(Problem(names[2], reason, "Name the proxies, such as 10.0.0.0/8"))
        if trust.strip() and not is_on:
            remedy = f"Set {names[0]} or {names[1]}, or leave it out"
            problems.append(Problem(names[2], "says whom to believe, but nothing is to be believed", remedy))
        if problems:
            raise ConfigError(*problems)
        return Policy("" if headers in _OFF else headers, "" if protocol in _OFF else protocol, believed)


def from_environment(environment: Mapping[str, str]) -> Policy:
    """
    Read the policy that prod-run hands to its workers.

    Raises:
        ConfigError: with every problem that was found.
    """
    headers, protocol, trust = (*environment.get(POLICY_VARIABLE, "").split(" ", 2), "", "", "")[:3]
    return Policy.read(headers, protocol, trust)
