"""The Cedar adapter denies whatever it cannot evaluate, and the query's types leave no attribute out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from msgspec.structs import fields, replace

from ringfence.policies import Action, Context, Decider, DeviceStatus, JobContext, Query, Verdict
from ringfence.policies.bundle import Bundle, Policy
from ringfence.policies.cases import BASE_JOB, BASE_SESSION, BASES
from ringfence.policies.engine import CedarDecider
from ringfence.policies.errors import BAD_QUERY, PolicyError
from ringfence.policies.folder import load_bundle, open_bundled

SESSION = Query("alice", ("clients",), Action.OPEN_SESSION, "gpu-1", BASE_SESSION)
JOB = Query("alice", ("job-submitters",), Action.SUBMIT_JOB, "gpu-1", BASE_JOB)


def with_policy(bundle: Bundle, text: str) -> Bundle:
    policy = Policy("injected", "injected by a test", "forbid", "policies/injected.cedar", 1, f'@id("injected") {text}')
    return dataclasses.replace(bundle, policies=(*bundle.policies, policy))


@pytest.fixture(scope="module")
def default() -> Bundle:
    return open_bundled("default")


def test_decider_answers_with_the_deciding_policies(default: Bundle) -> None:
    decider: Decider = CedarDecider(default)
    assert decider.decide(SESSION) == Verdict(True, ("permit-session-attested-host",), ())
    assert decider.decide(replace(SESSION, groups=())) == Verdict(False, (), ())
    assert decider.decide(replace(JOB, groups=("clients",))) == Verdict(False, (), ())
    assert decider.bundle_digest == default.digest


def test_forbid_that_reads_an_absent_attribute_denies(default: Bundle) -> None:
    text = "forbid (principal, action, resource) when { context.no_such_attribute };"
    verdict = CedarDecider(with_policy(default, text)).decide(SESSION)
    assert not verdict.allowed
    assert verdict.policies == ()
    assert len(verdict.errors) == 1
    assert "`injected`" in verdict.errors[0]
    assert "no_such_attribute" in verdict.errors[0]


def test_overflow_in_a_policy_that_type_checks_denies(tmp_path: Path) -> None:
    folder = bundle_folder(
        tmp_path,
        "forbid (principal, action, resource) when { context.now_s + 9223372036854775807 < 0 };",
    )
    verdict = CedarDecider(load_bundle(folder)).decide(SESSION)
    assert not verdict.allowed
    assert "`extra`" in verdict.errors[0]


def test_permit_without_an_id_does_not_decide(default: Bundle) -> None:
    nameless = dataclasses.replace(default.policies[0], text="permit (principal, action, resource);")
    verdict = CedarDecider(dataclasses.replace(default, policies=(nameless,))).decide(SESSION)
    assert verdict == Verdict(False, (), ("the deciding policy policy0 has no id",))


def test_forbid_on_a_group_of_actions_matches(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path, 'forbid (principal, action in Ringfence::Action::"Anything", resource);')
    schema = folder / "schema.cedarschema"
    grouped = schema.read_text().replace("action OpenSession", 'action Anything;\n  action OpenSession in ["Anything"]')
    schema.write_text(grouped)
    assert CedarDecider(load_bundle(folder)).decide(SESSION) == Verdict(False, ("extra",), ())


def test_text_that_is_not_unicode_denies(default: Bundle) -> None:
    decider = CedarDecider(default)
    lone = "\ud800"
    for query in (
        replace(SESSION, principal=lone),
        replace(SESSION, resource=lone),
        replace(SESSION, groups=("clients", lone)),
        replace(SESSION, context=replace(BASE_SESSION, source=lone)),
    ):
        verdict = decider.decide(query)
        assert not verdict.allowed
        assert verdict.errors


@pytest.mark.parametrize("name", ['a"b', "a\nb", "\\", 'Ringfence::Group::"clients"', "\x00", "ü" * 4096])
def test_names_are_data_and_never_syntax(default: Bundle, name: str) -> None:
    decider = CedarDecider(default)
    assert decider.decide(replace(SESSION, principal=name, resource=name)).allowed
    assert not decider.decide(replace(SESSION, principal=name, groups=(name,))).allowed


@pytest.mark.parametrize("base", BASES.values())
def test_no_context_attribute_can_be_left_out(base: Context) -> None:
    kind = type(base)
    values = {field.name: getattr(base, field.name) for field in fields(kind)}
    for missing in values:
        with pytest.raises(TypeError, match=missing):
            kind(**{name: value for name, value in values.items() if name != missing})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device_status", "affirming"),
        ("device_trust", 101),
        ("device_trust", -1),
        ("device_trust", 90.0),
        ("device_trust", True),
        ("attestation_age_s", 2**63),
        ("factors", "signature"),
        ("factors", (1,)),
        ("factors", ("b", "a")),
        ("factors", ("a", "a")),
        ("risk", 101),
        ("risk", float("nan")),
        ("now_s", -1),
        ("hour_utc", 24),
        ("source", None),
        ("body_verified", 1),
        ("quantum", "yes"),
        ("memory_bytes", -1),
        ("gpu_memory_bytes", 2**63),
        ("deadline_ms", -1),
        ("output_bytes", -1),
        ("body_bytes", -1),
        ("qubits", -1),
        ("compute_units", -1),
        ("compute_units", 64.0),
        ("level", None),
        ("result", b"bytes"),
        ("module_digest", b""),
    ],
)
def test_context_refuses_what_a_policy_cannot_weigh(field: str, value: object) -> None:
    values = {name.name: getattr(BASE_JOB, name.name) for name in fields(JobContext)} | {field: value}
    with pytest.raises(PolicyError) as caught:
        JobContext(**values)
    assert caught.value.code is BAD_QUERY
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [("principal", ""), ("resource", ""), ("groups", "clients"), ("groups", (1,)), ("context", BASE_JOB)],
)
def test_query_refuses_what_cannot_be_asked(field: str, value: object) -> None:
    values = {name.name: getattr(SESSION, name.name) for name in fields(Query)} | {field: value}
    with pytest.raises(PolicyError) as caught:
        Query(**values)
    assert caught.value.field == field


def test_every_device_status_is_decided(default: Bundle) -> None:
    decider = CedarDecider(default)
    answers = {
        status: decider.decide(replace(SESSION, context=replace(BASE_SESSION, device_status=status))).allowed
        for status in DeviceStatus
    }
    assert answers == {
        DeviceStatus.AFFIRMING: True,
        DeviceStatus.WARNING: False,
        DeviceStatus.CONTRAINDICATED: False,
        DeviceStatus.NONE: False,
    }


def bundle_folder(root: Path, policy: str) -> Path:
    """A bundle with the default's schema that permits everything but what `policy` says."""
    (root / "policies").mkdir()
    (root / "manifest.toml").write_text('name = "t"\nversion = 1\ndescription = "a test"\n')
    (root / "schema.cedarschema").write_text(open_bundled("default").schema)
    (root / "policies/t.cedar").write_text(
        '@id("all") @description("everything") permit (principal, action, resource);\n'
        f'@id("extra") @description("the policy under test") {policy}\n'
    )
    return root
