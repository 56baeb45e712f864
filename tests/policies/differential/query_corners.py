"""Conditions on typed contexts at the edges of what the compiler writes out: permits without an error."""

from __future__ import annotations

from msgspec.structs import replace

from ringfence.policies.bundle import Bundle, Policy
from ringfence.policies.cases import BASE_JOB
from ringfence.policies.decision import Action, DeviceStatus, Query
from ringfence.policies.engine import CedarDecider
from tests.policies.differential.query_worlds import QueryWorld

_TWELVE = tuple(sorted(f"f{number}" for number in range(12)))
CONDITIONS = r"""
context.risk < 70
context.risk <= 70
context.risk > 70
context.risk >= 70
context.risk == 70
context.risk != 70
70 < context.risk
context.tenant == context.source
context.tenant != context.source
context.quantum == context.body_verified
context.quantum != context.body_verified
context.quantum
context.factors.contains("a")
["f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11"].contains(context.tenant)
["a", "b"].contains(context.tenant)
context.factors.containsAll(["a", "b"])
context.factors.containsAny(["a", "b"])
context.factors.isEmpty()
["a", "b"].containsAll(context.factors)
["a", "b"].containsAny(context.factors)
context.risk == true
context.factors.containsAll(["f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11"])
context.factors.containsAny(["f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11"])
context.level == context
context.factors.containsAll(context.attributes)
context.factors.containsAny(context.attributes)
context.factors == context.attributes
context.factors == ["b", "a"]
context.factors.containsAll([])
context has risk
context has nothing
context.factors.containsAny([])
context.tenant like "a*"
context.tenant like "*a"
context.tenant like "a*a"
context.tenant like "a"
context.tenant like "*a*"
context.tenant like "a\*"
context.risk + 1 == 71
(-(context.risk)) == -70
context.device_status == "affirming"
[[context.device_status]].contains(["affirming"])
true
false
["affirming", "none"].contains(context.device_status)
{s: context.device_status} == {s: "affirming"}
principal == resource
principal != resource
principal != principal
principal == principal
principal in [resource, principal]
action == action
principal in [Ringfence::Group::"a", Ringfence::Group::"b"]
principal in Ringfence::Host::"alice"
action in Ringfence::Action::"Any"
Ringfence::Client::"alice" in Ringfence::Group::"a"
principal is Other
(if context.quantum then principal else resource) is Ringfence::Client in Ringfence::Group::"a"
(if context.quantum then "a" else context.tenant) like "a*"
if context.quantum then true else context.body_verified
if "a" == context.tenant then context.quantum else true
!(context.quantum && context.body_verified)
""".strip().splitlines()


def query_corners(default: Bundle) -> QueryWorld:
    """Each condition as a permit of the default bundle's schema, with queries on both sides of it."""
    policies = tuple(
        Policy(f"p{number}", "d", "permit", "policies/d.cedar", 1, _text(number, condition))
        for number, condition in enumerate(CONDITIONS)
    )
    schema = default.schema.replace("action OpenSession", 'action Any;\n  action OpenSession in ["Any"]')
    bundle = Bundle("corners", 1, "d", "c0" * 32, schema, policies, ())
    contexts = [
        replace(
            BASE_JOB,
            risk=risk,
            factors=factors,
            attributes=factors[:1],
            tenant=tenant,
            quantum=quantum,
            device_status=DeviceStatus.AFFIRMING if quantum else DeviceStatus.NONE,
        )
        for risk, quantum in ((69, True), (70, False), (71, True))
        for factors in ((), ("a",), ("a", "b"), ("b",), ("a", "b", "c"), _TWELVE)
        for tenant in ("", "a", "aba", "ba", "unix", "f1", "a*")
    ]
    queries = tuple(
        Query(name, groups, Action.SUBMIT_JOB, "alice", context)
        for context in contexts
        for name, groups in (("alice", ("a",)), ("bob", ("b", "b")), ("bob", ()))
    )
    oracle = CedarDecider(bundle)
    return QueryWorld(bundle, queries, tuple(map(oracle.decide, queries)))


def _text(number: int, condition: str) -> str:
    return f'@id("p{number}") permit (principal, action, resource) when {{ {condition} }};'
