"""Compiles a bundle, in steps: Python code, one program an action, or the names of the policies that have none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import cedarpy
from msgspec import structs

from ringfence.policies.bundle import Bundle, Policy
from ringfence.policies.compiled.chunks import Fault, Frame, Hits, Target, enclose, generate
from ringfence.policies.compiled.conditions import Conditions, conditions_of
from ringfence.policies.compiled.fronts import QueryFront, kinds_of, locals_of, text_operands
from ringfence.policies.compiled.indexing import Entry, entry_of, index_of
from ringfence.policies.compiled.programs import Settled, decided, generate_index
from ringfence.policies.compiled.rules import Rules
from ringfence.policies.compiled.translation import NotCoveredError
from ringfence.policies.compiled.values import Entity, Uid
from ringfence.policies.decision import Action, CommonContext, Query, Verdict
from ringfence.policies.step_up import helping_factors

INDEX_FROM: Final = 33
"""From so many policies of an action on, looking a policy up costs less than evaluating it."""
STEP: Final = 8
"""Policies that one step reads or looks at; a policy takes about a tenth of a millisecond."""

Decide = Callable[[Query], Verdict]


@dataclass(frozen=True, slots=True)
class Uncovered:
    """A policy that the compiler leaves to cedarpy, and why."""

    policy: str
    reason: str


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled bundle: what decides, by the type of the query's context. Empty where a policy is not covered."""

    programs: Mapping[type[CommonContext], Decide]
    uncovered: tuple[Uncovered, ...]


class _Settling:
    """Makes verdicts of hits. Hits are the numbers of a bundle's policies that hold, and faults."""

    def __init__(self, bundle: Bundle, policies: list[Conditions]) -> None:
        self._policies = bundle.policies
        self._names = [policy.name for policy in policies]
        self._permits = [policy.effect == "permit" for policy in policies]
        self._factors = {policy.id: policy.step_up for policy in bundle.policies}

    def __call__(self, hits: Hits) -> Verdict:
        faults = {hit.number: hit.reason for hit in hits if isinstance(hit, Fault)}
        # A principal may name a group twice, and then a policy is found twice.
        holding = sorted({hit for hit in hits if not isinstance(hit, Fault)})
        allowed, deciding = decided(holding, self._permits)
        errors = [
            f"error while evaluating policy `{self._policies[number].id}`: {faults[number]}"
            for number in sorted(faults)
        ]
        names = [self._names[number] for number in deciding]
        errors += [
            f"the deciding policy policy{number} has no id"
            for number, name in zip(deciding, names, strict=True)
            if name is None
        ]
        if errors:
            return Verdict(False, (), tuple(errors))
        ids = tuple(sorted(name for name in names if name is not None))
        return Verdict(allowed, ids, (), () if allowed else helping_factors(ids, self._factors))


def compile_bundle(bundle: Bundle, rules: Rules) -> Iterator[Compiled | None]:
    """Compiles in steps of a few milliseconds, yielding None after each and at last what came of it."""
    uncovered: list[Uncovered] = []
    programs: dict[type[CommonContext], Decide] = {}
    yield from _compile(bundle, rules, programs, uncovered)
    yield Compiled({} if uncovered else programs, tuple(uncovered))


def _compile(
    bundle: Bundle, rules: Rules, programs: dict[type[CommonContext], Decide], uncovered: list[Uncovered]
) -> Iterator[None]:
    """Fills `programs`, and `uncovered` with what stands against that; then it goes no further."""
    policies: list[Conditions] = []
    for number, policy in enumerate(bundle.policies):
        try:
            policies.append(_read(policy))
        except NotCoveredError as reason:
            uncovered.append(Uncovered(policy.id, str(reason)))
        if number % STEP == 0:
            yield
    settling = _Settling(bundle, policies)
    actions = schema_actions(bundle.schema)
    for action in () if uncovered else Action:
        target = Target(partial(QueryFront, action=action, actions=actions), locals_of(action), rules)
        entries: list[Entry] = []
        for number, (policy, read) in enumerate(zip(bundle.policies, policies, strict=True)):
            try:
                entry = entry_of(number, read.conditions, target, kinds_of(action))
            except (NotCoveredError, RecursionError) as reason:
                uncovered.append(Uncovered(policy.id, str(reason)))
                continue
            entries += [] if entry is None else [entry]
            if number % STEP == 0:
                yield
        if uncovered:
            return
        frame = Frame(text_operands(action), misfit, Settled(settling))
        try:
            for decide in _program(entries, target, frame):
                if decide is not None:
                    programs[action.context_type] = decide
                yield
        except RecursionError:
            why = "it or another policy of its action nests too deeply for Python's compiler"
            uncovered += [Uncovered(bundle.policies[entry.number].id, why) for entry in entries]
            return


def _program(entries: list[Entry], target: Target, frame: Frame) -> Iterator[Decide | None]:
    """One action's program, at last."""
    if len(entries) < INDEX_FROM:
        yield generate([(entry.number, entry.conditions) for entry in entries], target, frame)
        return
    for hits in generate_index(index_of(entries), target):
        yield None if hits is None else enclose(hits, target, frame)


def _read(policy: Policy) -> Conditions:
    try:
        parsed = cedarpy.PolicySet.from_str(policy.text).to_pst()
    except ValueError as error:
        raise NotCoveredError(str(error)) from error
    if parsed.templates or len(parsed.static_policies) != 1:
        raise NotCoveredError("the text is not one policy")
    [found] = parsed.static_policies.values()
    return conditions_of(found, {})


def schema_actions(schema: str) -> Mapping[Uid, Entity]:
    """The actions that a schema declares, with all the groups of actions that each is in."""
    listed = json.loads(str(cedarpy.Entities.from_json_str("[]", schema, release_gil=True)))
    parents = {_uid(entity["uid"]): {_uid(parent) for parent in entity["parents"]} for entity in listed}

    def above(uid: Uid) -> frozenset[Uid]:
        # Cedar refuses a schema whose actions go round in a circle.
        return frozenset().union(parents.get(uid, ()), *(above(parent) for parent in parents.get(uid, ())))

    return {uid: Entity(ancestors=above(uid)) for uid in parents}


def _uid(name: Mapping[str, str]) -> Uid:
    return Uid(name["type"], name["id"])


def misfit(query: Query) -> Verdict | None:
    """The verdict on a query whose text is not Unicode (a lone surrogate): cedarpy can be asked no such thing."""
    texts = [query.principal, query.resource, *query.groups]
    for value in structs.astuple(query.context):
        texts += [value] if isinstance(value, str) else value if isinstance(value, tuple) else ()
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        return Verdict(False, (), (f"the query has no Cedar form ({type(error).__name__})",))
    return None
