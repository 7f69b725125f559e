"""Where a syslog receiver is, as people write it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies

from launcher.logs.syslog_address import FACILITIES, SyslogAddress, parse
from launcher.quantities import BadValueError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("syslog", SyslogAddress("unix:/dev/log", "unix", path="/dev/log", form="local")),
        ("syslog:?facility=daemon", SyslogAddress("unix:/dev/log", "unix", path="/dev/log", form="local", facility=3)),
        ("syslog:unix:/run/log", SyslogAddress("unix:/run/log", "unix", path="/run/log", form="local")),
        ("syslog:unix:///run/log", SyslogAddress("unix:/run/log", "unix", path="/run/log", form="local")),
        (
            "syslog:unix:/run/log?format=rfc5424&facility=local7",
            SyslogAddress("unix:/run/log", "unix", path="/run/log", form="rfc5424", facility=23),
        ),
        ("syslog:udp://logs", SyslogAddress("udp://logs:514", "udp", host="logs", port=514)),
        ("syslog:udp://10.0.0.1:5140", SyslogAddress("udp://10.0.0.1:5140", "udp", host="10.0.0.1", port=5140)),
        ("syslog:tcp://logs", SyslogAddress("tcp://logs:601", "tcp", host="logs", port=601)),
        ("syslog:tcp://[::1]", SyslogAddress("tcp://[::1]:601", "tcp", host="::1", port=601)),
        ("syslog:tcp://[fe80::1%lo]:6", SyslogAddress("tcp://[fe80::1%lo]:6", "tcp", host="fe80::1%lo", port=6)),
        (
            "syslog:tcp://logs?facility=local0",
            SyslogAddress("tcp://logs:601", "tcp", host="logs", port=601, facility=16),
        ),
        ("syslog:tcp://logs?format=rfc5424", SyslogAddress("tcp://logs:601", "tcp", host="logs", port=601)),
    ],
)
def test_every_form_is_understood(text: str, expected: SyslogAddress) -> None:
    """The forms of the table of settings, with what they take for granted."""
    assert parse(text) == expected


def test_facilities_have_their_numbers() -> None:
    """As in RFC 5424, table 1."""
    assert (FACILITIES["user"], FACILITIES["daemon"]) == (1, 3)
    assert [FACILITIES[f"local{number}"] for number in range(8)] == list(range(16, 24))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("stdout", "'stdout' is not a syslog address|Write syslog, syslog:unix:/path"),
        ("syslog:", "'syslog:' is not a syslog address|syslog:udp://HOST:PORT"),
        ("syslog:logs:514", "is not a syslog address|syslog:tcp://HOST:PORT"),
        ("syslog:tls://logs", "is not a syslog address|"),
        ("syslog:udp:logs", "is not a syslog address|"),
        ("syslog:unix:", "'' is not an absolute path|Write syslog:unix:/path"),
        ("syslog:unix:dev/log", "'dev/log' is not an absolute path|"),
        ("syslog:unix:/run/", "is not an absolute path of a socket|"),
        ("syslog:unix:/" + "x" * 107, "is too long|The kernel takes 107 bytes"),
        ("syslog:udp://", "names no host|"),
        ("syslog:udp://*:514", "names no host|"),
        ("syslog:udp://:514", "names no host|"),
        ("syslog:udp://me@logs:514", "names no host|"),
        ("syslog:udp://logs:514/x", "names no host|"),
        ("syslog:udp://logs:", "'' is not a port|1 to 65535"),
        ("syslog:udp://logs:0", "'0' is not a port|1 to 65535"),
        ("syslog:udp://logs:65536", "'65536' is not a port|"),
        ("syslog:udp://logs:http", "'http' is not a port|"),
        ("syslog:udp://::1:514", "is ambiguous|Put an IPv6 address in brackets: syslog:udp://[::1]:PORT"),
        ("syslog:udp://[::1]514", "is ambiguous|"),
        ("syslog:udp://[127.0.0.1]:514", "'127.0.0.1' is not an IPv6 address|"),
        ("syslog:udp://logs?format=local", "'format=local' is not for udp|for unix sockets"),
        ("syslog:udp://logs?format=json", "'format=json' is not an option|?format=rfc5424"),
        ("syslog:udp://logs?facility=mail", "'facility=mail' is not an option|local0 to local7"),
        ("syslog:udp://logs?", "'' is not an option|"),
        ("syslog:udp://lógs", "characters outside ASCII|"),
        ("syslog:udp://lo gs", "blanks|"),
        ("syslog:udp://logs\n", "blanks|"),
    ],
)
def test_a_bad_address_says_what_to_write(text: str, sentence: str) -> None:
    """What is wrong, and what to do."""
    reason, _, remedy = sentence.partition("|")

    with pytest.raises(BadValueError) as caught:
        parse(text)

    assert reason in caught.value.reason
    assert remedy in caught.value.remedy


@given(
    strategies.sampled_from(("", "syslog:", "syslog:unix:", "syslog:udp://", "syslog:tcp://[")),
    strategies.text(max_size=30),
)
def test_any_text_is_an_address_or_a_clear_sentence(start: str, text: str) -> None:
    """No input makes the parser fail in another way."""
    try:
        address = parse(start + text)
    except BadValueError:
        return

    assert address.transport in {"unix", "udp", "tcp"}
    assert parse(f"syslog:{address.text}") == address._replace(form=parse(f"syslog:{address.text}").form, facility=1)
