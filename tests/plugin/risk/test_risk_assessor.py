"""The score of a request: what raises it, by how much, and what never does."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.port import Features
from ringfence.plugin.risk.settings import RiskSettings
from tests.plugin.risk.risk_bench import NOW, SETTINGS, USUAL, features_of, known, port

HALF_LIFE = SETTINGS.half_life_s


def test_a_usual_request_of_somebody_known_scores_nothing() -> None:
    assessor, now = known()
    score = assessor.assess(replace(USUAL, now=now))
    assert score.score == 0
    assert score.reasons == ()


def test_a_newcomer_gets_a_neutral_capped_score_whatever_is_unusual() -> None:
    assessor = Assessor(SETTINGS)
    for change in ({}, {"size": 2**40}, {"action": "Access"}, {"source": "198.51.100.7"}):
        score = assessor.assess(replace(USUAL, **change))
        assert features_of(score) == {"cold-start": SETTINGS.cold_points}
        assert score.score == SETTINGS.cold_points


def test_a_newcomer_is_known_after_enough_observations_and_not_before() -> None:
    assessor, now = known(observations=SETTINGS.cold_observations - 2)
    assert "cold-start" in features_of(assessor.assess(replace(USUAL, now=now)))
    assessor.assess(replace(USUAL, now=now + 60))
    assert features_of(assessor.assess(replace(USUAL, now=now + 120))) == {}


@pytest.mark.parametrize(
    ("change", "feature", "points"),
    [
        ({"size": 2**30}, "size", SETTINGS.size_points),
        ({"action": "Access"}, "action", SETTINGS.action_points),
        ({"region": "elsewhere"}, "region", SETTINGS.region_points),
        ({"device_drift": 2}, "device-drift", 2 * SETTINGS.drift_points),
    ],
)
def test_each_unusual_feature_has_its_points_and_its_reason(
    change: dict[str, object], feature: str, points: int
) -> None:
    assessor, now = known()
    score = assessor.assess(replace(USUAL, now=now, **change))
    assert features_of(score)[feature] == points
    assert sum(features_of(score).values()) >= score.score > 0
    # Asking again does not make it usual.
    assert features_of(assessor.assess(replace(USUAL, now=now, **change)))[feature] == points


def test_an_unusual_hour_and_an_unusual_weekday_raise_the_score() -> None:
    assessor = Assessor(SETTINGS)
    for day in range(5):  # Monday to Friday
        for minute in range(30):
            now = NOW - 4 * 86_400 + day * 86_400 + 60 * minute
            assessor.assess(replace(USUAL, now=now))
            assessor.clock.wall = -(1 << 62)  # the next day's first request comes after a night that nobody watched
            assessor.clock.steady += 60
    night = assessor.assess(replace(USUAL, now=NOW + 13 * 3600))
    assert features_of(night) == {"moment": SETTINGS.hour_points}
    sunday = assessor.assess(replace(USUAL, now=NOW + 2 * 86_400))
    assert features_of(sunday) == {"moment": SETTINGS.weekday_points}
    assert "Sundays" in sunday.reasons[0].text
    assert assessor.assess(replace(USUAL, now=NOW + 3 * 86_400)).score == 0


def test_a_rate_that_is_unusual_for_its_principal_raises_the_score_before_the_limit_does() -> None:
    assessor, now = known(RiskSettings(rate_free=10, rate_limit=100))
    scores = [assessor.assess(replace(USUAL, now=now)) for _ in range(220)]
    values = [score.score for score in scores]
    assert values == sorted(values)
    assert values[5] == 0
    assert set(features_of(scores[50])) == {"rate"}
    assert "rate-limit" in features_of(scores[150])
    assert values[-1] == 100


def test_own_refusals_raise_the_score_and_fade_by_half_every_half_life() -> None:
    assessor, now = known()
    for _ in range(4):
        assessor.refused("alice", authenticated=True, now=now)
    assert features_of(assessor.assess(replace(USUAL, now=now))) == {"refusals": 48}
    for _ in range(HALF_LIFE // 60):
        now += 60
        assessor.tick(now)
    assert features_of(assessor.assess(replace(USUAL, now=now)))["refusals"] in (23, 24)
    for _ in range(20 * HALF_LIFE // 60):
        now += 60
        assessor.tick(now)
    assert "refusals" not in features_of(assessor.assess(replace(USUAL, now=now)))


def test_strangers_beside_a_caller_add_a_capped_share_that_no_shipped_policy_refuses() -> None:
    for assessor, now in (known(), (Assessor(SETTINGS), NOW)):
        for _ in range(1000):
            assessor.refused(USUAL.source, authenticated=False, now=now)
            assessor.refused("alice", authenticated=False, now=now)
        score = assessor.assess(replace(USUAL, now=now))
        assert features_of(score)["source-refusals"] == SETTINGS.source_points
        assert score.score < 69
        assert "source-refusals" not in features_of(assessor.assess(replace(USUAL, source="192.0.2.99", now=now)))


def test_a_region_that_changes_too_fast_is_a_travel_that_cannot_be() -> None:
    settings = RiskSettings(travel_s=600)
    assessor, now = known(settings)
    there = assessor.assess(replace(USUAL, region="elsewhere", now=now + 60))
    assert features_of(there)["travel"] == settings.travel_points
    # The thief who came from elsewhere, and the owner who goes on: both are asked for more until it fades.
    assert features_of(assessor.assess(replace(USUAL, now=now + 61)))["travel"] > settings.travel_points


def test_a_region_that_changes_after_enough_time_is_only_new() -> None:
    settings = RiskSettings(travel_s=600)
    assessor, now = known(settings)
    for _ in range(20):
        now += 60
        assessor.tick(now)
    assert features_of(assessor.assess(replace(USUAL, region="elsewhere", now=now))) == {
        "region": settings.region_points
    }


def test_the_travel_counts_from_the_last_request_and_not_from_the_first_in_a_region() -> None:
    settings = RiskSettings(travel_s=120)
    assessor, now = known(settings)
    assert "travel" in features_of(assessor.assess(replace(USUAL, region="elsewhere", now=now)))


def test_everything_that_is_only_unusual_together_stays_below_its_bound() -> None:
    assessor, now = known(RiskSettings(travel_s=0))
    assessor.forest("alice", SETTINGS.forest_points)
    change = {"size": 2**50, "action": "Access", "region": "elsewhere", "now": now + 3600 * 9}
    score = assessor.assess(replace(USUAL, **change))
    assert {"size", "action", "region", "forest", "moment"} <= set(features_of(score))
    assert score.score <= SETTINGS.unusual_points
    assert sum(features_of(score).values()) >= score.score


def test_the_requests_of_the_last_minute_are_counted_about() -> None:
    assessor = port()
    assert assessor.requests_minute("alice", now=NOW) == 0
    for second in range(300):
        assessor.assess(replace(USUAL, now=NOW + second))
    assert 55 <= assessor.requests_minute("alice", now=NOW + 299) <= 65
    assert assessor.requests_minute("alice", now=NOW + 299 + 290) <= 1


@pytest.mark.parametrize("shift", [-(10**9), -3600, -301, -300, -1, 301, 3600, 10**9])
def test_a_clock_that_jumps_lowers_no_score(shift: int) -> None:
    assessor, now = known()
    for _ in range(3):
        assessor.refused("alice", authenticated=True, now=now)
        assessor.refused(USUAL.source, authenticated=False, now=now)
    before = assessor.assess(replace(USUAL, now=now)).score
    after = assessor.assess(replace(USUAL, now=now + shift))
    assert after.score >= before
    assert assessor.assess(replace(USUAL, now=now)).score >= before


def test_the_table_forgets_whoever_matters_least() -> None:
    settings = RiskSettings(principals=100)
    assessor, now = known(settings)
    assessor.refused("mallory", authenticated=True, now=now)
    for number in range(1000):
        now += 1
        assessor.assess(Features(f"p{number}", "s", "SubmitJob", 1, "", 0, now))
    assert len(assessor) == 100
    assert assessor.baseline("alice") is not None
    assert assessor.baseline("mallory") is not None
    assert assessor.baseline("p0") is None


def test_a_flood_of_sources_makes_no_attacker_forgotten() -> None:
    assessor, now = known(RiskSettings(sources=100))
    for _ in range(5):
        assessor.refused(USUAL.source, authenticated=False, now=now)
    for number in range(5000):
        assessor.refused(f"source {number}", authenticated=False, now=now)
    assert "source-refusals" in features_of(assessor.assess(replace(USUAL, now=now)))
