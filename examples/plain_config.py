"""
A plain class, and a target that asks for it by annotation.

    SHOP_GREETING=Moin prod-run --chdir examples plain_config:main
"""

from __future__ import annotations

import environ

import launcher


@environ.config(prefix="SHOP")
class Config:
    """What an operator can set."""

    greeting = environ.var("Hello", help="the first word")
    patience = environ.var("2s", converter=launcher.duration, help="how long a customer waits")


def main(config: Config) -> None:
    """Greet, and be done."""
    print(f"{config.greeting}, you wait {config.patience:g} s")
