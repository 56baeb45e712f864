"""The two fronts of the compiler: any Cedar request, and Ringfence's typed query.

A front says how a request's variables are read. That of a query knows most of the answers before there is a query:
which attributes a context has and of which types, and that a principal is a client whose ancestors are its groups.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import msgspec

from ringfence.policies.compiled.operands import Kind, Names, Operand, call, compare, field, load
from ringfence.policies.compiled.operators import OPERATORS
from ringfence.policies.compiled.values import Entity, RecordValue, Uid
from ringfence.policies.decision import Action, DeviceStatus, Query
from ringfence.policies.engine import NAMESPACE

PARAMETER: Final = "q"
"""The generated functions' one parameter: the request or the query."""
CLIENT: Final = f"{NAMESPACE}::Client"
GROUP: Final = f"{NAMESPACE}::Group"


class RequestFront:
    """Reads a `Request`, of which nothing is known."""

    def __init__(self, names: Names) -> None:
        del names

    def variable(self, name: str) -> Operand:
        """The principal, action, resource or context."""
        return Operand(field(load(PARAMETER), name), Kind.VALUE if name == "context" else Kind.UID)

    def attribute(self, name: str) -> Operand | None:
        """Nothing is known of any attribute."""
        del name
        return None

    def has_attribute(self, name: str) -> bool | None:
        """Nothing is known of any attribute."""
        del name
        return None

    def test(self, op: str, variable: str, target: Uid | str) -> Operand | None:
        """Nothing is known of any variable."""
        del op, variable, target
        return None

    def entities(self) -> Operand:
        """The request's entity store."""
        return Operand(field(load(PARAMETER), "entities"), Kind.VALUE)


class QueryFront:
    """Reads a `Query` of one action. `actions` is the entity store of the schema's actions."""

    def __init__(self, names: Names, action: Action, actions: Mapping[Uid, Entity]) -> None:
        self._names, self._actions = names, actions
        self._action = Uid(f"{NAMESPACE}::Action", action.value)
        self._types = {"principal": CLIENT, "resource": f"{NAMESPACE}::{action.resource_type}"}
        self._kinds = kinds_of(action)

    def variable(self, name: str) -> Operand:
        """The principal, action, resource or context, as a value made from the query."""
        if name == "action":
            return self._names.constant(self._action)
        if name == "context":
            return Operand(call(self._names.bind(record_of), _read("context")), Kind.VALUE)
        uid = call(self._names.bind(Uid), self._names.bind(self._types[name]), _read(name))
        return Operand(uid, Kind.UID)

    def attribute(self, name: str) -> Operand | None:
        """An attribute of the context, as a local variable (`local`), or an operand that fails."""
        kind = self._kinds.get(name)
        if kind is None:
            reason = self._names.bind("an attribute or an entity is missing")
            return Operand(call(self._names.bind(OPERATORS["fail"]), reason), Kind.VALUE, fails=True)
        return Operand(load(local(name)), kind)

    def has_attribute(self, name: str) -> bool | None:
        """Whether the context has an attribute."""
        return name in self._kinds

    def test(self, op: str, variable: str, target: Uid | str) -> Operand | None:
        """`variable == uid`, `variable in uid` or `variable is type`, by the names alone."""
        if isinstance(target, str):
            expected = self._action.type if variable == "action" else self._types.get(variable)
            return None if expected is None else self._names.constant(expected == target)
        if variable == "action":
            above = self._actions[self._action].ancestors if self._action in self._actions else frozenset()
            return self._names.constant(target == self._action or (op == "in" and target in above))
        if variable not in self._types:
            return None
        if target.type == self._types[variable]:
            return Operand(compare(_read(variable), ast.Eq(), self._names.bind(target.id)), Kind.BOOL)
        if op == "in" and variable == "principal" and target.type == GROUP:
            return Operand(compare(self._names.bind(target.id), ast.In(), _read("groups")), Kind.BOOL)
        return self._names.constant(False)

    def entities(self) -> Operand:
        """The entity store of a query, made when it is asked for, which few policies do."""
        store = call(self._names.bind(entities_of), load(PARAMETER), self._names.bind(_Store(self._actions)))
        return Operand(store, Kind.VALUE)


class _Store:
    """The schema's actions as a constant of the generated code, by identity."""

    def __init__(self, actions: Mapping[Uid, Entity]) -> None:
        self.actions = actions


def kinds_of(action: Action) -> Mapping[str, Kind]:
    """The attributes of an action's context with their kinds."""
    return _KINDS[action]


def local(name: str) -> str:
    """The local variable that holds a context's attribute."""
    return f"c_{name}"


def locals_of(action: Action) -> dict[str, Callable[[], ast.expr]]:
    """What makes the values of the generated code's local variables, by their names; each may rest on those before it.

    An enumeration's member is read as its text, since operators ask for exactly a str.
    """
    parameters = ("principal", "groups", "resource", "context")
    found: dict[str, Callable[[], ast.expr]] = {
        f"v_{name}": partial(field, load(PARAMETER), name) for name in parameters
    }
    for name, kind in _TYPES[action].items():
        found[local(name)] = partial(_attribute, name, is_member=kind == DeviceStatus.__name__)
    return found


def _attribute(name: str, *, is_member: bool) -> ast.expr:
    node = field(_read("context"), name)
    return field(node, "_value_") if is_member else node


def text_operands(action: Action) -> tuple[Operand, ...]:
    """Every text of a query that a caller may have chosen, as local variables."""
    kinds = _TYPES[action]
    named = [Operand(_read("principal"), Kind.TEXT), Operand(_read("resource"), Kind.TEXT)]
    named += [
        Operand(load(local(name)), kind)
        for name, kind in kinds_of(action).items()
        if kind in (Kind.TEXT, Kind.TEXTS) and kinds[name] != DeviceStatus.__name__
    ]
    return (*named, Operand(_read("groups"), Kind.TEXTS))


def record_of(context: msgspec.Struct) -> RecordValue:
    """A typed context as a record."""
    values = {name: getattr(context, name) for name in context.__struct_fields__}
    return RecordValue({name: str(value) if isinstance(value, str) else value for name, value in values.items()})


def entities_of(query: Query, store: _Store) -> Mapping[Uid, Entity]:
    """The entities of a query: the schema's actions, and the principal below its groups."""
    groups = frozenset(Uid(GROUP, group) for group in query.groups)
    return {**store.actions, Uid(CLIENT, query.principal): Entity(ancestors=groups)}


def _read(name: str) -> ast.Name:
    return load(f"v_{name}")


def _field_types(action: Action) -> dict[str, str]:
    return {
        field.name: str(field.type) if isinstance(field.type, str) else field.type.__name__
        for field in msgspec.structs.fields(action.context_type)
    }


_TYPES: Final = {action: _field_types(action) for action in Action}
_KINDS: Final = {
    action: {
        name: {"int": Kind.LONG, "bool": Kind.BOOL, "str": Kind.TEXT, "DeviceStatus": Kind.TEXT}.get(kind, Kind.TEXTS)
        for name, kind in types.items()
    }
    for action, types in _TYPES.items()
}
