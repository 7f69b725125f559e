"""The three settings, together."""

from __future__ import annotations

import pytest

from launcher.errors import ConfigError
from launcher.handoff import Ingress
from launcher.proxy import Policy, from_environment


@pytest.mark.parametrize(
    ("headers", "protocol"), [("x-forwarded", ""), ("forwarded", "off"), ("off", "v1"), ("", "v2")]
)
def test_good_settings_are_a_policy(headers: str, protocol: str) -> None:
    """`off` and nothing mean the same."""
    policy = Policy.read(headers, protocol, "127.0.0.1")

    assert policy.headers == headers.replace("off", "")
    assert policy.protocol == protocol.replace("off", "")
    assert policy.trust.is_trusted("127.0.0.1")


def test_nothing_set_believes_nobody() -> None:
    """The default."""
    policy = from_environment({})

    assert (policy.headers, policy.protocol, bool(policy.trust)) == ("", "", False)


def test_the_environment_says_the_same() -> None:
    """What prod-run hands to its workers."""
    policy = from_environment(Ingress(proxy_headers="forwarded", proxy_protocol="v2", trust="unix: 10.0.0.1").variables)

    assert (policy.headers, policy.protocol, policy.trust.is_trusted("unix:")) == ("forwarded", "v2", True)


def test_all_problems_are_reported_at_once() -> None:
    """Of all three settings, and of what they say together."""
    with pytest.raises(ConfigError) as caught:
        Policy.read("x-forwarded,forwarded", "auto", "lo, eth0")

    assert [problem.name for problem in caught.value.problems] == [
        "--proxy-headers",
        "--proxy-protocol",
        "--trust",
        "--trust",
    ]
    assert "never guessed" in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (("forwarded", "", ""), "--trust: missing, while --proxy-headers is set"),
        (("", "v1", " "), "--trust: missing, while --proxy-protocol is set"),
        (("", "", "10.0.0.0/8"), "--trust: says whom to believe, but nothing is to be believed"),
    ],
)
def test_one_setting_without_the_other_is_a_mistake(texts: tuple[str, str, str], sentence: str) -> None:
    """It would do nothing, or not what was meant."""
    with pytest.raises(ConfigError) as caught:
        Policy.read(*texts)

    assert sentence in str(caught.value)
