"""Where the answer is known: pairs of bundles made by one edit, and what Cedar itself says of each witness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ringfence.policies import Action
from ringfence.policies.analysis.diff import Difference, difference
from ringfence.policies.analysis.requests import Oracle, as_query
from ringfence.policies.analysis.unknowns import Unknowns
from ringfence.policies.bundle import Bundle
from ringfence.policies.engine import CedarDecider

Edit = Callable[[Bundle, str, str], Bundle]
Add = Callable[..., Bundle]


def compared(before: Bundle, after: Bundle) -> Difference:
    """The difference, with every witness decided again by Cedar, and by the decider where a gateway could ask it."""
    found = difference(before, after)
    for witness in found.witnesses:
        for bundle, answer in ((before, witness.before), (after, witness.after)):
            assert Oracle(bundle).answer(witness.request) == answer
            if witness.request.reachable:
                assert CedarDecider(bundle).decide(as_query(witness.request)).allowed is answer.allowed
        assert witness.before.allowed is not witness.after.allowed
    return found


def changes(found: Difference) -> set[tuple[str, Action]]:
    return {(witness.change, witness.request.action) for witness in found.witnesses}


def test_a_bundle_is_equal_to_itself(default: Bundle) -> None:
    assert compared(default, default) == Difference(True, (), ())


def test_a_flipped_comparison_shows_at_its_edge(default: Bundle, edited: Edit) -> None:
    found = compared(default, edited(default, "context.risk >= 70 ", "context.risk > 70 "))
    assert found.equal is False
    # The permit for sessions asks for a risk below 70 as well, so for sessions nothing changes.
    assert changes(found) >= {("newly allowed", Action.SUBMIT_JOB)}
    job = next(one for one in found.witnesses if one.request.action is Action.SUBMIT_JOB)
    assert job.request.context["risk"] == 70
    assert job.before.policies == ("forbid-high-risk",)


@pytest.mark.parametrize("new", ["context.risk > 69 ", "70 <= context.risk ", "!(context.risk < 70) "])
def test_another_way_to_say_the_same_changes_nothing(default: Bundle, edited: Edit, new: str) -> None:
    assert compared(default, edited(default, "context.risk >= 70 ", new)).equal is True


def test_a_renamed_id_changes_nothing(default: Bundle, edited: Edit) -> None:
    assert compared(default, edited(default, '@id("forbid-high-risk")', '@id("forbid-danger")')).equal is True


def test_a_widened_group_newly_allows_its_members(default: Bundle, added: Add) -> None:
    permit = next(policy for policy in default.policies if policy.id == "permit-job")
    wider = permit.text.split(")", 2)[2].replace('"job-submitters"', '"everyone"').strip()
    found = compared(default, added(default, wider[wider.index("permit") :]))
    assert changes(found) == {("newly allowed", Action.SUBMIT_JOB)}
    assert found.witnesses[0].request.groups == ("everyone",)


def test_a_removed_forbid_newly_allows(default: Bundle) -> None:
    without = replace(default, policies=tuple(one for one in default.policies if one.id != "forbid-stale-attestation"))
    found = compared(default, without)
    assert ("newly allowed", Action.SUBMIT_JOB) in changes(found)
    assert all(one.before.policies == ("forbid-stale-attestation",) for one in found.witnesses)
    back = compared(without, default)
    assert {change for change, _ in changes(back)} == {"newly denied"}


def test_an_overflow_denies(default: Bundle, added: Add) -> None:
    text = "forbid (principal, action, resource) when { context.now_s + 9223372036854775800 < 0 };"
    found = compared(default, added(default, text))
    assert found.equal is False
    assert all("overflow" in one.after.errors[0] for one in found.witnesses)
    # Never reached: the same sum behind a condition that no number meets.
    harmless = text.replace("{ ", "{ context.now_s > 5 && context.now_s < 5 && ")
    assert compared(default, added(default, harmless)).equal is True


def test_the_first_number_that_overflows_is_found(default: Bundle, added: Add) -> None:
    # With 0 the sum is the largest number, with 1 it is an error, and nothing else is asked.
    text = "forbid (principal, action, resource) when { context.now_s < 2 && context.now_s + 9223372036854775807 < 0 };"
    found = compared(default, added(default, text))
    assert {one.request.context["now_s"] for one in found.witnesses if one.request.reachable} == {1}


def test_a_set_may_hold_a_text_that_nothing_names(default: Bundle, added: Add) -> None:
    known = ", ".join(f'"{text}"' for text in Unknowns(Action.OPEN_SESSION).texts.known)
    fixed = 'context.tenant == "" && context.source == "unix" && context.resource_tenant == "" && '
    fixed += 'context.device_status == "affirming"'
    text = (
        'forbid (principal, action == Ringfence::Action::"OpenSession", resource) '
        f"when {{ {fixed} && !([{known}].containsAll(context.attributes)) }};"
    )
    bundle = added(replace(default, policies=()), "permit (principal, action, resource);", "all")
    (witness,) = compared(bundle, added(bundle, text)).witnesses
    attributes = witness.request.context["attributes"]
    assert isinstance(attributes, tuple)
    assert [f'"{one}"' in known for one in attributes] == [False]


def test_the_smallest_number_cannot_be_negated(default: Bundle, added: Add) -> None:
    text = "forbid (principal, action, resource) when { -context.attestation_age_s == 9223372036854775807 + 0 };"
    without = replace(default, policies=tuple(one for one in default.policies if "stale" not in one.id))
    found = compared(without, added(without, text))
    assert found.equal is False


def test_a_difference_that_no_gateway_asks_for_is_told_as_such(default: Bundle, edited: Edit) -> None:
    found = compared(default, edited(default, "context.risk >= 70 ", "context.risk >= 70 || context.risk < -5 "))
    assert found.equal is False
    assert [one.request.reachable for one in found.witnesses] == [False] * len(found.witnesses)


def test_groups_are_the_principals_own(default: Bundle, added: Add) -> None:
    text = 'forbid (principal, action, resource) when { Ringfence::Client::"mallory" in Ringfence::Group::"clients" };'
    found = compared(default, added(default, text))
    assert {one.request.principal for one in found.witnesses} == {"mallory"}
    assert all("clients" in one.request.groups for one in found.witnesses)


@pytest.mark.parametrize(
    ("condition", "attribute"),
    [
        ('context.tenant like "team-*-eu" && !(context.tenant like "*x*")', "tenant"),
        ("context.tenant != context.resource_tenant", "tenant"),
        ('!(["a", "b"].containsAll(context.attributes))', "attributes"),
        ("context.attributes == context.factors", "attributes"),
        ("context.attributes.containsAny(context.factors)", "attributes"),
        ('context.attributes == ["only"]', "attributes"),
        ("!context.attributes.isEmpty()", "attributes"),
        ("[[context.hour_utc, 3].contains(7), context.channel_bound].contains(true)", "hour_utc"),
        ('{"a": context.jobs_running}.a * 3 > 12', "jobs_running"),
        ("(if context.channel_bound then context.approvals else 2) < 2", "channel_bound"),
    ],
)
def test_each_construct_is_understood(default: Bundle, added: Add, condition: str, attribute: str) -> None:
    found = compared(default, added(default, f"forbid (principal, action, resource) when {{ {condition} }};"))
    assert found.equal is False
    assert found.unclear == ()
    base = next(iter(found.witnesses)).request.context
    assert attribute in base


def test_what_is_not_understood_is_still_equal_to_itself(default: Bundle, added: Add) -> None:
    text = 'forbid (principal, action, resource) when { ip(context.source).isInRange(ip("10.0.0.0/8")) };'
    assert compared(added(default, text), added(default, text)).equal is True


def test_what_cannot_be_told_is_null_and_names_the_policy(default: Bundle, added: Add) -> None:
    text = "forbid (principal, action, resource) when { %s };"
    one = added(default, text % 'ip(context.source).isInRange(ip("10.0.0.0/8"))')
    two = added(default, text % 'ip(context.source).isInRange(ip("10.0.0.0/9"))')
    found = compared(one, two)
    assert found.equal is None
    assert {(item.side, item.policy) for item in found.unclear} == {("before", "more"), ("after", "more")}
    assert all("is_in_range" in item.reason or "ip" in item.reason for item in found.unclear)


@pytest.mark.parametrize(
    "condition",
    [
        "resource.flag",
        "if context.channel_bound then resource.flag else true",
        "principal has team",
        "!(principal has team && principal.team)",
        '{"a": 1} == {"a": 1}',
        'principal.hasTag("t")',
    ],
)
def test_what_is_not_understood_is_never_guessed(default: Bundle, added: Add, condition: str) -> None:
    text = f"forbid (principal, action, resource) when {{ {condition} }};"
    assert compared(added(default, text), added(default, text)).equal is True
    assert compared(default, added(default, text)).equal in (None, False)


def test_an_action_is_in_no_principal(default: Bundle, added: Add) -> None:
    assert compared(default, added(default, "forbid (principal, action, resource) when { action in principal };")).equal


def test_action_groups_are_those_of_the_schema(default: Bundle, added: Add) -> None:
    grouped = default.schema.replace("action OpenSession", 'action Anything;\n  action OpenSession in ["Anything"]')
    bundle = replace(default, schema=grouped)
    found = compared(bundle, added(bundle, 'forbid (principal, action in Ringfence::Action::"Anything", resource);'))
    assert changes(found) == {("newly denied", Action.OPEN_SESSION)}


def test_a_hundred_policies_are_compared(default: Bundle, added: Add, edited: Edit) -> None:
    bundle = default
    for number in range(100 - len(default.policies)):
        bundle = added(
            bundle,
            f'forbid (principal in Ringfence::Group::"g{number}", action, resource) when {{ '
            f'context.risk > {number % 60} && context.attributes.contains("team={number % 7}") || '
            f'context.tenant like "t{number}-*" }};',
            f"more-{number}",
        )
    assert len(bundle.policies) == 100
    found = compared(bundle, edited(bundle, 'like "t42-*"', 'like "t42-*-*"'))
    assert changes(found) <= {("newly allowed", action) for action in Action}
    assert all(str(one.request.context["tenant"]).startswith("t42-") for one in found.witnesses)
    assert found.equal is False
