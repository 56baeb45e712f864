"""`@step_up` names what would help, alike by both engines, and only where it would."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from ringfence.policies.bundle import Bundle
from ringfence.policies.cases import BASE_JOB, BASE_SESSION, run_cases
from ringfence.policies.compiled.decider import CompiledDecider
from ringfence.policies.decision import Action, Query, Verdict
from ringfence.policies.engine import CedarDecider
from ringfence.policies.errors import BAD_ANNOTATION, PolicyError
from ringfence.policies.folder import load_bundle
from ringfence.policies.tokens import statements

HEAD = '@id("x") @description("d") '
POLICIES = """
@id("webauthn-at-risk") @description("d") @step_up("webauthn")
forbid (principal, action, resource) when { context.risk > 20 } unless { context.factors.contains("webauthn") };
@id("svid-at-risk") @description("d") @step_up("svid")
forbid (principal, action, resource) when { context.risk > 40 } unless { context.factors.contains("svid") };
@id("never-at-risk") @description("d")
forbid (principal, action, resource) when { context.risk > 60 };
"""
CASE = """
[[case]]
name = "c"
principal = "alice"
groups = ["clients"]
action = "OpenSession"
resource = "h"
context = { risk = 30 }
expect = "deny"
policies = ["webauthn-at-risk"]
"""
QUERY = Query("alice", ("clients", "job-submitters"), Action.OPEN_SESSION, "gpu-1", BASE_SESSION)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root: Path = tmp_path_factory.mktemp("bundle")
    (root / "policies").mkdir()
    (root / "tests").mkdir()
    (root / "manifest.toml").write_text('name = "t"\nversion = 1\ndescription = "d"\nextends = "default"\n')
    (root / "policies" / "more.cedar").write_text(POLICIES)
    (root / "tests" / "more.toml").write_text(CASE)
    return load_bundle(root)


@pytest.mark.parametrize("engine", [CedarDecider, CompiledDecider])
@pytest.mark.parametrize(
    ("risk", "groups", "expected"),
    [
        (10, ("clients",), Verdict(True, ("permit-session-attested-host",), ())),
        (30, ("clients",), Verdict(False, ("webauthn-at-risk",), (), ("webauthn",))),
        (50, ("clients",), Verdict(False, ("svid-at-risk", "webauthn-at-risk"), (), ("svid", "webauthn"))),
        (65, ("clients",), Verdict(False, ("never-at-risk", "svid-at-risk", "webauthn-at-risk"), ())),
        (10, (), Verdict(False, (), ())),
    ],
)
def test_factors_are_named_where_every_denial_names_one(
    bundle: Bundle,
    engine: type[CedarDecider | CompiledDecider],
    risk: int,
    groups: tuple[str, ...],
    expected: Verdict,
) -> None:
    context = msgspec.structs.replace(BASE_SESSION, risk=risk)
    assert engine(bundle).decide(msgspec.structs.replace(QUERY, groups=groups, context=context)) == expected


@pytest.mark.parametrize("engine", [CedarDecider, CompiledDecider])
def test_errors_name_no_factor(bundle: Bundle, engine: type[CedarDecider | CompiledDecider]) -> None:
    first, *rest = bundle.policies
    text = f"{HEAD}forbid (principal, action, resource) when {{ context.nothing }};"
    broken = replace(bundle, policies=(replace(first, id="x", text=text), *rest))
    context = msgspec.structs.replace(BASE_JOB, risk=30)
    verdict = engine(broken).decide(msgspec.structs.replace(QUERY, action=Action.SUBMIT_JOB, context=context))
    assert (verdict.allowed, verdict.policies, len(verdict.errors), verdict.step_up) == (False, (), 1, ())


def test_cases_hold_beside_step_up(bundle: Bundle) -> None:
    assert [result.failure for result in run_cases(bundle)] == [""]


def test_annotation_reaches_the_policy(bundle: Bundle) -> None:
    named = {policy.id: policy.step_up for policy in bundle.policies if policy.step_up}
    assert named == {"webauthn-at-risk": "webauthn", "svid-at-risk": "svid"}


@pytest.mark.parametrize("factor", ["", "A", "web authn", "-a", "a-", "a" * 65, "a_b"])
def test_factor_that_is_not_well_formed_is_refused(factor: str) -> None:
    with pytest.raises(PolicyError) as caught:
        statements(f'{HEAD}@step_up("{factor}") forbid (principal, action, resource);', "f")
    assert caught.value.code is BAD_ANNOTATION
    assert caught.value.field == "f:1"


def test_permit_cannot_step_up() -> None:
    with pytest.raises(PolicyError) as caught:
        statements(f'{HEAD}@step_up("webauthn") permit (principal, action, resource);', "f")
    assert caught.value.code is BAD_ANNOTATION
