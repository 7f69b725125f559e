"""A template that uses a secret of `cfg` is closed to others, whatever is left of the value in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import environ
import pytest

import launcher
from launcher.appconfig.render import Inputs, render_all
from launcher.appconfig.templates import template

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("jinja2", reason="the extra prod-run[jinja] is not installed")


@environ.config(prefix="SHOP")
class Hiding:
    """All of its secrets hide themselves."""

    @environ.config
    class Db:
        """A group."""

        host = environ.var("db")
        password = launcher.secret()
        url = launcher.url()

        @property
        def login(self) -> Any:
            """The app's own."""
            return f"app:{self.password.reveal()}"

    db = environ.group(Db)
    pin = launcher.secret()


@environ.config(prefix="SHOP")
class Bare:
    """Two of its secrets are bare values."""

    @environ.config
    class Db:
        """A group."""

        host = environ.var("db")
        password = environ.secrets.DirectorySecrets.from_path("/nowhere").secret()

        @property
        def login(self) -> Any:
            """The app's own."""
            return f"app:{self.password}"

    @environ.config
    class Mail:
        """A group without secrets."""

        host = environ.var("mail")

    db = environ.group(Db)
    mail = environ.group(Mail)
    key = launcher.secret(as_str=True)
    pin = launcher.secret()
    none = launcher.secret(None, as_str=True)
    port = environ.var(25, converter=int)


PASSWORD = "it's-secret"  # noqa: S105 - a canary
HIDING: Any = Hiding(db=Hiding.Db(host="db", password=PASSWORD, url="pg://u:correct@h/d"), pin="12")
BARE: Any = Bare(db=Bare.Db(host="db", password=PASSWORD), mail=Bare.Mail(), key="it's-key", pin="12", none=None)


def is_closed(directory: Path, source: str, config: object) -> bool:
    """Render; say whether the file is closed to others, and an open mode refused."""
    (directory / "a.j2").write_text(source)
    inputs = Inputs({}, {"PASSWORD": PASSWORD, "KEY": "it's-key", "PIN": "12"}, config, 1, "host")
    made = template(f"{directory / 'a.j2'}:{directory / 'out'}")

    (rendered,), problems = render_all([made], inputs)
    refused = render_all([made._replace(mode=0o644)], inputs)[1]

    assert problems == []
    assert bool(refused) is (rendered.mode == 0o600)
    return rendered.mode == 0o600


@pytest.mark.parametrize(
    "source",
    [
        "{{ cfg.db.password }}",
        """user '{{ cfg.db.password.reveal() | replace("'", "''") }}'""",
        "{{ cfg.db.password.reveal() | upper }}",
        "{{ cfg.db.password.reveal()[:4] }}",
        "{{ cfg.pin }}",
        "{{ cfg.pin.reveal() | int + 1 }}",
        "{{ cfg.db.url.password | reverse }}",
        "{{ cfg.db.login | upper }}",
        "{% set db = cfg['db'] %}{{ (db|attr('password')).reveal() | length }}",
        "{% if cfg.pin.reveal() == '12' %}x{% endif %}",
    ],
)
def test_a_revealed_secret_closes_the_file(tmp_path: Path, source: str) -> None:
    """Escaped, cut, short, or only compared."""
    assert is_closed(tmp_path, source, HIDING)


@pytest.mark.parametrize(
    "source",
    [
        """user '{{ cfg.db.password | replace("'", "''") }}'""",
        "{{ cfg.key | upper }}",
        "{{ cfg['key'][:3] }}",
        "{{ cfg.key.upper() }}",
        "{{ cfg.db.login | upper }}",
        "{{ cfg[hostname and 'key'] | upper }}",
        "{% set c = cfg.db %}{{ c.password | upper }}",
        "{{ cfg | attr('key') | upper }}",
        "{% for name in ['key'] %}{{ cfg[name] | reverse }}{% endfor %}",
        "{{ cfg.pin }}",
    ],
)
def test_a_bare_secret_closes_the_file(tmp_path: Path, source: str) -> None:
    """Where it is named, and where nobody can know."""
    assert is_closed(tmp_path, source, BARE)


@pytest.mark.parametrize(
    "source",
    [
        "{{ cfg.db.host | upper }}",
        "{{ cfg['db'].host }} {{ generation }}",
        "{% set h = cfg.db.host %}{{ h }}",
        "nothing",
    ],
)
@pytest.mark.parametrize("config", [HIDING, BARE], ids=["hiding", "bare"])
def test_a_template_without_secrets_stays_open(tmp_path: Path, source: str, config: object) -> None:
    """The server that reads it may be another user."""
    assert not is_closed(tmp_path, source, config)


@pytest.mark.parametrize(
    "source",
    [
        "{{ cfg.mail.host }}",
        "{% set m = cfg.mail %}{{ m.host }}",
        "{{ cfg.none is none }}",
        "{{ cfg.port.bit_length() }}",
    ],
)
def test_what_holds_no_secret_stays_open_beside_bare_ones(tmp_path: Path, source: str) -> None:
    """A group without any, one that is not set, and what is asked of a plain value."""
    assert not is_closed(tmp_path, source, BARE)
