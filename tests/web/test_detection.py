"""What a target is, by its signature alone."""

from __future__ import annotations

import functools
import sys
import types
from typing import TYPE_CHECKING

import pytest

from launcher.errors import LauncherError
from launcher.runtime.load import load

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
import functools
from launcher import Worker

def wsgi(environ, start_response): ...
def wsgi_with_other_names(env, sr): ...
def wsgi_with_more(environ, start_response, cache=None): ...
class Wsgi:
    def __call__(self, environ, start_response): ...
class WsgiClass:
    def __init__(self, environ, start_response): ...
    def __iter__(self): ...
async def asgi(scope, receive, send): ...
async def asgi_with_other_names(s, r, w): ...
def asgi_not_async(scope, receive, send): ...
class Asgi2:
    def __init__(self, scope): ...
    async def __call__(self, receive, send): ...
class Asgi:
    async def __call__(self, scope, receive, send): ...
wsgi_instance, asgi_instance = Wsgi(), Asgi()
wsgi_partial = functools.partial(wsgi_with_more, cache={})
@functools.lru_cache
def wsgi_decorated(environ, start_response): ...

def main(): ...
def with_worker(worker: Worker, other=1): ...
def with_default(a=1, b=2): ...
def anything(*args, **kwargs): ...
async def amain(): ...

def one(x): ...
def three(x, y, z): ...
def by_name(*, environ, start_response): ...
async def two(a, b): ...
def worker_and_one(worker: Worker, other): ...

def make(): return wsgi_instance
def make_main(): return main
def make_nothing(): return None
def make_badly(): raise KeyError("DATABASE_URL")
def make_with(config): ...
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write the module and have it found."""
    (tmp_path / "web_targets.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "web_targets", raising=False)
    return "web_targets"


@pytest.mark.parametrize(
    ("interface", "names"),
    [
        ("wsgi", "wsgi wsgi_with_other_names wsgi_with_more wsgi_instance WsgiClass wsgi_partial wsgi_decorated"),
        ("asgi", "asgi asgi_with_other_names asgi_not_async asgi_instance"),
        ("callable", "main with_worker with_default anything amain"),
    ],
)
def test_the_signature_tells(module: str, interface: str, names: str) -> None:
    """PEP 3333 fixes the number of arguments, ASGI their names; what can be filled is a callable."""
    found = {name: load(f"{module}:{name}").interface for name in names.split()}

    assert set(found.values()) == {interface}, found


@pytest.mark.parametrize("name", ["one", "three", "by_name", "two", "worker_and_one"])
def test_what_cannot_be_filled_is_no_application_either(module: str, name: str) -> None:
    """A typo in a `main` is a sentence and no web server."""
    with pytest.raises(LauncherError, match="does not know what to pass for"):
        load(f"{module}:{name}")


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_what_is_said_is_not_looked_at(module: str, interface: str) -> None:
    """`--interface` stands above the signature, as for `def app(*args)`."""
    assert load(f"{module}:anything", interface).interface == interface


@pytest.mark.parametrize("interface", ["auto", "asgi"])
def test_an_application_of_asgi_2_is_told_so(module: str, interface: str) -> None:
    """With uvicorn it is wrapped; here it would have answered each request with 500."""
    with pytest.raises(LauncherError, match=r"of ASGI 2 .*guarantee_single_callable"):
        load(f"{module}:Asgi2", interface)


def test_callable_is_never_an_application(module: str) -> None:
    """`--interface callable` on a WSGI application is an error."""
    with pytest.raises(LauncherError, match="does not know what to pass for 'environ', 'start_response'"):
        load(f"{module}:wsgi", "callable")


def test_a_factory_is_called_once_and_its_result_looked_at(module: str) -> None:
    """With `--factory` the target is what is returned."""
    assert load(f"{module}:make", is_factory=True).interface == "wsgi"
    assert load(f"{module}:make_main", is_factory=True).interface == "callable"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("make_nothing", r"what make_nothing\(\) returned is a NoneType, which cannot be called"),
        ("make_badly", r"calling make_badly\(\) raised KeyError: 'DATABASE_URL'"),
        ("make_with", r"calling make_with\(\) raised TypeError: make_with\(\) missing 1 required"),
    ],
)
def test_a_factory_that_fails_is_explained(module: str, name: str, sentence: str) -> None:
    """The sentence names the factory and what it did."""
    with pytest.raises(LauncherError, match=sentence):
        load(f"{module}:{name}", is_factory=True)


def test_framework_instances_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flask, Starlette and FastAPI applications have the signatures of their interfaces."""
    from fastapi import FastAPI
    from flask import Flask
    from starlette.applications import Starlette

    found = {}
    holder = types.ModuleType("web_holder")
    monkeypatch.setitem(sys.modules, "web_holder", holder)
    for made in (Flask("x"), FastAPI(), Starlette(), functools.partial(FastAPI())):
        holder.app = made  # type: ignore[attr-defined]
        found[type(made).__name__] = load("web_holder:app").interface

    assert found == {"Flask": "wsgi", "FastAPI": "asgi", "Starlette": "asgi", "partial": "asgi"}
