"""The app's own converters, validators and classes, when configuration is loaded."""

from __future__ import annotations

from typing import Any

import attrs
import environ
import pytest

from launcher.appconfig.declare import secret
from tests.appconfig.canary import CANARY
from tests.appconfig.test_load import above_zero, loaded, problems_of


def test_converters_run_once_when_all_is_well() -> None:
    """A converter that counts, or opens something, is not surprised."""
    calls: list[str] = []
    cls = environ.config(type("C", (), {"it": environ.var(converter=lambda text: calls.append(text) or text)}))

    assert loaded(cls, {"APP_IT": "x"}).instance.it == "x"
    assert calls == ["x"]


class _MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def _raiser(error: BaseException | type[BaseException]) -> Any:
    def convert(_text: str) -> str:
        raise error

    return convert


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("a\n  b"), "a b"),
        (ValueError, "ValueError"),
        (KeyError("x"), "KeyError: x"),
        (LookupError(1, 2), "LookupError: (1, 2)"),
        (AttributeError("x"), "AttributeError: x"),
        (SystemExit("x"), "SystemExit: x"),
        (_MuteError(), "_MuteError"),
        (ValueError("x" * 999), "x" * 300 + "…"),
        (ValueError("bad: http://u:pw@h"), "bad: http://u:***@h"),
    ],
)
def test_whatever_a_converter_raises_is_one_line(error: BaseException, reason: str) -> None:
    """Also what is no ValueError, and what cannot say what it is."""
    plain = environ.config(type("C", (), {"it": environ.var(converter=_raiser(error)), "b": environ.var()}))
    hidden = environ.config(type("C", (), {"it": secret(converter=_raiser(error))}))
    kind = error.__name__ if isinstance(error, type) else type(error).__name__

    assert problems_of(plain, {"APP_IT": "x"}) == {"APP_IT": f"{reason} (from environment)", "APP_B": "missing"}
    assert problems_of(hidden, {"APP_IT": "x"}) == {"APP_IT": f"{kind} from convert (from environment)"}


def test_a_cut_message_has_no_half_of_a_secret() -> None:
    """It is masked before blanks are taken out and it is cut."""
    value = f"two  blanks {CANARY}"

    def tell(instance: Any, _attribute: object, _value: str) -> None:
        raise ValueError("x" * 290 + instance.token + instance.token)

    cls = environ.config(type("C", (), {"token": secret(as_str=True), "it": environ.var(validator=tell)}))

    reason = problems_of(cls, {"APP_TOKEN": value, "APP_IT": "x"})["APP_IT"]

    assert reason == "x" * 290 + "<secret AP… (from environment)"


def test_defaults_are_converted_and_validated() -> None:
    """A bad default is a problem too, and says that it is one."""
    cls = environ.config(
        type("C", (), {"a": environ.var("x", converter=int), "b": environ.var(0, validator=above_zero)})
    )

    assert problems_of(cls, {}) == {
        "APP_A": "invalid literal for int() with base 10: 'x' (from the default)",
        "APP_B": "must be above zero, not 0 (from the default)",
    }


def test_validators_may_look_at_other_variables() -> None:
    """Where the other one has a problem, only that is reported."""

    def below_most(instance: Any, _attribute: object, value: int) -> None:
        if value > instance.most:
            message = f"{value} is above {instance.most}"
            raise ValueError(message)

    cls = environ.config(
        type("C", (), {"least": environ.var(converter=int, validator=below_most), "most": environ.var(converter=int)})
    )

    assert problems_of(cls, {"APP_LEAST": "3", "APP_MOST": "2"}) == {"APP_LEAST": "3 is above 2 (from environment)"}
    assert list(problems_of(cls, {"APP_LEAST": "3", "APP_MOST": "x"})) == ["APP_MOST"]
    assert loaded(cls, {"APP_LEAST": "1", "APP_MOST": "2"}).instance.least == 1


def test_a_class_that_refuses_as_a_whole_is_named() -> None:
    """The message is not shown, since it may hold any value; the line is."""

    @environ.config
    class Refusing:
        token = secret()

        def __attrs_post_init__(self) -> None:
            raise RuntimeError(self.token.reveal())

    ((name, reason),) = problems_of(Refusing, {"APP_TOKEN": CANARY}).items()

    assert name.endswith("Refusing")
    assert reason.startswith("RuntimeError from __attrs_post_init__ in test_filling.py, line ")


def test_converters_of_attrs_may_want_the_instance() -> None:
    """`attrs.Converter` with takes_self and takes_field, also where it fails."""

    def convert(value: str, instance: Any, field: Any) -> str:
        if value == "bad":
            raise ValueError(value)
        return f"{value} {field.name} {hasattr(instance, 'it')}"

    converter = attrs.Converter(convert, takes_self=True, takes_field=True)
    cls = environ.config(type("C", (), {"it": environ.var(converter=converter)}))

    assert loaded(cls, {"APP_IT": "x"}).instance.it == "x it False"
    assert problems_of(cls, {"APP_IT": "bad"}) == {"APP_IT": "bad (from environment)"}
