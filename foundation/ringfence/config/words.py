"""Which words a configuration's key takes, read off the type of its value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import inspect


def known(kind: type, path: Iterable[str | int]) -> tuple[str, ...]:
    """The words that may stand at `path` of a file that is read as a `kind`; none where it takes more than words."""
    types: list[inspect.Type] = [inspect.type_info(kind)]
    for step in path:
        types = [inner for outer in types for inner in _inside(outer, step)]
    return tuple(word for one in types for word in _words(one))


def _inside(outer: inspect.Type, step: str | int) -> Iterator[inspect.Type]:
    """What may lie one step further in."""
    match outer:
        case inspect.UnionType(types):
            for one in types:
                yield from _inside(one, step)
        case inspect.StructType(fields=fields):
            yield from (field.type for field in fields if field.encode_name == step)
        case inspect.DictType(value_type=inner):
            yield inner
        case inspect.ListType(item_type=inner) | inspect.VarTupleType(item_type=inner):
            yield inner
        case _:
            pass


def _words(one: inspect.Type) -> Iterator[str]:
    match one:
        case inspect.UnionType(types):
            for inner in types:
                yield from _words(inner)
        case inspect.LiteralType(values):
            yield from map(str, values)
        case inspect.EnumType(cls):
            yield from (str(member.value) for member in cls)
        case _:
            pass
