"""
A drain seen from a balancer, again and again, by hand: `python -m tests.web.drain_run [--times 10] [VARIANT…]`.

One of two backends is told to stop under load, behind HAProxy or nginx; what clients see is counted by variant.
"""

from __future__ import annotations

import argparse
import collections
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.processes.running import LIMIT, Running, until
from tests.web.balancers import Haproxy, haproxy, nginx
from tests.web.load import Load
from tests.web.peers import BIN

EXAMPLES = Path(__file__).parents[2] / "examples" / "web"
# A kept connection must live longer than the balancer keeps it, or it is lost without any drain.
APPLICATIONS = {
    "flask": ("--server-option", "keepalive=75", "flask_app:app"),
    "fastapi": ("--server-option", "timeout_keep_alive=75", "fastapi_app:app"),
}
KINDS = {"fast": 6, "fast-close": 6, "slow": 3, "slow-close": 3}
POSTS = {"post": 3, "post-close": 3}  # which nginx asks nobody else for


class Variant(NamedTuple):
    """How a balancer finds out, and how it speaks to the backends."""

    balancer: str
    delay: str = "0s"
    probe: str = "/"  # or /readyz, of the introspection port
    proxy: str = "off"
    directives: str = ""

    @property
    def name(self) -> str:
        """Say all of it in one word."""
        words = (self.balancer, self.delay, self.probe, *((self.proxy,) if self.proxy != "off" else ()))
        return ",".join((*words, *(("retry-on",) if self.directives else ())))


VARIANTS = (
    Variant("haproxy"),
    Variant("haproxy", directives="retry-on conn-failure empty-response"),
    Variant("haproxy", proxy="v1"),
    Variant("haproxy", proxy="v2"),
    Variant("haproxy", "2s"),
    Variant("haproxy", "2s", "/readyz"),
    Variant("haproxy", "2s", "/readyz", "v1"),
    Variant("haproxy", "2s", "/readyz", "v2"),
    Variant("nginx"),
    Variant("nginx", "2s"),
)


def drained(variant: Variant, target: tuple[str, ...], folder: Path) -> collections.Counter[str]:
    """Stop one of two backends; return how often what went wrong."""
    proxy = ("--proxy-protocol", variant.proxy, "--trust", "127.0.0.1") if variant.proxy != "off" else ()
    words = ("--chdir", EXAMPLES, "--bind", "127.0.0.1:0", "--introspect", "127.0.0.1:0", "--workers", "2")
    both = []
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    try:
        for i in range(2):
            own = ("--name", f"shop-{i}", "--control", folder / f"{i}.sock", "--drain-delay", variant.delay)
            both.append(Running([BIN / "prod-run", *words, *own, *proxy, *target], cwd=folder, env=env))
        for running in both:
            running.wait_for(event="committed")
        backends = [running.address() for running in both]
        probes = [running.address("introspect") for running in both] if variant.probe == "/readyz" else []
        options = {"v1": "send-proxy", "v2": "send-proxy-v2"}.get(variant.proxy, "")
        options += " check-send-proxy" if options and not probes else ""
        front = (
            nginx(folder, backends)
            if variant.balancer == "nginx"
            else haproxy(folder, backends, options=options, probes=probes, of_back=variant.directives)
        )
        with front as balancer:
            if isinstance(balancer, Haproxy):
                until(lambda: set(balancer.checks().values()) == {"L7OK"}, "both are ready")
            kinds = KINDS if variant.balancer == "nginx" else {**KINDS, **POSTS}
            clients = Load(balancer.address if isinstance(balancer, Haproxy) else balancer, kinds)
            try:
                clients.settle()
                subprocess.run([BIN / "prod-ctl", "--socket", folder / "0.sock", "stop"], check=True, timeout=LIMIT)
                assert both[0].wait() == 0
                clients.settle(3)
                return collections.Counter(failure.reason for failure in clients.finish())
            finally:
                clients.close()
    finally:
        for running in both:
            running.close()


def main() -> None:
    """Print a line for each variant and application."""
    parser = argparse.ArgumentParser(prog="python -m tests.web.drain_run", description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="how often each (10)")
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=" ".join(one.name for one in VARIANTS))
    options = parser.parse_args()
    for variant in VARIANTS:
        if options.variants and variant.name not in options.variants:
            continue
        for name, target in APPLICATIONS.items():
            began, found = time.monotonic(), []
            for _ in range(options.times):
                with tempfile.TemporaryDirectory() as directory:
                    found.append(drained(variant, target, Path(directory)))
            sums = sum(found, collections.Counter())
            counts = " ".join(str(one.total()) for one in found)
            print(f"| {variant.name} | {name} | {counts} | {dict(sums)} | {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
    sys.exit(0)
