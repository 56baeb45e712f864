"""Finds the policies that can hold for a request without evaluating the others.

A policy is kept under one condition that holds for few requests and is cheap to look up: its principal, a group of it,
its resource, or a text in the context. That is sound only where everything evaluated before that condition cannot fail:
else leaving the policy out would lose an error, and errors deny.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cedarpy import pst

from ringfence.policies.compiled.chunks import Target, operand_of
from ringfence.policies.compiled.conditions import Condition
from ringfence.policies.compiled.fronts import CLIENT, GROUP
from ringfence.policies.compiled.operands import Kind, Names, Operand


class Dimension(NamedTuple):
    """Where a look-up takes its key: an attribute of the query, or of its context; each member of it where `each`."""

    attribute: str
    of_context: bool
    each: bool


PRINCIPAL = Dimension("principal", of_context=False, each=False)
RESOURCE = Dimension("resource", of_context=False, each=False)
GROUPS = Dimension("groups", of_context=False, each=True)


@dataclass(frozen=True, slots=True)
class Key:
    """A condition that holds exactly for these values of the dimension; `position` is its place among the others."""

    dimension: Dimension
    values: tuple[str, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A policy that may hold for some request: its number, its conditions, and the keys that it may be kept under."""

    number: int
    conditions: tuple[Condition, ...]
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """`always` are evaluated for each request, `tables` the others by dimension and key."""

    always: tuple[tuple[int, Sequence[Condition]], ...]
    tables: Mapping[Dimension, Mapping[str, Sequence[tuple[int, Sequence[Condition]]]]]


def entry_of(number: int, conditions: tuple[Condition, ...], target: Target, kinds: Mapping[str, Kind]) -> Entry | None:
    """The policy, or None where it can neither hold nor fail. Raises `NotCoveredError`."""
    translator = target.translator(Names())
    operands: list[Operand] = []
    for condition in conditions:
        operands.append(operand_of(translator, condition))
        if operands[-1].constant is False and not any(operand.fails for operand in operands):
            return None
    return Entry(number, conditions, tuple(_keys(conditions, operands, kinds)))


def index_of(entries: Sequence[Entry]) -> Index:
    """Keeps each policy under its rarest key."""
    frequency = Counter((key.dimension, value) for entry in entries for key in entry.keys for value in key.values)
    always: list[tuple[int, Sequence[Condition]]] = []
    tables: dict[Dimension, dict[str, list[tuple[int, Sequence[Condition]]]]] = {}
    for entry in entries:
        if not entry.keys:
            always.append((entry.number, entry.conditions))
            continue
        best = min(entry.keys, key=lambda key: max(frequency[key.dimension, value] for value in key.values))
        rest = entry.conditions[: best.position] + entry.conditions[best.position + 1 :]
        for value in best.values:
            tables.setdefault(best.dimension, {}).setdefault(value, []).append((entry.number, rest))
    return Index(tuple(always), tables)


def _keys(conditions: Sequence[Condition], operands: Sequence[Operand], kinds: Mapping[str, Kind]) -> Iterator[Key]:
    for position, (condition, operand) in enumerate(zip(conditions, operands, strict=True)):
        if operand.fails:
            return
        found = _lookup(condition, kinds) if not operand.known else None
        if found is not None:
            yield Key(*found, position)


def _lookup(condition: Condition, kinds: Mapping[str, Kind]) -> tuple[Dimension, tuple[str, ...]] | None:
    match condition:
        case pst.BinaryOp(op="eq" | "in", left=pst.Var(name="principal"), right=pst.EntityLit(value=uid)) if (
            str(uid.type) == CLIENT
        ):
            return PRINCIPAL, (uid.id,)
        case pst.BinaryOp(op="in", left=pst.Var(name="principal"), right=pst.EntityLit(value=uid)) if (
            str(uid.type) == GROUP
        ):
            return GROUPS, (uid.id,)
        case pst.BinaryOp(op="eq" | "in", left=pst.Var(name="resource"), right=pst.EntityLit(value=uid)):
            return RESOURCE, (uid.id,)
        case pst.BinaryOp(
            op="eq", left=pst.GetAttr(base=pst.Var(name="context"), attr=name), right=pst.StringLit(value=text)
        ) if kinds.get(name) is Kind.TEXT:
            return Dimension(name, of_context=True, each=False), (text,)
        case pst.BinaryOp(
            op="contains", left=pst.GetAttr(base=pst.Var(name="context"), attr=name), right=pst.StringLit(value=text)
        ) if kinds.get(name) is Kind.TEXTS:
            return Dimension(name, of_context=True, each=True), (text,)
        case pst.BinaryOp(
            op="contains",
            left=pst.Set(elements=elements),
            right=pst.GetAttr(base=pst.Var(name="context"), attr=name),
        ) if kinds.get(name) is Kind.TEXT:
            texts = [element.value for element in elements if isinstance(element, pst.StringLit)]
            if texts and len(texts) == len(elements):
                return Dimension(name, of_context=True, each=False), tuple(sorted(set(texts)))
    return None
