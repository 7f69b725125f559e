"""Which class a target asks for, and what `launcher.config(Class)` returns."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from typing import Any

import environ
import pytest

from launcher.appconfig import current
from launcher.appconfig.annotations import find_class, find_parameter
from launcher.appconfig.declare import secret
from launcher.appconfig.sources import Surroundings
from launcher.errors import ConfigError
from tests.appconfig.canary import CANARY, leaks
from tests.appconfig.test_load import GOOD, Shop


@environ.config
class Config:
    """What the targets below ask for."""

    it = environ.var("default")
    token = secret(None)


class Worker:
    """Stands for launcher.Worker."""

    def __class_getitem__(cls, item: object) -> object:
        return list[item]  # type: ignore[valid-type]


def test_a_class_is_found_by_annotations() -> None:
    """Direct, in a generic, optional, of a method, as text, in a partial, of a class."""

    @environ.config
    class Local:
        it = environ.var()

    def direct(worker: object, config: Config) -> None: ...
    def local(config: Local) -> None:
        _ = Local  # what a function uses of its surroundings is known to it

    def wrapped(worker: Worker[Config]) -> None: ...
    def as_text(worker: Worker[Config] | None) -> None: ...
    def nothing(worker: object, x: int, y: str = "") -> None: ...
    def nonsense(config: "No.Such[Thing", worker: 1 / 0) -> None: ...  # noqa: F722

    class Called:
        def __call__(self, config: Config) -> None: ...

    class Made:
        def __init__(self, config: Config) -> None: ...

    found = {each: (find_class(each), find_parameter(each)) for each in (direct, wrapped, as_text, nothing, nonsense)}

    assert found == {
        direct: (Config, "config"),
        wrapped: (Config, ""),
        as_text: (Config, ""),
        nothing: (None, ""),
        nonsense: (None, ""),
    }
    assert find_class(local) is Local
    assert find_class(Called()) is find_class(Made) is find_class(functools.partial(direct, 1)) is Config
    assert find_class(Called().__call__) is Config
    assert find_class(len) is find_class(int) is None


def test_a_target_that_cannot_be_looked_at_asks_for_nothing() -> None:
    """A proxy outside of its request raises at the first look."""

    class Proxy:
        def __call__(self) -> None: ...

        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

    assert find_class(Proxy()) is None
    assert find_parameter(Proxy()) == ""


def test_a_worker_that_is_only_known_to_type_checkers_is_no_hindrance() -> None:
    """`if TYPE_CHECKING: from launcher import Worker` leaves the text."""
    names: dict[str, Any] = {"Config": Config}
    exec("def main(worker: 'Worker[Config]', other: 'Unknown[Config]'): ...", names)  # noqa: S102  a module of its own

    assert find_class(names["main"]) is Config


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let nothing be loaded yet."""
    for name in ("_instances", "_loads", "_places"):
        monkeypatch.setattr(current, name, type(getattr(current, name))())
    return monkeypatch


def test_an_app_that_runs_alone_loads_from_its_environment_once(clean: pytest.MonkeyPatch) -> None:
    """`launcher.config(Config)`, and then without the class."""
    clean.setenv("APP_IT", "of the environment")
    clean.setenv("APP_TOKEN", CANARY)

    config = current.config(Config)
    clean.setenv("APP_IT", "changed")

    assert config.it == "of the environment"
    assert current.config(Config) is current.config() is config
    assert [loaded.instance for loaded in current.loads()] == [config]
    assert os.environ["APP_TOKEN"] == CANARY


def test_under_prod_run_the_instance_of_the_generation_is_returned(clean: pytest.MonkeyPatch) -> None:
    """And what else the app asks for is loaded from the same surroundings."""
    clean.setenv("SHOP_STAGE", "dev")
    instance = Config("given", None)

    current.provide(Config, instance)
    current.surround(Surroundings(GOOD, {}, (), ""))

    assert current.config(Config) is instance
    assert current.config(Shop).stage == "prod"
    with pytest.raises(ConfigError, match="Config and Shop were loaded"):
        current.config()


def test_a_bad_configuration_raises_with_all_problems_and_no_secret(clean: pytest.MonkeyPatch) -> None:
    """Searched: the traceback with the variables of every frame of ours, and all that is chained to it."""
    clean.setenv("SHOP_DATABASE_URL", CANARY)
    clean.setenv("SHOP_DATABASE_TLS_KEY", CANARY)

    with pytest.raises(ConfigError) as caught:
        current.config(Shop)

    error = caught.value
    assert len(error.problems) == 4
    assert error.__context__ is error.__cause__ is None
    frames = traceback.TracebackException(type(error), error, error.__traceback__, capture_locals=True)
    assert "loaded = " in "".join(frames.format())
    assert leaks("".join(frames.format())) == set()
    assert current.loads() == ()


def test_without_a_class_there_is_a_sentence(clean: pytest.MonkeyPatch) -> None:
    """Nothing was loaded."""
    with pytest.raises(ConfigError, match="no configuration class was loaded"):
        current.config()


def test_no_class_is_looked_for_where_none_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that never imported environ-config does not pay for attrs."""
    monkeypatch.delitem(sys.modules, "environ")

    def main(config: Config) -> None: ...

    assert find_class(main) is None
