"""Cedar's values as the compiled code holds them, and the failure of an evaluation.

    Bool, Long, String    bool, int, str
    entity                `Uid`
    set                   `SetValue`; a tuple of str is a set of strings too, as a typed context holds it
    record                `RecordValue`
    extension types       the dataclasses of `ringfence.policies.compiled.extensions`

Two values are equal in Cedar's sense when their `key`s are: Python holds that True == 1, Cedar does not.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

LONG_MIN: Final = -(2**63)
LONG_MAX: Final = 2**63 - 1


class EvaluationError(Exception):
    """An evaluation error: the policy does not hold, and Ringfence denies. The message names no value."""


@dataclass(frozen=True, slots=True)
class Uid:
    """An entity's name: its type with namespaces, such as "Ringfence::Host", and its id."""

    type: str
    id: str


@dataclass(frozen=True, slots=True)
class SetValue:
    """A set, by the keys of its members. `uids` are its members when every one is an entity, else None."""

    keys: frozenset[Hashable]
    uids: frozenset[Uid] | None

    @classmethod
    def of(cls, members: Iterable[object]) -> SetValue:
        """The set of these values."""
        keys = frozenset(map(key, members))
        uids = frozenset(found for found in keys if isinstance(found, Uid))
        return cls(keys, uids if len(uids) == len(keys) else None)


@dataclass(frozen=True, slots=True)
class RecordValue:
    """A record; what it holds is not changed."""

    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Entity:
    """What the entity store knows of an entity. `ancestors` are all of them, not its parents alone."""

    attributes: RecordValue = field(default_factory=lambda: RecordValue({}))
    tags: Mapping[str, object] = field(default_factory=dict)
    ancestors: frozenset[Uid] = frozenset()


@dataclass(frozen=True, slots=True)
class Request:
    """Any Cedar request with the entities that it is asked about."""

    principal: Uid
    action: Uid
    resource: Uid
    context: RecordValue
    entities: Mapping[Uid, Entity]


class _Truth:
    """What stands for a Bool among keys."""


_TRUE: Final = _Truth()
_FALSE: Final = _Truth()


def key(value: object) -> Hashable:
    """What a value is compared and found by; two values have one key exactly when Cedar holds them equal."""
    kind = type(value)
    if kind is bool:
        return _TRUE if value else _FALSE
    if isinstance(value, tuple):
        return SetValue.of(value)
    if isinstance(value, RecordValue):
        return frozenset((name, key(held)) for name, held in value.fields.items())
    return value
