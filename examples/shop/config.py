"""The shop's configuration: the class alone, so that it can be described without a value being there."""

from __future__ import annotations

import environ

import launcher


@environ.config(prefix="SHOP")
class Config:
    """What an operator can set."""

    debug = environ.var("off", converter=launcher.boolean, help="on: pages show tracebacks")
    hosts = environ.var(converter=launcher.csv, help="names under which the shop is reached, separated by commas")
    secret_key = launcher.secret(help="signs sessions: 50 random characters")
    database_url = launcher.url(schemes=["postgres"], help="postgres://user:password@host:port/name")
