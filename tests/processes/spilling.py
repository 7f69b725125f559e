"""
An app with twenty secrets, each given in another way, that spills them all wherever it is told to.

Each value begins with `canary` and ends with `tail` and a number, and what is between is hard on some encoding:
a value that got out whole, encoded, or cut at either end is found by `leaks`.
"""

from __future__ import annotations

import base64
import html
import inspect
import json
import re
from pathlib import Path
from urllib.parse import quote, quote_plus

HARD = (
    *("-correct-horse-", "/@ :?#[]", '"\'`"', "ü€😀ß", "%41%25%%", "\\n\\\\", "<b>&amp;</b>'\"", "a b+c d"),
    *("-line\n-----BEGIN KEY-----\nMIIEvQIBADAN\n", "\t\x1b[31m", "${HOME}$$(id)", '{"k": ["v"]}', ".*[a-z]+(x|y)^$"),
    *("?????>>>>>~~~~", "x" * 1500, "=;,&key=value", "--flag", " ' OR 1=1;--", "\u2028\xa0", "p@ss/word"),
)
VALUES = [f"canary{number:02}{middle}tail{number:02}" for number, middle in enumerate(HARD)]
URL = f"postgres://shop:{quote(VALUES[-1], safe='')}@db.internal/orders"
WAYS = ("environment", "env file", "file", "directory", "credential", "file reference", "cred reference", "ini", "code")
_INI = 15  # the first whose value an INI file can hold as it is: no line break, no blank at an end
_CODE = 16

# The starts of a value and of its base64, and the end of a value.
_LEAK = re.compile(r"canary|Y2FuYXJ5|tail\d\d")


def forms(value: str) -> list[str]:
    """Return what a value may look like."""
    data = value.encode()
    quoted = [json.dumps(value), json.dumps(value, ensure_ascii=False), repr(value), ascii(value), repr(data)[1:]]
    encoded = [base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()]
    return [value, quote(value), quote(value, safe=""), quote_plus(value), html.escape(value), *encoded, *quoted]


APP = f"""
import base64, html, json, logging, os, pprint
from urllib.parse import quote, quote_plus
import attrs, environ, launcher

{inspect.getsource(forms)}

with open("values.json") as file:
    values = json.load(file)
spilt = " ".join(form for value in values for form in forms(value))

def spill_at(place):
    if os.environ["SPILL_AT"] == place:
        raise ValueError(spilt)

def convert(value):
    spill_at("converter")
    return value

def convert_secret(value):
    spill_at("converter of a secret")
    return value

def validate(instance, attribute, value):
    spill_at("validator")

def validate_secret(instance, attribute, value):
    spill_at("validator of a secret")

@environ.config(prefix="SHOP")
class Config:
    s00 = launcher.secret(converter=convert_secret)
    s01 = launcher.secret(validator=validate_secret)
    {{fields}}
    s19 = launcher.url()
    plain = environ.var("plain", converter=convert, validator=validate)

spill_at("import")

def main(worker: launcher.Worker[Config]):
    config = worker.config
    assert config.s19.reveal() == values[-1]
    assert [getattr(config, f"s{{{{n:02}}}}").reveal() for n in range(18)] == values[:18]
    assert config.s18 == values[18]  # as_str: for drivers that insist
    shown = [config, str(config), "%r" % (config,), f"{{{{config!r}}}} {{{{config.s00}}}}", config.s19]
    shown.append(attrs.asdict(config, filter=lambda attribute, value: attribute.name != "s18"))
    shown.append(json.dumps(vars(config.s01) if hasattr(config.s01, "__dict__") else repr(config.s01)))
    pprint.pprint(shown)
    logging.error("%s %r", config, shown)
    spill_at("main")
    worker.ready()
    worker.stopping.wait()
    spill_at("stop")
"""


def leaks(text: str) -> list[str]:
    """Return where a secret stands in a text, with what is around it."""
    return [text[max(0, found.start() - 40) : found.end() + 40] for found in _LEAK.finditer(text)]


def way(number: int) -> str:
    """Say how a secret is given."""
    return {_INI: "ini", _CODE: "code"}.get(number, WAYS[number % 7])


def write(folder: Path, place: str) -> dict[str, str]:
    """Write the app and everything that it is given, to be spilt at a place; return the environment."""
    values = [*VALUES[:-1], URL]
    for name in ("secrets", "credentials"):
        (folder / name).mkdir(mode=0o700)
    fields = [f"    s{n:02} = launcher.secret({'VALUE' if way(n) == 'code' else ''})" for n in range(2, 18)]
    fields.append("    s18 = launcher.secret(as_str=True)")
    (folder / "defaults.py").write_text(f"VALUE = {values[_CODE]!r}\n")
    source = APP.format(fields="\n".join(fields).strip())
    (folder / "app.py").write_text(f"from defaults import VALUE\n{source}")
    (folder / "values.json").write_text(json.dumps([*VALUES[:-1], URL]))
    environ = {"CREDENTIALS_DIRECTORY": str(folder / "credentials"), "SHOP_SECRETS_INI": str(folder / "secrets.ini")}
    spill(folder, place)
    for number, value in enumerate(values):
        environ |= _give(folder, number, value)
    (folder / "leak.tmpl").write_text("".join(f"${{SHOP_S{number:02}}}\n" for number in range(20)))
    return environ


def _give(folder: Path, number: int, value: str) -> dict[str, str]:
    name = f"SHOP_S{number:02}"
    match way(number):
        case "environment":
            return {name: value}
        case "env file":
            with (folder / "secrets.env").open("a") as file:
                escaped = value.replace("\\", "\\\\").replace("'", "\\'")
                file.write(f"{name}='{escaped}'\n")
        case "ini":
            _write(folder / "secrets.ini", f"[secrets]\n{name.lower()} = {value}\n")
        case "directory":
            _write(folder / "secrets" / name.lower(), value)
        case "credential":
            _write(folder / "credentials" / name.lower(), value)
        case "file":
            return {f"{name}_FILE": _write(folder / f"{number}", value)}
        case "file reference":
            return {name: f"file:{_write(folder / f'{number}', value)}"}
        case "cred reference":
            _write(folder / "credentials" / f"{number}", value)
            return {name: f"cred:{number}"}
    return {}


def _write(path: Path, value: str) -> str:
    path.write_text(value, newline="")
    path.chmod(0o600)
    return str(path)


def spill(folder: Path, place: str) -> None:
    """Have the app spill there from its next import on."""
    (folder / "spill.env").write_text(f"SPILL_AT='{place}'\n")


WORDS = ("--env-file", "secrets.env", "--env-file", "spill.env", "--secrets-dir", "secrets")
