"""
What is relied on of environ-config, beyond its documentation.

If one of these fails with a new release, `schema`, `declare` and `filling` need another look.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import attrs
import environ
import pytest
from environ.exceptions import ConfigError, MissingEnvValueError, MissingSecretError
from hypothesis import example, given, strategies

from launcher.appconfig import schema
from launcher.appconfig.load import load
from launcher.appconfig.sources import Surroundings


def test_an_entry_has_the_fields_that_are_read() -> None:
    """`metadata["environ_config"]` of a field, before and after its class is made."""
    field = environ.var("d", name="N", help="h")
    entry = field.metadata["environ_config"]

    assert (entry.name, entry.default, entry.sub_cls, entry.callback, entry.help) == ("N", "d", None, None, "h")
    made = attrs.fields(environ.config(type("C", (), {"it": field}))).it
    assert made.metadata["environ_config"] is entry


def test_no_default_is_one_object() -> None:
    """Everywhere the same mark stands for "no default"."""
    mark = environ.var().metadata["environ_config"].default
    sources = (
        environ.bool_var(),
        environ.secrets.DirectorySecrets("/x").secret(),
        environ.secrets.VaultEnvSecrets("X").secret(),
        environ.secrets.INISecrets("s").secret(),
        environ.group(int),
    )

    assert all(field.metadata["environ_config"].default is mark for field in sources)
    assert environ.group(int, optional=True).metadata["environ_config"].default is None


def test_a_getter_is_called_with_four_arguments() -> None:
    """The variables, the field's metadata, the prefixes as a tuple, and the attribute's name."""
    calls: list[tuple[Any, ...]] = []

    def getter(*args: Any) -> str:
        calls.append(args)
        return "value"

    field = environ.var()
    field.metadata["environ_config"].callback = getter
    field.repr = lambda _: "hidden"
    inner = environ.config(type("Inner", (), {"it": field}))
    cls = environ.config(type("Outer", (), {"sub": environ.group(inner)}))
    variables = {"A": "b"}

    config = environ.to_config(cls, variables)

    assert calls == [(variables, attrs.fields(inner).it.metadata, ("APP", "sub"), "it")]
    assert repr(config.sub) == "Inner(it=hidden)"


@pytest.mark.parametrize("error", [MissingSecretError, MissingEnvValueError])
def test_a_getter_may_say_that_there_is_none(error: type[Exception]) -> None:
    """Then the default is taken."""

    def getter(*_: Any) -> str:
        raise error(*("NAME",))

    field = environ.var("default")
    field.metadata["environ_config"].callback = getter

    assert environ.to_config(environ.config(type("C", (), {"it": field})), {}).it == "default"
    assert issubclass(error, ConfigError)


@pytest.mark.parametrize(("prefix", "expected"), [("X", "X_"), ("x", "X_"), ("", ""), (None, "")])
def test_a_prefix_is_kept_on_the_class(prefix: Any, expected: str) -> None:
    """`_prefix` is what was written; without one there is a mark, and `APP` is read."""
    assert environ.config(type("C", (), {}), prefix=prefix)._prefix == prefix if prefix else True
    assert schema.prefix(environ.config(prefix=prefix)(type("C", (), {}))) == expected
    assert schema.prefix(environ.config(type("C", (), {}))) == "APP_"


def test_the_sources_keep_their_public_names() -> None:
    """What the description of environ-config's own secrets reads."""
    getter = environ.secrets.VaultEnvSecrets("X").secret().metadata["environ_config"].callback

    assert inspect.ismethod(getter)
    assert getter.__self__.vault_prefix == "X"
    assert environ.secrets.DirectorySecrets.from_path("/x").secrets_dir == "/x"


# ── the same classes, filled by both ──


@environ.config(prefix="X")
class Sub:
    """Has its own prefix."""

    one = environ.var(converter=int)
    two = environ.var("2", converter=int, validator=attrs.validators.ge(0))


@environ.config(frozen=True)
class Inner:
    """All optional."""

    made = environ.var(attrs.Factory(list))
    flag = environ.bool_var(False)


