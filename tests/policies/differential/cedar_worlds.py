"""Random worlds of any Cedar: entities, a policy set with templates, requests, and cedarpy's answers to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import cedarpy
from cedarpy import pst

from ringfence.policies.compiled import extensions
from ringfence.policies.compiled.programs import Outcome
from ringfence.policies.compiled.values import Entity, RecordValue, Request, SetValue, Uid
from tests.policies.differential.expressions import (
    DATETIMES,
    DECIMALS,
    DURATIONS,
    IPS,
    LONGS,
    TEXTS,
    Kind,
    Shape,
    Writer,
)

TYPES = ("User", "Team::Group", "Thing")
UIDS = tuple(Uid(kind, name) for kind in TYPES for name in ("a", "b", "c"))
ACTIONS = (Uid("Action", "read"), Uid("Action", "write"), Uid("Action", "any"))
READERS = {
    "ip": (extensions.ip, IPS),
    "decimal": (extensions.decimal, DECIMALS),
    "datetime": (extensions.datetime, DATETIMES),
    "duration": (extensions.duration, DURATIONS),
}


@dataclass(frozen=True, slots=True)
class World:
    """A policy set with requests and cedarpy's answer to each."""

    text: str
    policies: pst.PolicySet
    requests: tuple[Request, ...]
    expected: tuple[Outcome, ...]


def written(uid: Uid) -> str:
    """An entity as Cedar writes it."""
    return f'{uid.type}::"{uid.id}"'


def world(seed: int, requests: int = 12) -> World:
    """The world of a seed."""
    random = Random(seed)  # noqa: S311 - a test's data
    shape = _shape(random)
    document, entities = _entities(random, shape)
    text = "\n".join(_policy(random, shape) for _ in range(random.randrange(1, 8)))
    handle = cedarpy.PolicySet.from_str(text)
    for number, template in enumerate(handle.templates()):
        for link in range(random.randrange(3)):
            values = {slot: written(random.choice(UIDS)) for slot in template["slots"]}
            handle = handle.with_linked(template["id"], f"link{number}-{link}", values)
    asked = []
    made = []
    for _ in range(requests):
        context = {name: _value(random, kind) for name, kind in shape.context.items() if random.random() < 0.97}
        principal, action, resource = random.choice(UIDS), random.choice(ACTIONS[:2]), random.choice(UIDS)
        fields = RecordValue({name: value for name, (_, value) in context.items()})
        made.append(Request(principal, action, resource, fields, entities))
        asked.append(
            {
                "principal": written(principal),
                "action": written(action),
                "resource": written(resource),
                "context": {name: document for name, (document, _) in context.items()},
            }
        )
    answers = cedarpy.is_authorized_batch(asked, handle, cedarpy.Entities.from_json_str(json.dumps(document)))
    return World(text, handle.to_pst(), tuple(made), tuple(map(outcome, answers)))


def outcome(answer: cedarpy.AuthzResult) -> Outcome:
    """What cedarpy answered."""
    return Outcome(answer.allowed, frozenset(answer.diagnostics.reasons), _blamed(answer.diagnostics.errors))


def _blamed(errors: list[str]) -> frozenset[str]:
    names = [error.removeprefix("error while evaluating policy `").split("`")[0] for error in errors]
    assert all(names)
    assert len(set(names)) == len(names)
    return frozenset(names)


def _shape(random: Random) -> Shape:
    bare = Writer(random, Shape({}, {}, "text", ("principal",), TYPES))
    context = {f"c{number}": bare.kind(2) for number in range(random.randrange(2, 7))}
    entity = {f"e{number}": bare.kind(1) for number in range(random.randrange(1, 4))}
    return Shape(context, entity, bare.kind(0), tuple(map(written, (*UIDS, *ACTIONS))), (*TYPES, "Action"))


