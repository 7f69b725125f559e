"""The settings of proxies and TLS: what is wrong with them together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from launcher import settings
from launcher.errors import ConfigError, LauncherError, UsageError
from launcher.handoff import Ingress

if TYPE_CHECKING:
    from collections.abc import Mapping

MACHINE = settings.Machine(lambda: 2)


def ingress(environ: Mapping[str, str], **flags: tuple[str, ...]) -> Ingress:
    """Resolve these flags and variables."""
    named = {name.replace("_", "-"): texts for name, texts in flags.items()}
    return settings.resolve(("app:main",), named, environ, MACHINE).ingress


def test_trust_may_be_written_in_every_way() -> None:
    """Several times, separated by commas, and by blanks in the variable."""
    expected = Ingress("x-forwarded", "off", "10.0.0.1,::1,unix:")
    headers = {"PROD_RUN_PROXY_HEADERS": "x-forwarded"}

    assert ingress(headers, trust=("10.0.0.1,::1", "unix:")) == expected
    assert ingress({**headers, "PROD_RUN_TRUST": "10.0.0.1 ::1,unix:"}) == expected
    assert ingress({}) == Ingress()


@pytest.mark.parametrize(
    ("flags", "sentences"),
    [
        ({"proxy_headers": ("x-real-ip",)}, ("--proxy-headers: 'x-real-ip' is not one", "--trust: missing")),
        ({"proxy_protocol": ("v2",)}, ("--trust: missing, while --proxy-protocol is set",)),
        ({"proxy_protocol": ("auto",), "trust": ("*", "10.0.0.1")}, ("it is never guessed", "'*' stands in a list")),
        ({"trust": ("10.0.0.1",)}, ("nothing is to be believed",)),
        ({"tls_cert": ("a",)}, ("--tls-key: missing, while --tls-cert is set",)),
        ({"tls_key": ("a",)}, ("--tls-cert: missing, while --tls-key is set",)),
        ({"tls_client_ca": ("a",)}, ("--tls-cert: missing, while --tls-client-ca is set",)),
    ],
)
def test_what_is_wrong_together_is_said_together(flags: dict[str, tuple[str, ...]], sentences: tuple[str, ...]) -> None:
    """Of flags exit 2, of variables 78; each problem under the name that was written."""
    with pytest.raises(UsageError) as on_line:
        ingress({}, **flags)
    variables = {f"PROD_RUN_{name.upper()}": " ".join(texts) for name, texts in flags.items()}
    with pytest.raises(ConfigError) as in_environment:
        ingress(variables)
    said = [_said(error.value) for error in (on_line, in_environment)]

    assert all(sentence in said[0] for sentence in sentences)
    assert "--" not in said[1]
    assert len(said[0].splitlines()) == len(said[1].splitlines()) == len(sentences)


def _said(error: LauncherError) -> str:
    return "\n".join(problem.sentence for problem in error.problems)
