"""
What an environ-config class declares, as a tree with the names that are really read.

Owns the walk over the classes and the names of variables and files (environ-config's own help computes
them wrongly).  Must never read a value.
tests/appconfig/test_environ_config_contract.py pins what is relied on here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs
import environ

from launcher.appconfig import lookup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KEY = "environ_config"
_DEFAULT_PREFIX = "APP"
# environ-config's mark for "no default" is private; a field made without one shows it.
_REQUIRED = environ.var().metadata[KEY].default


class Leaf(NamedTuple):
    """One variable."""

    attribute: attrs.Attribute[Any]
    prefixes: tuple[str, ...]
    variable: str  # what is set to give it a value; for a secret in a file, what it would be called
    is_secret: bool
    is_ours: bool  # declared with launcher.secret or launcher.url
    place: str  # where environ-config's own secrets look; empty: the variable
    only_if: str = ""  # "APP_MAIL_": the optional group that it is in
    file: str = ""  # that environ-config's own secrets read; empty: none, or nobody knows

    @property
    def entry(self) -> Any:
        """What environ-config knows about it."""
        return self.attribute.metadata[KEY]

    @property
    def is_required(self) -> bool:
        """Say whether it has no default."""
        return self.entry.default is _REQUIRED

    @property
    def help(self) -> str:
        """What its author says about it, in one line."""
        return " ".join((self.entry.help or "").split())

    @property
    def file_names(self) -> tuple[str, ...]:
        """The names of a file that may hold it."""
        return lookup.file_names(self.entry.name, self.prefixes, self.attribute.name)

    @property
    def ini(self) -> tuple[str, str]:
        """The section of an INI file that may hold it, and the variable that names the file."""
        return lookup.ini(self.prefixes)


class Group(NamedTuple):
    """One class, with what is in it."""

    cls: type
    attribute: attrs.Attribute[Any] | None  # None: the root
    prefixes: tuple[str, ...]
    is_optional: bool
    members: tuple[Leaf | Group, ...]

    def leaves(self) -> Iterator[Leaf]:
        """Yield every variable of the tree, in the order of declaration."""
        for member in self.members:
            if isinstance(member, Group):
                yield from member.leaves()
            else:
                yield member


def is_declaration(found: object) -> bool:
    """Say whether this is a class made by `environ.config`."""
    return isinstance(found, type) and attrs.has(found) and hasattr(found, "_prefix")


def tree(cls: type, variables: Mapping[str, str]) -> Group:
    """
    Walk a class and its groups.

    Args:
        cls: a class made by `environ.config`.
        variables: only VaultEnvSecrets can name its variables by what is in there.
    """
    return _group(cls, None, _root(cls), variables, "")


def prefix(cls: type) -> str:
    """Return what the names of an app's variables begin with; empty if it has no prefix."""
    return "".join(f"{part.upper()}_" for part in _root(cls))


def _root(cls: Any) -> tuple[str, ...]:
    # The mark for "not given" is private; it is no text.
    given = cls._prefix if isinstance(cls._prefix, str | None) else _DEFAULT_PREFIX
    return (given,) if given else ()


def _group(
    cls: type,
    attribute: attrs.Attribute[Any] | None,
    prefixes: tuple[str, ...],
    variables: Mapping[str, str],
    only_if: str,
) -> Group:
    is_optional = attribute is not None and attribute.metadata[KEY].default is None
    if is_optional:
        only_if = "_".join((*prefixes, "")).upper()
    members: list[Leaf | Group] = []
    for field in attrs.fields(cls):
        entry = field.metadata.get(KEY)
        if entry is None:
            continue
        if entry.sub_cls is not None:
            inner = (*prefixes, entry.sub_cls._prefix or field.name)
            members.append(_group(entry.sub_cls, field, inner, variables, only_if))
        else:
            members.append(_leaf(field, prefixes, variables, only_if))
    return Group(cls, attribute, prefixes, is_optional, tuple(members))


def _leaf(field: attrs.Attribute[Any], prefixes: tuple[str, ...], variables: Mapping[str, str], only_if: str) -> Leaf:
    entry = field.metadata[KEY]
    variable = lookup.variable(entry.name, prefixes, field.name)
    is_ours = entry.callback is lookup.look_up
    place = file = ""
    if entry.callback is not None and not is_ours:
        variable, place, file = _theirs(entry, variable, prefixes, field.name, variables)
    return Leaf(field, prefixes, variable, entry.callback is not None, is_ours, place, only_if, file)


def _theirs(
    entry: Any, variable: str, prefixes: tuple[str, ...], name: str, variables: Mapping[str, str]
) -> tuple[str, str, str]:
    """Say which variable or place environ-config's own secrets read, and the file if it is known."""
    source = getattr(entry.callback, "__self__", None)
    file_name = entry.name or "_".join((*prefixes[1:], name))
    if isinstance(source, environ.secrets.VaultEnvSecrets):
        vault = _vault_prefix(source.vault_prefix, variables)
        return entry.name or ("_".join((vault, *prefixes[1:], name)).upper() if vault else variable), "", ""
    named_in = getattr(source, "_env_name", None)
    if isinstance(source, environ.secrets.DirectorySecrets):
        folder = variables.get(named_in or "", source.secrets_dir)
        path = os.path.join(folder or f"${named_in}", file_name)
        return variable, path, path if folder else ""
    if isinstance(source, environ.secrets.INISecrets):
        path = variables.get(named_in or "") or (f"${named_in}" if named_in else "its INI file")
        return (
            variable,
            f"key {file_name} of {path}",
            variables.get(named_in, source._env_default or "") if named_in else "",
        )
    return variable, "", ""


def _vault_prefix(given: Any, variables: Mapping[str, str]) -> str:
    """Return the prefix of envconsul's names; empty if the app's own code cannot tell it from these variables."""
    if not callable(given):
        return str(given)
    try:
        return str(given(variables))
    except Exception:  # noqa: BLE001  measured: KeyError, where nothing is set; loading reports it
        return ""