def _entities(random: Random, shape: Shape) -> tuple[list[dict[str, Any]], dict[Uid, Entity]]:
    """The entity store as Cedar's JSON and as ours; some entities are not in it."""
    parents: dict[Uid, list[Uid]] = {
        ACTIONS[0]: [ACTIONS[2]],
        ACTIONS[1]: random.sample(ACTIONS[2:], 1),
        ACTIONS[2]: [],
    }
    for place, uid in enumerate(UIDS):
        if random.random() < 0.8:
            parents[uid] = random.sample(UIDS[place + 1 :], min(len(UIDS) - place - 1, random.randrange(3)))
    document, entities = [], {}
    for uid, above in parents.items():
        plain = uid in ACTIONS
        held = {
            name: _value(random, kind) for name, kind in shape.entity.items() if not plain and random.random() < 0.9
        }
        tags = {name: _value(random, shape.tag) for name in ("t", "u") if not plain and random.random() < 0.6}
        document.append(
            {
                "uid": {"type": uid.type, "id": uid.id},
                "attrs": {name: document for name, (document, _) in held.items()},
                "parents": [{"type": parent.type, "id": parent.id} for parent in above],
                "tags": {name: document for name, (document, _) in tags.items()},
            }
        )
        entities[uid] = Entity(
            RecordValue({name: value for name, (_, value) in held.items()}),
            {name: value for name, (_, value) in tags.items()},
            frozenset(_above(uid, parents)),
        )
    return document, entities


def _above(uid: Uid, parents: Mapping[Uid, list[Uid]]) -> set[Uid]:
    found = set(parents.get(uid, ()))
    for parent in tuple(found):
        found |= _above(parent, parents)
    return found


def _value(random: Random, kind: Kind) -> tuple[Any, object]:
    """A value of a kind as Cedar's JSON and as ours."""
    match kind:
        case "bool":
            value = random.random() < 0.7
            return value, value
        case "long":
            number = random.choice(LONGS) if random.random() < 0.3 else random.randrange(100)
            return number, number
        case "text":
            text = random.choice(TEXTS)
            return text, text
        case "entity":
            uid = random.choice(UIDS)
            return {"__entity": {"type": uid.type, "id": uid.id}}, uid
        case ("set", inside):
            assert isinstance(inside, str | tuple)
            pairs = [_value(random, inside) for _ in range(random.randrange(4))]
            return [document for document, _ in pairs], SetValue.of(value for _, value in pairs)
        case ("record", fields):
            assert isinstance(fields, Mapping)
            held = {name: _value(random, inside) for name, inside in fields.items() if random.random() < 0.95}
            return (
                {name: document for name, (document, _) in held.items()},
                RecordValue({name: value for name, (_, value) in held.items()}),
            )
    assert isinstance(kind, str)
    read, texts = READERS[kind]
    text = random.choice(texts[:8] if kind in ("ip", "decimal", "duration") else ("2024-02-29", "1969-12-31T12:30:00Z"))
    return {"__extn": {"fn": kind, "arg": text}}, read(text)


def _policy(random: Random, shape: Shape) -> str:
    writer = Writer(random, shape)
    slots = random.random() < 0.15
    scope = ", ".join((_scope(random, "principal", slots), _action(random), _scope(random, "resource", slots)))
    broad = random.random() < 0.35
    effect = "permit" if broad or random.random() < 0.6 else "forbid"
    if broad:
        scope = "principal, action, resource"
    clauses = " ".join(
        f"{random.choice(('when', 'when', 'unless'))} {{ {writer.write('bool', random.randrange(1, 6))} }}"
        for _ in range(random.choice((0, 1, 1, 2)) if broad else random.choice((1, 1, 2)))
    )
    return f"{effect} ({scope}) {clauses};"


def _scope(random: Random, name: str, slots: bool) -> str:
    uid = f"?{name}" if slots else written(random.choice(UIDS))
    kind = random.choice(TYPES)
    return random.choice(
        (name, name, name, f"{name} == {uid}", f"{name} in {uid}", f"{name} is {kind}", f"{name} is {kind} in {uid}")
    )


def _action(random: Random) -> str:
    one, two = (written(random.choice(ACTIONS)) for _ in range(2))
    return random.choice(("action", "action", f"action == {one}", f"action in {one}", f"action in [{one}, {two}]"))
