"""
Whether a Jinja template uses a secret of `cfg`, whatever it makes of it: a filter leaves nothing to search for.

Owns the two ways to know: a `Secret` that was revealed while the template ran, and the attributes of `cfg` that it
names, where a class hands out secrets as bare values (`as_str=True`, environ-config's own).
Must never look at a value, but for whether it hides itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from jinja2 import nodes

from launcher.appconfig.masked import Secret
from launcher.appconfig.schema import KEY

if TYPE_CHECKING:
    from collections.abc import Iterator


def names_bare_secret(tree: nodes.Template, config: object) -> bool:
    """Say whether a template names a secret that is a bare value, or anything of `cfg` that may give one."""
    return _holds_bare(config) and any(_may_give(config, path) for path in _paths(tree))


def _holds_bare(instance: Any) -> bool:
    if not attrs.has(type(instance)):
        return False  # None, an optional group that is absent; or there is no configuration
    for field in attrs.fields(type(instance)):
        value = getattr(instance, field.name)
        if _is_secret(field) and _is_bare(value):
            return True
        if _is_group(field) and _holds_bare(value):
            return True
    return False


def _may_give(instance: Any, path: tuple[str, ...]) -> bool:
    for name in path:
        if not attrs.has(type(instance)):
            return False  # what is asked of an absent group, or of another class, is no secret
        field = next((field for field in attrs.fields(type(instance)) if field.name == name), None)
        if field is None:
            return True  # a property or a method can take what it likes
        value = getattr(instance, name)
        if not _is_group(field):
            return _is_secret(field) and _is_bare(value)
        instance = value
    return _holds_bare(instance)  # a group as a whole: it may be kept, printed, or looked through


def _is_secret(field: attrs.Attribute[Any]) -> bool:
    return KEY in field.metadata and field.metadata[KEY].callback is not None


def _is_group(field: attrs.Attribute[Any]) -> bool:
    return KEY in field.metadata and field.metadata[KEY].sub_cls is not None


def _is_bare(value: object) -> bool:
    return value is not None and not isinstance(value, Secret)


def _paths(tree: nodes.Template) -> Iterator[tuple[str, ...]]:
    """Yield what stands behind each `cfg`: ("db", "host") for `cfg.db.host`, as far as it is written out."""
    steps: list[nodes.Getattr | nodes.Getitem] = [*tree.find_all(nodes.Getattr), *tree.find_all(nodes.Getitem)]
    inner = {id(node.node) for node in steps}
    for node in (*steps, *tree.find_all(nodes.Name)):
        if id(node) not in inner and (path := _path(node)) is not None:
            yield path


def _path(node: nodes.Node) -> tuple[str, ...] | None:
    if isinstance(node, nodes.Name):
        return () if node.name == "cfg" and node.ctx == "load" else None
    if not isinstance(node, nodes.Getattr | nodes.Getitem) or (path := _path(node.node)) is None:
        return None
    if isinstance(node, nodes.Getattr):
        return (*path, node.attr)
    return (*path, str(node.arg.value) if isinstance(node.arg, nodes.Const) else "")  # computed: no field is called ""
