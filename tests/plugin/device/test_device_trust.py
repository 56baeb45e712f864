"""Reputation over time, and the score of a host with its reasons."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.attestation import AttestationResult, Status
from ringfence.crypto import COMPOSITE, key_id
from ringfence.plugin.device import reputation as devices
from ringfence.plugin.device.port import Reputation
from ringfence.plugin.device.reputation import BetaReputation, payload, restored
from ringfence.plugin.device.score import DeviceScore, Posture, score
from ringfence.plugin.device.settings import DeviceSettings
from ringfence.plugin.risk.errors import RiskError

NOW = 1_790_326_800
SETTINGS = DeviceSettings()
AGENT = COMPOSITE.generate()[0]
RESULT = AttestationResult(
    issuer="rf1", subject=key_id(AGENT), agent_key=AGENT, status=Status.AFFIRMING, score=90, reasons=(),
    issued_at=NOW, expires_at=NOW + 300, evidence_digest="",
)  # fmt: skip


def scored(result: AttestationResult = RESULT, reputation: int = 50, now: int = NOW, **posture: int) -> DeviceScore:
    return score(result, reputation, Posture(**posture), now=now, settings=SETTINGS)


def later(reputation: BetaReputation, now: int, seconds: int) -> int:
    for _ in range(seconds // 300):
        now += 300
        reputation.tick(now)
    return now


def test_a_device_that_nobody_knows_stands_in_the_middle() -> None:
    reputation: Reputation = BetaReputation(SETTINGS)
    assert reputation.standing("host", now=NOW) == 50


def test_observations_move_it_and_weigh_what_they_weigh() -> None:
    reputation = BetaReputation(SETTINGS)
    reputation.observe("host", good=True, weight=1.0, now=NOW)
    assert reputation.standing("host", now=NOW) == 67
    reputation.observe("host", good=False, weight=4.0, now=NOW)
    assert reputation.standing("host", now=NOW) == 29
    assert reputation.standing("another", now=NOW) == 50
    for weight in (0.0, -5.0, float("nan")):
        reputation.observe("host", good=True, weight=weight, now=NOW)
    assert reputation.standing("host", now=NOW) == 29


def test_a_long_good_past_hides_no_lie() -> None:
    reputation = BetaReputation(SETTINGS)
    for _ in range(10_000):
        reputation.observe("host", good=True, weight=1.0, now=NOW)
    before = reputation.standing("host", now=NOW)
    for _ in range(5):
        reputation.observe("host", good=False, weight=1e9, now=NOW)
    assert before > 95
    assert reputation.standing("host", now=NOW) == 50


def test_what_was_seen_fades_to_the_middle_with_its_half_life() -> None:
    reputation = BetaReputation(SETTINGS)
    reputation.observe("host", good=False, weight=6.0, now=NOW)
    assert reputation.standing("host", now=NOW) == 12
    now = later(reputation, NOW, SETTINGS.half_life_s)
    assert reputation.standing("host", now=now) == 20
    now = later(reputation, now, 20 * SETTINGS.half_life_s // 10)
    assert 20 < reputation.standing("host", now=now) < 50


@pytest.mark.parametrize("shift", [-(10**9), -1, 301, 10**9])
def test_a_clock_that_jumps_heals_no_reputation(shift: int) -> None:
    reputation = BetaReputation(SETTINGS)
    reputation.observe("host", good=False, weight=6.0, now=NOW)
    assert reputation.standing("host", now=NOW + shift) == 12


def test_a_flood_of_devices_makes_no_bad_one_forgotten() -> None:
    reputation = BetaReputation(DeviceSettings(devices=16))
    reputation.observe("bad", good=False, weight=5.0, now=NOW)
    for number in range(1000):
        reputation.observe(f"new {number}", good=True, weight=1.0, now=NOW)
    assert len(reputation) == 16
    assert reputation.standing("bad", now=NOW) < 20


OBSERVED = st.lists(st.tuples(st.booleans(), st.floats(0, 20), st.integers(-400, 400)), max_size=60)


@given(OBSERVED)
@settings(deadline=None)
def test_a_standing_is_bounded_and_a_better_observation_never_lowers_it(
    observed: list[tuple[bool, float, int]],
) -> None:
    reputation = BetaReputation(SETTINGS)
    for good, weight, shift in observed:
        before = reputation.standing("host", now=NOW + shift)
        reputation.observe("host", good=good, weight=weight, now=NOW + shift)
        after = reputation.standing("host", now=NOW + shift)
        assert 0 <= after <= 100
        assert after >= before if good else after <= before


@given(OBSERVED)
@settings(deadline=None)
def test_what_is_saved_is_what_is_restored(observed: list[tuple[bool, float, int]]) -> None:
    reputation = BetaReputation(SETTINGS)
    for number, (good, weight, shift) in enumerate(observed):
        reputation.observe(f"host {number % 5}", good=good, weight=weight, now=NOW + shift)
    data = payload(reputation.clock.steady, reputation.entries())
    again = restored(data, SETTINGS)
    assert payload(again.clock.steady, again.entries()) == data
    for number in range(5):
        assert again.standing(f"host {number}", now=NOW) == reputation.standing(f"host {number}", now=NOW)


@pytest.mark.parametrize(
    "record",
    [
        ["host", float("nan"), 0.0, 0],
        ["host", 0.0, float("inf"), 0],
        ["host", -1.0, 0.0, 0],
        ["host", 0.0, 0.0, 11],
        ["host", 0.0, 0.0, 0, 0],
        ["x" * 2000, 0.0, 0.0, 0],
    ],
)
def test_a_payload_that_cannot_be_is_refused(record: list[object]) -> None:
    with pytest.raises(RiskError, match=r"risk\.state_malformed"):
        restored(msgspec.msgpack.encode((10, [record])), SETTINGS)
    with pytest.raises(RiskError, match="twice"):
        restored(msgspec.msgpack.encode((10, [["host", 0.0, 0.0, 0]] * 2)), SETTINGS)
    assert devices.KIND == "devices"


def test_the_verifiers_word_is_the_most_that_a_host_is_trusted() -> None:
    assert scored() == replace(scored(), score=90)
    assert [reason.feature for reason in scored().reasons] == ["attestation"]
    assert scored(reputation=100).score == 90
    for status in Status:
        assert scored(replace(RESULT, status=status, score=status.score)).score == status.score


@pytest.mark.parametrize("now", [NOW - 1, NOW + 300, 0])
def test_a_result_outside_its_time_is_worth_nothing(now: int) -> None:
    found = scored(now=now)
    assert found.score == 0
    assert [reason.feature for reason in found.reasons] == ["validity"]


@pytest.mark.parametrize(
    ("feature", "points", "changes"),
    [
        ("age", 9, {"now": NOW + 299}),
        ("reputation", 40, {"reputation": 0}),
        ("reputation", 8, {"reputation": 40}),
        ("status-changes", 30, {"status_changes": 2}),
        ("failed-proofs", 25, {"failed_proofs": 1}),
    ],
)
def test_each_doubt_takes_its_points_and_says_why(feature: str, points: int, changes: dict[str, int]) -> None:
    found = scored(**changes)  # type: ignore[arg-type]
    assert found.score == 90 - points
    assert [(reason.feature, reason.points) for reason in found.reasons][1:] == [(feature, points)]


@given(
    st.sampled_from(Status), st.integers(0, 100), st.integers(0, 100), st.integers(0, 20), st.integers(0, 20),
    st.integers(0, 299),
)  # fmt: skip
@settings(deadline=None)
def test_more_doubt_never_raises_a_score(
    status: Status, reputation: int, worse: int, changed: int, failed: int, age: int
) -> None:
    result = replace(RESULT, status=status, score=status.score)
    better = scored(result, max(reputation, worse), NOW, status_changes=changed, failed_proofs=failed)
    for doubt in (
        scored(result, min(reputation, worse), NOW, status_changes=changed, failed_proofs=failed),
        scored(result, max(reputation, worse), NOW + age, status_changes=changed, failed_proofs=failed),
        scored(result, max(reputation, worse), NOW, status_changes=changed + 1, failed_proofs=failed),
        scored(result, max(reputation, worse), NOW, status_changes=changed, failed_proofs=failed + 1),
    ):
        assert 0 <= doubt.score <= better.score <= status.score
        assert sum(reason.points for reason in doubt.reasons) >= 100 - doubt.score