@environ.config
class Config:
    """A bit of everything that environ-config fills correctly."""

    @environ.config
    class Maybe:
        """An optional group."""

        a = environ.var()
        b = environ.var("b")

    sub = environ.group(Sub)
    inner = environ.group(Inner)
    maybe = environ.group(Maybe, optional=True)
    verbatim = environ.var(name="lower_case")
    vault = environ.secrets.VaultEnvSecrets("V").secret(default=None)


NAMES = ["APP_X_ONE", "APP_X_TWO", "APP_MAYBE_A", "APP_MAYBE_B", "APP_INNER_MADE", "APP_INNER_FLAG", "lower_case"]
WORDS = strategies.sampled_from(["1", "0", "-1", "x", "", "yes"])
VARIABLES = strategies.dictionaries(strategies.sampled_from([*NAMES, "V_VAULT", "OTHER"]), WORDS)


@given(variables=VARIABLES, with_least=strategies.booleans())
@example(variables={}, with_least=True)
@example(variables={"APP_MAYBE_B": "b"}, with_least=True)
@example(variables={"APP_MAYBE_A": "a", "V_VAULT": "v", "APP_INNER_FLAG": "yes"}, with_least=True)
def test_both_agree_on_every_environment(variables: dict[str, str], *, with_least: bool) -> None:
    """What environ-config fills, `load` fills equally; what it refuses, `load` refuses."""
    if with_least:  # what is needed for a good end
        variables = {"APP_X_ONE": "1", "lower_case": "x", **variables}
    loaded = load(Config, Surroundings(variables, {}, (), ""))
    try:
        expected = environ.to_config(Config, variables)
    except (ConfigError, ValueError):
        assert loaded.problems
        return

    assert loaded.problems == ()
    assert loaded.instance == expected
    assert {row.name for row in loaded.rows} == {*NAMES, "V_VAULT"}


def test_their_optional_group_needs_flat_groups() -> None:
    """
    Known difference: with a group in it, an optional group that is not set at all fails there.

    Their documentation says "(including sub-groups)", and `load` does as it says.
    """
    needs = environ.config(type("Needs", (), {"it": environ.var(), "all_optional": environ.group(Inner)}))
    cls = environ.config(type("Outer", (), {"needs": environ.group(needs, optional=True)}))

    with pytest.raises(MissingEnvValueError):
        environ.to_config(cls, {})
    assert load(cls, Surroundings({}, {}, (), "")).instance.needs is None


def test_their_secrets_keep_working(tmp_path: Path) -> None:
    """Directory, INI and Vault, by path and by a variable that names the path."""
    (tmp_path / "token").write_text("of a file\n")
    (tmp_path / "s.ini").write_text("[secrets]\nkey = of an INI file\n")
    directory = environ.secrets.DirectorySecrets.from_path_in_env("APP_SECRETS_DIR", "/nowhere")
    ini = environ.secrets.INISecrets.from_path_in_env("APP_INI")

    @environ.config
    class Theirs:
        token = directory.secret()
        key = ini.secret()
        vault = environ.secrets.VaultEnvSecrets(lambda variables: variables["VAULT"]).secret()
        other = environ.secrets.DirectorySecrets(tmp_path).secret(name="token")
        none = environ.secrets.DirectorySecrets(tmp_path).secret(default="d")

    variables = {
        "APP_SECRETS_DIR": str(tmp_path),
        "APP_INI": str(tmp_path / "s.ini"),
        "VAULT": "SHOP",
        "SHOP_VAULT": "of vault",
    }
    loaded = load(Theirs, Surroundings(variables, {}, (), ""))

    assert loaded.problems == ()
    config = loaded.instance
    assert (config.token, config.key, config.vault) == ("of a file\n", "of an INI file", "of vault")
    assert (config.other, config.none) == ("of a file\n", "d")
    assert [row.origin for row in loaded.rows] == [
        f"{tmp_path}/token",
        f"key key of {tmp_path}/s.ini",
        "environment",
        f"{tmp_path}/token",
        "default",
    ]
    assert [warning.name for warning in loaded.warnings] == ["APP_NONE"]
    assert {name: value.reveal() for name, value in loaded.secrets.items()} == {
        "APP_TOKEN": "of a file",
        "APP_KEY": "of an INI file",
        "SHOP_VAULT": "of vault",
        "token": "of a file",
        "APP_NONE": "d",
    }
