"""One machine for all tests of this folder, and one service for each test."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.containers import debian
from tests.processes.running import LIMIT, until
from tests.systemd.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

UNITS = debian.REPOSITORY / "systemd"
NUMBERS = itertools.count(1)
HELLO = debian.REPOSITORY / "examples" / "hello.py"


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Boot it once, with the units of this repository, as they are, in /etc/systemd/system."""
    booted = Machine(tmp_path_factory.mktemp("machine"))
    for unit in UNITS.glob("prod-run@.*"):
        if unit.is_file():
            booted.write(f"/etc/systemd/system/{unit.name}", unit.read_text())
    # Only what an interpreter in an unusual place needs.
    lines = "".join(f"Environment={name}={value}\n" for name, value in debian.ENVIRONMENT.items())
    booted.write("/etc/systemd/system/prod-run@.service.d/interpreter.conf", f"[Service]\n{lines}")
    yield booted
    booted.down()


class Service:
    """One instance of prod-run@.service: its release, its settings, its drop-ins, and what became of it."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.name = name
        self.unit = f"prod-run@{name}.service"
        self.under_way: list[subprocess.Popen[bytes]] = []
        self.socket = f"prod-run@{name}.socket"
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.address: tuple[str, int] = sock.getsockname()
        self.release = machine.path(f"/srv/{name}/current")
        debian.place(self.release / "venv")
        self.app(HELLO.read_text(), "hello")
        self.settings()

    def app(self, source: str, name: str = "app") -> None:
        """Put a module into the release."""
        fresh = self.release / f"{name}.new"
        fresh.write_text(source)
        fresh.rename(self.release / f"{name}.py")
        shutil.rmtree(self.release / "__pycache__", ignore_errors=True)

    def settings(self, target: str = "hello:main", **variables: object) -> None:
        """Write /etc/prod-run/NAME.env; without PROD_RUN_BIND it listens at `address`; None leaves a line out."""
        host, port = self.address
        given = {"PROD_RUN_BIND": f"{host}:{port}", "PROD_RUN_INTROSPECT": "off", **variables}
        said = {"TARGET": target, **{name: value for name, value in given.items() if value is not None}}
        lines = "".join(f"{name}={value}\n" for name, value in said.items())
        self.machine.write(f"/etc/prod-run/{self.name}.env", lines)

    def drop_in(self, name: str, text: str = "", *, of: str = "") -> None:
        """Give this instance a drop-in: one of the repository's, or a text."""
        content = text or (UNITS / "prod-run@.service.d" / f"{name}.conf").read_text()
        self.machine.write(f"/etc/systemd/system/{of or self.unit}.d/{name}.conf", content)

    def systemctl(self, verb: str, *, of: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Say it to systemd, about this unit."""
        if verb in {"start", "restart"}:
            self.machine.run("systemctl", "daemon-reload")
        ended = self.machine.run("systemctl", verb, of or self.unit, check=False)
        assert not check or ended.returncode == 0, f"{ended.stderr}\n{self.log()}"
        return ended

    def begin(self, verb: str, *, of: str = "") -> subprocess.Popen[bytes]:
        """Say it, and do not wait for the result."""
        self.machine.run("systemctl", "daemon-reload")
        self.under_way.append(subprocess.Popen([*self.machine.enter(), "systemctl", verb, of or self.unit]))
        return self.under_way[-1]

    def show(self, field: str, *, of: str = "") -> str:
        """Return what systemd knows."""
        return self.machine.run("systemctl", "show", "--value", "-p", field, of or self.unit).stdout.strip()

    def wait_for(self, **fields: str) -> None:
        """Wait until systemd knows this."""
        until(lambda: all(self.show(name) == value for name, value in fields.items()), f"{fields}: {self.log()}")

    def wait_for_log(self, text: str) -> dict[str, str]:
        """Wait for an entry of the journal with this text."""

        def found() -> dict[str, str] | None:
            return next((entry for entry in self.journal() if text in entry["MESSAGE"]), None)

        until(found, f"an entry with {text!r}")
        return found() or {}

    def journal(self) -> list[dict[str, str]]:
        """Return the entries that the service's processes wrote."""
        said = self.machine.run("journalctl", "--output=json", "-u", self.unit, "_TRANSPORT=stdout").stdout
        return [json.loads(line) for line in said.splitlines()]

    def log(self) -> str:
        """Return the journal as text, for people."""
        return self.machine.run("journalctl", "-u", self.unit, "--output=cat", check=False).stdout

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor alone."""
        self.machine.run("systemctl", "kill", "--kill-whom=main", f"--signal={number.name}", self.unit)

    def ask(self) -> str:
        """Make one request and return the body."""
        with socket.create_connection(self.address, 60) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        return answer.partition(b"\r\n\r\n")[2].decode()

    def close(self) -> None:
        """End it."""
        self.machine.run("systemctl", "kill", "--signal=KILL", self.unit, check=False)
        self.machine.run("systemctl", "stop", self.socket, self.unit, check=False)
        for process in self.under_way:
            process.wait(LIMIT)


@pytest.fixture
def service(machine: Machine) -> Iterator[Service]:
    """One that is not started."""
    one = Service(machine, f"s{next(NUMBERS)}")
    yield one
    one.close()


@pytest.fixture
def neighbour(machine: Machine) -> Iterator[Service]:
    """Another instance on the same machine."""
    one = Service(machine, f"s{next(NUMBERS)}")
    yield one
    one.close()
