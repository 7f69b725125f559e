"""What the control socket remembers of the past: enough for `prod-ctl events`, and no more memory than that."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, cast

from launcher import protocol
from launcher.logs.formats import Record
from launcher.supervisor.control import DETAILED, MOST_DETAIL, REMEMBERED, Control
from launcher.supervisor.loop import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.supervisor.machine import Machine


class Calls(dict[int, "Callable[[], object]"]):
    """A watcher that remembers whom to call."""

    def watch(self, fd: int, call: Callable[[], object]) -> None:
        """Remember it."""
        self[fd] = call

    def forget(self, fd: int) -> None:
        """Forget it."""
        self.pop(fd, None)


def test_only_the_last_records_keep_their_tracebacks(tmp_path: Path) -> None:
    """A broken file under --watch makes one after the other, for weeks."""
    calls = Calls()
    control = Control(str(tmp_path / "control"), cast("Machine", None), cast("Watcher", calls), lambda: 0.0)
    control.open()
    for number in range(2 * REMEMBERED):
        control.tell(Record(float(number), "error", "rejected", (("generation", number),), "x" * 3 * MOST_DETAIL))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(control.path)
        client.send(protocol.encode("events"))
        for call in list(calls.values()):
            call()
        for call in list(calls.values())[1:]:
            call()
        rows: list[protocol.Message] = []
        while (message := protocol.decode(client.recv(protocol.LARGEST))).verb == "rows":
            rows += [protocol.decode(row.encode()) for row in message.texts("row")]
    for call in list(calls.values())[1:]:
        call()  # the client is gone
    control.close()

    details = [len(fact) for row in rows for fact in row.texts("facts") if fact.startswith("detail=")]
    assert [fact for fact in rows[-1].texts("facts") if fact.startswith("generation=")] == ["generation=999"]
    assert len(rows) == REMEMBERED
    assert len(details) == DETAILED
    assert max(details) < MOST_DETAIL + 100
