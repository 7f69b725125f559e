"""The choice of a server library, and what is said when there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from launcher.errors import LauncherError
from launcher.runtime import forkable, servers

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have these packages installed, and no others: `installed(gunicorn="27.0.1")`."""

    def have(**versions: str) -> None:
        monkeypatch.setattr(servers, "_installed", lambda name: versions.get(name, ""))

    return have


def app(environ: object, start_response: object) -> None:
    """Stand for an application."""


@pytest.mark.parametrize(
    ("interface", "texts", "sentence"),
    [
        ("asgi", (), r"no server for ASGI applications is installed. Run: pip install 'prod-run\[asgi\]'"),
        ("wsgi", (), r"no server for WSGI applications is installed. Run: pip install 'prod-run\[wsgi\]'"),
        ("wsgi", ("server=waitress",), "Run: pip install 'waitress'"),
    ],
)
def test_a_missing_server_is_a_sentence_that_says_what_to_install(
    interface: str, texts: tuple[str, ...], sentence: str, installed: Callable[..., None]
) -> None:
    """The extra of the interface, or the library that was asked for."""
    installed()
    with pytest.raises(LauncherError, match=sentence):
        servers.prepare(app, interface, texts)


@pytest.mark.parametrize(
    ("interface", "versions", "wanted"),
    [
        ("wsgi", {"gunicorn": "23.0.0"}, r"gunicorn 23.0.0 is installed, and prod-run drives gunicorn>=27.0.1,<28"),
        ("wsgi", {"gunicorn": "28.0.0"}, r"gunicorn 28.0.0 is installed"),
        ("asgi", {"uvicorn": "0.30.6"}, r"prod-run drives uvicorn>=0.51,<1. Run: pip install 'uvicorn>=0.51,<1'"),
    ],
)
def test_a_release_that_is_not_known_is_refused(
    interface: str, versions: dict[str, str], wanted: str, installed: Callable[..., None]
) -> None:
    """Another release may lose requests: what is driven is not public API."""
    installed(**versions)
    with pytest.raises(LauncherError, match=wanted):
        servers.prepare(app, interface, ())


def test_waitress_stands_in_for_gunicorn(installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the two is there serves, gunicorn first."""
    for versions, module in (
        ({"waitress": "3.0.2"}, "waitress"),
        ({"waitress": "3.0.2", "gunicorn": "27.0.1"}, "gthread"),
    ):
        installed(**versions)
        assert servers._choose("wsgi", []).module == module


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_preparing_leaves_the_process_forkable(interface: str) -> None:
    """The libraries are imported before the fork; no thread and no connection comes of it."""
    before = forkable.obstacles()
    for library in servers.LIBRARIES[interface]:
        servers.prepare(app, interface, (f"server={library.name}",))

    assert forkable.obstacles() == before


def test_the_pins_are_those_of_the_extras() -> None:
    """`pip install 'prod-run[wsgi]'` brings a release that is driven."""
    import tomllib
    from pathlib import Path

    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for interface, extra in (("asgi", "asgi"), ("wsgi", "wsgi")):
        library = servers.LIBRARIES[interface][0]
        pin = f"{library.name}>={servers._dotted(library.least)},<{servers._dotted(library.below)}"
        assert pin in extras["optional-dependencies"][extra]


def test_a_variable_that_the_library_does_not_take_is_told_from_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """FORWARDED_ALLOW_IPS is read when gunicorn is imported, though nothing follows from it here."""
    monkeypatch.setattr("gunicorn.config.ForwardedAllowIPS.default", "nginx")

    with pytest.raises(LauncherError, match="the environment of gunicorn: gunicorn does not take it: 'nginx'"):
        servers.prepare(app, "wsgi", ())
