"""What `check`, `coverage` and `explain` say about bundles whose faults are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ringfence.policies import Action, Query
from ringfence.policies.analysis.conditions import Observer, Outcome
from ringfence.policies.analysis.coverage import measure
from ringfence.policies.analysis.explaining import explain
from ringfence.policies.analysis.findings import Level, sarif
from ringfence.policies.analysis.junit import junit
from ringfence.policies.analysis.rendering import render
from ringfence.policies.analysis.syntax import parse
from ringfence.policies.bundle import Bundle
from ringfence.policies.cases import BASE_JOB, BASE_SESSION, run_cases
from ringfence.policies.cli.check import findings
from ringfence.policies.engine import CedarDecider

Folder = Callable[..., Path]
Load = Callable[..., Bundle]
ALL = '@id("all")\n@description("d")\npermit (principal, action, resource);\n'


def policy(name: str, text: str) -> str:
    return f'@id("{name}")\n@description("d")\n{text}\n'


def found(folder: Path) -> set[tuple[str, str, int]]:
    return {(one.rule, one.file, one.line) for one in findings(str(folder))}


def test_a_policy_that_never_matches_is_found(folder: Folder) -> None:
    never = policy("never", "forbid (principal, action, resource) when { context.risk > 50 && context.risk < 20 };")
    beyond = policy("beyond", "forbid (principal, action, resource) when { context.hour_utc == 24 };")
    assert found(folder(ALL + never + beyond)) == {
        ("never-matches", "policies/p.cedar", 4),
        ("never-matches", "policies/p.cedar", 7),
    }


def test_a_policy_that_may_err_is_found(folder: Folder) -> None:
    adds = policy("adds", "forbid (principal, action, resource) when { context.now_s + 1 == context.session_age_s };")
    bounded = adds.replace("{ ", "{ context.now_s < 5 && ").replace('"adds"', '"bounded"')
    assert found(folder(ALL + adds + bounded)) == {("may-err", "policies/p.cedar", 4)}


def test_a_forbid_that_reads_an_optional_attribute_is_found(folder: Folder, default: Bundle) -> None:
    schema = default.schema.replace("risk: Long,", "risk?: Long,")
    (one, *others) = findings(
        str(
            folder(ALL + policy("r", "forbid (principal, action, resource)\nwhen { context.risk > 5 };"), schema=schema)
        )
    )
    assert (one.rule, one.line, others) == ("optional-attribute", 7, [])
    assert "schema.cedarschema:" in one.remedy


def test_every_duplicate_id_is_found_at_once(folder: Folder) -> None:
    assert found(folder(ALL + ALL + ALL)) == {("duplicate-id", "policies/p.cedar", line) for line in (4, 7)}


def test_what_is_used_nowhere_is_found(folder: Folder, default: Bundle) -> None:
    schema = default.schema.replace("entity Host;", "entity Host;\n  entity Printer;")
    root = folder(ALL, schema=schema)
    assert {rule for rule, _, _ in found(root)} == {"unused-entity"}


def test_groups_of_cases_and_policies_are_compared(folder: Folder) -> None:
    text = policy("only", 'permit (principal in Ringfence::Group::"admins", action, resource);')
    case = (
        '[[case]]\nname = "c"\nprincipal = "a"\ngroups = ["admin"]\naction = "OpenSession"\nresource = "h"\n'
        'expect = "allow"\npolicies = ["only"]\n'
    )
    rules = {one.rule: one.level for one in findings(str(folder(text, cases=case)))}
    assert rules == {"unknown-group": Level.NOTE, "untested-group": Level.NOTE}


@pytest.mark.parametrize(
    ("policies", "code"),
    [
        (ALL + "permit (", "policy.bad_syntax"),
        (policy("x", "permit (principal, action, resource) when { context.nothing };"), "policy.bad_types"),
        (policy("x", "permit (principal, action, resource) when { " + "(" * 2_000 + "true"), "policy.too_complex"),
    ],
)
def test_what_does_not_load_is_a_finding_with_its_line(folder: Folder, policies: str, code: str) -> None:
    (one,) = findings(str(folder(policies)))
    assert one.message.startswith(code)
    assert (one.file, one.level) == ("policies/p.cedar", Level.ERROR)
    assert one.line >= 1


def test_sarif_names_rule_file_and_line(folder: Folder) -> None:
    document: Any = sarif(findings(str(folder(ALL + ALL))), "1", "policies/prod/")
    (run,) = document["runs"]
    assert document["version"] == "2.1.0"
    (result,) = run["results"]
    assert result["ruleId"] in {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "policies/prod/policies/p.cedar"
    assert place["region"]["startLine"] == 4


def test_coverage_sees_what_is_looked_at_only(loaded: Load) -> None:
    text = policy("both", "permit (principal, action, resource) when { context.risk < 50 && context.channel_bound };")
    case = (
        '[[case]]\nname = "%s"\nprincipal = "a"\ngroups = []\naction = "OpenSession"\nresource = "h"\n'
        'context = { risk = %d }\nexpect = "deny"\npolicies = []\n'
    )
    bundle = loaded(text, cases=case % ("low", 1) + case % ("high", 60))
    (cover,) = measure(bundle, {"both"}).policies
    # With a high risk the second condition is never reached, and it was never true.
    assert [(one.text, one.true, one.false) for one in cover.conditions] == [
        ("context.risk < 50", True, True),
        ("context.channel_bound", False, True),
    ]
    assert not cover.held
    assert measure(bundle, ()).policies == ()
    assert junit("b", run_cases(bundle)).count("<testcase ") == 2


def test_an_erring_condition_is_neither_true_nor_false(loaded: Load) -> None:
    sums = policy("sum", "forbid (principal, action, resource) when { context.now_s + 9223372036854775807 > 0 };")
    (observed,) = Observer(loaded(sums)).observe(Query("a", (), Action.OPEN_SESSION, "h", BASE_SESSION))
    assert observed.outcome is Outcome.ERROR
    assert [one.outcome for one in observed.conditions] == [Outcome.ERROR]


def test_an_explanation_names_what_turns_the_answer(default: Bundle) -> None:
    query = Query("alice", ("job-submitters",), Action.SUBMIT_JOB, "gpu-1", replace(BASE_JOB, risk=90))
    explanation = explain(default, CedarDecider(default), query)
    assert explanation.verdict.policies == ("forbid-high-risk",)
    assert [(one.name, one.value) for one in explanation.changes] == [("risk", 69)]
    stranger = explain(default, CedarDecider(default), replace(query, groups=(), context=BASE_JOB))
    assert ("groups", ("job-submitters",)) in [(one.name, one.value) for one in stranger.changes]
    assert stranger.verdict.policies == ()


def test_every_change_of_an_explanation_is_so(default: Bundle) -> None:
    decider = CedarDecider(default)
    query = Query("alice", ("job-submitters",), Action.SUBMIT_JOB, "gpu-1", BASE_JOB)
    explanation = explain(default, decider, query)
    assert {one.name for one in explanation.changes} >= {"groups", "device_status", "risk", "body_verified", "qubits"}
    assert not any(one.verdict.allowed for one in explanation.changes)


def test_rendered_conditions_are_cedar_and_mean_the_same(default: Bundle, added: Callable[..., Bundle]) -> None:
    condition = (
        '(if principal in Ringfence::Group::"a\\"b" then -context.risk < 3 else !(context.tenant like "a*b\\*")) && '
        '["x", context.tenant].containsAll(context.factors) || context has risk && principal is Ringfence::Client && '
        '{"k": 1}.k * 2 >= context.approvals - 1 && ip(context.source).isInRange(ip("::1")) && [1].isEmpty()'
    )
    before = parse(added(default, f"permit (principal, action, resource) when {{ {condition} }};"))[-1].tree
    assert before is not None
    rendered = render(before.clauses[0].expr)
    after = parse(added(default, f"permit (principal, action, resource) when {{ {rendered} }};"))[-1].tree
    assert after is not None
    assert after.clauses == before.clauses
