"""Loading the app's configuration: every problem at once, every value with its origin, no secret anywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import environ
import pytest

from launcher.appconfig import convert
from launcher.appconfig.declare import secret, url
from launcher.appconfig.load import Loaded, Row, load
from launcher.appconfig.masked import MASK
from launcher.appconfig.sources import Surroundings
from launcher.errors import ConfigError, Problem
from tests.appconfig.canary import CANARY, leaks


def above_zero(_instance: object, _attribute: object, value: int) -> None:
    """Refuse zero."""
    if value <= 0:
        message = f"must be above zero, not {value}"
        raise ValueError(message)


@environ.config(prefix="SHOP")
class Shop:
    """A configuration with everything in it: three groups, nested, and three secrets."""

    @environ.config
    class Database:
        """A group with a group."""

        @environ.config
        class Tls:
            """The third level."""

            ca = environ.var(help="path of the CA's certificate")
            key = secret(converter=int)
            verify = environ.var(True, converter=convert.boolean)

        url = url(schemes=("postgres", "postgresql"), help="the shop's database")
        pool = environ.var(10, converter=int, validator=above_zero, help="connections kept open")
        tls = environ.group(Tls)

    @environ.config
    class Mail:
        """An optional group."""

        host = environ.var()
        port = environ.var("25", converter=int)
        password = secret()

    database = environ.group(Database)
    mail = environ.group(Mail, optional=True)
    timeout = environ.var("30s", converter=convert.duration)
    stage = environ.var(validator=attrs.validators.in_(["prod", "dev"]))


GOOD = {
    "SHOP_DATABASE_URL": "postgres://u:hunter2@db/shop",
    "SHOP_DATABASE_TLS_CA": "/etc/ca.pem",
    "SHOP_DATABASE_TLS_KEY": "424242",
    "SHOP_STAGE": "prod",
}


def loaded(cls: type, variables: dict[str, str], **places: Any) -> Loaded:
    """Load from these variables."""
    return load(cls, Surroundings(variables, places.pop("origins", {}), places.pop("secrets_dirs", ()), "", **places))


def problems_of(cls: type, variables: dict[str, str], **places: Any) -> dict[str, str]:
    """Load what is wrong; return the reasons by name."""
    found = loaded(cls, variables, **places)
    assert found.instance is None
    assert len({problem.name for problem in found.problems}) == len(found.problems)
    return {problem.name: problem.reason for problem in found.problems}


def test_every_problem_of_the_whole_tree_is_reported_at_once(tmp_path: Path) -> None:
    """Nine problems of six kinds in three nested groups, among them three secrets, in the order of declaration."""
    secrets_dir = tmp_path / "secrets"
    secrets_dir.mkdir()
    (secrets_dir / "shop_database_tls_key").write_text("hunter2 is no number")
    (secrets_dir / "shop_database_tls_key").chmod(0o600)
    variables = {
        "SHOP_DATABASE_URL": "postgres://u:hunter2@db/shop",
        "SHOP_DATABASE_URL_FILE": "/run/url",
        "SHOP_DATABASE_POOL": "0",
        "SHOP_DATABASE_TLS_VERIFY": "mabye",
        "SHOP_MAIL_PORT": "smtp",
        "SHOP_MAIL_PASSWORD_FILE": str(tmp_path / "none"),
        "SHOP_TIMEOUT": "30",
        "SHOP_STAGE": "prud",
        "SHOP_STAEG": "prod",
    }

    found = loaded(Shop, variables, origins={"SHOP_TIMEOUT": "prod.env:12"}, secrets_dirs=(str(secrets_dir),))

    key = secrets_dir / "shop_database_tls_key"
    assert found.instance is None
    assert [(problem.name, problem.reason) for problem in found.problems] == [
        (
            "SHOP_DATABASE_URL",
            "SHOP_DATABASE_URL (environment) and SHOP_DATABASE_URL_FILE (environment) are both set",
        ),
        ("SHOP_DATABASE_POOL", "must be above zero, not 0 (from environment)"),
        ("SHOP_DATABASE_TLS_CA", "missing"),
        ("SHOP_DATABASE_TLS_KEY", f"ValueError from int (from {key})"),
        ("SHOP_DATABASE_TLS_VERIFY", "'mabye' is neither true nor false (from environment)"),
        ("SHOP_MAIL_HOST", "missing, while another SHOP_MAIL_… is set"),
        ("SHOP_MAIL_PORT", "invalid literal for int() with base 10: 'smtp' (from environment)"),
        (
            "SHOP_MAIL_PASSWORD",
            f"{tmp_path}/none does not exist; SHOP_MAIL_PASSWORD_FILE (environment) names it",
        ),
        ("SHOP_TIMEOUT", "'30' has no unit (from prod.env:12)"),
        ("SHOP_STAGE", "'stage' must be in ['prod', 'dev'] (got 'prud') (from environment)"),
    ]
    remedies = {problem.name: problem.remedy for problem in found.problems}
    assert remedies["SHOP_DATABASE_POOL"] == "Correct it: connections kept open"
    assert remedies["SHOP_DATABASE_TLS_CA"] == "Set it: path of the CA's certificate"
    assert remedies["SHOP_TIMEOUT"].startswith("Write 30s")
    assert found.warnings == (
        Problem("SHOP_STAEG", "the app declares no such variable (from environment)", "Did you mean SHOP_STAGE?"),
    )
    assert "hunter2" not in repr(found) + str(ConfigError(*found.problems, *found.warnings))


def test_a_good_configuration_is_an_instance_with_origins() -> None:
    """Each variable has a row: its value, or the mask, and where it came from."""
    before = dict(os.environ)
    found = loaded(Shop, GOOD, origins={"SHOP_STAGE": "prod.env:3"})

    assert found.problems == ()
    assert found.instance.database.url.password == "hunter2"  # noqa: S105  a value under test
    assert found.instance.database.tls.key.reveal() == 424242
    assert (found.instance.mail, found.instance.timeout, found.instance.database.tls.verify) == (None, 30.0, True)
    rows = {row.name: row for row in found.rows}
    assert rows["SHOP_DATABASE_URL"] == Row("SHOP_DATABASE_URL", MASK, "environment", True, "the shop's database")
    assert rows["SHOP_STAGE"] == Row("SHOP_STAGE", "prod", "prod.env:3", False, "")
    assert rows["SHOP_TIMEOUT"] == Row("SHOP_TIMEOUT", "30s", "default", False, "")
    assert rows["SHOP_MAIL_PORT"] == Row("SHOP_MAIL_PORT", "", "not set", False, "")
    assert {name: value.reveal() for name, value in found.secrets.items()} == {
        "SHOP_DATABASE_URL": GOOD["SHOP_DATABASE_URL"],
        "SHOP_DATABASE_TLS_KEY": "424242",
    }
    assert [warning.name for warning in found.warnings] == ["SHOP_DATABASE_URL", "SHOP_DATABASE_TLS_KEY"]
    assert dict(os.environ) == before


def test_rows_say_what_is_missing_or_unreadable() -> None:
    """The origin of what has none."""
    found = loaded(Shop, {"SHOP_DATABASE_TLS_KEY_FILE": "/nowhere", "SHOP_MAIL_HOST": "h"})

    origins = {row.name: row.origin for row in found.rows}
    assert origins["SHOP_DATABASE_URL"] == origins["SHOP_MAIL_PASSWORD"] == "missing"
    assert origins["SHOP_DATABASE_TLS_KEY"] == "cannot be read"
    assert origins["SHOP_MAIL_HOST"] == "environment"


def test_an_optional_group_may_be_in_another() -> None:
    """Each is there as soon as something of it is set, and then lacks nothing."""
    inner = environ.config(type("Inner", (), {"x": environ.var(), "y": environ.var("y")}))
    outer = environ.config(type("Outer", (), {"a": environ.var("a"), "in_": environ.group(inner, optional=True)}))
    cls = environ.config(type("C", (), {"out": environ.group(outer, optional=True)}))

    assert loaded(cls, {}).instance.out == outer("a", None)
    assert loaded(cls, {"APP_OUT_IN__X": "x"}).instance.out == outer("a", inner("x", "y"))
    assert problems_of(cls, {"APP_OUT_IN__Y": "y"}) == {"APP_OUT_IN__X": "missing, while another APP_OUT_IN__… is set"}
    assert [row.origin for row in loaded(cls, {}).rows] == ["default", "not set", "not set"]


def test_a_missing_secret_says_where_it_may_be_put() -> None:
    """Every directory that is looked at, with the name."""
    found = loaded(Shop, {}, secrets_dirs=("/run/secrets", "/etc/shop"))

    assert found.problems[0] == Problem(
        "SHOP_DATABASE_URL",
        "missing",
        "Set SHOP_DATABASE_URL_FILE to the path of a file that holds it, or put it into "
        "/run/secrets/shop_database_url or /etc/shop/shop_database_url: the shop's database",
    )


# ── secrets ──


@pytest.mark.parametrize(
    "field",
    [
        lambda: secret(converter=int),
        lambda: secret(validator=above_zero),
        lambda: secret(as_str=True, validator=attrs.validators.in_(["a"])),
        url,
        lambda: environ.secrets.VaultEnvSecrets("APP").secret(converter=int),
    ],
)
def test_no_kind_of_refused_secret_is_shown(field: Any) -> None:
    """Neither in a problem, nor in the error made of it, nor chained to that, nor in any row."""
    cls = environ.config(type("C", (), {"it": field(), "other": environ.var()}))
    found = loaded(cls, {"APP_IT": CANARY, "APP_OTHER": f"with {CANARY} in it"})

    assert [problem.name for problem in found.problems] == ["APP_IT"]
    assert leaks(repr(found) + str(ConfigError(*found.problems))) == set()


def test_an_error_about_one_variable_does_not_show_another() -> None:
    """A validator that looks at a bare secret and tells."""

    def tell(instance: Any, _attribute: object, _value: str) -> None:
        raise ValueError(f"not with {instance.token}")  # noqa: EM102, TRY003  as apps do

    cls = environ.config(type("C", (), {"token": secret(as_str=True), "it": environ.var(validator=tell)}))

    reasons = problems_of(cls, {"APP_TOKEN": CANARY, "APP_IT": "x"})

    assert reasons == {"APP_IT": "not with <secret APP_TOKEN> (from environment)"}


def test_a_variable_read_twice_is_secret_if_one_says_so() -> None:
    """A second declaration does not undo the first."""
    cls = environ.config(type("C", (), {"a": secret(name="X"), "b": environ.var(name="X", converter=int)}))

    found = loaded(cls, {"X": "abc"})

    assert [row.value for row in found.rows] == [MASK, MASK]
    assert [problem.reason for problem in found.problems] == ["ValueError from int (from environment)"]


def test_a_secret_that_stands_in_the_code_is_warned_about() -> None:
    """Only where it is used, and never shown; None is no secret."""
    cls = environ.config(type("C", (), {"a": secret(CANARY), "b": secret(None), "c": url(None)}))

    found = loaded(cls, {})

    assert [(w.name, w.reason) for w in found.warnings] == [
        ("APP_A", "not given: the secret that stands in the code is used")
    ]
    assert leaks(repr(found)) == set()
    assert [warning.reason[:10] for warning in loaded(cls, {"APP_A": "x" * 9}).warnings] == ["taken from"]


def test_ini_files_hold_secrets_too(tmp_path: Path) -> None:
    """`PREFIX_SECRETS_INI` names one."""
    (tmp_path / "s.ini").write_text("[secrets]\napp_it = of the file\n")
    (tmp_path / "s.ini").chmod(0o600)
    cls = environ.config(type("C", (), {"it": secret()}))

    found = loaded(cls, {"APP_SECRETS_INI": str(tmp_path / "s.ini")})

    assert (found.instance.it.reveal(), found.warnings) == ("of the file", ())


# ── environ-config's own secrets ──


def test_an_unreadable_file_is_not_a_missing_one(tmp_path: Path) -> None:
    """environ-config takes both for absent, and the default with them."""
    (tmp_path / "it").write_text("x")
    (tmp_path / "it").chmod(0)
    if os.access(tmp_path / "it", os.R_OK):
        pytest.skip("root reads everything")
    cls = environ.config(type("C", (), {"it": environ.secrets.DirectorySecrets(tmp_path).secret(default="d")}))

    assert problems_of(cls, {}) == {"APP_IT": f"{tmp_path}/it cannot be read: Permission denied"}


def test_their_sources_that_fail_are_problems_with_a_name(tmp_path: Path) -> None:
    """A directory in the file's place, INI files that are not there, a getter that raises anything."""
    (tmp_path / "dir").mkdir()
    directory = environ.secrets.DirectorySecrets(tmp_path)
    cls = environ.config(
        type(
            "C",
            (),
            {
                "dir": directory.secret(default="d"),
                "none": directory.secret(help="the token"),
                "ini": environ.secrets.INISecrets.from_path_in_env("APP_INI").secret(),
                "no_file": environ.secrets.INISecrets.from_path_in_env("X", "/nowhere.ini").secret(),
                "vault": environ.secrets.VaultEnvSecrets("V").secret(),
            },
        )
    )

    found = loaded(cls, {})

    assert [tuple(problem) for problem in found.problems] == [
        ("APP_DIR", f"{tmp_path}/dir cannot be read: Is a directory", "Let prod-run's user read it"),
        ("APP_NONE", "missing", f"Put it into {tmp_path}/none: the token"),
        ("APP_INI", "cannot be read: TypeError from INISecrets", "It asked for APP_INI"),
        ("APP_NO_FILE", "cannot be read: No such file or directory: /nowhere.ini", "It asked for X"),
        ("V_VAULT", "missing", "Set it"),
    ]


