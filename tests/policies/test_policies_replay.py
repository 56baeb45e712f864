"""Replay counts what a brute-force count finds, over a log of generated decisions."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace as changed

import msgspec
import pytest

from ringfence.audit.kinds import Asked, Decision, DecisionV1, Operator, Stage
from ringfence.audit.records import check_data, encode_data, encode_line
from ringfence.policies import Action, Query, Verdict
from ringfence.policies.cases import BASES
from ringfence.policies.engine import CedarDecider
from ringfence.policies.folder import open_bundled
from ringfence.policies.recorded import Passed, Recorded, recorded
from ringfence.policies.replay import MAX_EXAMPLES, replay

DEFAULT = open_bundled("default")
PROPOSED = changed(
    DEFAULT,
    policies=tuple(
        changed(one, text=one.text.replace(">= 70", ">= 40").replace('"job-submitters"', '"clients"'))
        for one in DEFAULT.policies
    ),
)
DECISIONS = 20_000


class Remembering:
    """Cedar's answers, asked once for each query."""

    def __init__(self, decider: CedarDecider) -> None:
        self.bundle_digest = decider.bundle_digest
        self._decider = decider
        self._known: dict[bytes, Verdict] = {}

    def decide(self, query: Query) -> Verdict:
        key = msgspec.msgpack.encode(query)
        if key not in self._known:
            self._known[key] = self._decider.decide(query)
        return self._known[key]


def line(record: Decision | DecisionV1 | Operator, seq: int = 1) -> bytes:
    data = encode_data(record)
    return encode_line(seq, 0, b"0" * 64, 1, check_data(record, data), data)


def decision(query: Query, *, allowed: bool, stages: tuple[Stage, ...] = (), verdict: str = "") -> Decision:
    return Decision(
        decision_id="d",
        pipeline="request",
        verdict=verdict or ("allow" if allowed else "deny"),  # type: ignore[arg-type]
        principal=query.principal,
        action=query.action.value,
        resource=query.resource,
        stages=stages,
        asked=Asked(query.groups, msgspec.to_builtins(query.context) | sets(query)),
    )


def sets(query: Query) -> dict[str, tuple[str, ...]]:
    return {name: getattr(query.context, name) for name in query.context.SETS}


def generated(count: int) -> list[Query]:
    chance = random.Random(1)  # noqa: S311 - not for keys
    found = []
    for _ in range(count):
        action = chance.choice(list(Action))
        context = msgspec.structs.replace(BASES[action], risk=10 * chance.randrange(10))
        groups = tuple(one for one in ("clients", "job-submitters", "service-users") if chance.random() < 0.5)
        found.append(Query(f"caller-{chance.randrange(5)}", groups, action, "gpu-1", context))
    return found


def test_counts_are_those_of_a_brute_force_count() -> None:
    queries = generated(DECISIONS)
    before, after = Remembering(CedarDecider(DEFAULT)), Remembering(CedarDecider(PROPOSED))
    lines = [line(decision(query, allowed=before.decide(query).allowed)) for query in queries]
    counted: Counter[str] = Counter()
    whom: Counter[tuple[str, str]] = Counter()
    for query in queries:
        was, now = before.decide(query).allowed, after.decide(query).allowed
        if was is not now:
            change = "newly allowed" if now else "newly denied"
            counted[change] += 1
            whom[change, query.principal] += 1

    report = replay(lines, after)

    assert min(counted["newly allowed"], counted["newly denied"]) > 500
    assert report.changed == counted
    assert report.principals == whom
    assert (report.replayed, report.unchanged) == (DECISIONS, DECISIONS - counted.total())
    assert len(report.examples) == 2 * MAX_EXAMPLES
    assert report.actions.total() == counted.total()
    again = replay(lines, after, report)
    assert again.changed["newly denied"] == 2 * counted["newly denied"]


def test_a_bundle_changes_nothing_of_what_it_decided() -> None:
    decider = Remembering(CedarDecider(DEFAULT))
    lines = [line(decision(query, allowed=decider.decide(query).allowed)) for query in generated(500)]
    assert replay(lines, decider).changed == {}


def test_what_cannot_be_replayed_is_counted_apart() -> None:
    query = generated(1)[0]
    whole = decision(query, allowed=True)
    early = msgspec.structs.replace(whole, asked=None, verdict="deny", code="session.unknown")
    nameless = msgspec.structs.replace(early, action="")
    old = DecisionV1(decision_id="d", pipeline="request", verdict="deny")
    strange = msgspec.structs.replace(whole, asked=Asked((), {"risk": 1}))
    other = msgspec.structs.replace(whole, action="Dance")
    report = replay(
        [line(one) for one in (whole, early, nameless, old, strange, other)]
        + [line(Operator(event="started", component="gateway")), b"", b"no record"],
        CedarDecider(DEFAULT),
    )
    assert report.replayed == 1
    assert report.passed == {Passed.BEFORE_POLICY: 2, Passed.OLDER: 1, Passed.UNREADABLE: 2}


def test_what_a_later_stage_refused_the_policies_allowed() -> None:
    query = generated(1)[0]
    stages = (Stage("policy", "allow", "", 1), Stage("grant", "deny", "agent.away", 1))
    for given, allowed in ((stages, True), ((Stage("policy", "deny", "policy.denied", 1),), False)):
        found = recorded(line(decision(query, allowed=False, stages=given)))
        assert isinstance(found, Recorded)
        assert found.allowed is allowed
    challenged = recorded(line(decision(query, allowed=False, verdict="challenge")))
    assert isinstance(challenged, Recorded)
    assert not challenged.allowed


@pytest.mark.parametrize("name", ['"action":"Access"', ',"action":"Access"', "\\", "ü\n"])
def test_a_name_that_looks_like_a_record_is_a_name(name: str) -> None:
    query = msgspec.structs.replace(generated(1)[0], principal=name, resource=name)
    found = recorded(line(decision(query, allowed=True)))
    assert isinstance(found, Recorded)
    assert (found.query.principal, found.query.resource, found.query.action) == (name, name, query.action)
    assert msgspec.to_builtins(found.query.context) == msgspec.to_builtins(query.context)
