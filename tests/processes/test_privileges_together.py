"""`--user` with all that makes files: metrics, sockets, a template, the pidfile; of a user that passwd need not know."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.observer.test_aggregate import samples
from tests.processes.asking import ANYWHERE, ask, wait_until_served
from tests.processes.privileged import PROD_CTL, Service, ids, name_of, service
from tests.processes.running import Running, descendants, until

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["service"]

NUMBER = 48130  # nobody's: in no file of users or groups
# Each worker pays once; what it pays stays paid when it is killed.
SHOP = """
import os
from prometheus_client import Counter
from launcher import Worker

paid = Counter("shop_paid", "Orders paid.")

def main(worker: Worker):
    paid.inc()
    worker.ready()
    worker.stopping.wait()
"""


def paid(running: Running) -> float:
    """Return what a scrape says of all workers that there ever were."""
    return samples(ask(running, "/metrics").text).get(("shop_paid_total", ()), 0.0)


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    """Return user, group and permissions of a file."""
    found = path.lstat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


def test_all_that_is_made_is_the_users(start: Callable[..., Running], service: Service) -> None:
    """Over a worker's death and a reload; at the end nothing of it is left."""
    out, runtime = service.directory / "out", Path(f"/run/prod-run/{name_of(service)}")
    out.mkdir()
    os.chown(out, NUMBER, NUMBER)
    (service.directory / "shop.tmpl").write_text("version ${VERSION}\n")
    (service.directory / "shop.env").write_text("VERSION=1\n")
    control = runtime / "control.sock"
    files = ("--template", f"shop.tmpl:{out}/shop.conf", "--env-file", "shop.env", "--pidfile", out / "shop.pid")
    words = ("--user", NUMBER, "--name", name_of(service), "-w", 2, *ANYWHERE, *files, service.app(SHOP), "app:main")
    running = start(*words, before=service.before)
    wait_until_served(running)
    until(lambda: paid(running) == 2, "each worker's payment")

    assert owner_and_mode(runtime) == (NUMBER, NUMBER, 0o700)
    assert owner_and_mode(runtime / "metrics") == (NUMBER, NUMBER, 0o700)
    assert {owner_and_mode(path)[:2] for path in (runtime / "metrics").iterdir()} == {(NUMBER, NUMBER)}
    assert owner_and_mode(control) == (NUMBER, NUMBER, 0o600)
    assert owner_and_mode(runtime / "introspect.sock") == (NUMBER, NUMBER, 0o600)
    assert ask(runtime / "introspect.sock", "/config").code == 200, "the private tier, asked by root"
    assert owner_and_mode(out / "shop.conf")[:2] == (NUMBER, NUMBER)
    assert owner_and_mode(out / "shop.pid") == (NUMBER, NUMBER, 0o644)
    assert (out / "shop.conf").read_text() == "version 1\n"

    os.kill(next(iter(running.workers())), signal.SIGKILL)
    until(lambda: paid(running) == 3, "the payment of who came for the dead, beside those of both")

    (service.directory / "shop.env").write_text("VERSION=2\n")
    reloaded = subprocess.run([PROD_CTL, "--socket", control, "reload", "--wait"], capture_output=True, text=True)
    assert reloaded.returncode == 0, reloaded.stdout
    assert (out / "shop.conf").read_text() == "version 2\n"
    assert owner_and_mode(out / "shop.conf")[:2] == (NUMBER, NUMBER)
    until(lambda: paid(running) == 5, "the payments of two generations")
    for pid in (running.pid, *descendants(running.pid)):
        assert ids(pid) == ({NUMBER}, {NUMBER}, {NUMBER})

    assert running.stop() == 0
    assert not [line["text"] for line in running.lines if line.get("level") == "warning"]
    assert sorted(path.name for path in runtime.iterdir()) == ["lock"]
    assert [path.name for path in out.iterdir()] == ["shop.conf"]
