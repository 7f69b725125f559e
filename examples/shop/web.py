"""
A target whose settings are a module.

    prod-run --chdir examples/shop --env-file production.env --secrets-dir secrets \
        --config config:Config --template nginx.conf.tmpl:nginx.conf web:main
"""

from __future__ import annotations

import settings


def main() -> None:
    """Say what would be connected to, and be done."""
    database = settings.DATABASES["default"]
    print(f"{', '.join(settings.ALLOWED_HOSTS)}: {database['USER']} at {database['HOST']}:{database['PORT']}")
