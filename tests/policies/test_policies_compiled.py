"""What the compiled engine promises beside cedarpy's answers: what it leaves alone, bounds and looks up."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from msgspec import structs

from ringfence.client.bench.policy_bundles import job, ten, thousand, worst
from ringfence.policies.bundle import Bundle, Policy
from ringfence.policies.cases import BASE_JOB, BASE_SESSION, BASES
from ringfence.policies.compiled.decider import CompiledDecider, compile_in_steps
from ringfence.policies.compiled.programs import MAX_SETTLED, Settled
from ringfence.policies.compiled.wildcards import Pattern
from ringfence.policies.decision import Action, Context, Decider, Query, Verdict
from ringfence.policies.engine import CedarDecider
from ringfence.policies.folder import bundled, open_bundled

SESSION = Query("alice", ("clients",), Action.OPEN_SESSION, "gpu-1", BASE_SESSION)


def with_policy(text: str, effect: str = "forbid") -> Bundle:
    bundle = open_bundled("default")
    policy = Policy("more", "d", effect, "policies/more.cedar", 1, f'@id("more") {effect} (principal, {text};')
    return replace(bundle, policies=(*bundle.policies, policy))


@pytest.mark.parametrize("name", bundled())
def test_shipped_bundles_are_covered_and_decided_alike(name: str) -> None:
    bundle = open_bundled(name)
    compiled: Decider = CompiledDecider(bundle)
    oracle = CedarDecider(bundle)
    assert CompiledDecider(bundle).uncovered == ()
    assert compiled.bundle_digest == bundle.digest
    for case in bundle.cases:
        assert compiled.decide(case.query) == oracle.decide(case.query)


@pytest.mark.parametrize("action", Action)
def test_text_that_is_not_unicode_is_refused_wherever_it_stands(action: Action) -> None:
    base: Context = BASES[action]
    bundle = open_bundled("default")
    compiled, oracle = CompiledDecider(bundle), CedarDecider(bundle)
    query = Query("alice", ("clients",), action, "x", base)
    asked = [structs.replace(query, **{name: "\ud800"}) for name in ("principal", "resource")]
    asked.append(structs.replace(query, groups=("clients", "\ud800")))
    for name, value in structs.asdict(base).items():
        if type(value) is str or isinstance(value, tuple):
            lone = "\ud800" if type(value) is str else ("\ud800",)
            asked.append(structs.replace(query, context=structs.replace(base, **{name: lone})))
    assert len(asked) >= 8
    for question in asked:
        assert compiled.decide(question) == oracle.decide(question)
        assert compiled.decide(question).errors
    assert not compiled.decide(structs.replace(query, principal="ü")).errors


@pytest.mark.parametrize(
    "text",
    [
        "action, resource) when { context.risk > 200" + " && context.risk > 200" * 120 + " }",
        "action, resource) when { " + "(if context.quantum_absent then true else " * 90 + "true" + ")" * 90 + " }",
    ],
)
def test_what_nests_deeply_is_compiled_or_left_to_cedarpy(text: str) -> None:
    bundle = with_policy(text)
    compiled, oracle = CompiledDecider(bundle), CedarDecider(bundle)
    assert [found.policy for found in compiled.uncovered] in ([], ["more"])
    assert all(found.reason for found in compiled.uncovered)
    ours, theirs = compiled.decide(SESSION), oracle.decide(SESSION)
    assert (ours.allowed, ours.policies, len(ours.errors)) == (theirs.allowed, theirs.policies, len(theirs.errors))


def test_tree_that_cedarpy_does_not_give_is_named() -> None:
    compiled = CompiledDecider(with_policy("action, resource) when { true" + " && true" * 120 + " }"))
    [found] = compiled.uncovered
    assert found.policy == "more"
    assert "nest" in found.reason
    assert compiled.decide(SESSION).policies == ("more",)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("(if ", ' is Ringfence::Client in Ringfence::Group::"clients" then principal else resource)'),
        ("(if ", '.containsAny(["a", "b", "c", "d", "e", "f", "g"]) then context.factors else context.attributes)'),
    ],
)
def test_code_does_not_grow_exponentially(start: str, end: str) -> None:
    inside = "principal" if "principal" in end else "context.factors"
    test = ' is Ringfence::Client in Ringfence::Group::"clients"' if "principal" in end else ".isEmpty()"
    text = "action, resource) when { " + start * 16 + inside + end * 16 + test + " }"
    started = time.process_time()
    bundle = with_policy(text)
    assert CompiledDecider(bundle).decide(SESSION) == CedarDecider(bundle).decide(SESSION)
    assert time.process_time() - started < 2


def test_names_and_texts_are_data_and_never_code() -> None:
    hostile = "__import__('os').abort() or \\\"x"
    text = f'action, resource) when {{ context.tenant == "{hostile}" || {{"{hostile}": 1}} has "__class__" }}'
    bundle = with_policy(text)
    assert CompiledDecider(bundle).decide(SESSION) == CedarDecider(bundle).decide(SESSION)


def test_policy_without_an_id_does_not_decide() -> None:
    bundle = open_bundled("default")
    nameless = replace(bundle.policies[0], text="permit (principal, action, resource);")
    broken = replace(bundle, policies=(nameless,))
    assert CompiledDecider(broken).decide(SESSION) == CedarDecider(broken).decide(SESSION)


@pytest.mark.parametrize("bundle", [ten(), thousand(), worst()], ids=lambda bundle: bundle.name)
def test_benchmark_bundles_are_decided_alike(bundle: Bundle) -> None:
    compiled, oracle = CompiledDecider(bundle), CedarDecider(bundle)
    much = structs.replace(BASE_JOB, memory_bytes=2**62, tenant="tenant-61")
    for query in (
        job(),
        structs.replace(job(), context=much),
        structs.replace(job(), groups=("team-60", "team-60", "team-63"), context=much),
        structs.replace(job(), resource="gpu-62", context=much),
        structs.replace(job(), action=Action.OPEN_SESSION, context=BASE_SESSION),
    ):
        assert compiled.decide(query) == oracle.decide(query)
    # A policy under each of two keys of a query is found once.
    assert len(set(compiled.decide(job()).policies)) == 1


def test_compiling_in_steps_ends_with_the_decider() -> None:
    *steps, decider = compile_in_steps(thousand())
    assert len(steps) > 100
    assert set(steps) == {None}
    assert decider is not None
    assert decider.decide(job()) == Verdict(True, ("p0",), ())


def test_kept_answers_are_bounded() -> None:
    settled: Settled[int] = Settled(len)
    for number in range(MAX_SETTLED + 10):
        assert settled[number,] == 1
    assert len(settled) == MAX_SETTLED


def test_pattern_takes_no_longer_for_many_wildcards() -> None:
    started = time.process_time()
    assert not Pattern(("", *["a"] * 60, "b")).matches("a" * 20_000)
    assert time.process_time() - started < 1
