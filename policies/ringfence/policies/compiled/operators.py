"""What each operator of Cedar does with values of any type: the meaning that the compiled code must keep.

The names are those of Cedar's typed syntax tree (`cedarpy.pst`). An operator that looks at entities takes the entity
store first. Each raises `EvaluationError` where Cedar does. Source: Cedar language guide, "Operators".
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, NoReturn, TypeVar

from ringfence.policies.compiled import extensions
from ringfence.policies.compiled.extensions import DAY_MS, Datetime, Decimal, Duration, Ip, within
from ringfence.policies.compiled.values import Entity, EvaluationError, RecordValue, SetValue, Uid, key
from ringfence.policies.compiled.wildcards import Pattern

Entities = Mapping[Uid, Entity]
Operator = Callable[..., object]
_T = TypeVar("_T")


def _expect(kind: type[_T], value: object) -> _T:
    if type(value) is not kind:
        raise EvaluationError(f"a value is no {kind.__name__}")
    return value


def members(value: object) -> SetValue:
    """A value that must be a set."""
    if isinstance(value, tuple):
        return SetValue.of(value)
    return _expect(SetValue, value)


def truth(value: object) -> bool:
    """A value that must be a Bool."""
    return _expect(bool, value)


def equal(left: object, right: object) -> bool:
    """Equality of any two values; those of different types differ."""
    return key(left) == key(right)


def differ(left: object, right: object) -> bool:
    """The contrary of `equal`."""
    return key(left) != key(right)


def _comparison(compare: Callable[[Any, Any], bool]) -> Operator:
    def operator(left: object, right: object) -> bool:
        kind = type(left)
        if kind is int:
            return compare(left, _expect(int, right))
        if isinstance(left, Datetime | Duration):
            return compare(left.value, _expect(type(left), right).value)
        raise EvaluationError("values of this type have no order")

    return operator


def _arithmetic(compute: Callable[[int, int], int]) -> Operator:
    return lambda left, right: within(compute(_expect(int, left), _expect(int, right)))


def negated(value: object) -> int:
    """Minus a Long."""
    return within(-_expect(int, value))


def inverted(value: object) -> bool:
    """Not a Bool."""
    return not truth(value)


def inside(entities: Entities, left: object, right: object) -> bool:
    """`in`: whether an entity is another, or one of a set of them, or below it in the hierarchy."""
    uid = _expect(Uid, left)
    if isinstance(right, Uid):
        return uid == right or (uid in entities and right in entities[uid].ancestors)
    targets = members(right).uids
    if targets is None:
        raise EvaluationError("a value is no entity")
    return uid in targets or (uid in entities and not targets.isdisjoint(entities[uid].ancestors))


def is_type(value: object, name: str) -> bool:
    """`is`: whether an entity has this type."""
    return _expect(Uid, value).type == name


def attribute(entities: Entities, base: object, name: str) -> object:
    """An attribute of a record or of an entity."""
    fields = _fields(entities, base)
    if fields is None or name not in fields:
        raise EvaluationError("an attribute or an entity is missing")
    return fields[name]


def has(entities: Entities, base: object, name: str) -> bool:
    """Whether a record or an entity has an attribute; an entity that is not there has none."""
    fields = _fields(entities, base)
    return fields is not None and name in fields


def _fields(entities: Entities, base: object) -> Mapping[str, object] | None:
    if isinstance(base, RecordValue):
        return base.fields
    uid = _expect(Uid, base)
    return entities[uid].attributes.fields if uid in entities else None


def tag(entities: Entities, base: object, name: object) -> object:
    """A tag of an entity."""
    uid, text = _expect(Uid, base), _expect(str, name)
    if uid not in entities or text not in entities[uid].tags:
        raise EvaluationError("a tag or an entity is missing")
    return entities[uid].tags[text]


def has_tag(entities: Entities, base: object, name: object) -> bool:
    """Whether an entity has a tag."""
    uid, text = _expect(Uid, base), _expect(str, name)
    return uid in entities and text in entities[uid].tags


def contains(left: object, right: object) -> bool:
    """Whether a set has a value."""
    return key(right) in members(left).keys


def contains_all(left: object, right: object) -> bool:
    """Whether a set has every member of another."""
    return members(left).keys >= members(right).keys


def contains_any(left: object, right: object) -> bool:
    """Whether two sets have a member in common."""
    held: frozenset[Hashable] = members(left).keys
    return not held.isdisjoint(members(right).keys)


def is_empty(value: object) -> bool:
    """Whether a set has no member."""
    return not members(value).keys


def like(value: object, pattern: Pattern) -> bool:
    """Whether a String matches a pattern."""
    return pattern.matches(_expect(str, value))


def make_set(*values: object) -> SetValue:
    """A set of these values."""
    return SetValue.of(values)


def make_record(names: tuple[str, ...], *values: object) -> RecordValue:
    """A record of these fields."""
    return RecordValue(dict(zip(names, values, strict=True)))


def fail(reason: str) -> NoReturn:
    """What is known to fail before it is asked."""
    raise EvaluationError(reason)


def in_range(left: object, right: object) -> bool:
    """Whether an IP range lies within another of the same version."""
    inner, outer = _expect(Ip, left), _expect(Ip, right)
    return inner.version == outer.version and inner.first >= outer.first and inner.last <= outer.last


def _loopback(value: object) -> bool:
    address = _expect(Ip, value)
    if address.version == 4:
        return address.address >> 24 == 127 and address.prefix >= 8
    return address.address == 1 and address.prefix == 128


def _multicast(value: object) -> bool:
    address = _expect(Ip, value)
    if address.version == 4:
        return address.address >> 28 == 0xE and address.prefix >= 4
    return address.address >> 120 == 0xFF and address.prefix >= 8


def _decimals(compare: Callable[[int, int], bool]) -> Operator:
    return lambda left, right: compare(_expect(Decimal, left).value, _expect(Decimal, right).value)


def _units(milliseconds: int) -> Operator:
    def operator(value: object) -> int:
        held = _expect(Duration, value).value
        # Cedar truncates towards zero, Python's // goes down.
        return held // milliseconds if held >= 0 else -(-held // milliseconds)

    return operator


def _to_date(value: object) -> Datetime:
    return Datetime(within(_expect(Datetime, value).value // DAY_MS * DAY_MS))


def _to_time(value: object) -> Duration:
    return Duration(_expect(Datetime, value).value % DAY_MS)


def _offset(moment: object, span: object) -> Datetime:
    return Datetime(within(_expect(Datetime, moment).value + _expect(Duration, span).value))


def _since(moment: object, other: object) -> Duration:
    return Duration(within(_expect(Datetime, moment).value - _expect(Datetime, other).value))


def _read(parse: Callable[[str], object]) -> Operator:
    return lambda text: parse(_expect(str, text))


OPERATORS: Final[Mapping[str, Operator]] = {
    "truth": truth,
    "eq": equal,
    "not_eq": differ,
    "less": _comparison(lambda left, right: left < right),
    "less_eq": _comparison(lambda left, right: left <= right),
    "greater": _comparison(lambda left, right: left > right),
    "greater_eq": _comparison(lambda left, right: left >= right),
    "add": _arithmetic(lambda left, right: left + right),
    "sub": _arithmetic(lambda left, right: left - right),
    "mul": _arithmetic(lambda left, right: left * right),
    "neg": negated,
    "not": inverted,
    "in": inside,
    "is": is_type,
    "attribute": attribute,
    "has": has,
    "get_tag": tag,
    "has_tag": has_tag,
    "contains": contains,
    "contains_all": contains_all,
    "contains_any": contains_any,
    "is_empty": is_empty,
    "like": like,
    "set": make_set,
    "record": make_record,
    "fail": fail,
    "ip": _read(extensions.ip),
    "decimal": _read(extensions.decimal),
    "datetime": _read(extensions.datetime),
    "duration": _read(extensions.duration),
    "is_ipv4": lambda value: _expect(Ip, value).version == 4,
    "is_ipv6": lambda value: _expect(Ip, value).version == 6,
    "is_loopback": _loopback,
    "is_multicast": _multicast,
    "is_in_range": in_range,
    "decimal_less_than": _decimals(lambda left, right: left < right),
    "decimal_less_eq": _decimals(lambda left, right: left <= right),
    "decimal_greater": _decimals(lambda left, right: left > right),
    "decimal_greater_eq": _decimals(lambda left, right: left >= right),
    "to_date": _to_date,
    "to_time": _to_time,
    "to_milliseconds": _units(1),
    "to_seconds": _units(1_000),
    "to_minutes": _units(60_000),
    "to_hours": _units(3_600_000),
    "to_days": _units(DAY_MS),
    "offset": _offset,
    "duration_since": _since,
}
"""Every operator by its name."""

ON_ENTITIES: Final = frozenset({"in", "attribute", "has", "get_tag", "has_tag"})
"""The operators whose first argument is the entity store."""