# ── misspelt variables ──


def test_variables_of_nobody_are_warned_about() -> None:
    """Not those that a declaration asks for, Kubernetes' service links, or prod-run's own."""
    directory = environ.secrets.DirectorySecrets.from_path_in_env("APP_DIR", "/nowhere")

    cls = environ.config(
        type("C", (), {"host": environ.var("h"), "it": secret(None), "dir": directory.secret(default=None)})
    )
    fine = {"APP_HOST": "h", "APP_DIR": "/x", "APP_DB_PORT": "tcp://1.2.3.4:5", "APP_DB_SERVICE_HOST": "1", "HOTS": "h"}

    found = loaded(cls, {**fine, "APP_HOTS": CANARY, "APP_ZZZ": "x"}, origins={"APP_ZZZ": "prod.env:4"})

    assert found.warnings == (
        Problem("APP_HOTS", "the app declares no such variable (from environment)", "Did you mean APP_HOST?"),
        Problem(
            "APP_ZZZ",
            "the app declares no such variable (from prod.env:4)",
            "Unset it, or see `prod-run --help-config`",
        ),
    )


def test_without_a_prefix_nobody_knows_what_is_misspelt() -> None:
    """Every variable of the machine would be."""
    cls = environ.config(type("C", (), {"host": environ.var("h")}), prefix="")

    assert loaded(cls, {"HOTS": "x"}).warnings == ()
