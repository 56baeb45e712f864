"""Random bundles of Ringfence and queries to them: what the typed front, the shortcuts and the index do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from msgspec import structs

from ringfence.policies.bundle import Bundle, Policy
from ringfence.policies.cases import BASES
from ringfence.policies.compiled.fronts import kinds_of
from ringfence.policies.compiled.operands import Kind as Known
from ringfence.policies.decision import Action, Context, DeviceStatus, Query, Verdict
from ringfence.policies.engine import CedarDecider
from tests.policies.differential.expressions import LONGS, TEXTS, Kind, Shape, Writer

GROUPS = ("clients", "job-submitters", "quantum-users", "none")
NAMES = ("alice", "bob", "gpu-1")
ATTRIBUTES = ("tenant=a", "a", "abc", "signature", "session-mac")
KINDS: Mapping[Known, Kind] = {
    Known.BOOL: "bool",
    Known.LONG: "long",
    Known.TEXT: "text",
    Known.TEXTS: ("set", "text"),
}


@dataclass(frozen=True, slots=True)
class QueryWorld:
    """A bundle, queries and cedarpy's verdicts."""

    bundle: Bundle
    queries: tuple[Query, ...]
    expected: tuple[Verdict, ...]


def query_world(seed: int, default: Bundle, requests: int = 12) -> QueryWorld:
    """The world of a seed; every fourth has so many policies that they are indexed."""
    random = Random(seed)  # noqa: S311 - a test's data
    action = random.choice(list(Action))
    shape = _shape(action)
    many = seed % 4 == 0
    count = random.randrange(70, 100) if many else random.randrange(1, 10)
    policies = tuple(_policy(number, random, shape, action, narrow=many) for number in range(count))
    schema = default.schema.replace("action OpenSession", 'action Any;\n  action OpenSession in ["Any"]')
    bundle = Bundle("d", 1, "d", f"{seed:064x}", schema, policies, ())
    oracle = CedarDecider(bundle)
    queries = tuple(_query(random, action) for _ in range(requests))
    return QueryWorld(bundle, queries, tuple(oracle.decide(query) for query in queries))


def same(ours: Verdict, theirs: Verdict) -> bool:
    """Whether two verdicts agree, errors by the policies that they blame."""
    return (ours.allowed, ours.policies, ours.step_up, blamed(ours)) == (
        theirs.allowed,
        theirs.policies,
        theirs.step_up,
        blamed(theirs),
    )


def blamed(verdict: Verdict) -> list[str]:
    """The policies whose evaluation failed."""
    return sorted(error.split("`")[1] if "`" in error else error for error in verdict.errors)


def _shape(action: Action) -> Shape:
    uids = (
        *(f'Ringfence::Group::"{name}"' for name in GROUPS),
        *(f'Ringfence::Client::"{name}"' for name in NAMES),
        *('Ringfence::Host::"gpu-1"', 'Ringfence::Upstream::"gpu-1"', 'Ringfence::Action::"Any"'),
        f'Ringfence::Action::"{action.value}"',
    )
    context = {name: KINDS[kind] for name, kind in kinds_of(action).items()}
    return Shape(
        context, {"e": "long"}, "long", uids, ("Ringfence::Client", "Ringfence::Group", "Ringfence::Host", "Other")
    )


def _policy(number: int, random: Random, shape: Shape, action: Action, *, narrow: bool) -> Policy:
    writer = Writer(random, shape, noise=0.0 if narrow else 0.02)
    effect = "permit" if random.random() < (0.9 if narrow else 0.7) else "forbid"
    name = f"p{number}"
    step_up = random.choice(("", "webauthn", "svid")) if effect == "forbid" else ""
    scopes = [
        random.choice(("principal", *(f'principal in Ringfence::Group::"{group}"' for group in GROUPS)))
        if random.random() < 0.7
        else random.choice(
            (
                'principal == Ringfence::Client::"alice"',
                'principal is Ringfence::Client in Ringfence::Group::"clients"',
                'principal in Ringfence::Host::"gpu-1"',
                "principal is Ringfence::Host",
            )
        ),
        random.choice(
            (
                *("action", "action", f'action == Ringfence::Action::"{action.value}"'),
                *('action in Ringfence::Action::"Any"', 'action == Ringfence::Action::"Nothing"'),
                'action in [Ringfence::Action::"Any", Ringfence::Action::"Access"]',
            )
        ),
        random.choice(
            ("resource", "resource", 'resource == Ringfence::Host::"gpu-1"', 'resource in Ringfence::Upstream::"gpu-1"')
        ),
    ]
    clauses = [f"when {{ {_test(random)} && {writer.write('bool', 1)} }}"] if narrow or random.random() < 0.3 else []
    clauses += [
        f"{random.choice(('when', 'unless'))} {{ {writer.write('bool', random.randrange(1, 5))} }}"
        for _ in range(random.choice((0, 1)) if narrow else random.choice((0, 1, 2)))
    ]
    annotations = f'@id("{name}") @step_up("{step_up}") ' if step_up else f'@id("{name}") '
    text = f"{annotations}{effect} ({', '.join(scopes)}) {' '.join(clauses)};"
    return Policy(name, "d", effect, "policies/d.cedar", number + 1, text, step_up)


def _test(random: Random) -> str:
    """A condition that an index can look up."""
    return random.choice(
        (
            f'context.tenant == "{random.choice(("a", "ab", "b"))}"',
            f'context.source == "{random.choice(("a", "abc"))}"',
            f'["a", "none", "affirming"].contains(context.{random.choice(("tenant", "device_status"))})',
            f'context.factors.contains("{random.choice(ATTRIBUTES)}")',
            f'principal in Ringfence::Group::"{random.choice(GROUPS)}"',
            f'context.device_status == "{random.choice(list(DeviceStatus))}"',
        )
    )


def _query(random: Random, action: Action) -> Query:
    groups = tuple(random.choice(GROUPS) for _ in range(random.randrange(4)))
    resource = random.choice(NAMES) if random.random() < 0.9 else "\ud800"
    return Query(random.choice(NAMES), groups, action, resource, _context(random, BASES[action]))


def _context(random: Random, base: Context) -> Context:
    changes: dict[str, object] = {}
    for name, value in structs.asdict(base).items():
        if random.random() < 0.4:
            changes[name] = _changed(random, name, value)
    return structs.replace(base, **changes)


def _changed(random: Random, name: str, value: object) -> object:
    if isinstance(value, DeviceStatus):
        return random.choice(list(DeviceStatus))
    if isinstance(value, bool):
        return random.random() < 0.6
    if isinstance(value, str):
        return random.choice(TEXTS)
    if isinstance(value, tuple):
        return tuple(sorted(set(random.choices(ATTRIBUTES, k=random.randrange(3)))))
    small = {"device_trust": 100, "device_reputation": 100, "risk": 100, "hour_utc": 23, "weekday_utc": 6}
    if name in small:
        return random.randrange(small[name] + 1)
    return random.choice([number for number in LONGS if number >= 0])
