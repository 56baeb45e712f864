"""Random policies: what the translation says of a request is what Cedar says of it."""

from __future__ import annotations

from dataclasses import replace

import z3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.policies import Action
from ringfence.policies.analysis.diff import difference
from ringfence.policies.analysis.meaning import decided, subject
from ringfence.policies.analysis.requests import Asked, Oracle
from ringfence.policies.analysis.solving import Question
from ringfence.policies.analysis.unknowns import Unknowns
from ringfence.policies.bundle import Bundle, Policy
from ringfence.policies.folder import open_bundled

DEFAULT = open_bundled("default")
LONGS = st.sampled_from(["context.risk", "context.now_s", "context.approvals", "context.attestation_age_s"])
NUMBERS = st.sampled_from(["0", "1", "7", "70", "-3", "9223372036854775807", "-9223372036854775808"])
TEXTS = st.sampled_from(["context.tenant", "context.resource_tenant", "context.source"])
WORDS = st.sampled_from(['""', '"a"', '"ab"', '"b*"'])
PATTERNS = st.sampled_from(['"*"', '"a*"', '"*b"', '"a*b*"', '"*ab*"', '""', '"a\\*"'])
SETS = st.sampled_from(["context.factors", "context.attributes", '["a", "ab"]', '["a", context.tenant]'])


def longs() -> st.SearchStrategy[str]:
    return st.recursive(
        LONGS | NUMBERS,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from("+-"), inner).map(lambda one: f"({one[0]} {one[1]} {one[2]})"),
            inner.map(lambda one: f"-({one})"),
            st.tuples(NUMBERS, LONGS).map(lambda one: f"({one[0]} * {one[1]})"),
        ),
        max_leaves=3,
    )


def truths() -> st.SearchStrategy[str]:
    texts = TEXTS | WORDS
    atoms = st.one_of(
        st.tuples(longs(), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), longs()).map(" ".join),
        st.tuples(texts, st.sampled_from(["==", "!="]), texts).map(" ".join),
        st.tuples(texts, PATTERNS).map(" like ".join),
        st.tuples(SETS, texts).map(lambda one: f"{one[0]}.contains({one[1]})"),
        st.tuples(SETS, st.sampled_from(["containsAll", "containsAny"]), SETS).map(
            lambda one: f"{one[0]}.{one[1]}({one[2]})"
        ),
        st.tuples(SETS, SETS).map(" == ".join),
        SETS.map(lambda one: f"{one}.isEmpty()"),
        st.sampled_from(
            [
                "true",
                "context.channel_bound",
                'principal in Ringfence::Group::"clients"',
                'principal in [Ringfence::Group::"a", Ringfence::Group::"b"]',
                'principal == Ringfence::Client::"a"',
                'action == Ringfence::Action::"OpenSession"',
                "resource is Ringfence::Host",
                "context has approvals",
            ]
        ),
    )
    return st.recursive(
        atoms.map(lambda one: f"({one})"),
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda one: f"({' '.join(one)})"),
            inner.map(lambda one: f"!({one})"),
            st.tuples(inner, inner, inner).map(lambda one: f"(if {one[0]} then {one[1]} else {one[2]})"),
        ),
        max_leaves=5,
    )


def policy(index: int, effect: str, condition: str) -> Policy:
    text = f'@id("p{index}") @description("d") {effect} (principal, action, resource) when {{ {condition} }};'
    return Policy(f"p{index}", "d", effect, "policies/p.cedar", index + 1, text)


def bundles() -> st.SearchStrategy[Bundle]:
    effects = st.sampled_from(["permit", "permit", "forbid"])
    return st.lists(st.tuples(effects, truths()), min_size=1, max_size=3).map(
        lambda made: replace(DEFAULT, policies=tuple(policy(index, *one) for index, one in enumerate(made)), cases=())
    )


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(bundle=bundles(), wanted=st.booleans())
def test_requests_that_the_solver_finds_are_decided_as_it_says(bundle: Bundle, wanted: bool) -> None:
    unknowns = Unknowns(Action.OPEN_SESSION)
    meaning = decided(subject(bundle), unknowns, {})
    assert meaning.outside == {}
    allowed = z3.BoolVal(meaning.allowed) if isinstance(meaning.allowed, bool) else meaning.allowed
    question = Question(unknowns, unknowns.schema(), allowed if wanted else z3.Not(allowed))
    for request in question.requests():
        assert Oracle(bundle).answer(request).allowed is wanted


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(before=bundles(), after=bundles(), data=st.data())
def test_bundles_that_are_said_to_be_equal_decide_alike(before: Bundle, after: Bundle, data: st.DataObject) -> None:
    found = difference(before, after)
    assert found.equal is not None
    if found.equal:
        words = st.sampled_from(["", "a", "ab", "b*", "axb", "zz"])
        numbers = st.sampled_from([0, 1, 7, 70, -3, 2**63 - 1, -(2**63)]) | st.integers(-(2**63), 2**63 - 1)
        for _ in range(5):
            request = data.draw(requests(words, numbers))
            assert Oracle(before).answer(request).allowed is Oracle(after).answer(request).allowed


def requests(words: st.SearchStrategy[str], numbers: st.SearchStrategy[int]) -> st.SearchStrategy[Asked]:
    sets = st.frozensets(words, max_size=3).map(lambda one: tuple(sorted(one)))
    base = Unknowns(Action.OPEN_SESSION)
    context = st.fixed_dictionaries(
        dict.fromkeys(base.longs, numbers)
        | {name: st.booleans() for name in base.bools}
        | dict.fromkeys(base.strings, words)
        | dict.fromkeys(base.sets, sets)
    )
    groups = st.lists(st.sampled_from(["clients", "a", "b"]), unique=True).map(tuple)
    return st.builds(Asked, words, groups, st.just(Action.OPEN_SESSION), words, context, st.just(False))
