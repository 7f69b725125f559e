"""The description of an app's variables: the names that are really read, and no secret."""

from __future__ import annotations

import attrs
import environ
import pytest

from launcher.appconfig import convert, describe, env_file
from launcher.appconfig.declare import secret, url
from launcher.appconfig.load import load
from launcher.appconfig.sources import Surroundings
from tests.appconfig.canary import CANARY, leaks


def _vault_prefix(variables: dict[str, str]) -> str:
    return variables.get("VAULT", "LOCAL")


def _strict_prefix(variables: dict[str, str]) -> str:
    return variables["VAULT"]


@environ.config(prefix="SHOP")
class Shop:
    """One of each."""

    @environ.config(prefix="OTHER")
    class Own:
        """A group whose class has its own prefix."""

        y = environ.var(help="why\nnot | so")

    @environ.config
    class Mail:
        """An optional one."""

        host = environ.var()
        password = secret(help="of the mailbox")

    stage = environ.var("dev", help="prod or dev")
    motto = environ.var("it's # so")
    debug = environ.var(False, converter=convert.boolean)
    made = environ.var(attrs.Factory(list))
    nothing = environ.var(None)
    lines = environ.var("a\nb")
    db = url(help="the database")
    token = secret(CANARY, name="TOKEN")
    group = environ.group(Own)
    mail = environ.group(Mail, optional=True)
    vault = environ.secrets.VaultEnvSecrets(_vault_prefix).secret(default=CANARY)
    file = environ.secrets.DirectorySecrets.from_path_in_env("SHOP_DIR", None).secret(name="a.txt")
    folder = environ.secrets.DirectorySecrets("/etc/shop").secret()
    strict = environ.secrets.VaultEnvSecrets(_strict_prefix).secret()
    ini = environ.secrets.INISecrets.from_path_in_env("SHOP_INI").secret()


TEXT = """\
SHOP_STAGE          default 'dev'                          prod or dev
SHOP_MOTTO          default "it's # so"
SHOP_DEBUG          default False
SHOP_MADE           optional
SHOP_NOTHING        optional
SHOP_LINES          default 'a\\nb'
SHOP_DB             secret, required                       the database
                    looked for in SHOP_DB_FILE, SHOP_DB, files called shop_db or db, SHOP_SECRETS_INI
TOKEN               secret, optional
                    looked for in TOKEN_FILE, TOKEN, files called TOKEN or shop_token or token, SHOP_SECRETS_INI
SHOP_OTHER_Y        required                               why not | so
SHOP_MAIL_HOST      required with any SHOP_MAIL_…
SHOP_MAIL_PASSWORD  secret, required with any SHOP_MAIL_…  of the mailbox
                    looked for in SHOP_MAIL_PASSWORD_FILE, SHOP_MAIL_PASSWORD, files called shop_mail_password or mail_password, SHOP_SECRETS_INI
LOCAL_VAULT         secret, optional
a.txt               secret, required
                    looked for in $SHOP_DIR/a.txt
SHOP_FOLDER         secret, required
                    looked for in /etc/shop/folder
SHOP_STRICT         secret, required
SHOP_INI            secret, required
                    looked for in key ini of $SHOP_INI
"""


def test_the_text_has_every_variable_in_order() -> None:
    """Name, whether it is needed, what it means; for a secret where it is looked for."""
    assert describe.text(Shop) == TEXT


def test_the_table_is_markdown() -> None:
    """Bars in a cell are escaped, line breaks are gone."""
    lines = describe.markdown(Shop).splitlines()

    assert lines[2] == "| `SHOP_STAGE` | default 'dev' | prod or dev |"
    assert "| `SHOP_OTHER_Y` | required | why not \\| so |" in lines
    assert "| `SHOP_FOLDER` | secret, required | (looked for in /etc/shop/folder) |" in lines
    assert {line.replace("\\|", "").count("|") for line in lines} == {4}


def test_the_env_file_sets_nothing_until_somebody_does() -> None:
    """Every line is a comment; a default stands there as it could be written."""
    written = describe.env_file(Shop)

    assert all(line.startswith("#") for line in written.splitlines() if line)
    assert "# prod or dev\n# default 'dev'\n#SHOP_STAGE=dev\n" in written
    assert "#SHOP_MOTTO='it\\'s # so'\n" in written
    assert "#SHOP_DEBUG=\n" in written
    assert "#SHOP_LINES=\n" in written
    assert "#SHOP_DB=\n" in written


@pytest.mark.parametrize("value", ["dev", "", "it's # so", "a\\b\\", '"', "ü $X ${Y}", "=", "/a:b@c,d+e%f.g-h_i"])
def test_a_default_in_the_env_file_reads_as_itself(value: str) -> None:
    """Without its comment sign the line means what the code means."""
    cls = environ.config(type("C", (), {"it": environ.var(value, help="first\nsecond")}))

    lines = [line.removeprefix("#") for line in describe.env_file(cls).splitlines() if line.startswith("#APP_")]

    assert env_file.parse("\n".join(lines), "x.env") == ({"APP_IT": (value, 1)}, ())


@pytest.mark.parametrize("form", describe.FORMS)
def test_no_form_shows_a_secret_that_stands_in_the_code(form: str) -> None:
    """Its default is nobody's business."""
    assert leaks(describe.FORMS[form](Shop)) == set()


def test_the_names_are_those_that_are_read() -> None:
    """environ-config's own help says SHOP_GROUP_Y and SHOP_VAULT, which nobody reads."""
    variables = {"SHOP_OTHER_Y": "1", "LOCAL_VAULT": "2", "SHOP_MAIL_HOST": "3", "TOKEN": "4", "SHOP_DB": "a://5"}
    found = load(Shop, Surroundings(variables, {}, (), ""))

    assert [row.name for row in found.rows] == [variable.name for variable in describe.variables(Shop)]
    assert {row.name for row in found.rows if row.origin == "environment"} == set(variables)


def test_a_class_without_variables_is_described() -> None:
    """By nothing."""
    cls = environ.config(type("Empty", (), {}))

    assert (describe.text(cls), describe.env_file(cls)) == ("\n", "")
