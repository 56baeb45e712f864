"""The bundles that exist: their own cases hold, each policy matters, and none that ships admits an unattested host."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ringfence.policies import Action, Context, DeviceStatus, JobContext, Query, SessionContext
from ringfence.policies.analysis.coverage import measure
from ringfence.policies.bundle import Bundle
from ringfence.policies.cases import BASE_ACCESS, BASE_JOB, BASE_SESSION, run_cases
from ringfence.policies.engine import CedarDecider
from ringfence.policies.errors import UNKNOWN_BUNDLE, PolicyError
from ringfence.policies.folder import bundled, load_bundle, open_bundled

DEMO = Path(__file__).parents[2] / "plugin/ringfence/client/demo_data/policy"
GROUPS = ("clients", "job-submitters", "quantum-users", "service-users", "demo")
BUNDLES = {name: open_bundled(name) for name in bundled()} | {"demo": load_bundle(DEMO)}
DEFAULT = CedarDecider(BUNDLES["default"])
SHARED = {policy.id for policy in BUNDLES["default"].policies}
# What every shipped bundle is content with.
SIGNED_JOB = replace(BASE_JOB, module_signers=("release",))
POLICIES = [
    pytest.param(name, policy.id, id=f"{name}-{policy.id}")
    for name, bundle in BUNDLES.items()
    for policy in bundle.policies
    if name == "default" or policy.id not in SHARED
]
LONG = st.integers(0, 2**63 - 1)


def _sorted(texts: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(texts))


HOSTS = {
    "device_trust": st.integers(0, 100),
    "attestation_age_s": st.integers(-(2**63) + 1, 2**63 - 1) | st.integers(-1, 700),
    "factors": st.frozensets(st.sampled_from(["signature", "session-mac"]) | st.text(max_size=8)).map(_sorted),
    "device_reputation": st.integers(0, 100),
    "tenant": st.text(max_size=8),
    "attributes": st.frozensets(st.text(max_size=8)).map(_sorted),
    "directory_age_s": st.integers(-1, 2**63 - 1),
    "channel_bound": st.booleans(),
    "approvals": LONG,
    "requests_minute": LONG,
    "jobs_running": LONG,
    "session_age_s": LONG,
    "weekday_utc": st.integers(0, 6),
    "resource_tenant": st.text(max_size=8),
    "risk": st.integers(0, 100),
    "now_s": LONG,
    "hour_utc": st.integers(0, 23),
    "source": st.text(max_size=20),
}
JOBS = {
    "body_verified": st.booleans(),
    "body_bytes": LONG,
    "memory_bytes": st.integers(0, 2**31) | LONG,
    "gpu_memory_bytes": st.integers(0, 2**31) | LONG,
    "deadline_ms": st.integers(0, 40_000) | LONG,
    "output_bytes": st.integers(0, 2**27) | LONG,
    "qubits": st.integers(0, 30) | LONG,
    "compute_units": st.integers(0, 70) | LONG,
    "quantum": st.booleans(),
    "level": st.sampled_from(["low", "medium", "high", "quantum"]) | st.text(max_size=8),
    "result": st.text(max_size=8),
    "module_digest": st.text(max_size=64),
    "module_signers": st.frozensets(st.text(max_size=8)).map(_sorted),
}


def queries(*statuses: DeviceStatus) -> st.SearchStrategy[Query]:
    status = st.sampled_from(statuses)
    sessions = st.builds(SessionContext, device_status=status, **HOSTS)
    jobs = st.builds(JobContext, device_status=status, **HOSTS, **JOBS)
    groups = st.lists(st.sampled_from(GROUPS), unique=True).map(tuple)
    names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
    return st.one_of(
        st.builds(Query, names, groups, st.just(Action.OPEN_SESSION), names, sessions),
        st.builds(Query, names, groups, st.just(Action.SUBMIT_JOB), names, jobs),
    )


@pytest.mark.parametrize("name", BUNDLES)
def test_cases_hold(name: str) -> None:
    results = run_cases(BUNDLES[name])
    assert len(results) >= 10
    assert [result.failure for result in results if result.failure] == []


@pytest.mark.parametrize(("name", "policy"), POLICIES)
def test_no_policy_can_be_removed_unnoticed(name: str, policy: str) -> None:
    bundle = BUNDLES[name]
    without = dataclasses.replace(bundle, policies=tuple(kept for kept in bundle.policies if kept.id != policy))
    assert any(result.failure for result in run_cases(without))


@pytest.mark.parametrize("name", bundled())
@pytest.mark.parametrize("action", Action)
def test_shipped_bundles_refuse_an_unattested_host(name: str, action: Action) -> None:
    contexts: dict[Action, Context] = {
        Action.OPEN_SESSION: BASE_SESSION,
        Action.SUBMIT_JOB: SIGNED_JOB,
        Action.ACCESS: BASE_ACCESS,
    }
    context = contexts[action]
    attested = Query("alice", GROUPS, action, "gpu-1", context)
    unattested = replace(attested, context=replace(context, device_status=DeviceStatus.NONE))
    decider = CedarDecider(open_bundled(name))
    assert decider.decide(attested).allowed
    assert not decider.decide(unattested).allowed


@given(query=queries(DeviceStatus.NONE, DeviceStatus.CONTRAINDICATED))
def test_default_never_admits_a_host_that_is_not_in_good_standing(query: Query) -> None:
    verdict = DEFAULT.decide(query)
    assert not verdict.allowed
    assert {"forbid-unattested-host", "forbid-contraindicated-host"} & set(verdict.policies)
    assert verdict.errors == ()


@given(query=queries(*DeviceStatus))
def test_default_never_errs_and_allows_only_what_its_descriptions_say(query: Query) -> None:
    verdict = DEFAULT.decide(query)
    assert verdict.errors == ()
    if verdict.allowed:
        context = query.context
        assert 0 <= context.attestation_age_s <= 600
        assert context.risk < 70
        assert context.device_status is DeviceStatus.AFFIRMING or context.device_trust >= 60
        if isinstance(context, JobContext):
            assert context.body_verified
            assert context.memory_bytes <= 2**30
            assert context.qubits == 0 or "quantum-users" in query.groups
            assert context.compute_units <= 64
            assert context.level in ("high", "quantum")


def test_digest_changes_with_the_extended_bundle() -> None:
    demo: Bundle = BUNDLES["demo"]
    assert demo.digest != BUNDLES["default"].digest
    assert CedarDecider(demo).bundle_digest == demo.digest == load_bundle(DEMO).digest


def test_demo_says_of_itself_that_it_is_for_the_demo_only() -> None:
    admits = [policy for policy in BUNDLES["demo"].policies if policy.id.startswith("demo-admits")]
    assert "demo-admits-unattested-host" in {policy.id for policy in admits}
    assert all("demo only" in policy.description for policy in admits)
    assert "demo" not in bundled()


@pytest.mark.parametrize("name", ["demo", "", "..", "default/../default", "/etc"])
def test_unknown_shipped_name_is_refused(name: str) -> None:
    with pytest.raises(PolicyError) as caught:
        open_bundled(name)
    assert caught.value.code is UNKNOWN_BUNDLE


def test_shipped_bundles_are_joined_in_any_order(tmp_path: Path) -> None:
    others = [name for name in bundled() if name != "default"]
    assert set(others) == {
        "attested-hosts",
        "break-glass",
        "kernel-signers",
        "maintenance-windows",
        "quantum-access",
        "quotas",
        "tenant-isolation",
    }
    joined = []
    for number, names in enumerate((others, [*reversed(others), "default"])):
        folder = tmp_path / str(number)
        folder.mkdir()
        manifest = f'name = "all"\nversion = 1\ndescription = "all of them"\nextends = {names!r}\n'
        (folder / "manifest.toml").write_text(manifest)
        joined.append({policy.id for policy in load_bundle(folder).policies})
    assert joined[0] == joined[1] == {policy.id for name in bundled() for policy in BUNDLES[name].policies}


def test_every_condition_of_a_shipped_bundle_is_seen_both_ways() -> None:
    for name in bundled():
        own = {policy.id for policy in BUNDLES[name].policies} - (SHARED if name != "default" else set())
        missing = [
            f"{name}: {policy.policy.id}: {one.text}"
            for policy in measure(BUNDLES[name], own).policies
            for one in policy.conditions
            if not one.full
        ]
        assert missing == []
