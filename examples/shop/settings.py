"""
A settings module as Django's: plain upper-case names, made of a configuration that was checked as a whole.

`launcher.config(Config)` is the same instance that prod-run has loaded; without prod-run it is loaded here.
"""

from __future__ import annotations

from config import Config

import launcher

_config = launcher.config(Config)

DEBUG = _config.debug
ALLOWED_HOSTS = _config.hosts
SECRET_KEY = _config.secret_key.reveal()
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": _config.database_url.host,
        "PORT": _config.database_url.port or 5432,
        "NAME": _config.database_url.path.lstrip("/"),
        "USER": _config.database_url.user,
        "PASSWORD": _config.database_url.password,
    }
}
