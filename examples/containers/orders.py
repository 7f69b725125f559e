"""
The server of hello.py with a secret, which Compose mounts as /run/secrets/shop_database_url.

    SHOP_DATABASE_URL_FILE=secrets/shop_database_url PYTHONPATH=.. prod-run --bind 127.0.0.1:8000 orders:main
"""

from __future__ import annotations

import environ
import hello

import launcher
from launcher import Worker


@environ.config(prefix="SHOP")
class Config:
    """What an operator can set."""

    hosts = environ.var("localhost", converter=launcher.csv, help="names under which orders come, separated by commas")
    database_url = launcher.url(schemes=["postgres"], help="postgres://user:password@host:port/name")


def main(worker: Worker[Config]) -> None:
    """Say where the orders would be, and serve."""
    database = worker.config.database_url
    print(f"orders are in {database.database} at {database.host}, for {', '.join(worker.config.hosts)}")
    hello.main(worker)
