"""
NamedTuple without `typing`, and Enum without `enum`.

Owns two classes: the bases of every value and of every state inside the supervisor.
Must never import anything: `typing` alone costs the supervisor 0.6 MB and 8 ms of its start, `enum` 0.9 MB,
and `collections.namedtuple` compiles source text for every class.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from enum import Enum as Enum  # noqa: PLC0414  the way to say "exported" to type checkers
    from typing import NamedTuple as NamedTuple  # noqa: PLC0414
else:
    from _operator import itemgetter

    class _NamedTupleType(type):
        """Turn annotated names into fields of a tuple, in their order."""

        def __new__(mcs, name: str, bases: tuple, body: dict) -> type:
            fields = tuple(body.get("__annotations__", ()) if bases else ())
            if bases and not fields:
                # Python 3.14 keeps annotations behind a function (PEP 649) until somebody asks.
                fields = tuple(_annotations(type.__new__(mcs, name, (), dict(body))))
            defaults = {field: body.pop(field) for field in fields if field in body}
            body.update(
                {field: property(itemgetter(index)) for index, field in enumerate(fields)},
                __slots__=(),
                __match_args__=fields,
                _fields=fields,
                _field_defaults=defaults,
            )
            return type.__new__(mcs, name, bases or (tuple,), body)

    def _annotations(cls: type) -> dict:
        return getattr(cls, "__annotations__", {})

    class NamedTuple(metaclass=_NamedTupleType):
        """A tuple whose items have names; the part of typing.NamedTuple that prod-run uses."""

        def __new__(cls, *args: object, **named: object) -> NamedTuple:  # noqa: PYI034  typing is what is spared
            """Take the fields in their order or by name."""
            fields = cls._fields
            if named or len(args) != len(fields):
                values = {**cls._field_defaults, **dict(zip(fields, args, strict=False)), **named}
                if len(args) > len(fields) or values.keys() != set(fields):
                    message = f"{cls.__name__} takes {', '.join(fields) or 'nothing'}"
                    raise TypeError(message)
                args = tuple(values[field] for field in fields)
            return tuple.__new__(cls, args)

        def __repr__(self) -> str:
            inner = ", ".join(f"{f}={v!r}" for f, v in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({inner})"

        def __eq__(self, other: object) -> bool:
            # Two empty events of different types must differ, which plain tuples would not.
            return type(self) is type(other) and tuple.__eq__(self, other)

        def __ne__(self, other: object) -> bool:
            return not self == other

        def __hash__(self) -> int:
            return tuple.__hash__(self)

        def _replace(self, **named: object) -> NamedTuple:
            return type(self)(**{**dict(zip(self._fields, self, strict=True)), **named})

        def _asdict(self) -> dict:
            return dict(zip(self._fields, self, strict=True))

    class _EnumType(type):
        """Turn each public name of the body into the one instance of that name."""

        def __new__(mcs, name: str, bases: tuple, body: dict) -> type:
            values = {key: body.pop(key) for key in list(body) if bases and not key.startswith("_")}
            cls = type.__new__(mcs, name, bases, {**body, "__slots__": () if bases else ("name", "value")})
            for key, value in values.items():
                member = object.__new__(cls)
                member.name, member.value = key, value
                type.__setattr__(cls, key, member)
            cls._members = tuple(getattr(cls, key) for key in values)
            return cls

        def __iter__(cls) -> object:
            return iter(cls._members)

    class Enum(metaclass=_EnumType):
        """Names that are only equal to themselves; the part of enum.Enum that prod-run uses."""

        def __repr__(self) -> str:
            return f"{type(self).__name__}.{self.name}"

        def __reduce__(self) -> tuple:
            # A copy is the member itself.
            return getattr, (type(self), self.name)
