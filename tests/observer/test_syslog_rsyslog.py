"""A real rsyslog, as Debian has it, receives what was sent: every field, over every transport."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from typing import IO, TYPE_CHECKING

import pytest

from launcher.logs.batch import INNER_NEWLINE, Source
from tests.observer.syslog_world import OURS, SHOP, World, loopback
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RSYSLOGD = shutil.which("rsyslogd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
LIMIT = 30.0  # seconds; an outer limit

pytestmark = pytest.mark.skipif(not RSYSLOGD, reason="rsyslog is not installed (Debian: apt-get install rsyslog)")

# One JSON object a line to a socket that the test reads; control characters and newlines as they came.
CONFIGURATION = """
global(workDirectory="{directory}" maxMessageSize="256k"
       parser.escapeControlCharactersOnReceive="off" parser.dropTrailingLFOnReception="off" net.enableDNS="off")
module(load="imuxsock" SysSock.Use="off")
module(load="imudp")
module(load="imptcp")
template(name="fields" type="list" option.jsonf="on") {{
  property(outname="pri" name="pri" format="jsonf")
  property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="procid" name="procid" format="jsonf")
  property(outname="msgid" name="msgid" format="jsonf")
  property(outname="data" name="structured-data" format="jsonf")
  property(outname="protocol" name="protocol-version" format="jsonf")
  property(outname="msg" name="msg" format="jsonf")
}}
ruleset(name="found") {{ action(type="omfwd" target="127.0.0.1" port="{back}" protocol="tcp" template="fields") }}
input(type="imuxsock" Socket="{socket}" UseSpecialParser="{special}" UseSysTimeStamp="off" IgnoreTimestamp="off" ruleset="found")
input(type="imudp" address="127.0.0.1" port="{udp}" ruleset="found")
input(type="imptcp" address="127.0.0.1" port="{tcp}" ruleset="found")
"""

TEXTS = {
    "plain": (b"hello", "hello"),
    "newlines": (
        f"Traceback:{INNER_NEWLINE}  line 1{INNER_NEWLINE}ValueError: x".encode(),
        "Traceback:\n  line 1\nValueError: x",
    ),
    "utf-8": ("zwölf 🎈 中".encode(), "\ufeffzwölf 🎈 中"),
    "nul": (b"a\0b", "a\\x00b"),
    "empty": (b"", ""),
    "blanks": (b"  two before, two after  ", "  two before, two after  "),
    "quotes": (b'{"a": "b\\n]", "c": %d}', '{"a": "b\\n]", "c": %d}'),
}


class Rsyslog:
    """One rsyslogd in the foreground, with a configuration of its own."""

    def __init__(self, directory: Path, special: str) -> None:
        """Start it, and wait until it listens."""
        self.ports = {"udp": free_port(kind=socket.SOCK_DGRAM), "tcp": free_port()}
        self.socket = directory / "log"
        self._listener, back = loopback(socket.SOCK_STREAM)
        self._found: IO[bytes] | None = None
        values = {"directory": directory, "back": back, "socket": self.socket, "special": special, **self.ports}
        (directory / "conf").write_text(CONFIGURATION.format(**values))
        argv = [str(RSYSLOGD), "-n", "-f", str(directory / "conf"), "-i", str(directory / "pid"), "-C"]
        with (directory / "output").open("wb") as output:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._output = directory / "output"

    def url(self, transport: str) -> str:
        """Return what a user would write after --log."""
        return (
            f"syslog:unix:{self.socket}"
            if transport == "unix"
            else f"syslog:{transport}://127.0.0.1:{self.ports[transport]}"
        )

    def receive(self, count: int) -> list[dict[str, str]]:
        """Return so many messages as rsyslog understood them."""
        try:
            if self._found is None:
                connection = self._listener.accept()[0]
                connection.settimeout(LIMIT)
                self._found = connection.makefile("rb")
                connection.close()
            return [json.loads(self._found.readline()) for _ in range(count)]
        except TimeoutError:
            pytest.fail(f"not all of {count} messages arrived: {self._output.read_text()}")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(LIMIT)
        self._listener.close()
        if self._found is not None:
            self._found.close()


@pytest.fixture
def rsyslog(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rsyslog]:
    """Give a running rsyslog."""
    made = Rsyslog(tmp_path, getattr(request, "param", "on"))
    yield made
    made.close()


def send(rsyslog: Rsyslog, world: World, *batches: tuple[bytes, Source]) -> list[dict[str, str]]:
    """Write these, trying again until rsyslog listens, and return what arrived."""
    for text, source in batches:
        world.write(text, source=source)
    while world.sink.backlog:
        if not world.turn(10) and world.sink.deadline() is not None:
            world.tick_at_deadline()
    return rsyslog.receive(len(batches))


@pytest.fixture(params=["unix", "udp", "tcp"])
def world(request: pytest.FixtureRequest, rsyslog: Rsyslog) -> Iterator[World]:
    """Give a sink for each transport, all in RFC 5424."""
    made = World(rsyslog.url(request.param) + "?format=rfc5424")
    if request.param == "udp":
        # Nobody tells whether a datagram arrives; rsyslog binds all its ports before it reads from any.
        first = World(rsyslog.url("unix"))
        send(rsyslog, first, (b"listening?", OURS))
        first.close()
    yield made
    made.close()


# imuxsock's own parser knows the local form only.
@pytest.mark.parametrize("rsyslog", ["off"], indirect=True)
def test_every_field_is_what_was_sent(rsyslog: Rsyslog, world: World) -> None:
    """RFC 5424 over each transport, with whatever text."""
    versioned = Source("shop", 2, 99, 0, 'v"1]\\')

    found = send(rsyslog, world, *[(text, SHOP) for text, _ in TEXTS.values()], (b"mine", OURS), (b"v", versioned))

    assert [message["msg"] for message in found] == [expected for _, expected in TEXTS.values()] + ["mine", "v"]
    header = {"pri": "14", "time": "2026-01-31T08:05:09.250Z", "host": "here.example", "protocol": "1", "msgid": "-"}
    shop = {"app": "shop", "procid": "123", "data": '[prod-run@32473 slot="3" generation="7"]'}
    assert [{**message, "msg": ""} for message in found] == [
        *[{**header, **shop, "msg": ""}] * len(TEXTS),
        {**header, "app": "prod-run", "procid": "1", "data": "-", "msg": ""},
        {**header, "app": "shop", "procid": "99", "msg": "",
         "data": '[prod-run@32473 slot="0" generation="2" version="v\\"1\\]\\\\"]'},
    ]  # fmt: skip


@pytest.mark.parametrize("rsyslog", ["off"], indirect=True)
def test_long_messages_arrive_whole_where_they_can(rsyslog: Rsyslog, world: World) -> None:
    """64 KiB over a stream and the local socket; over UDP what every receiver takes, with the mark of the cut."""
    long = f"{'ö' * 32_000}{INNER_NEWLINE}{'x' * 1500}end".encode()

    found = send(rsyslog, world, (long, SHOP), (b"after", SHOP))

    whole = "\ufeff" + "ö" * 32_000 + "\n" + "x" * 1500 + "end"
    text = found[0]["msg"]
    assert text == whole or (world.sink._address.transport == "udp" and text.endswith("ö …[cut]"))
    assert text == whole or 1900 < len(text.encode()) <= 2048
    assert found[1]["msg"] == "after"


def test_the_local_form_is_what_dev_log_understands(rsyslog: Rsyslog) -> None:
    """The parser of rsyslog for /dev/log, as Debian configures it: tag, pid and text, newlines as #012."""
    world = World(rsyslog.url("unix"))

    found = send(rsyslog, world, *[(text, SHOP) for text, _ in TEXTS.values()], (b"mine", OURS))
    world.close()

    expected = [text.replace("\n", "#012").removeprefix("\ufeff") for _, text in TEXTS.values()] + ["mine"]
    # What follows the tag's colon is the message's beginning for rsyslog, the blank included.
    assert [message["msg"].removeprefix(" ") for message in found] == expected
    assert {(message["pri"], message["app"], message["procid"]) for message in found[:-1]} == {("14", "shop", "123")}
    assert (found[-1]["app"], found[-1]["procid"]) == ("prod-run", "1")


def test_many_messages_over_tcp_are_all_there(rsyslog: Rsyslog) -> None:
    """In their order, while rsyslog reads as fast as it can."""
    world = World(rsyslog.url("tcp"))
    texts = [b"%d " % number + b"x" * (number % 500) for number in range(5000)]

    found = send(rsyslog, world, *[(text, SHOP) for text in texts])
    world.close()

    assert [message["msg"].encode() for message in found] == texts
