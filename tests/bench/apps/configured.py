"""A small app with a configuration, for `--check-config`."""

from __future__ import annotations

import environ

import launcher


@environ.config(prefix="SHOP")
class Config:
    """What an operator can set."""

    name = environ.var(help="shown on every page")
    port = environ.var("8000", converter=int)
    patience = environ.var("5s", converter=launcher.duration)
    token = launcher.secret(help="for the payment provider")


def main(config: Config) -> None:
    """Be started by nobody."""
